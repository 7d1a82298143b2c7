"""`check-data`: every row is checked, and what is printed is what the data holds."""

import csv
import json

import pytest
from small_benchmarks import SMALL
from small_files import rows_of

from peft_lightning import data
from peft_lightning.cli import main


@pytest.fixture
def check(tiny, tmp_path):
    def command(*options):
        main(["check-data", f"--data.backbone={tiny()}", f"--output={tmp_path / 'report'}", *map(str, options)])
        return tmp_path / "report"

    return command


def test_sizes_labels_lengths_and_what_is_cut(check, tmp_path, capsys):
    rows = {"train": [("a film", "good")] * 3 + [("the worst plot of it", "bad")], "validation": [("a", "bad")]}
    (tmp_path / "data").mkdir()
    for split, pairs in rows.items():
        with (tmp_path / "data" / f"{split}.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("text", "label"), *pairs])
    directory = check("--data=TextClassification", f"--data.source={tmp_path / 'data'}", "--data.max_length=6")
    printed = capsys.readouterr().out
    assert "Every row is right." in printed
    assert "| train | 1 (25.0 %) | 3 (75.0 %) |" in printed
    train, validation = rows_of(directory / "lengths.csv")
    # [CLS] and [SEP] are counted: 4 tokens three times, 7 once.
    assert (train["rows"], train["p50"], train["p100"], train["cut %"]) == ("4", "4", "7", "25.0")
    assert (validation["rows"], validation["p100"], validation["cut %"]) == ("1", "3", "0.0")
    assert rows_of(directory / "labels.csv")[1] == {"split": "train", "label": "good", "count": "3", "%": "75.0"}
    assert (directory / "report.png").read_bytes().startswith(b"\x89PNG")


def test_scores_are_counted_by_the_whole_number_that_is_nearest(check, tmp_path, capsys):
    (tmp_path / "train.tsv").write_text("sentence1\tsentence2\tscore\na\tb\t1.2\nc\td\t2.6\n", encoding="utf-8")
    (tmp_path / "dev.tsv").write_text("sentence1\tsentence2\tscore\na film\tb\t1.0\n", encoding="utf-8")
    directory = check("--data=GLUE", "--data.task=stsb", f"--data.source={tmp_path}")
    assert [row["split"] for row in rows_of(directory / "lengths.csv")] == ["train", "validation"]
    labels = [(row["split"], row["label"], row["count"]) for row in rows_of(directory / "labels.csv")]
    assert labels[:3] == [("train", "about 1", "1"), ("train", "about 2", "0"), ("train", "about 3", "1")]


# One a kind of rows -> how often there is each label among the rows to train on.
KINDS = {
    "amazon_polarity": {"negative": 16, "positive": 16},
    "imdb": {"neg": 6, "pos": 6},
    "glue-mnli": {"entailment": 5, "neutral": 5, "contradiction": 6},
    "super_glue-wic": {"False": 11, "True": 11},
    "copa": {"choice1": 14, "choice2": 18},
    "swag": {"0": 16, "1": 11, "2": 10, "3": 15},
    "squad-2.0": {"answer": 11, "no answer": 5},
    "conll": {"O": 158, "B-LOC": 41, "I-LOC": 41, "B-PER": 40, "I-PER": 40},
    "houlsby17-airline": {"negative": 16, "neutral": 16, "positive": 16},
    "xsum": {},
    "wmt16": {},
    "text_to_text": {},
}


CHOSEN = ("task", "version", "doc_stride", "validation_size")


def options_of(small):
    """Those that say what is read, and lengths at which nothing is cut."""
    lengths = ["max_length", *(["max_target_length"] if small.kind == "sequence_to_sequence" else [])]
    chosen = [option for option in small.options if option.split("=")[0][7:] in CHOSEN]
    return [*chosen, *(f"--data.{length}=60" for length in lengths)]


@pytest.mark.filterwarnings("ignore:.*Houlsby et al. had")
@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_rows_is_reported(name, check, tmp_path, capsys):
    small = SMALL[name]
    (tmp_path / "data").mkdir()
    directory = check(f"--data={small.data}", f"--data.source={small.write(tmp_path / 'data')}", *options_of(small))
    assert "Every row is right." in capsys.readouterr().out
    rows = [row for row in rows_of(directory / "lengths.csv") if row.get("of", "source") == "source"]
    counts = {row["split"]: int(row["rows"]) for row in rows}
    train, chosen, tested, _ = small.sizes
    assert counts["train"] == train
    assert {chosen, tested} <= set(counts.values())
    assert all(row["cut %"] == "0.0" for row in rows)
    path = directory / "labels.csv"
    assert path.is_file() == (small.kind != "sequence_to_sequence")
    labels = {r["label"]: int(r["count"]) for r in (rows_of(path) if path.is_file() else []) if r["split"] == "train"}
    assert labels == KINDS[name]
    assert (directory / "report.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.filterwarnings("ignore:.*Houlsby et al. had")
@pytest.mark.parametrize("name", [*KINDS, "glue-stsb", "squad-1.1"])
def test_lengths_are_those_of_what_the_model_is_given(name, tiny, tmp_path):
    small = SMALL[name]
    options = dict(option.removeprefix("--data.").split("=") for option in options_of(small))
    options = {key: int(value) if value.isdecimal() else value for key, value in options.items()}
    source = str(small.write(tmp_path))
    module = getattr(data, small.data)(source=source, backbone=str(tiny()), **options)
    # SQuAD cuts rows to train on into windows; a whole question has one here, as nothing is cut.
    split = "validation" if small.data == "SQuAD" else "train"
    encoded, lengths = module.encoded(split), module.lengths(split)
    assert next(iter(lengths.values())).tolist() == list(encoded["length"])
    if small.kind == "sequence_to_sequence":
        assert lengths["target"].tolist() == [len(labels) for labels in encoded["labels"]]


def write_summaries(path):
    path.write_text(json.dumps({"document": "a film", "summary": "the worst plot of it", "id": "1"}) + "\n")


def write_endings(path):
    columns = ["sent1", "sent2", *(f"ending{number}" for number in range(4)), "label"]
    path.write_text(",".join(columns) + "\nthe plot,it was,dull,very very dull,bad,great,3\n")


def write_words(path):
    path.write_text("the NN I-NP O\nfilm NN I-NP O\nunheard NN I-NP O\n\n")


@pytest.mark.parametrize(
    ("write", "name", "options", "tokens"),
    [
        # [CLS] great a film [SEP]; summaries have a limit of their own.
        (write_summaries, "jsonl", ["--data=XSum", "--data.source_prefix=great "], 5),
        # [CLS] the plot [SEP] it was very very dull [SEP]: the longest of four.
        (write_endings, "csv", ["--data=SWAG"], 10),
        (write_words, "txt", ["--data=CoNLL"], 5),
    ],
)
def test_what_is_counted_is_what_would_be_cut(check, tmp_path, write, name, options, tokens):
    (tmp_path / "data").mkdir()
    for split in ("train", "valid" if name == "txt" else "validation", "test"):
        write(tmp_path / "data" / f"{split}.{name}")
    directory = check(*options, f"--data.source={tmp_path / 'data'}", f"--data.max_length={tokens}")
    rows = [row for row in rows_of(directory / "lengths.csv") if row.get("of", "source") == "source"]
    assert [(row["p100"], row["cut %"]) for row in rows] == [(str(tokens), "0.0")] * 3


def test_a_wrong_row_is_named(check, tmp_path, capsys):
    (tmp_path / "r.csv").write_text("text,label\na film,good\n ,bad\n", encoding="utf-8")
    with pytest.raises(SystemExit) as stop:
        check("--data=TextClassification", f"--data.source={tmp_path / 'r.csv'}")
    assert stop.value.code == 1
    assert "row 2: column 'text' is empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--data=Nothing"], ["no DataModule 'Nothing'", "choose one of AmazonPolarity, COPA, CoNLL, GLUE, "]),
        (["--data=GLUE", "--data.task=sst5"], ["sst5"]),
        (["--data=TextClassification"], ["source"]),
    ],
)
def test_wrong_options_are_named(check, capsys, options, words):
    with pytest.raises(SystemExit) as stop:
        check(*options)
    assert stop.value.code == 2
    [sentence] = [line for line in capsys.readouterr().err.splitlines() if "peft-lightning: error:" in line]
    assert [word for word in words if word not in sentence] == []
