"""Words and tags from files as published: sentences, tags, splits, whole runs, and what is refused."""

import json

import pytest
from datasets import ClassLabel, Dataset, Features, List, Value
from small_conll import as_iob1, write_conll
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from peft_lightning.cli import main
from peft_lightning.data import CoNLL
from peft_lightning.errors import UserError
from peft_lightning.runs import RunDirectory
from peft_lightning.testing import save_tiny_backbone

LABELS = ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]


@pytest.fixture(scope="module")
def conll(tmp_path_factory):
    return write_conll(tmp_path_factory.mktemp("conll"))


@pytest.fixture
def tokens(tiny):
    return {"backbone": str(tiny())}


def test_sentences_of_the_publishers_file(tmp_path, tokens):
    (tmp_path / "train.txt").write_text(
        "-DOCSTART- -X- -X- O\n\nU.N. NNP I-NP I-ORG\nofficial NN I-NP O\n\n\n"
        "Ekeus\tNNP\tI-NP\tI-PER\nBaghdad x y I-LOC"
    )
    data = CoNLL(source=str(tmp_path), **tokens)
    assert data.labels == ["O", "B-LOC", "I-LOC", "B-ORG", "I-ORG", "B-PER", "I-PER"]
    assert [data.example("train", row) for row in (0, 1)] == [
        {"row": 1, "tokens": ["U.N.", "official"], "true": ["B-ORG", "O"]},
        {"row": 2, "tokens": ["Ekeus", "Baghdad"], "true": ["B-PER", "B-LOC"]},
    ]


def test_both_schemes_and_both_sets_of_names_are_one(conll, tmp_path, tokens):
    write_conll(tmp_path, ("eng.train", "eng.testa", "eng.testb"), as_iob1)
    bio, iob1 = CoNLL(source=str(conll), **tokens), CoNLL(source=str(tmp_path), **tokens)
    assert (tmp_path / "eng.train").read_text().count(" B-") < (conll / "train.txt").read_text().count(" B-")
    for split in ("train", "validation", "test"):
        assert bio.table(split).to_list() == iob1.table(split).to_list()
    assert bio.labels == LABELS


def test_copies_laid_out_as_on_the_hub_and_json_lines(conll, tmp_path, tokens):
    published = CoNLL(source=str(conll), **tokens)
    names = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
    hub, lines = tmp_path / "hub", tmp_path / "lines"
    lines.mkdir()
    for split in ("train", "validation", "test"):
        rows = [published.example(split, row) for row in range(len(published.table(split)))]
        features = Features({"tokens": List(Value("string")), "ner_tags": List(ClassLabel(names=names))})
        columns = {"tokens": [row["tokens"] for row in rows], "ner_tags": [row["true"] for row in rows]}
        (hub / "data").mkdir(parents=True, exist_ok=True)
        Dataset.from_dict(columns, features).to_parquet(hub / "data" / f"{split}-00000-of-00001.parquet")
        text = "".join(json.dumps({"tokens": row["tokens"], "tags": row["true"]}) + "\n" for row in rows)
        (lines / f"{split}.jsonl").write_text(text)
    assert CoNLL(source=str(hub), **tokens).labels == names
    assert CoNLL(source=str(lines), **tokens).labels == LABELS
    for source in (hub, lines):
        data = CoNLL(source=str(source), **tokens)
        assert [data.example("test", row) for row in range(9)] == [published.example("test", row) for row in range(9)]


def test_a_changed_file_is_read_again(tmp_path, tokens):
    for word in ("film", "plot"):
        (tmp_path / "train.txt").write_text(f"{word} O\nbest I-PER\n")
        assert CoNLL(source=str(tmp_path), **tokens).table("train")[0]["tokens"] == [word, "best"]


