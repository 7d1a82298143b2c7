"""SQuAD from its own files and from tables: windows, spans, splits, whole runs, and what is refused."""

import itertools
import json

import pytest
from datasets import Dataset
from small_squad import article, write, write_squad

from peft_lightning.cli import main
from peft_lightning.data import SQuAD
from peft_lightning.errors import UserError
from peft_lightning.runs import RunDirectory

SMALL = {"max_length": 24, "doc_stride": 5, "batch_size": 4}
SHORT = "a good film"
LONG = " ".join(["the", "plot", "is", "dull"] * 12)


@pytest.fixture
def squad(tiny, tmp_path):
    """`squad(version="2.0")` is the DataModule on small files of that version."""

    def module(model_type="bert", source=None, **options):
        source = source or write_squad(tmp_path, options.get("version", "1.1"))
        return SQuAD(source=str(source), backbone=str(tiny(model_type)), **SMALL | options)

    return module


# Windows and spans


@pytest.mark.parametrize("model_type", ["bert", "roberta", "gpt2"])
def test_windows_hold_the_whole_context_and_share_a_stride(squad, model_type):
    data = squad(model_type)
    for row in data.encoded("validation"):
        windows = [
            [(s, e) for s, e in zip(starts, ends, strict=True) if s >= 0]
            for starts, ends in zip(row["starts"], row["ends"], strict=True)
        ]
        assert all(len(ids) <= 24 for ids in row["input_ids"])
        for before, after in itertools.pairwise(windows):
            assert before[-5:] == after[:5]
        joined = windows[0] + [place for window in windows[1:] for place in window[5:]]
        assert [row["context"][s:e] for s, e in joined] == row["context"].split()
        assert row["length"] == sum(map(len, row["input_ids"]))


@pytest.mark.parametrize("model_type", ["bert", "roberta", "gpt2"])
def test_positions_decode_to_the_answer_and_are_zero_in_other_windows(squad, model_type):
    data = squad(model_type)
    shown = 0
    for row in data.encoded("validation"):
        windows = zip(*(row[n] for n in ("starts", "ends", "start_positions", "end_positions")), strict=True)
        for starts, ends, first, last in windows:
            if first:
                assert row["context"][starts[first] : ends[last]] == row["answers"][0]
                shown += 1
            else:
                assert last == 0
    assert shown >= 9
    training = data.encoded("train")
    assert len(training) > len(data.table("train"))
    tokenizer, answers = data.tokenizer, {answers[0] for answers in data.table("train")["answers"][:]}
    for row in training.filter(lambda row: row["start_positions"] > 0):
        assert tokenizer.decode(row["input_ids"][row["start_positions"] : row["end_positions"] + 1]) in answers


def test_a_context_shorter_than_the_stride_is_one_window(squad, tmp_path):
    path = write(tmp_path / "dev-v1.1.json", [article(SHORT, ("1", "is it", [("good", 2)]))]).parent
    [row] = squad(source=path).encoded("validation").to_list()
    assert len(row["input_ids"]) == 1
    # [CLS] is it [SEP] a good film [SEP]
    assert (row["start_positions"], row["end_positions"]) == ([5], [5])
    assert row["starts"] == [[-1, -1, -1, -1, 0, 2, 7, -1]]


def test_blanks_around_an_answer_belong_to_no_token(squad, tmp_path):
    path = write(tmp_path / "dev-v1.1.json", [article(SHORT, ("1", "is it", [(" good ", 1)]))]).parent
    [row] = squad(source=path).encoded("validation").to_list()
    assert (row["start_positions"], row["end_positions"]) == ([5], [5])


def test_part_of_a_word_is_found_by_its_token(squad, tmp_path):
    path = write(tmp_path / "dev-v1.1.json", [article(SHORT, ("1", "is it", [("oo", 3)]))]).parent
    [row] = squad(source=path).encoded("validation").to_list()
    assert (row["start_positions"], row["end_positions"]) == ([5], [5])


