"""SuperGLUE's tasks of classification, from the publisher's files and as the Hub has them."""

import pytest
from datasets import ClassLabel, Dataset, Features, Value
from small_glue import SUPER_GLUE, write_super_glue

from peft_lightning.data import SuperGLUE
from peft_lightning.errors import UserError
from peft_lightning.runs import RunDirectory


@pytest.mark.parametrize(
    ("task", "labels", "first"),
    [
        ("boolq", ["False", "True"], {"text": "is film 0 good", "text_pair": "the plot, 0", "label": 0}),
        ("cb", ["entailment", "contradiction", "neutral"], {"text": "the plot 0", "text_pair": "a film", "label": 2}),
        ("rte", ["entailment", "not_entailment"], {"text": "the plot 0", "text_pair": "a film", "label": 1}),
        (
            "wic",
            ["False", "True"],
            {"text": "the plot 0", "text_pair": "a plot of story", "word": "plot", "label": 0},
        ),
    ],
)
@pytest.mark.parametrize("given", ["archive", "task"])
def test_the_publishers_files(tmp_path, task, labels, first, given):
    source = write_super_glue(tmp_path, task) / (SUPER_GLUE[task][0] if given == "task" else "")
    data = SuperGLUE(task, source=str(source))
    assert [len(data.table(split)) for split in ("train", "validation", "test")] == [30, 6, 4]
    assert data.table("train")[0] == {"row": 1, **first}
    assert data.task_description["labels"] == labels
    assert "label" not in data.table("test").column_names
    assert data.example("test", 3)["idx"] == 103
    assert data.example("train", 0)["true"] == labels[first["label"]]


def test_wic_names_its_word_before_both_sentences(tmp_path, tiny):
    data = SuperGLUE("wic", source=str(write_super_glue(tmp_path, "wic")), backbone=str(tiny()))
    row = data.encoded("train")[0]
    text = data.tokenizer.decode(row["input_ids"])
    assert text.split() == "[CLS] plot [UNK] the plot [UNK] [SEP] plot [UNK] a plot of story [SEP]".split()
    assert set(row) == {"input_ids", "token_type_ids", "attention_mask", "label", "length"}


def test_wic_asks_in_one_sequence_as_the_script_for_roberta_does(tmp_path, tiny):
    data = SuperGLUE(
        "wic", source=str(write_super_glue(tmp_path, "wic")), backbone=str(tiny("roberta")), wic_wording="question"
    )
    row = data.encoded("train")[0]
    question = "the plot 0 a plot of story Does plot have the same meaning in both sentences?"
    assert row["input_ids"] == data.tokenizer(question)["input_ids"]
    assert data.lengths("train")[""][0] == len(row["input_ids"]) == row["length"]
    assert data.example("train", 0)["text_pair"] == "a plot of story"
    boolq = SuperGLUE("boolq", source=str(write_super_glue(tmp_path, "boolq")), wic_wording="question")
    assert boolq.tokenizer.decode(boolq.encoded("train")[0]["input_ids"]).count("[SEP]") == 2


@pytest.mark.parametrize("layout", ["configs", "folder"])
def test_laid_out_as_on_the_hub(tmp_path, layout):
    features = {name: Value("string") for name in ("premise", "hypothesis")} | {"idx": Value("int32")}
    names = ["entailment", "contradiction", "neutral"]
    (tmp_path / "cb").mkdir()
    for split, count in (("train", 12), ("validation", 6), ("test", 3)):
        rows = {"premise": ["the plot"] * count, "hypothesis": ["a film"] * count, "idx": list(range(count))}
        rows["label"] = [-1 if split == "test" else n % 3 for n in range(count)]
        table = Dataset.from_dict(rows, features=Features({**features, "label": ClassLabel(names=names)}))
        table.to_parquet(tmp_path / "cb" / f"{split}-00000-of-00001.parquet")
    if layout == "configs":
        files = "".join(f"  - split: {s}\n    path: cb/{s}-*\n" for s in ("train", "validation", "test"))
        (tmp_path / "README.md").write_text(f"---\nconfigs:\n- config_name: cb\n  data_files:\n{files}---\n")
    data = SuperGLUE("cb", source=str(tmp_path))
    assert data.table("validation")["label"][:] == [0, 1, 2, 0, 1, 2]
    assert data.example("test", 2) == {"idx": 2, "row": 3, "text": "the plot", "text_pair": "a film"}


