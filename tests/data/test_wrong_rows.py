"""Rows that are wrong, in every format: one sentence with file, row and column, before anything is trained."""

import json

import pytest
from datasets import ClassLabel, Dataset, Features, Value
from small_benchmarks import HELD_OUT, SMALL
from small_files import write_reviews
from small_squad import article, write, write_squad

from peft_lightning import data
from peft_lightning.cli import main
from peft_lightning.data.doubts import input_columns, rows_in_both
from peft_lightning.errors import UserError

PREDICTED_ONLY = "that is how unlabelled rows are marked, which can only be predicted"
COLA, STSB, MRPC, MNLI = (f"{name}/train.tsv" for name in ("CoLA", "STS-B", "MRPC", "MNLI"))
BOOLQ, CB = "BoolQ/train.jsonl", "CB/train.jsonl"
SQUAD = "train-v1.1.json"
AIRLINE = "Airline-Sentiment-2-w-AA.csv"
# Benchmark, file -> what is replaced there once, by what, and what the sentence then says behind the file's name.
FAULTS = [
    (
        "amazon_polarity",
        "train.csv",
        '"1","title 2",',
        '"1",',
        "row 3 has 2 fields and should have 3 (label, title",
    ),
    (
        "amazon_polarity",
        "train.csv",
        '"1","title 2"',
        '"1","","title 2"',
        "row 3 has 4 fields and should have 3",
    ),
    ("amazon_polarity", "train.csv", "title 2", "title \xff", "row 3: column 'title' is not UTF-8"),
    (
        "amazon_polarity",
        "train.csv",
        '"1","title 2"',
        '"3","title 2"',
        "row 3: column 'label' holds '3', which is not",
    ),
    ("amazon_polarity", "train.csv", '"1","title 2"', '"-1","title 2"', PREDICTED_ONLY),
    ("amazon_polarity", "train.csv", '"1","title 2"', '"1.0","title 2"', "row 3: column 'label' holds '1.0'"),
    ("amazon_polarity", "train.csv", '"train content 2, ""quoted"""', '" "', "row 3: column 'content' is empty"),
    ("glue-cola", COLA, "gj04\t1\t", "gj04\t1\t\t", "line 2 has 5 columns instead of 4"),
    ("glue-cola", COLA, "gj04\t1\t", "gj04\t\t", "row 2: column 'label' holds ''"),
    ("glue-cola", COLA, "gj04\t1\t", "gj04\t0.5\t", "row 2: column 'label' holds '0.5'"),
    ("glue-stsb", STSB, "\t5.000\n", "\t-1\n", PREDICTED_ONLY),
    (
        "glue-mrpc",
        MRPC,
        "#1 String",
        "first",
        "has no column '#1 String'; its columns are Quality, #1 ID, #2 ID",
    ),
    ("glue-mnli", MNLI, "x\tneutral", "x\t-", "row 2: column 'gold_label' holds '-', which is not one of the labels"),
    ("glue-rte", "RTE/train.tsv", "\n1\t", "\n0\t", "row 2: column 'index' holds '0', the id of row 1"),
    ("glue-qqp", "QQP/train.tsv", "\n1\t", "\n0\t", "row 2: column 'id' holds '0', the id of row 1"),
    ("super_glue-boolq", BOOLQ, "true", "-1", PREDICTED_ONLY),
    ("super_glue-boolq", BOOLQ, "true", "0.5", "row 2: column 'label' holds '0.5'"),
    ("super_glue-boolq", BOOLQ, "true", "[true]", "row 2: column 'label' holds [True], which is no label"),
    ("super_glue-cb", CB, '"entailment"', "null", "row 2: column 'label' holds ''"),
    ("super_glue-cb", CB, '"idx": 101', '"idx": 100', "row 2: column 'idx' holds 100, the id of row 1"),
    ("copa", "train.jsonl", '"label": 1', '"label": 0.5', "row 1: column 'label' holds 0.5"),
    ("copa", "train.jsonl", '"label": 1', '"label": null', "row 1: column 'label' holds None"),
    ("copa", "train.jsonl", '"idx": 1,', '"idx": 0,', "row 2: column 'idx' holds 0, the id of row 1"),
    ("copa", "train.jsonl", "plot", "pl\xff", "line 1 is not UTF-8"),
    ("copa", "train.jsonl", '"idx": 1,', '"idx": ,', "row 2 is not JSON"),
    ("swag", "train.csv", "the film, a story", "the \xff", "row 1: column 'sent1' is not UTF-8"),
    ("swag", "train.csv", ",3\r\n", ",3.0\r\n", "row 1: column 'label' holds '3.0'"),
    ("conll", "train.txt", "B-PER", "-1", "line 7: the last column holds '-1', which is no tag"),
    (
        "squad-1.1",
        SQUAD,
        '"answer_start": ',
        '"answer_start": 4000000000',
        "answer 1: the field 'answer_start' holds 40000000",
    ),
    (
        "squad-1.1",
        SQUAD,
        '"context": "',
        r'"context": "\ud83d',
        "paragraph 1: the field 'context' holds half a character",
    ),
    ("houlsby17-airline", AIRLINE, "neutral", "-1", PREDICTED_ONLY),
    ("houlsby17-airline", AIRLINE, "neutral", "0.5", "row 2: column 'airline_sentiment' holds '0.5'"),
    ("xsum", "train.jsonl", "film", "\xff", "line 1 is not UTF-8"),
    ("xsum", "train.jsonl", '"train1"', '"train0"', "row 2: column 'id' holds 'train0', the id of row 1"),
    ("xsum", "train.jsonl", '"not bad"', "3", "row 1: column 'summary' holds 3, which is no text"),
    (
        "text_classification",
        "reviews.csv",
        "text,label",
        "body,label",
        "has no column 'text'; its columns are body",
    ),
    ("text_classification", "reviews.csv", ",good\r\n", "\r\n", "row 2 has 1 fields and should have 2 (text, label)"),
    (
        "text_classification",
        "reviews.csv",
        ",good\r\n",
        ",0.5\r\n",
        "row 2: column 'label' holds '0.5', a number",
    ),
    ("text_classification", "reviews.csv", " is ", " \xff ", "row 1: column 'text' is not UTF-8"),
    ("text_to_text", "pairs.csv", ",not bad", "", "row 1 has 1 fields and should have 2 (source, target)"),
    ("text_to_text", "pairs.csv", ",it was", ",it,was", "row 2 has 3 fields and should have 2 (source, target)"),
    (
        "text_to_text",
        "pairs.csv",
        "the film is not a bad story but it is too like the movie",
        " ",
        "row 1: column 'source' is empty",
    ),
    ("text_to_text", "pairs.csv", "film", "\xff", "row 1: column 'source' is not UTF-8"),
]