def test_a_long_question_is_cut(squad, tmp_path):
    question = " ".join(["is", "it", "so", "bad"] * 5)
    path = write(tmp_path / "dev-v1.1.json", [article(SHORT, ("1", question, [("good", 2)]))]).parent
    data = squad(source=path, max_query_length=3)
    [row] = data.encoded("validation").to_list()
    words = data.tokenizer.convert_ids_to_tokens(row["input_ids"][0])
    assert words == "[CLS] is it so [SEP] a good film [SEP]".split()


def test_evaluation_keeps_all_windows_of_a_question_together(squad):
    data = squad()
    ids = []
    [loader] = data.val_dataloader()
    for batch in loader:
        windows = int(batch["window_counts"].sum())
        assert len(batch["window_counts"]) <= 4
        for name in ("input_ids", "attention_mask", "token_type_ids", "starts", "ends"):
            assert batch[name].shape == (windows, batch["input_ids"].shape[1])
        assert (batch["starts"][batch["attention_mask"] == 0] == -1).all()
        assert len(batch["start_positions"]) == windows
        ids += batch["id"]
    assert sorted(ids) == sorted(data.table("validation")["id"][:])


def test_the_rows_of_training_windows_are_those_of_their_questions(squad):
    """Contexts of 6, 20 and 50 words give different numbers of windows; a window ends with words of its context."""
    data = squad()
    windows, table = data.encoded("train"), data.table("train")
    rows = data.rows_of_training(range(len(windows)))
    assert sorted(set(rows)) == list(range(1, len(table) + 1))
    assert len(rows) > len(table)
    for row, window in zip(rows, windows, strict=True):
        words = data.tokenizer.decode(window["input_ids"]).replace("[CLS]", "").split("[SEP]")
        assert words[0].strip() == table[row - 1]["question"]
        assert words[1].strip() in table[row - 1]["context"]
    epoch = [data.rows_of_batch(0, number) for number in range(len(data.train_dataloader()))]
    assert sorted(itertools.chain(*epoch)) == sorted(rows)


def test_tokens_are_cached_by_content_and_options(squad, tmp_path):
    def files(**options):
        encoded = squad(source=tmp_path, **options).encoded("train")
        return {file["filename"] for file in encoded.cache_files}

    write_squad(tmp_path)
    first = files()
    assert first
    assert files() == first
    assert files(doc_stride=4).isdisjoint(first)
    write_squad(tmp_path, train=25)
    assert files().isdisjoint(first)


# Sources and splits


def test_a_table_laid_out_as_on_the_hub_gives_the_same(squad, tmp_path):
    ours = squad()
    (tmp_path / "hub").mkdir()
    for split in ("train", "validation"):
        Dataset.from_list(ours.raw[split].to_list()).to_parquet(tmp_path / "hub" / f"{split}-00000-of-00001.parquet")
    theirs = squad(source=tmp_path / "hub")
    for split in ("train", "validation"):
        assert theirs.table(split).to_list() == ours.table(split).to_list()
        assert theirs.encoded(split).to_list() == ours.encoded(split).to_list()


def test_files_of_other_names_are_found_unless_several_may_be_meant(squad, tmp_path):
    write_squad(tmp_path)
    (tmp_path / "train-v1.1.json").rename(tmp_path / "my-train-part.json")
    assert len(squad(source=tmp_path).table("train")) == 24
    write(tmp_path / "train2.json", [])
    with pytest.raises(UserError, match=r"my-train-part.json and .*train2.json may all be the train split"):
        squad(source=tmp_path).table("train")


def test_the_official_file_of_the_version_comes_first(squad, tmp_path):
    write_squad(tmp_path, "1.1", dev=3)
    write_squad(tmp_path, "2.0", dev=6)
    assert len(squad(source=tmp_path).table("validation")) == 3
    assert len(squad(source=tmp_path, version="2.0").table("validation")) == 6


def test_the_default_source_is_that_of_the_version():
    assert (SQuAD().source, SQuAD(version="2.0").source) == ("rajpurkar/squad", "rajpurkar/squad_v2")


