"""IMDB from the publisher's folders and as the Hub has it."""

import pytest
from datasets import ClassLabel, Dataset, Features, Value
from small_files import write_imdb

from peft_lightning.data import IMDB
from peft_lightning.errors import UserError


def test_the_publishers_folders(tmp_path):
    data = IMDB(source=str(write_imdb(tmp_path)), validation_size=4)
    tables = {split: data.table(split).to_list() for split in ("train", "validation", "test")}
    assert {split: len(table) for split, table in tables.items()} == {"train": 16, "validation": 4, "test": 20}
    assert tables["test"][0] == {"row": 1, "text": "test film, neg 0<br />café", "label": 0}
    assert tables["test"][19]["label"] == 1
    assert sum(row["label"] for row in tables["validation"]) == 2
    assert {row["row"] for split in ("train", "validation") for row in tables[split]} == set(range(1, 21))
    assert (data.max_length, data.task_description["labels"]) == (512, ["neg", "pos"])


def test_laid_out_as_on_the_hub(tmp_path):
    features = Features({"text": Value("string"), "label": ClassLabel(names=["neg", "pos"])})
    (tmp_path / "plain_text").mkdir()
    for split, labels in (("train", [0, 1] * 5), ("test", [0, 1]), ("unsupervised", [-1])):
        rows = {"text": [f"{split} film"] * len(labels), "label": labels}
        path = tmp_path / "plain_text" / f"{split}-00000-of-00001.parquet"
        Dataset.from_dict(rows, features=features).to_parquet(path)
    (tmp_path / "README.md").write_text(
        "---\nconfigs:\n- config_name: plain_text\n  data_files:\n"
        + "".join(f"  - split: {s}\n    path: plain_text/{s}-*\n" for s in ("train", "test", "unsupervised"))
        + "---\n"
    )
    data = IMDB(source=str(tmp_path), validation_size=2)
    assert [len(data.table(split)) for split in ("train", "validation", "test")] == [8, 2, 2]
    assert "unsupervised" not in data.raw


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"\n", r"train/pos/3_3\.txt \(row 14\) is empty"), (b"caf\xe9", r"train/pos/3_3\.txt \(row 14\) is not utf-8")],
)
def test_a_wrong_file_is_named(tmp_path, content, message):
    (write_imdb(tmp_path) / "train" / "pos" / "3_3.txt").write_bytes(content)
    with pytest.raises(UserError, match=message):
        IMDB(source=str(tmp_path), validation_size=4).table("train")


def test_a_missing_folder_is_named(tmp_path):
    (write_imdb(tmp_path) / "test" / "pos").rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"Folder .*test/pos does not exist or has no files"):
        IMDB(source=str(tmp_path), validation_size=4).table("train")


def test_a_missing_column_is_named(tmp_path):
    Dataset.from_dict({"review": ["a film"], "label": [0]}).to_parquet(tmp_path / "train.parquet")
    with pytest.raises(UserError, match=r"\(train\) has no column 'text'; its columns are review, label; give the dir"):
        IMDB(source=str(tmp_path)).table("train")


def test_impossible_sizes_are_refused():
    with pytest.raises(UserError, match="validation_size is 0"):
        IMDB(validation_size=0)
