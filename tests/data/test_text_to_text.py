"""Summaries and translations from files as published: whole runs, encoding, and rows that are wrong."""

import json

import pytest
from small_texts import ARTICLES, COUNTS, SUMMARIES, write_translations, write_xsum
from transformers import MBartTokenizer

from peft_lightning.cli import main
from peft_lightning.data import WMT16, TextToText, XSum
from peft_lightning.errors import UserError


@pytest.fixture
def xsum(tmp_path):
    (tmp_path / "xsum").mkdir()
    return write_xsum(tmp_path / "xsum")


@pytest.fixture
def lines(tmp_path):
    (tmp_path / "wmt").mkdir()
    return write_translations(tmp_path / "wmt")


def command(verb, backbone, data, source, run, *options, model="LoRA"):
    return [
        verb,
        f"--model={model}",
        f"--model.backbone={backbone}",
        f"--data={data}",
        f"--data.source={source}",
        "--data.max_length=12",
        "--data.max_target_length=6",
        "--data.max_new_tokens=5",
        "--data.min_new_tokens=0",
        "--data.num_beams=2",
        "--data.batch_size=4",
        f"--run_dir={run}",
        "--trainer.max_epochs=1",
        "--trainer.accelerator=cpu",
        "--trainer.enable_progress_bar=false",
        "--trainer.enable_model_summary=false",
        *options,
    ]


def test_the_texts_of_a_file_are_written_as_in_evaluation(tiny, xsum, tmp_path):
    run = tmp_path / "run"
    main(command("fit", tiny("bart"), "XSum", xsum, run, model="PrefixTuning"))
    main(["predict", str(run), "--trainer.enable_progress_bar=false"])
    rows = [json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()]
    assert [(row["text"], row["true"]) for row in rows[:2]] == list(zip(ARTICLES, SUMMARIES, strict=True))[:2]
    texts = tmp_path / "texts.txt"
    texts.write_text("".join(f"{text}\n" for text in ARTICLES), encoding="utf-8")
    main(["predict", str(run), f"--input={texts}", f"--output={tmp_path / 'out.jsonl'}"])
    written = [json.loads(line)["prediction"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert written == [row["prediction"] for row in rows[:4]]


def test_batches_have_targets_padded_by_themselves_and_whole_references(tiny, xsum):
    data = XSum(source=str(xsum), backbone=str(tiny("t5")), batch_size=16, max_target_length=3, source_prefix="a best ")
    [batch] = data.train_dataloader()
    assert batch["input_ids"].shape[1] == batch["attention_mask"].sum(1).max()
    assert batch["labels"].shape == (16, 3)
    for source, labels, reference in zip(batch["input_ids"], batch["labels"], batch["reference"], strict=True):
        assert data.tokenizer.decode(source).startswith("a best ")
        kept = data.tokenizer(text_target=reference)["input_ids"]
        cut = [token for token in labels.tolist() if token != -100]
        # What is cut keeps its end token.
        assert cut == (kept if len(kept) <= 3 else [*kept[:2], data.tokenizer.eos_token_id])
    lengths = data.encoded("train")["length"]
    assert list(lengths) == [len(ids) for ids in data.encoded("train")["input_ids"]]


def test_any_table_of_two_columns(tiny, tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text("long,short\n" + "a good film,good\nthe worst plot,worst\n" * 10, encoding="utf-8")
    data = TextToText(source=str(path), source_column="long", target_column="short", backbone=str(tiny("t5")))
    assert {split: len(data.table(split)) for split in COUNTS} == {"train": 16, "validation": 2, "test": 2}
    assert data.example("train", 0) == {"row": 1, "text": "a good film", "true": "good"}


def test_a_directory_as_on_the_hub(tiny, tmp_path):
    (tmp_path / "ro-en").mkdir()
    for split, count in COUNTS.items():
        rows = [{"translation": {"en": ARTICLES[n % 4], "ro": SUMMARIES[n % 4]}} for n in range(count)]
        content = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / "ro-en" / f"{split}.jsonl").write_text(content, encoding="utf-8")
    (tmp_path / "README.md").write_text(
        "---\nconfigs:\n- config_name: ro-en\n  data_files:\n"
        + "".join(f"  - split: {split}\n    path: ro-en/{split}.jsonl\n" for split in COUNTS)
        + "---\n"
    )
    data = WMT16(source=str(tmp_path), direction="ro-en", backbone=str(tiny("mbart")))
    assert data.example("test", 1) == {"row": 2, "text": SUMMARIES[1], "true": ARTICLES[1]}
    assert data.task_description["metrics"] == ["bleu"]


@pytest.fixture
def mbart(tiny, tmp_path):
    """A tiny mBART whose tokenizer has the languages."""
    from transformers import AutoConfig

    from peft_lightning.testing import save_tiny_backbone

    letters = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), ("▁a", -1.0), ("b", -1.0)]
    tokenizer = MBartTokenizer(vocab=letters)
    directory = save_tiny_backbone("mbart", tmp_path / "mbart", vocab_size=len(tokenizer), pad_token_id=1)
    for path in directory.glob("*token*"):
        path.unlink()
    tokenizer.save_pretrained(directory)
    assert AutoConfig.from_pretrained(directory).vocab_size == len(tokenizer)
    return directory