@pytest.mark.parametrize(("name", "file", "old", "new", "words"), FAULTS)
def test_a_wrong_row_is_named_by_file_row_and_column(name, file, old, new, words, tmp_path, tiny):
    small = SMALL[name]
    source = small.write(tmp_path)
    content = (tmp_path / file).read_bytes()
    assert old.encode() in content
    (tmp_path / file).write_bytes(content.replace(old.encode(), new.encode("latin-1"), 1))
    options = dict(option.removeprefix("--data.").split("=") for option in small.options if option != HELD_OUT)
    options = {name: value for name, value in options.items() if name in ("task", "version")}
    with pytest.raises(UserError) as refusal:
        getattr(data, small.data)(source=str(source), backbone=str(tiny()), **options).table("train")
    sentence = str(refusal.value)
    assert words in sentence
    assert str(tmp_path / file) in sentence
    assert "\n" not in sentence


def test_bytes_that_are_no_text_are_refused_before_training(refused, tiny, tmp_path):
    """pyarrow reads any bytes from JSON; they would fail where they are first used."""
    (tmp_path / "train.jsonl").write_bytes(b'{"text": "a film", "label": "good"}\n{"text": "\xff", "label": "bad"}\n')
    arguments = ["fit", "--model=LoRA", f"--model.backbone={tiny()}", "--data=TextClassification"]
    arguments += [f"--data.source={tmp_path}", f"--run_dir={tmp_path / 'run'}", "--trainer.max_epochs=1"]
    assert f"{tmp_path / 'train.jsonl'}, line 2 is not UTF-8" in refused([*arguments, "--trainer.accelerator=cpu"])
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_half_a_character_in_json_is_named_by_its_row(tmp_path):
    rows = [r'{"text": "a film", "label": "good"}', r'{"text": "the \ud83d\ude00", "label": "bad \ud83d"}']
    (tmp_path / "train.jsonl").write_text("\n".join(rows), encoding="utf-8")
    with pytest.raises(UserError, match=r"train\.jsonl, row 2: column 'label' holds half a character \(\\ud83d\)"):
        data.TextClassification(source=str(tmp_path)).table("train")


