"""Tables from files: what is text stays text, and every fault has a name."""

import json
import random

import pandas
import pytest
from datasets import ClassLabel, Dataset, Features, Value

from peft_lightning.data.files import content_hash, read_file, read_source
from peft_lightning.data.splits import split_rows
from peft_lightning.errors import UserError

ROWS = [
    {"text": "NA", "label": "01"},
    {"text": 'a "good", film\nfor you', "label": "1"},
    {"text": "3.50", "label": "N"},
]


def write(path, rows):
    frame = pandas.DataFrame(rows)
    match path.suffix.lower():
        case ".csv":
            frame.to_csv(path, index=False)
        case ".jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        case ".parquet":
            frame.to_parquet(path)
    return path


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet", ".CSV"])
def test_every_format_gives_the_same_rows_as_text(tmp_path, suffix):
    table = read_file(write(tmp_path / f"t{suffix}", ROWS))
    assert table.to_list() == ROWS


def test_quotes_in_a_tsv_file_are_characters(tmp_path):
    """As in GLUE's files: a row may begin with a quote that is never closed."""
    (tmp_path / "t.tsv").write_text('text\tlabel\n"a film\tgood\nthe "plot"\tbad\nNA\t01\n', encoding="utf-8")
    assert read_file(tmp_path / "t.tsv").to_list() == [
        {"text": '"a film', "label": "good"},
        {"text": 'the "plot"', "label": "bad"},
        {"text": "NA", "label": "01"},
    ]


def test_a_text_file_has_a_row_a_line(tmp_path):
    (tmp_path / "t.txt").write_text("a good film\nthe worst, ever\n", encoding="utf-8")
    assert read_file(tmp_path / "t.txt")["text"][:] == ["a good film", "the worst, ever"]


def test_a_file_without_header_takes_the_given_columns(tmp_path):
    (tmp_path / "t.csv").write_text('"2","Title","Text ""quoted"""\n', encoding="utf-8")
    table = read_file(tmp_path / "t.csv", column_names=["label", "title", "content"])
    assert table.to_list() == [{"label": "2", "title": "Title", "content": 'Text "quoted"'}]


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path):
    (tmp_path / "t.csv").write_bytes("﻿text,label\nfilm,good\n".encode())
    assert read_file(tmp_path / "t.csv").column_names == ["text", "label"]