@pytest.mark.parametrize("nested", [False, True])
def test_byte_level_tokenizers_see_a_blank_before_each_word(tiny, tmp_path, conll, nested):
    """As in the text that RoBERTa was trained on; without it every word would be one in the middle of another."""
    pieces = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", *"abcdefghijklmnopqrstuvwxyz.", "Ġ", "Ġa", "Ġi"]
    bpe = Tokenizer(models.BPE({piece: n for n, piece in enumerate(pieces)}, [("Ġ", "a"), ("Ġ", "i")]))
    step = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(), step]) if nested else step
    backbone = tiny()
    directory = tmp_path / "byte_level"
    PreTrainedTokenizerFast(tokenizer_object=bpe, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(directory)
    for name in ("config.json", "model.safetensors"):
        (directory / name).symlink_to(backbone / name)
    data = CoNLL(source=str(conll), backbone=str(directory), max_length=64)
    row = data.encoded("train")[0]
    words = data.table("train")[0]["tokens"]
    found = data.tokenizer.convert_ids_to_tokens(row["input_ids"])
    assert all(found[at].startswith("Ġ") for at in row["words"])
    assert "".join(found) == "".join(f"Ġ{word}" for word in words)


def test_words_behind_the_cut_are_counted_and_said(conll, tokens):
    data = CoNLL(source=str(conll), max_length=6, **tokens)
    with pytest.warns(UserWarning, match=r"\(test\): (\d+) words in \d+ sentences have no token of their own") as said:
        encoded = data.encoded("test")
    lost = sum(len(row["tokens"]) - 4 for row in data.table("test") if len(row["tokens"]) > 4)
    assert f": {lost} words" in str(said[0].message)
    assert sum(len(words) for words in encoded["words"]) == sum(len(words) for words in data.table("test")["tokens"])


@pytest.fixture
def command(tiny, tmp_path):
    def arguments(source, *options, model="Houlsby", model_type="bert"):
        return [
            *("fit", f"--model={model}", f"--model.backbone={tiny(model_type)}", "--model.lr=1e-2", "--data=CoNLL"),
            *(
                f"--data.source={source}",
                "--data.batch_size=8",
                "--data.max_length=24",
                f"--run_dir={tmp_path / 'run'}",
            ),
            *("--trainer.max_epochs=2", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"),
            *("--trainer.enable_model_summary=false", *options),
        ]

    return arguments


def test_scores_do_not_depend_on_the_batches(command, conll, tmp_path):
    main(command(conll))
    before = RunDirectory(tmp_path / "run").read_result()["metrics"]
    main(["validate", str(tmp_path / "run"), "--data.batch_size=3", "--trainer.enable_progress_bar=false"])
    after = RunDirectory(tmp_path / "run").read_result()["metrics"]
    assert after == pytest.approx(before, abs=1e-5)


def words_that_say_their_tags(draw):
    """Entities of one or two words; what a word is follows from the word."""
    pieces = {
        "PER": [("great", "B-PER"), ("heart", "I-PER")],
        "LOC": [("plot", "B-LOC"), ("story", "I-LOC")],
        "O": [("the", "O"), ("was", "O")],
    }
    chosen = draw.choices(list(pieces), k=draw.randint(2, 5))
    return [word for kind in chosen for word in pieces[kind][: draw.randint(1, 2)]]


def test_entities_that_can_be_learnt_are_learnt(command, tmp_path):
    """F1 counts whole entities: an untrained head finds next to none of them, a trained one next to all."""
    (tmp_path / "data").mkdir()
    source = write_conll(tmp_path / "data", draw_from=words_that_say_their_tags, train=240)
    backbone = save_tiny_backbone("bert", tmp_path / "backbone", num_hidden_layers=1)
    scores = {}
    for name, length in (("untrained", ["--model.lr=1e-9", "--trainer.limit_train_batches=1"]), ("trained", [])):
        options = [f"--run_dir={tmp_path / name}", f"--model.backbone={backbone}", *length]
        main(command(source, *options, "--trainer.max_epochs=8", "--trainer.check_val_every_n_epoch=8"))
        scores[name] = RunDirectory(tmp_path / name).read_result()["metrics"]["val/f1"]
    assert scores["untrained"] < 0.2
    assert scores["trained"] > 0.9


WRONG_FILES = [
    ("the O\nfilm\n", ["train.txt, line 2 has one column, 'film'"]),
    ("the O\n\n\nfilm NN PER\n", ["train.txt, line 4", "holds 'PER', which is no tag", "B-TYPE or I-TYPE"]),
    ("the O\nfilm E-LOC\n", ["train.txt, line 2", "'E-LOC'"]),
    ("", ["train.txt holds no sentences"]),
    ("\n-DOCSTART- -X- O O\n\n", ["train.txt holds no sentences"]),
    ("the O\nfilm B-MISC\n", ["(train), row 1, word 2 (line 2)", "'B-MISC'", "not one of the tags", "--data.labels"]),
]


@pytest.mark.parametrize(("content", "words"), WRONG_FILES)
def test_a_wrong_line_is_named(command, refused, tmp_path, content, words):
    write_conll(tmp_path)
    (tmp_path / "train.txt").write_text(content, encoding="utf-8")
    message = refused(command(tmp_path, "--data.labels=[O,B-LOC,I-LOC,B-PER,I-PER]"))
    assert [word for word in words if word not in message] == []


def test_a_type_that_training_does_not_have_is_named(command, refused, tmp_path):
    write_conll(tmp_path)
    (tmp_path / "valid.txt").write_text("the O\n\nbest B-PER\nfilm I-ORG\n")
    assert "(validation), row 2, word 2 (line 4): column 'tags' holds 'B-ORG'" in refused(command(tmp_path))


WRONG_ROWS = [
    ({"tokens": [], "tags": []}, "row 2: column 'tokens' holds no words"),
    ({"tokens": ["a", "b"], "tags": ["O"]}, "row 2: 2 words have 1 tags in column 'tags'"),
    ({"tokens": ["a", " "], "tags": ["O", "O"]}, "row 2, word 2: column 'tokens' holds ' ', which is no word"),
    ({"tokens": ["a", "b"], "tags": ["O", "LOC"]}, "row 2, word 2: column 'tags' holds 'LOC', which is no tag"),
]


@pytest.mark.parametrize(("row", "words"), WRONG_ROWS)
def test_a_wrong_row_is_named(tokens, tmp_path, row, words):
    good = {"tokens": ["the", "film"], "tags": ["O", "B-LOC"]}
    (tmp_path / "train.jsonl").write_text(json.dumps(good) + "\n" + json.dumps(row) + "\n")
    with pytest.raises(UserError) as refusal:
        CoNLL(source=str(tmp_path), labels=["O", "B-LOC", "I-LOC"], **tokens).table("train")
    assert words in str(refusal.value)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"tokens": "ab", "tags": ["O", "O"]}, "row 1: column 'tokens' holds 'ab', which is no list"),
        ({"tokens": ["a", "b"], "tags": "OO"}, "row 1: column 'tags' holds 'OO', which is no list"),
    ],
)
def test_a_text_in_place_of_a_list_is_named(tokens, tmp_path, row, words):
    (tmp_path / "train.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    with pytest.raises(UserError, match=words):
        CoNLL(source=str(tmp_path), **tokens).table("train")


def test_unlabelled_rows_and_missing_columns_are_named(tokens, tmp_path):
    features = Features({"tokens": List(Value("string")), "ner_tags": List(ClassLabel(names=LABELS))})
    Dataset.from_dict({"tokens": [["a"]], "ner_tags": [[-1]]}, features).to_parquet(tmp_path / "train.parquet")
    with pytest.raises(UserError, match=r"row 1, word 1: column 'ner_tags' holds -1, .* can only be predicted"):
        CoNLL(source=str(tmp_path), **tokens).table("train")
    with pytest.raises(UserError, match="no column pos_tags; its columns are tokens, ner_tags"):
        CoNLL(source=str(tmp_path), label_column="pos_tags", **tokens).table("train")


def test_other_encodings_and_two_files_of_a_split_are_named(tokens, tmp_path):
    (tmp_path / "train.txt").write_bytes("the O\nMünchen B-LOC\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"train\.txt, line 2 is not UTF-8"):
        CoNLL(source=str(tmp_path), **tokens).table("train")
    (tmp_path / "eng.train").write_text("the O\n")
    with pytest.raises(UserError, match="are both the train split"):
        CoNLL(source=str(tmp_path), **tokens).table("train")