@pytest.mark.parametrize(
    ("labels", "feature", "words"),
    [
        ([1, 2], ClassLabel(names=["neg", "pos", "other"]), "row 2: column 'label' holds 2, which is not one of"),
        ([1, -1], ClassLabel(names=["neg", "pos"]), PREDICTED_ONLY),
        ([1.0, 0.0], Value("float64"), "row 1: column 'label' holds 1.0, which is not one of the labels"),
        ([1, None], Value("int64"), "row 2: column 'label' holds None, which is not one of the labels"),
    ],
)
def test_a_wrong_label_in_a_table_as_on_the_hub(labels, feature, words, tmp_path):
    rows = Dataset.from_dict(
        {"text": ["a", "b"], "label": labels}, Features({"text": Value("string"), "label": feature})
    )
    rows.to_parquet(tmp_path / "train.parquet")
    with pytest.raises(UserError) as refusal:
        data.RottenTomatoes(source=str(tmp_path)).table("train")
    assert words in str(refusal.value)
    assert f"{tmp_path / 'train.parquet'} (train)" in str(refusal.value)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_a_column_without_any_label_is_named(split, tmp_path):
    for name in ("train", "validation", "test"):
        rows = [{"text": "a film", "label": None if name == split else label} for label in ("good", "bad")]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    empty = "column 'label' is empty in every row" if split == "train" else "row 1: column 'label' holds None"
    with pytest.raises(UserError, match=rf"{split}\.jsonl \({split}\).*{empty}"):
        data.TextClassification(source=str(tmp_path)).table(split)


def test_numbers_with_fractions_may_be_declared_as_labels(tmp_path):
    rows = [{"text": "a film", "label": label} for label in ("1.5", "2.0", "2.0")]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with pytest.raises(UserError, match=r"row 1: column 'label' holds '1\.5', a number with a fract.*--data\.labels"):
        _ = data.TextClassification(source=str(tmp_path)).labels
    declared = data.TextClassification(source=str(tmp_path), labels=["1.5", "2.0"])
    assert declared.check("train")["label"][:] == [0, 1, 1]