def test_a_changed_file_is_read_again(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("text,label\nold,bad\n", encoding="utf-8")
    assert read_file(path)["text"][:] == ["old"]
    path.write_text("text,label\nnew,bad\nnewer,good\n", encoding="utf-8")
    assert read_file(path)["text"][:] == ["new", "newer"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", b"", "is empty"),
        ("t.csv", b"text,label\n", "is empty"),
        ("t.jsonl", b"\n", "t.jsonl"),
        ("t.csv", b"text,label\na,b\nc,d,e\n", r"row 2 has 3 fields and should have 2 \(text, label\)"),
        ("t.csv", b"text,label\na,b\nc\n", r"row 2 has 1 fields and should have 2 \(text, label\)"),
        ("t.tsv", b"text\tlabel\na\tb\nc\n", r"row 2 has 1 fields and should have 2 \(text, label\)"),
        ("t.csv", b"text,label\n\xff\xfe,b\n", "row 1: column 'text' is not UTF-8"),
        ("t.csv", b"text,l\xffbel\na,b\n", "the header is not UTF-8"),
        ("t.jsonl", b'{"text": "a"}\n{"text": "\xff"}\n', "line 2 is not UTF-8"),
        ("t.txt", b"a\n\xff\n", "line 2 is not UTF-8"),
        ("t.jsonl", b'{"text": ', "row 1 is not JSON"),
        ("t.jsonl", b'{"text": "a"}\nb\n', "row 2 is not JSON"),
        ("t.jsonl", b'{"text": "a"}\n[1]\n', r"row 2 holds \[1\], which is no JSON object"),
        ("t.parquet", b"no parquet", "cannot be read"),
        ("t.csv", b"text,text\na,b\n", "no usable header: its first line is 'text, text'"),
        ("t.tsv", b"gj04\t1\t\tOur friends\n", "no usable header"),
        ("t.csv", b"text,label\nI think, it is good,pos\nwell, bad,neg\n", "row 1 has 3 fields and the header 2"),
        ("t.csv", b"text,label\na film,pos,\na plot,neg,\n", "row 1 has 3 fields and the header 2"),
        ("t.doc", b"text", "of no known format; give a file ending in .csv"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as refusal:
        read_file(tmp_path / name)
    assert name in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.csv does not exist"):
        read_file(tmp_path / "none.csv")


def test_a_directory_has_a_file_a_split(tmp_path):
    for stem in ("train", "dev", "test"):
        write(tmp_path / f"{stem}.csv", ROWS)
    assert list(read_source(str(tmp_path))) == ["validation", "test", "train"]


def test_two_files_for_one_split_are_refused(tmp_path):
    for name in ("dev.csv", "validation.csv"):
        write(tmp_path / name, ROWS)
    with pytest.raises(UserError, match="both the validation split"):
        read_source(str(tmp_path))


def test_a_directory_laid_out_as_on_the_hub(tmp_path):
    (tmp_path / "data").mkdir()
    for split in ("train", "test"):
        write(tmp_path / "data" / f"{split}-00000.parquet", ROWS)
    assert {name: len(table) for name, table in read_source(str(tmp_path)).items()} == {"train": 3, "test": 3}


def test_a_hub_id_while_offline_is_one_sentence():
    with pytest.raises(UserError, match="Data 'nobody/nothing' cannot be loaded") as refusal:
        read_source("nobody/nothing")
    assert "\n" not in str(refusal.value)


def labelled(counts):
    labels = [label for label, count in enumerate(counts) for _ in range(count)]
    random.Random(0).shuffle(labels)
    features = Features({"row": Value("int64"), "label": ClassLabel(names=["a", "b"])})
    return Dataset.from_dict({"row": list(range(len(labels))), "label": labels}, features=features)


def test_splits_are_stratified_disjoint_and_repeatable():
    sizes = {"validation": 0.1, "test": 0.1}
    parts = split_rows(labelled([300, 100]), sizes, seed=1, where="t.csv")
    assert {name: len(part) for name, part in parts.items()} == {"train": 320, "validation": 40, "test": 40}
    assert all(sum(part["label"][:]) == len(part) / 4 for part in parts.values())
    rows = [part["row"][:] for part in parts.values()]
    assert all(part == sorted(part) for part in rows)
    assert sorted(row for part in rows for row in part) == list(range(400))
    again = split_rows(labelled([300, 100]), sizes, seed=1, where="t.csv")
    other = split_rows(labelled([300, 100]), sizes, seed=2, where="t.csv")
    assert again["test"]["row"][:] == parts["test"]["row"][:] != other["test"]["row"][:]


@pytest.mark.parametrize("stratified", [True, False])
def test_splits_are_those_of_datasets(stratified):
    table = labelled([300, 100])
    table = table if stratified else table.remove_columns("label")
    both = table.train_test_split(40, stratify_by_column="label" if stratified else None, seed=3)
    again = both["train"].train_test_split(30, stratify_by_column="label" if stratified else None, seed=3)
    parts = split_rows(table, {"validation": 40, "test": 30}, seed=3, where="t.csv")
    assert parts["validation"]["row"][:] == sorted(both["test"]["row"][:])
    assert parts["test"]["row"][:] == sorted(again["test"]["row"][:])
    assert parts["train"]["row"][:] == sorted(again["train"]["row"][:])


def test_a_split_that_is_too_small_is_refused():
    with pytest.raises(UserError, match=r"t\.csv: a validation split of 1 rows cannot be taken from 6 rows"):
        split_rows(labelled([4, 2]), {"validation": 1}, seed=0, where="t.csv")


def test_a_label_with_too_few_rows_is_named():
    with pytest.raises(UserError, match=r"t\.csv: label 'b' has 2 rows, too few to be in each of 3 splits"):
        split_rows(labelled([40, 2]), {"validation": 0.1, "test": 0.1}, seed=0, where="t.csv")


def test_the_content_hash_sees_every_cell(tmp_path):
    table = read_file(write(tmp_path / "t.csv", ROWS))
    again = read_file(write(tmp_path / "same.csv", ROWS))
    other = read_file(write(tmp_path / "other.csv", [*ROWS[:2], {"text": "3.51", "label": "N"}]))
    assert content_hash(table) == content_hash(again) != content_hash(other)


def test_a_text_file_may_begin_with_a_byte_order_mark(tmp_path):
    (tmp_path / "t.txt").write_bytes("\ufeffa good film\n".encode())
    assert read_file(tmp_path / "t.txt")["text"][:] == ["a good film"]


def test_a_cache_that_cannot_be_written_is_told_from_a_bad_file(tmp_path, monkeypatch):
    path = write(tmp_path / "t.csv", ROWS)

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device", "/cache/file")

    monkeypatch.setattr("datasets.builder.DatasetBuilder.download_and_prepare", full)
    with pytest.raises(UserError, match=r"cache of datasets cannot be written .*HF_HOME"):
        read_file(path)
