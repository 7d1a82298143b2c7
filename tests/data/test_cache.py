"""Tokens are made once and found again, and never those of other content, options, tokenizers or code."""

import csv
import importlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from datasets import Dataset, disable_caching, enable_caching
from small_files import write_reviews
from small_squad import write_squad
from transformers import MBartTokenizer

from peft_lightning import data as benchmarks
from peft_lightning.data.cache import cached_map
from peft_lightning.testing import save_tiny_backbone

SENTENCES = ["the film is good", "a dull plot", "it was fun and so warm", "not the best movie ever"]


def write_pairs(directory):
    rows = [{"source": text, "target": SENTENCES[-1 - n], "other": text[::-1]} for n, text in enumerate(SENTENCES)]
    for split in ("train", "validation", "test"):
        (directory / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_columns(directory):
    blocks = (
        "\n".join(f"{word} {tag}" for word, tag in (("good", "B-X"), (text, "O"))) for text in SENTENCES[0].split()
    )
    content = "\n\n".join(blocks) + "\n"
    for name in ("train.txt", "valid.txt", "test.txt"):
        (directory / name).write_text(content, encoding="utf-8")


def write_endings(directory):
    names = ["sent1", "sent2", "ending0", "ending1", "ending2", "ending3", "label"]
    for name in ("train", "val", "test"):
        with (directory / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(
                [names, *([text, "the film", *SENTENCES, n] for n, text in enumerate(SENTENCES))]
            )


def write_texts(directory):
    for split in ("train", "validation", "test"):
        write_reviews(directory / f"{split}.csv", 12)


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """DataModule -> a directory in its format."""
    writers = {
        "TextClassification": write_texts,
        "SQuAD": write_squad,
        "CoNLL": write_columns,
        "SWAG": write_endings,
        "TextToText": write_pairs,
    }
    found = {}
    for name, write in writers.items():
        found[name] = tmp_path_factory.mktemp(name)
        write(found[name])
    return found


@pytest.fixture(scope="module")
def backbone(tiny, tmp_path_factory):
    """A tiny backbone by its type; that of mBART has a tokenizer that knows languages."""

    def directory(model_type):
        return str(mbart if model_type == "mbart" else tiny(model_type))

    letters = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), ("▁a", -1.0), ("b", -1.0)]
    mbart = tmp_path_factory.mktemp("mbart")
    tokenizer = MBartTokenizer(vocab=letters)
    save_tiny_backbone("mbart", mbart, vocab_size=len(tokenizer), pad_token_id=1)
    for path in mbart.glob("*token*"):
        path.unlink()
    tokenizer.save_pretrained(mbart)
    return directory


@pytest.fixture
def module(sources, backbone):
    """`module("SQuAD", max_length=16)` is the DataModule with these options in place of small ones."""

    def made(name, model_type="bert", **options):
        small = {"SQuAD": {"max_length": 24, "doc_stride": 5}}.get(name, {"max_length": 16})
        source = {"source": str(sources[name]), "backbone": backbone(model_type)}
        return getattr(benchmarks, name)(**source | small | options)

    return made


MBART = {"model_type": "mbart", "source_language": "en_XX", "target_language": "ro_RO"}
CHANGES = [
    ("TextClassification", {}, {"max_length": 4}),
    ("TextClassification", {}, {"model_type": "roberta"}),
    ("TextClassification", {}, {"labels": ["good", "bad"]}),
    ("TextClassification", {}, {"text_pair_column": "label"}),
    ("TextClassification", {"train_size": 6}, {"train_size": 8}),
    ("TextClassification", {"train_size": 6}, {"train_size": 6, "split_seed": 1}),
    ("SQuAD", {}, {"max_length": 20}),
    ("SQuAD", {}, {"doc_stride": 4}),
    ("SQuAD", {}, {"max_query_length": 2}),
    ("SQuAD", {}, {"model_type": "roberta"}),
    ("CoNLL", {}, {"max_length": 3}),
    ("CoNLL", {}, {"labels": ["B-X", "I-X", "O"]}),
    ("CoNLL", {}, {"model_type": "roberta"}),
    ("SWAG", {}, {"max_length": 6}),
    ("SWAG", {}, {"model_type": "roberta"}),
    ("TextToText", {}, {"max_length": 4}),
    ("TextToText", {}, {"max_target_length": 3}),
    ("TextToText", {}, {"source_prefix": "a film "}),
    ("TextToText", {}, {"source_column": "target"}),
    ("TextToText", {}, {"target_column": "source"}),
    ("TextToText", {}, {"model_type": "t5"}),
    ("TextToText", MBART, MBART | {"source_language": "de_DE"}),
    ("TextToText", MBART, MBART | {"target_language": "de_DE"}),
]


@pytest.mark.filterwarnings("ignore:.*have no token of their own")
@pytest.mark.parametrize(("name", "base", "change"), CHANGES)
def test_a_changed_option_never_reads_what_another_made(module, name, base, change):
    """What is found beside the cached tokens of the first options is what comes out without any cache."""
    first = module(name, **base).encoded("train").to_list()
    second = module(name, **change).encoded("train").to_list()
    disable_caching()
    try:
        computed = module(name, **change).encoded("train").to_list()
    finally:
        enable_caching()
    assert second == computed != first


