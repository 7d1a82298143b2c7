"""Entities against conlleval's rules and seqeval's counts; loss, padding and words that are cut."""

import random
from itertools import product
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from peft_lightning import methods
from peft_lightning.backbone import load_tokenizer
from peft_lightning.data.words import encode_words, padded_words
from peft_lightning.errors import UserError
from peft_lightning.tasks import build_task
from peft_lightning.tasks.chunks import ChunkScore, as_bio, chunks

LABELS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
TASK = {"type": "token_classification", "labels": LABELS, "max_length": 24}

# What conlleval counts as chunks, by its rules for the ends of chunks; BIO of the same beside it.
CASES = {
    "": (set(), ""),
    "O O": (set(), "O O"),
    "B-PER I-PER O": ({("PER", 0, 1)}, "B-PER I-PER O"),
    "O I-PER I-PER": ({("PER", 1, 2)}, "O B-PER I-PER"),
    "I-PER B-PER": ({("PER", 0, 0), ("PER", 1, 1)}, "B-PER B-PER"),
    "B-PER B-PER I-PER": ({("PER", 0, 0), ("PER", 1, 2)}, "B-PER B-PER I-PER"),
    "I-PER I-LOC I-LOC": ({("PER", 0, 0), ("LOC", 1, 2)}, "B-PER B-LOC I-LOC"),
    "B-PER I-LOC I-PER": ({("PER", 0, 0), ("LOC", 1, 1), ("PER", 2, 2)}, "B-PER B-LOC B-PER"),
    "B-A-1 I-A-1 I-A": ({("A-1", 0, 1), ("A", 2, 2)}, "B-A-1 I-A-1 B-A"),
}


@pytest.mark.parametrize("tags", CASES)
def test_chunks_are_those_of_conlleval(tags):
    expected, bio = CASES[tags]
    assert chunks(tags.split()) == expected
    assert as_bio(tags.split()) == bio.split()
    assert chunks(bio.split()) == expected


def test_scores_are_those_of_seqeval():
    """The three scores were computed with seqeval 1.2.2 on these sequences."""

    def sequences(seed):
        draw = random.Random(seed)
        tags = ["O", "O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-X-Y", "I-X-Y"]
        return [[draw.choice(tags) for _ in range(1 + number % 12)] for number in range(300)]

    true, guessed = sequences(1), sequences(2)
    predicted = [
        [p if place % 3 else t for place, (p, t) in enumerate(zip(*pair, strict=True))]
        for pair in zip(guessed, true, strict=True)
    ]
    # Two devices count a part each, and the counts are added up.
    for score, expected in {
        "precision": 0.43343419062027233,
        "recall": 0.4298574643660915,
        "f1": 0.431638418079096,
    }.items():
        parts = [ChunkScore(score) for _ in range(2)]
        for number, (ours, theirs) in enumerate(zip(predicted, true, strict=True)):
            found, wanted = chunks(ours), chunks(theirs)
            parts[number % 2].update(len(found & wanted), len(found), len(wanted))
        whole = ChunkScore(score)
        whole.update(*(sum(int(getattr(part, name)) for part in parts) for name in ("right", "predicted", "true")))
        assert whole.compute().item() == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("counts", [(0, 0, 0), (0, 3, 0), (0, 0, 3)])
def test_scores_without_entities_are_zero(counts):
    for score in ("precision", "recall", "f1"):
        metric = ChunkScore(score)
        metric.update(*counts)
        assert metric.compute() == 0


def batch_of(words, tags=None):
    return {"words": torch.tensor(words), "tags": torch.tensor(tags if tags else [[0] * len(row) for row in words])}


def test_words_that_are_cut_count_as_outside_and_are_no_part_of_the_loss():
    task = build_task(TASK)
    # Of three words the second begins at token 3 and the third was cut; the other sentence has one word.
    batch = batch_of([[1, 3, -1], [2, -100, -100]], [[1, 2, 3], [3, -100, -100]])
    logits = torch.randn(2, 5, 5)
    logits[0, 1, 1] = logits[0, 3, 2] = logits[1, 2, 3] = 9
    output = SimpleNamespace(logits=logits)
    labels = torch.full((2, 5), -100)
    labels[0, 1], labels[0, 3], labels[1, 2] = 1, 2, 3
    assert task.loss(output, batch).item() == pytest.approx(F.cross_entropy(logits.mT, labels).item())
    assert task.weight(batch) == 3
    assert task.decode(output, batch) == [{"tags": ["B-PER", "I-PER", "O"]}, {"tags": ["B-LOC"]}]
    metrics = task.metrics()
    task.update(metrics, output, batch)
    # Two entities are found and right; there are three, of which one lay behind the cut.
    expected = {"precision": 1.0, "recall": 2 / 3, "f1": 0.8}
    assert {name: value.item() for name, value in metrics.compute().items()} == pytest.approx(expected)