def test_rows_held_out_choose_and_the_published_validation_is_the_test(tmp_path):
    data = SuperGLUE("boolq", source=str(write_super_glue(tmp_path, "boolq")), validation_size=10)
    assert data.evaluated("validate") == {"": "held_out"}
    assert data.evaluated("test") == {"": "validation"}
    assert data.evaluated("predict") == {"": "test"}
    assert [len(data.table(split)) for split in ("train", "held_out", "validation")] == [20, 10, 6]
    shown = data.example("held_out", 0)
    assert shown["idx"] == 99 + shown["row"]


def test_a_test_without_labels_is_refused(tmp_path, fit, refused):
    options = ["--data.task=cb", f"--data.source={write_super_glue(tmp_path, 'cb')}"]
    run = fit(tmp_path / "run", *options, data="SuperGLUE", epochs=1)
    assert "SuperGLUE publishes no labels of its test split" in refused(["test", run])
    assert {"val/accuracy", "val/f1"} <= set(RunDirectory(run).read_result()["metrics"])


@pytest.mark.parametrize(
    ("task", "message"),
    [("copa", "multiple choice; use --data=COPA"), ("wsc", "task is 'wsc'; give one of boolq, cb, rte, wic")],
)
def test_another_task_is_refused(task, message):
    with pytest.raises(UserError, match=message):
        SuperGLUE(task)


GOOD = b'{"question": "is it", "passage": "a film", "idx": 0, "label": true}\n'
BAD_FILES = [
    (b"", r"train\.jsonl is empty"),
    (GOOD + b"question\n", r"train\.jsonl, row 2 is not JSON .*; give one object a line"),
    (GOOD + b"[1]\n", r"row 2 holds \[1\], which is no JSON object"),
    (GOOD + GOOD.replace(b"film", b"f\xff"), r"row 2 is not UTF-8"),
    (GOOD + GOOD.replace(b"passage", b"text"), r"row 2 has no column 'passage'; its columns are question, text"),
    (GOOD + GOOD.replace(b'"a film"', b"3"), r"row 2: column 'passage' holds 3, which is no text"),
    (GOOD + GOOD.replace(b'"idx": 0', b'"idx": "x"'), r"row 2: column 'idx' holds 'x', which is no whole number"),
    (GOOD + GOOD.replace(b"true", b'"yes"'), r"row 2: column 'label' holds 'yes', which is not one of the labels"),
    (
        GOOD + GOOD.replace(b'"idx": 0', b'"idx": 9999999999999999999'),
        r"row 2: column 'idx' holds 99+, which is no whole",
    ),
    (GOOD + GOOD.replace(b"a film", rb"a \uD83D"), r"row 2: column 'passage' holds half a character \(\\ud83d\)"),
    (GOOD + GOOD.replace(b"a film", b" "), r"row 2: column 'passage' is empty"),
]


@pytest.mark.parametrize(("content", "message"), BAD_FILES)
def test_a_wrong_row_is_named_by_file_row_and_column(tmp_path, content, message):
    (write_super_glue(tmp_path, "boolq") / "BoolQ" / "train.jsonl").write_bytes(content)
    with pytest.raises(UserError, match=message) as refusal:
        SuperGLUE("boolq", source=str(tmp_path)).table("train")
    assert str(tmp_path) in str(refusal.value)


def test_missing_files_and_columns_are_named(tmp_path):
    (write_super_glue(tmp_path, "cb") / "CB" / "val.jsonl").unlink()
    with pytest.raises(UserError, match=r"File .*CB/val\.jsonl does not exist; give the unpacked archive"):
        SuperGLUE("cb", source=str(tmp_path)).table("train")
    (tmp_path / "boolq").mkdir()
    Dataset.from_dict({"question": ["is it"], "idx": [0]}).to_parquet(tmp_path / "boolq" / "train.parquet")
    with pytest.raises(UserError, match=r"\(boolq, train\) has no column 'passage'; its columns are question, idx"):
        SuperGLUE("boolq", source=str(tmp_path)).table("train")
    with pytest.raises(UserError, match="cannot be loaded"):
        SuperGLUE("wic", source=str(tmp_path / "none")).table("train")


def test_impossible_sizes_are_refused():
    with pytest.raises(UserError, match="validation_size is 0"):
        SuperGLUE("cb", validation_size=0)