def test_a_changed_tokenizer_in_the_same_directory_is_another_one(tiny, sources, tmp_path):
    backbone = shutil.copytree(tiny(), tmp_path / "bert")

    def tokens():
        return benchmarks.TextClassification(str(sources["TextClassification"]), backbone=str(backbone)).encoded(
            "train"
        )

    before = tokens()["input_ids"][:]
    file = backbone / "tokenizer.json"
    content = json.loads(file.read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary["film"], vocabulary["good"] = vocabulary["good"], vocabulary["film"]
    state = file.stat()
    file.write_text(json.dumps(content))
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
    swap = {vocabulary["film"]: vocabulary["good"], vocabulary["good"]: vocabulary["film"]}
    assert tokens()["input_ids"][:] == [[swap.get(token, token) for token in row] for row in before] != before


CHILD = """
import json, sys
from lightning.pytorch import Trainer
from logged_maps import log_maps
from peft_lightning import data

log_maps(sys.argv[1])
tokens = []
for name, options in json.loads(sys.argv[2]):
    module = getattr(data, name)(**options)
    module.trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    tokens.append([module.encoded(split).to_list() for split in ("validation", "train")])
print(json.dumps(tokens))
"""


def test_another_process_computes_nothing_again(sources, backbone, tmp_path):
    """It takes the splits in another order, and its DataModules have a trainer; a last one has another option."""
    kinds = [*((name, "bert", {}) for name in sources), ("TextToText", "mbart", {k: MBART[k] for k in list(MBART)[1:]})]
    kinds += [("CoNLL", "roberta", {}), ("TextClassification", "gpt2", {"train_size": 6})]
    specs = [(n, {"source": str(sources[n]), "backbone": backbone(m), **more}) for n, m, more in kinds]
    made = []
    for name, options in specs:
        module = getattr(benchmarks, name)(**options)
        assert module.task_description
        module.prepare_data()
        made.append([module.encoded(split).to_list() for split in ("validation", "train")])
    log = tmp_path / "maps"
    specs.append(("SWAG", {**specs[3][1], "max_length": 7}))
    tests = Path(__file__).parents[1]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tests), str(tests.parent)])}
    command = [sys.executable, "-c", CHILD, str(log), json.dumps(specs)]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=300)
    assert json.loads(done.stdout)[:-1] == made
    assert log.read_text().splitlines() == ["0 _encode_batch", "0 _encode_batch"]


def keep_time(path, change):
    """Changes a file in place, as a copy would that keeps the time of what it copies."""
    state = path.stat()
    path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


@pytest.mark.parametrize(
    ("name", "file", "column"),
    [
        ("TextClassification", "train.csv", "text"),
        ("SQuAD", "train-v1.1.json", "context"),
        ("CoNLL", "train.txt", "tokens"),
        ("SWAG", "train.csv", "text"),
        ("TextToText", "train.jsonl", "text"),
        ("IMDB", "train/pos/1.txt", "text"),
        ("Houlsby17", "SMSSpamCollection", "text"),
    ],
)
def test_changed_content_of_the_same_size_and_time_is_read_again(sources, backbone, tmp_path, name, file, column):
    if name in sources:
        source = shutil.copytree(sources[name], tmp_path / name)
    else:
        source = tmp_path / name
        for split in ("train", "test"):
            for label in ("pos", "neg"):
                (source / split / label).mkdir(parents=True)
                (source / split / label / "1.txt").write_text({"pos": "good", "neg": "dull"}[label], encoding="utf-8")
        rows = [f"{label}\tgood film\n" for label in ("ham", "spam") for _ in range(10)]
        (source / "SMSSpamCollection").write_text("".join(rows), encoding="utf-8")
    options = {"task": "sms_spam"} if name == "Houlsby17" else {}

    def read():
        module = getattr(benchmarks, name)(source=str(source), backbone=backbone("bert"), **options)
        return str(module.check("train")[column][:])

    before = read()
    assert "good" in before
    assert "zzzz" not in before
    keep_time(source / file, lambda content: content.replace("good", "zzzz"))
    assert read() == before.replace("good", "zzzz")


def test_changed_content_of_a_directory_laid_out_as_on_the_hub_is_read_again(tmp_path, backbone):
    file = tmp_path / "data" / "train-00000.parquet"
    file.parent.mkdir()

    def texts(word):
        Dataset.from_dict({"text": [word] * 4, "label": ["a", "b"] * 2}).to_parquet(file)
        os.utime(file, ns=(10**18, 10**18))
        module = benchmarks.TextClassification(str(tmp_path), backbone=backbone("bert"))
        return set(module.check("train")["text"][:])

    assert texts("good") == {"good"}
    assert texts("dull") == {"dull"}


MINE = """
from peft_lightning.data import TextClassification
from peft_lightning.data.cache import cached_map

class Mine(TextClassification):
    def encode(self, table, split):
        return cached_map(table, encode_mine, remove_columns=table.column_names)

def encode_mine(batch):
    return {"length": [len(text.split()) FORMULA for text in batch["text"]]}
"""


def test_changed_code_is_run_again(sources, backbone, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.delitem(sys.modules, "mine", raising=False)

    def lengths(formula):
        (tmp_path / "mine.py").write_text(MINE.replace("FORMULA", formula), encoding="utf-8")
        sys.modules.pop("mine", None)
        importlib.invalidate_caches()
        mine = importlib.import_module("mine").Mine
        return mine(str(sources["TextClassification"]), backbone=backbone("bert")).encoded("train")["length"][:]

    once = lengths("")
    assert lengths("* 2") == [2 * length for length in once]


CALLS = []


def slow(batch):
    CALLS.append(len(batch["number"]))
    time.sleep(0.3)
    return {"double": [2 * number for number in batch["number"]]}


def test_who_comes_second_waits_and_finds_the_result(tmp_path):
    Dataset.from_dict({"number": [1, 2, 3]}).save_to_disk(tmp_path)
    found = []

    def run():
        found.append(cached_map(Dataset.load_from_disk(tmp_path), slow)["double"][:])

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[2, 4, 6]] * 3
    assert CALLS == [3]