def test_a_batch_without_a_word_has_no_loss():
    task = build_task(TASK)
    output = SimpleNamespace(logits=torch.randn(1, 3, 5, requires_grad=True))
    loss = task.loss(output, batch_of([[-1, -1]]))
    loss.backward()
    assert loss.item() == 0


SENTENCES = [["the", "film", "was", "U.N.-great", "!"], ["a", "very", "dull.", "story"], ["heart"]]


MODELS = ("Houlsby", "PromptTuning", "PTuning", "PTuningV2", "LoReFT")
MODEL_TYPES = ("bert", "roberta", "distilbert", "deberta-v2", "electra", "gpt2", "llama")
# DeBERTa takes no prefixes, and says so: tests/methods/test_conformance.py.
PAIRS = [pair for pair in product(MODEL_TYPES, MODELS) if pair != ("deberta-v2", "PTuningV2")]


@pytest.mark.parametrize(("model_type", "model"), PAIRS)
def test_padding_and_other_sentences_change_nothing(tiny, model_type, model):
    options = {"LoReFT": {"last_positions": 1}, "PTuning": {"template": [2, 2, 1]}}.get(model, {})
    options |= {"prompt_length": 5} if model in ("PromptTuning", "PTuning", "PTuningV2") else {}
    if (model_type, model) == ("llama", "PTuningV2"):
        options["shift_positions"] = False
    torch.manual_seed(0)
    method = getattr(methods, model)(task=TASK, backbone=str(tiny(model_type)), **options).eval()
    with torch.no_grad():
        for parameter in method.parameters():
            if parameter.requires_grad:
                parameter.normal_(0, 0.3)
    tokenizer = load_tokenizer(str(tiny(model_type)))
    columns = encode_words({"tokens": SENTENCES}, tokenizer, 24)
    rows = [{name: column[row] for name, column in columns.items() if name != "length"} for row in range(3)]
    rows = [{**row, "tags": [0] * len(row["words"])} for row in rows]
    batch = padded_words(rows, tokenizer)
    assert batch["words"].tolist()[2] == [rows[2]["words"][0], -100, -100, -100, -100]
    with torch.no_grad():
        together = method(batch).logits
        assert together.shape == (*batch["input_ids"].shape, 5)
        for number, row in enumerate(rows):
            alone = method(padded_words([row], tokenizer)).logits[0]
            assert torch.allclose(alone, together[number, : len(alone)], atol=1e-4)


def test_the_first_token_of_each_word_is_found(tiny):
    tokenizer = load_tokenizer(str(tiny()))
    columns = encode_words({"tokens": [["the", "U.N.-great", "\u200b", "film"]]}, tokenizer, 24)
    tokens = tokenizer.convert_ids_to_tokens(columns["input_ids"][0])
    at = columns["words"][0]
    assert [at[0], at[1], at[3]] == [1, 2, len(tokens) - 2]
    cut = encode_words({"tokens": [["the", "U.N.-great", "film", "film"]]}, tokenizer, 4)
    assert (cut["words"], cut["length"]) == ([[1, 2, -1, -1]], [4])


def test_the_pipeline_finds_entities_and_cuts(tiny):
    method = methods.LinearProbe(task=TASK | {"max_length": 5}, backbone=str(tiny()))
    with torch.no_grad():
        method.backbone.model.classifier.bias.copy_(torch.tensor([0.0, 0.0, 99.0, 0.0, 0.0]))
    # What a word is transformers knows of WordPiece only; elsewhere it goes by blanks, and says so.
    with pytest.warns(UserWarning, match="does not support real words"):
        [entity] = method.pipeline()("the film was great fun")
    assert (entity["entity_group"], entity["word"]) == ("PER", "the film was")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"labels": ["B-PER", "I-PER"]}, "give O and tags"),
        ({"labels": ["O", "PER"]}, "of the form B-TYPE and I-TYPE"),
        ({"labels": ["O", "B-PER", "B-PER"]}, "each once"),
        ({"monitor": "accuracy"}, "monitor is 'accuracy'"),
    ],
)
def test_a_wrong_description_is_named(options, words):
    with pytest.raises(UserError, match=words):
        build_task(TASK | options)
