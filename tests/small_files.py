"""Small files for tests, in the formats that users have."""

import csv
import random

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
