"""Small files in the format of CoNLL-2003: words whose tags follow from them."""

import random


def sentence(draw):
    """Words with tags in BIO."""
    words = []
    for _ in range(draw.randint(2, 5)):
        kind = draw.choice(["O", "O", "PER", "LOC"])
        found = draw.choices(
            {"O": ["the", "a", "is", "was"], "PER": ["good", "best"], "LOC": ["plot", "film"]}[kind], k=2
        )
        words += [(word, "O" if kind == "O" else f"{'BI'[at]}-{kind}") for at, word in enumerate(found)]
    return words


def as_iob1(words):
    """B- only where an entity touches one of its type."""
    tags = ["O", *(tag for _, tag in words)]
    return [
        (word, f"I-{tag[2:]}" if tag[0] == "B" and before[1:] != tag[1:] else tag)
        for before, (word, tag) in zip(tags, words, strict=False)
    ]


def write_conll(directory, names=("train.txt", "valid.txt", "test.txt"), scheme=list, train=48, draw_from=sentence):
    for seed, (name, count) in enumerate(zip(names, (train, 11, 9), strict=True)):
        draw = random.Random(seed)
        blocks = ["-DOCSTART- -X- O O\n"]
        blocks += ["".join(f"{word} NN I-NP {tag}\n" for word, tag in scheme(draw_from(draw))) for _ in range(count)]
        (directory / name).write_text("\n".join(blocks), encoding="utf-8")
    return directory
