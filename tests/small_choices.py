"""Small directories in the formats of SWAG and of SuperGLUE's COPA; the right choice is the only good one."""

import csv
import json
import random

SWAG_COLUMNS = "video-id fold-ind startphrase sent1 sent2 gold-source ending0 ending1 ending2 ending3".split()


def _swag_row(number, draw, labelled):
    label = draw.randrange(4)
    endings = [" ".join(draw.choices("dull worst bad".split(), k=draw.randint(1, 4))) for _ in range(4)]
    endings[label] = " ".join(draw.choices("great best warm".split(), k=draw.randint(1, 4)))
    # As published, the first column is an index without a name.
    row = [number, f"film-{number}", number, "the film the plot", "the film, a story", "the plot", "gold", *endings]
    return [*row, label] if labelled else row


def write_swag(directory, train=60, dev=12):
    for seed, (name, count) in enumerate({"train": train, "val": dev, "test": 9}.items()):
        draw = random.Random(seed)
        with (directory / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["", *SWAG_COLUMNS, *(["label"] if name != "test" else [])])
            writer.writerows(_swag_row(number, draw, name != "test") for number in range(count))
    return directory


def write_copa(directory, train=40):
    for seed, (name, count) in enumerate({"train": train, "val": 12, "test": 9}.items()):
        draw, lines = random.Random(seed), []
        for number in range(count):
            label = draw.randrange(2)
            choices = ["the film was great", "the film was dull"]
            row = {"premise": "the plot was good", "choice1": choices[label], "choice2": choices[1 - label]}
            row |= {"question": ("cause", "effect")[number % 2], "idx": number}
            lines.append(json.dumps(row | ({} if name == "test" else {"label": label})))
        (directory / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return directory