def test_questions_held_out_make_the_development_questions_the_test(squad):
    data = squad(validation_size=5)
    assert [len(data.table(split)) for split in ("train", "held_out", "validation")] == [19, 5, 9]
    assert {stage: data.evaluated(stage)[""] for stage in ("validate", "test", "predict")} == {
        "validate": "held_out",
        "test": "validation",
        "predict": "validation",
    }


# Whole runs


def test_a_run_with_held_out_questions_is_tested_on_the_development_questions(fit, refused, tmp_path):
    source = write_squad(tmp_path)
    size = ["--data.max_length=24", "--data.doc_stride=5", f"--data.source={source}"]
    fit(tmp_path / "run", *size, "--data.validation_size=5", data="SQuAD", epochs=1, model="LoRA", model_type="roberta")
    main(["test", str(tmp_path / "run"), "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"])
    assert "test/f1" in RunDirectory(tmp_path / "run").read_result()["metrics"]
    (tmp_path / "run" / "null_odds.json").touch()
    (tmp_path / "run" / "predictions.json").touch()
    assert "predictions.json exists; move it away first" in refused(["predict", tmp_path / "run"])
    (tmp_path / "texts.txt").write_text("a film\n", encoding="utf-8")
    texts = ["--input", tmp_path / "texts.txt", "--output", tmp_path / "out.jsonl"]
    assert "trained on SQuAD, whose examples are no single texts" in refused(["predict", tmp_path / "run", *texts])


# What is refused

GOOD = ("1", "is it", [("good", 2)])


@pytest.mark.parametrize(
    ("questions", "message"),
    [
        ([GOOD, ("2", "is it", [("good", 3)])], r"row 2 \(id '2'\): the answer 'good' is not in its context: .*'ood '"),
        ([("1", "is it", [("good", -9)])], r"row 1 \(id '1'\): the answer 'good' is not in its context"),
        ([("1", "is it", [("film", 7), ("fil", 8)])], r"row 1 \(id '1'\): the answer 'fil' is not in its context"),
        ([("1", "is it", [("", 2)])], r"row 1 \(id '1'\): an answer is empty"),
        (
            [GOOD, ("2", "so", [("a", 0)]), GOOD],
            r"row 3: column 'id' holds '1', the id of row 1; give each",
        ),
        ([("", "is it", [("good", 2)])], r"row 1: column 'id' holds ''; give each question an id"),
        ([("1", " ", [("good", 2)])], r"row 1: column 'question' is empty"),
        ([GOOD, ("2", "so", [])], r"row 2 \(id '2'\): there is no answer, .*; give --data.version 2.0"),
    ],
)
def test_a_wrong_question_is_named_by_file_and_row(squad, tmp_path, questions, message):
    path = write(tmp_path / "train-v1.1.json", [article(SHORT, *questions)]).parent
    with pytest.raises(UserError, match=message) as refusal:
        squad(source=path).table("train")
    assert str(tmp_path) in str(refusal.value)


def test_an_empty_context_is_refused(squad, tmp_path):
    path = write(tmp_path / "train-v2.0.json", [article("", ("1", "is it", []))]).parent
    with pytest.raises(UserError, match="row 1: column 'context' is empty"):
        squad(source=path, version="2.0").table("train")


