"""Small directories in the formats of GLUE's and SuperGLUE's own downloads; labels follow from the words."""

import json

GOOD, BAD = 'a "good film', "the worst plot"
ENTAILMENT = ("not_entailment", "entailment")


def lines(path, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join("\t".join(map(str, row)) + "\n" for row in rows), encoding="utf-8")


def write_cola(root, train=24, dev=8, test=3):
    """Without header but in the test file, and quotes are characters."""
    for split, count in (("train", train), ("dev", dev)):
        lines(root / "CoLA" / f"{split}.tsv", *[("gj04", i % 2, "*", (BAD, GOOD)[i % 2]) for i in range(count)])
    lines(root / "CoLA" / "test.tsv", ("index", "sentence"), *[(i, (GOOD, BAD)[i % 2]) for i in range(test)])
    return root


def write_sst2(root, train=24, dev=8, test=3):
    for split, count in (("train", train), ("dev", dev)):
        rows = [(f"{(BAD, GOOD)[i % 2]} ", i % 2) for i in range(count)]
        lines(root / "SST-2" / f"{split}.tsv", ("sentence", "label"), *rows)
    lines(root / "SST-2" / "test.tsv", ("index", "sentence"), *[(i, (GOOD, BAD)[i % 2]) for i in range(test)])
    return root


def write_mrpc(root, train=24, dev=8, test=3):
    header = ("\ufeffQuality", "#1 ID", "#2 ID", "#1 String", "#2 String")
    for split, count in (("train", train), ("dev", dev)):
        rows = [(i % 2, 100 + i, 200 + i, GOOD, (BAD, GOOD)[i % 2]) for i in range(count)]
        lines(root / "MRPC" / f"{split}.tsv", header, *rows)
    rows = [(i, 100 + i, 200 + i, GOOD, BAD) for i in range(test)]
    lines(root / "MRPC" / "test.tsv", ("index", *header[1:]), *rows)
    return root


def write_stsb(root, train=24, dev=8, test=1):
    header = ("index", "genre", "filename", "year", "old_index", "source1", "source2", "sentence1", "sentence2")
    for split, count in (("train", train), ("dev", dev)):
        rows = [
            (i, "g", "f", "2012", i, "a", "b", GOOD, (BAD, GOOD)[i % 2], f"{5.0 * (i % 2):.3f}") for i in range(count)
        ]
        lines(root / "STS-B" / f"{split}.tsv", (*header, "score"), *rows)
    rows = [(i, "g", "f", "2012", i, "a", "b", GOOD, BAD) for i in range(test)]
    lines(root / "STS-B" / "test.tsv", header, *rows)
    return root


def write_qqp(root, train=24, dev=8, test=3):
    header = ("id", "qid1", "qid2", "question1", "question2", "is_duplicate")
    for split, count in (("train", train), ("dev", dev)):
        rows = [(i, 2 * i, 2 * i + 1, f"{GOOD}?", f"{(BAD, GOOD)[i % 2]}?", i % 2) for i in range(count)]
        lines(root / "QQP" / f"{split}.tsv", header, *rows)
    rows = [(i, f"{GOOD}?", f"{BAD}?") for i in range(test)]
    lines(root / "QQP" / "test.tsv", ("id", "question1", "question2"), *rows)
    return root


def write_mnli(root, train=24, dev=9, test=4):
    header, words = ("index", "promptID", "sentence1", "sentence2"), ("entailment", "neutral", "contradiction")
    for split, count in (("train", train), ("dev_matched", dev), ("dev_mismatched", 6)):
        rows = [(i, i, GOOD, f"{BAD} {i}", "x", words[i % 3]) for i in range(count)]
        lines(root / "MNLI" / f"{split}.tsv", (*header, "label1", "gold_label"), *rows)
    for split in ("test_matched", "test_mismatched"):
        lines(root / "MNLI" / f"{split}.tsv", header, *[(i, i, GOOD, BAD) for i in range(test)])
    rows = [(i, GOOD, BAD) for i in range(5)]
    lines(root / "diagnostic" / "diagnostic.tsv", ("index", "sentence1", "sentence2"), *rows)
    return root


def _write_entailment(folder, columns, labels=ENTAILMENT):
    """Of QNLI, RTE and WNLI, which differ in the names of columns and labels alone."""

    def write(root, train=24, dev=8, test=3):
        for split, count in (("train", train), ("dev", dev)):
            rows = [(i, GOOD, (BAD, GOOD)[i % 2], labels[i % 2]) for i in range(count)]
            lines(root / folder / f"{split}.tsv", ("index", *columns, "label"), *rows)
        lines(root / folder / "test.tsv", ("index", *columns), *[(i, GOOD, BAD) for i in range(test)])
        return root

    return write


write_qnli = _write_entailment("QNLI", ("question", "sentence"))
write_rte = _write_entailment("RTE", ("sentence1", "sentence2"))
write_wnli = _write_entailment("WNLI", ("sentence1", "sentence2"), ("0", "1"))

SUPER_GLUE = {
    "boolq": ("BoolQ", lambda n: {"question": f"is film {n} good", "passage": f"the plot, {n}", "label": n % 2 == 1}),
    "cb": (
        "CB",
        lambda n: {
            "premise": f"the plot {n}",
            "hypothesis": "a film",
            "label": ("neutral", "entailment", "contradiction")[n % 3],
        },
    ),
    "rte": ("RTE", lambda n: {"premise": f"the plot {n}", "hypothesis": "a film", "label": ENTAILMENT[n % 2]}),
    "wic": (
        "WiC",
        lambda n: {
            "word": "plot",
            "sentence1": f"the plot {n}",
            "sentence2": "a plot of story",
            "start1": 4,
            "end1": 8,
            "start2": 2,
            "end2": 6,
            "version": 1.1,
            "label": n % 2 == 1,
        },
    ),
}


def write_super_glue(root, task, train=30, dev=6, test=4):
    folder, row = SUPER_GLUE[task]
    (root / folder).mkdir(parents=True)
    for split, count in (("train", train), ("val", dev), ("test", test)):
        rows = [row(n) | {"idx": 100 + n} for n in range(count)]
        for unlabelled in rows if split == "test" else []:
            del unlabelled["label"]
        content = "".join(json.dumps(row) + "\n" for row in rows)
        (root / folder / f"{split}.jsonl").write_text(content, encoding="utf-8")
    return root
