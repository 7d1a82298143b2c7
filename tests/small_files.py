"""Small files for tests, in the formats that users have."""

import csv
import random

from datasets import ClassLabel, Dataset, Features, Value

OPINIONS = {"bad": ["dull", "worst", "little", "bad"], "good": ["great", "best", "warm", "good"]}


def write_reviews(path, count, seed=0):
    """A CSV file whose labels follow from the words."""
    draw = random.Random(seed)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for number in range(count):
            label = ("bad", "good")[number % 2]
            words = draw.choices(["a", "film", "story", "the", "it", "is", "plot"], k=draw.randint(1, 4))
            words += draw.choices(OPINIONS[label], k=draw.randint(2, 4))
            draw.shuffle(words)
            writer.writerow([" ".join(words), label])
    return path


def rows_of(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write_amazon(directory, train=40):
    """Without header: label 1 or 2, title, content; all in quotes."""
    for split, count in (("train", train), ("test", 6)):
        with (directory / f"{split}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, quoting=csv.QUOTE_ALL)
            writer.writerows([1 + i % 2, f"title {i}", f'{split} content {i}, "quoted"'] for i in range(count))
    return directory


def write_imdb(directory, each=10):
    """A text file a review, in a folder a label; some reviews have none."""
    for split in ("train", "test"):
        for label in ("neg", "pos"):
            (directory / split / label).mkdir(parents=True)
            for number in range(each):
                text = f"{split} film, {label} {number}<br />caf\u00e9"
                (directory / split / label / f"{number}_{number % 10}.txt").write_text(text, encoding="utf-8")
        (directory / split / "urls_pos.txt").write_text("http://www.imdb.com\n")
    (directory / "train" / "unsup").mkdir()
    (directory / "train" / "unsup" / "0_0.txt").write_text("no label")
    return directory


def write_rotten_tomatoes(directory):
    """As on the Hub: Parquet files with numbers that have names."""
    features = Features({"text": Value("string"), "label": ClassLabel(names=["neg", "pos"])})
    for split, count in (("train", 24), ("validation", 8), ("test", 6)):
        rows = {"text": [f"{split} film {i}" for i in range(count)], "label": [i % 2 for i in range(count)]}
        Dataset.from_dict(rows, features=features).to_parquet(directory / f"{split}.parquet")
    return directory
