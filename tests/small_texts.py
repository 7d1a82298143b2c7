"""Small files of texts and the texts to be written for them, in the formats of XSum and WMT16, and tables."""

import csv
import json

ARTICLES = ["the film is not a bad story but it is too like the movie", "a good film", "worst plot ever", "so dull"]
SUMMARIES = ["not bad", "it was good", "the worst of it", "dull"]
COUNTS = {"train": 16, "validation": 5, "test": 6}


def write_xsum(directory):
    for split, count in COUNTS.items():
        rows = [{"document": ARTICLES[n % 4], "summary": SUMMARIES[n % 4], "id": f"{split}{n}"} for n in range(count)]
        (directory / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return directory


def write_translations(directory, test=COUNTS["test"]):
    """A file a split and language, a sentence a line."""
    for split, count in (COUNTS | {"test": test}).items():
        for language, texts in (("en", ARTICLES), ("ro", SUMMARIES)):
            content = "".join(texts[n % 4] + "\n" for n in range(count))
            (directory / f"{split}.{language}").write_text(content, encoding="utf-8")
    return directory


def write_pairs(directory, count=30):
    """One table, of which splits are to be taken."""
    with (directory / "pairs.csv").open("w", newline="", encoding="utf-8") as file:
        rows = [(ARTICLES[n % 4], SUMMARIES[n % 4]) for n in range(count)]
        csv.writer(file).writerows([("source", "target"), *rows])
    return directory / "pairs.csv"