def test_minus_one_is_no_class_unless_it_is_declared(tmp_path):
    rows = [{"text": "a film", "label": label} for label in (1, 0, -1)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with pytest.raises(UserError, match=rf"row 3: column 'label' holds -1; {PREDICTED_ONLY}.*--data\.labels"):
        _ = data.TextClassification(source=str(tmp_path)).labels
    declared = data.TextClassification(source=str(tmp_path), labels=["-1", "0", "1"])
    assert declared.check("train")["label"][:] == [2, 1, 0]


def test_a_number_that_the_server_of_glue_would_meet_twice_is_named(tmp_path, tiny):
    source = SMALL["glue-rte"].write(tmp_path)
    path = source / "RTE" / "test.tsv"
    path.write_text(path.read_text().replace("\n2\t", "\n1\t"), encoding="utf-8")
    with pytest.raises(UserError, match=r"RTE/test\.tsv \(test\), row 3: column 'index' holds '1', the id of row 2"):
        data.GLUE("rte", source=str(source)).table("test")


OFFLINE = [
    (data.AmazonPolarity, {}),
    (data.RottenTomatoes, {"source": "cornell-movie-review-data/rotten_tomatoes"}),
    (data.IMDB, {}),
    (data.GLUE, {"task": "rte"}),
    (data.SuperGLUE, {"task": "cb"}),
    (data.COPA, {}),
    (data.SWAG, {}),
    (data.SQuAD, {"version": "1.1"}),
    (data.SQuAD, {"version": "2.0"}),
    (data.CoNLL, {}),
    (data.Houlsby17, {"task": "sms_spam"}),
    (data.XSum, {}),
    (data.WMT16, {}),
    (data.TextClassification, {"source": "nobody/reviews"}),
    (data.TextToText, {"source": "nobody/pairs"}),
]


@pytest.mark.parametrize(("kind", "options"), OFFLINE)
def test_a_hub_id_while_offline_is_one_sentence(kind, options):
    module = kind(**options)
    with pytest.raises(UserError) as refusal:
        _ = module.raw
    assert f"'{module.source}'" in str(refusal.value)
    assert "reachable or cached" in str(refusal.value)
    assert "\n" not in str(refusal.value)


# What is no error, but is said


def test_an_answer_that_no_window_holds_is_told_with_its_row(tmp_path, tiny):
    context = " ".join(["the", "plot", "is", "dull"] * 6)
    whole = ("1", "is it", [("plot", 4)])
    long = ("2", "is it", [(context[22:110], 22)])
    write(tmp_path / "train-v1.1.json", [article(context, whole, long)])
    sizes = {"max_length": 20, "backbone": str(tiny())}
    with pytest.warns(UserWarning, match=r"train-v1\.1\.json \(train\): of 1 questions, the first of them row 2"):
        data.SQuAD(source=str(tmp_path), doc_stride=5, **sizes).encoded("train")
    data.SQuAD(source=str(tmp_path), doc_stride=5, **sizes | {"max_length": 40}).encoded("train")


def test_rows_that_are_trained_on_are_told(fit, tmp_path):
    for split in ("train", "validation"):
        write_reviews(tmp_path / f"{split}.csv", 20, seed=len(split))
    extra = (tmp_path / "train.csv").read_text(encoding="utf-8").splitlines()[3]
    with (tmp_path / "validation.csv").open("a", encoding="utf-8") as file:
        file.write(f"{extra}\n")
    with pytest.warns(UserWarning, match=r"validation\.csv \(validation\): 1 of 21 rows are trained on too.* row 21;"):
        fit(tmp_path / "run", f"--data.source={tmp_path}", epochs=1)


@pytest.mark.parametrize("name", ["glue-mnli", "swag", "squad-2.0", "conll", "xsum"])
def test_rows_of_every_kind_are_compared(name, tmp_path, tiny):
    """With itself every split has all its rows in common, and none with one whose texts were changed."""
    small = SMALL[name]
    options = dict(option.removeprefix("--data.").split("=") for option in small.options)
    options = {key: value for key, value in options.items() if key in ("task", "version")}
    table = getattr(data, small.data)(source=str(small.write(tmp_path)), backbone=str(tiny()), **options).table("train")
    [sentence] = rows_in_both(table, table, "here")
    assert sentence.startswith(f"here: {len(table)} of {len(table)} rows are trained on too, the first of them row 1;")
    last = input_columns(table)[-1]
    other = table.map(lambda row: {last: f"{row[last]}!" if isinstance(row[last], str) else [*row[last], "!"]})
    assert rows_in_both(table, other, "here") == []


def test_a_label_that_is_not_trained_is_told(fit, tmp_path):
    for split in ("train", "validation"):
        write_reviews(tmp_path / f"{split}.csv", 20, seed=len(split))
    options = [f"--data.source={tmp_path}", "--data.labels=[bad,good,great]"]
    with pytest.warns(UserWarning, match=r"train\.csv \(train\): no row has the label 'great', which so cannot"):
        fit(tmp_path / "run", *options, epochs=1)


def test_check_data_says_what_is_doubtful(tiny, tmp_path, capsys):
    source = write_squad(tmp_path)
    dev = json.loads((tmp_path / "dev-v1.1.json").read_text())
    dev["data"].append(json.loads((tmp_path / "train-v1.1.json").read_text())["data"][0])
    (tmp_path / "dev-v1.1.json").write_text(json.dumps(dev), encoding="utf-8")
    options = ["--data.max_length=24", "--data.doc_stride=5", f"--output={tmp_path / 'report'}"]
    main(["check-data", "--data=SQuAD", f"--data.source={source}", f"--data.backbone={tiny()}", *options])
    assert "dev-v1.1.json (validation): 1 of 10 rows are trained on too" in capsys.readouterr().out
