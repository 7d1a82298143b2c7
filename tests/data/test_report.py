"""`check-data`: every row is checked, and what is printed is what the data holds."""

import csv
import json

import pytest
from small_files import rows_of

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
    assert rows_of(directory / "labels.csv")[1] == {"split": "train", "label": "good", "rows": "3", "%": "75.0"}
    assert (directory / "report.png").read_bytes().startswith(b"\x89PNG")


def test_scores_have_no_classes(check, tmp_path, capsys):
    (tmp_path / "train.tsv").write_text("sentence1\tsentence2\tscore\na\tb\t1.0\nc\td\t2.5\n", encoding="utf-8")
    (tmp_path / "dev.tsv").write_text("sentence1\tsentence2\tscore\na film\tb\t1.0\n", encoding="utf-8")
    directory = check("--data=GLUE", "--data.task=stsb", f"--data.source={tmp_path}")
    assert [row["split"] for row in rows_of(directory / "lengths.csv")] == ["train", "validation"]
    assert not (directory / "labels.csv").exists()


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
    assert [(row["p100"], row["cut %"]) for row in rows_of(directory / "lengths.csv")] == [(str(tokens), "0.0")] * 3


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
