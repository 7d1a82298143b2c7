"""Small files in SQuAD's own format, of words that the tiny tokenizers know."""

import json
import random

from peft_lightning.testing.tiny import WORDS


def article(context, *questions):
    """One article of one paragraph; a question is (id, text, answers), and an answer (text, start)."""
    qas = [
        {"id": name, "question": text, "answers": [{"text": t, "answer_start": s} for t, s in answers]}
        for name, text, answers in questions
    ]
    return {"title": "Films", "paragraphs": [{"context": context, "qas": qas}]}


def write(path, articles, version="1.1"):
    path.write_text(json.dumps({"version": version, "data": articles}), encoding="utf-8")
    return path


def write_squad(directory, version="1.1", train=24, dev=9):
    """Both files; in version 2.0 every third question has no answer. Returns the directory as text."""
    draw = random.Random(0)
    for name, count in (("train", train), ("dev", dev)):
        articles = []
        for number in range(count):
            words = draw.choices(WORDS, k=(6, 20, 50)[number % 3])
            # The evaluators disagree about a gold answer of articles alone, of which they leave nothing.
            first = draw.choice([place for place in range(len(words) - 2) if words[place] not in ("a", "an", "the")])
            start = len(" ".join([*words[:first], ""]))
            gold = [(" ".join(words[first : first + 2]), start), (words[first], start)]
            answers = [] if version == "2.0" and number % 3 == 0 else gold
            articles.append(article(" ".join(words), (f"{name}-{number}", "is it the " + words[0], answers)))
        write(directory / f"{name}-v{version}.json", articles, version)
    return str(directory)