def test_mbart_is_told_both_languages(mbart, lines):
    data = WMT16(source=str(lines), backbone=str(mbart), max_target_length=4)
    row = data.encoded("train")[0]
    code = data.tokenizer.convert_tokens_to_ids
    assert row["input_ids"][-2:] == [data.tokenizer.eos_token_id, code("en_XX")]
    assert row["labels"][-2:] == [data.tokenizer.eos_token_id, code("ro_RO")]
    assert data.task_description["decoder_start_token_id"] == code("ro_RO")
    back = WMT16(source=str(lines), direction="ro-en", backbone=str(mbart))
    assert back.task_description["decoder_start_token_id"] == code("en_XX")


def test_a_language_that_the_tokenizer_does_not_know_is_refused(mbart, lines):
    with pytest.raises(UserError, match=r"target_language is 'ro', which the tokenizer .* does not know; .*as en_XX"):
        _ = WMT16(source=str(lines), target_language="ro", backbone=str(mbart)).task_description


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"train.ro": "una\n"}, ["train.en has 16 lines", "train.ro has 1 lines"]),
        ({"train.ro": "una\n\n" + "a\n" * 14}, ["train.ro (train), row 2: column 'ro' is empty"]),
        ({"train.en": " \n" + "a\n" * 15}, ["train.en (train), row 1: column 'en' is empty"]),
        ({"validation.en": b"a film\n\xff\xfe\n"}, ["validation.en, line 2 is not UTF-8"]),
        ({"train.ro": None}, ["train.en is there", "train.ro is not"]),
    ],
)
def test_wrong_lines_are_named(refused, tiny, lines, tmp_path, files, words):
    for name, content in files.items():
        if content is None:
            (lines / name).unlink()
        else:
            (lines / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    sentence = refused(command("fit", tiny("mbart"), "WMT16", lines, tmp_path / "run"))
    assert [word for word in words if word not in sentence] == []


@pytest.mark.parametrize(
    ("row", "options", "words"),
    [
        ({"document": "a film", "summary": ""}, [], ["row 17: column 'summary' is empty"]),
        ({"document": 3, "summary": "a film"}, [], ["row 17: column 'document' holds 3, which is no text"]),
        (None, ["--data.num_beams=0"], ["num_beams is 0"]),
        (None, ["--data.max_new_tokens=65"], ["max_new_tokens is 65", "positions for 64"]),
        (None, ["--data.metrics=[meteor]"], ["'meteor'", "give some of rouge, bleu"]),
    ],
)
def test_wrong_articles_and_options_are_named(refused, tiny, xsum, tmp_path, row, options, words):
    if row:
        with (xsum / "train.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({**row, "id": "x"}) + "\n")
    sentence = refused(command("fit", tiny("bart"), "XSum", xsum, tmp_path / "run", *options))
    assert [word for word in words if word not in sentence] == []
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize("document", ["", None])
def test_an_article_without_text_is_left_out_of_training_and_kept_in_evaluation(tiny, xsum, document):
    for split in ("train", "validation"):
        with (xsum / f"{split}.jsonl").open("r+", encoding="utf-8") as file:
            rows = [json.dumps({"document": document, "summary": "a film", "id": "x"}) + "\n", *file]
            file.seek(0)
            file.writelines(rows)
    data = XSum(source=str(xsum), backbone=str(tiny("bart")))
    with pytest.warns(
        UserWarning, match=r"train\.jsonl \(train\): 1 rows have an empty 'document', the first .* row 1,.* left"
    ):
        assert data.table("train")["row"][:] == list(range(2, 18))
    with pytest.warns(
        UserWarning, match=r"\(validation\): 1 rows have an empty 'document', the first .* row 1,.* evaluated"
    ):
        assert data.example("validation", 0) == {"row": 1, "text": "", "true": "a film"}
    batch = next(iter(data.val_dataloader()[0]))
    assert batch["attention_mask"].sum(1).min() >= 1


def test_other_faults_are_named(refused, tiny, xsum, lines, tmp_path):
    sentence = refused(command("fit", tiny("bert"), "XSum", xsum, tmp_path / "run"))
    assert "is a bert model" in sentence
    assert "bart, mbart, t5" in sentence
    (xsum / "train.jsonl").write_text('{"document": "a film", "text": "a"}\n')
    sentence = refused(command("fit", tiny("t5"), "XSum", xsum, tmp_path / "run"))
    assert "(train) has no column 'summary'; its columns are document, text" in sentence
    for options, words in (({"pair": "en-ro"}, "pair is 'en-ro'"), ({"direction": "de-en"}, "give en-ro or ro-en")):
        with pytest.raises(UserError, match=words):
            WMT16(source=str(lines), **options)