def fields(**changes):
    question = {"id": "1", "question": "is it", "answers": [{"text": "good", "answer_start": 2}]} | changes
    second = [{"context": SHORT, "qas": [{k: v for k, v in question.items() if v is not None}]}]
    return {"data": [article(SHORT, GOOD), {"title": "", "paragraphs": second}]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (fields(answers=None), r"article 2, paragraph 1, question 1: the field 'answers' is missing"),
        (fields(id=None), r"article 2, paragraph 1, question 1: the field 'id' is missing"),
        (fields(question=3), r"question 1: the field 'question' holds 3, not a text"),
        (fields(answers=[{"text": "good"}]), r"question 1, answer 1: the field 'answer_start' is missing"),
        (fields(answers=[{"text": "good", "answer_start": "2"}]), r"'answer_start' holds '2', not a number"),
        ({"data": [{"title": ""}]}, r"article 1: the field 'paragraphs' is missing"),
        ({"data": [{"paragraphs": [{"qas": []}]}]}, r"article 1, paragraph 1: the field 'context' is missing"),
        ({"data": [{"paragraphs": [{"context": ""}]}]}, r"article 1, paragraph 1: the field 'qas' is missing"),
        ({"version": "1.1"}, r"train-v1.1.json: the field 'data' is missing"),
        ([], r"train-v1.1.json: the field 'data' is missing"),
        ({"data": []}, r"train-v1.1.json holds no question"),
    ],
)
def test_a_missing_or_wrong_field_is_named_by_its_place(squad, tmp_path, content, message):
    (tmp_path / "train-v1.1.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(UserError, match=message):
        squad(source=tmp_path).table("train")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"data": [\n{"title": }]}', r"train-v1.1.json, line 2: this is no JSON \(.*, column 11\)"),
        (b"", r"train-v1.1.json, line 1: this is no JSON"),
        (b'{"data": "\xff"}', r"train-v1.1.json is not UTF-8 \(byte 10\)"),
    ],
)
def test_a_file_that_is_no_json_is_named(squad, tmp_path, content, message):
    (tmp_path / "train-v1.1.json").write_bytes(content)
    with pytest.raises(UserError, match=message):
        squad(source=tmp_path).table("train")


def test_a_question_that_leaves_no_room_for_the_stride_is_named_with_its_numbers(squad, tmp_path):
    articles = [article(SHORT, GOOD), article(LONG, ("2", "is it so bad and so dull", [("plot", 4)]))]
    path = write(tmp_path / "train-v1.1.json", articles).parent
    data = squad(source=path, max_length=20, doc_stride=10)
    with pytest.raises(
        UserError, match=r"row 2: the question has 7 tokens, which leaves 10 of max_length 20 to the 48"
    ):
        data.encoded("train")
    assert squad(source=path, max_length=20, doc_stride=9).encoded("train")


def test_a_short_context_needs_no_room_for_the_stride(squad, tmp_path):
    path = write(
        tmp_path / "train-v1.1.json", [article(SHORT, ("1", "is it so bad and so dull", [("good", 2)]))]
    ).parent
    [row] = squad(source=path, max_length=20, doc_stride=15).encoded("train").to_list()
    assert (row["start_positions"], row["end_positions"]) == (10, 10)


def test_a_table_without_a_column_says_what_there_should_be(squad, tmp_path):
    Dataset.from_dict({"id": ["1"], "text": ["a"]}).to_parquet(tmp_path / "train.parquet")
    with pytest.raises(UserError, match=r"has no column 'question'; it has id, text, and SQuAD has id, question"):
        squad(source=tmp_path).table("train")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"doc_stride": -1}, "doc_stride is -1"),
        ({"doc_stride": 384}, "doc_stride is 384 and max_length 384"),
        ({"max_query_length": 0}, "max_query_length is 0"),
        ({"n_best_size": 0}, "n_best_size is 0"),
        ({"max_answer_length": 0}, "max_answer_length is 0"),
        ({"validation_size": 0}, "validation_size is 0"),
        ({"version": "3.0"}, "version is '3.0'; give 1.1 or 2.0"),
    ],
)
def test_impossible_options_are_named(options, message):
    with pytest.raises(UserError, match=message):
        SQuAD(**options)


def test_there_is_no_test_split(squad):
    with pytest.raises(UserError, match=r"SQuAD publishes no labels of its test split: .* --data.validation_size"):
        squad().test_dataloader()


def test_a_wrong_version_is_refused_before_training(refused, tiny, tmp_path):
    source = write_squad(tmp_path, "2.0")
    (tmp_path / "train-v2.0.json").rename(tmp_path / "train.json")
    arguments = ["fit", "--model=LoRA", f"--model.backbone={tiny()}", "--data=SQuAD", f"--data.source={source}"]
    arguments += ["--data.max_length=24", "--data.doc_stride=5", "--trainer.max_epochs=1", "--trainer.accelerator=cpu"]
    assert "give --data.version 2.0" in refused([*arguments, f"--run_dir={tmp_path / 'run'}"])
    assert not (tmp_path / "run" / "checkpoints").exists()
