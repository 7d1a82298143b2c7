"""Every DataModule and task on small files in its publisher's format, with what is known of them beforehand."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import small_glue
from small_choices import write_copa, write_swag
from small_conll import write_conll
from small_files import write_amazon, write_imdb, write_reviews, write_rotten_tomatoes
from small_houlsby17 import WRITERS
from small_squad import write_squad
from small_texts import write_pairs, write_translations, write_xsum


@dataclass(frozen=True)
class Small:
    """A benchmark on small files.

    Args:
        data: Name of the DataModule.
        write: Writes the files into a directory and returns what to give as source.
        on: The architecture and the method of the normal suite.
        sizes: Rows to train on, to choose the checkpoint by, to test on, and to predict.
        kind: What is asked.
        metrics: Names of the metrics beside the loss.
        options: Of the command line.
        labelled: Whether the labels of the rows to predict are known, so that they are those to test on.
        evaluated: Sets that are tested beside the main one -> rows.
        predicted: Sets that are predicted beside the main one -> rows.
    """

    data: str
    write: Callable[[Path], object]
    on: tuple[str, str]
    sizes: tuple[int, int, int, int]
    kind: str = "classification"
    metrics: tuple[str, ...] = ("accuracy", "f1", "matthews")
    options: tuple[str, ...] = ()
    labelled: bool = True
    evaluated: Mapping[str, int] = field(default_factory=dict)
    predicted: Mapping[str, int] = field(default_factory=dict)


HELD_OUT = "--data.validation_size=8"
WINDOWS = ("--data.max_length=24", "--data.doc_stride=5", HELD_OUT)
WRITTEN = (
    *("--data.max_length=12", "--data.max_target_length=6", "--data.max_new_tokens=5"),
    *("--data.min_new_tokens=0", "--data.num_beams=2"),
)
ROUGE = ("rouge1", "rouge2", "rougeL", "rougeLsum")
ANSWERS = ("exact_match", "f1")
ANSWERS_2 = (
    *(f"{questions}{name}" for questions in ("", "has_answer_", "no_answer_", "best_") for name in ANSWERS),
    *(f"best_{name}_threshold" for name in ANSWERS),
)
GLUE_ON = {
    "cola": ("bert", "Houlsby"),
    "sst2": ("roberta", "LoRA"),
    "mrpc": ("electra", "BitFit"),
    "stsb": ("distilbert", "PTuningV2"),
    "qqp": ("deberta-v2", "LoRA"),
    "mnli": ("xlm-roberta", "Pfeiffer"),
    "qnli": ("gpt2", "Houlsby"),
    "rte": ("llama", "LoRA"),
    "wnli": ("bart", "PrefixTuning"),
}
SUPER_GLUE_ON = {"boolq": ("opt", "IA3"), "cb": ("t5", "Houlsby"), "rte": ("mbart", "LoRA"), "wic": ("bert", "MAM")}
# What is left of the rows once those without a label are left out.
HOULSBY17_SIZES = {
    **dict.fromkeys(("disasters", "economic_news_relevance", "us_economic_performance"), (32, 4, 4)),
    **dict.fromkeys(("20newsgroups", "sms_spam"), (32, 4, 4)),
    **dict.fromkeys(("political_audience", "political_bias", "political_message"), (72, 9, 9)),
    "global_warming": (38, 5, 5),
}
ARCHITECTURES = "bert roberta xlm-roberta electra distilbert deberta-v2 gpt2 opt llama bart mbart t5".split()


def _glue(task):
    changes = {
        "stsb": {"kind": "regression", "metrics": ("pearson", "spearman"), "sizes": (16, 8, 8, 1)},
        "mnli": {
            "sizes": (16, 8, 9, 4),
            "evaluated": {"mismatched": 6},
            "predicted": {"mismatched": 4, "ax": 5},
        },
    }.get(task, {"sizes": (16, 8, 8, 3)})
    options = (f"--data.task={task}", HELD_OUT)
    write = getattr(small_glue, f"write_{task}")
    return Small("GLUE", write, GLUE_ON[task], options=options, labelled=False, **changes)


def _super_glue(task):
    options = (f"--data.task={task}", HELD_OUT)
    write = partial(small_glue.write_super_glue, task=task)
    return Small("SuperGLUE", write, SUPER_GLUE_ON[task], (22, 8, 6, 4), options=options, labelled=False)


def _houlsby17(number, task):
    train, validation, test = HOULSBY17_SIZES.get(task, (48, 6, 6))
    on = (ARCHITECTURES[number % len(ARCHITECTURES)], "LoRA")
    return Small("Houlsby17", WRITERS[task], on, (train, validation, test, test), options=(f"--data.task={task}",))


def _choices(data, write, on, train):
    return Small(data, write, on, (train, 8, 12, 9), "multiple_choice", ("accuracy",), (HELD_OUT,), labelled=False)


def _squad(version, on, metrics):
    options = (f"--data.version={version}", *WINDOWS)
    return Small(
        "SQuAD", partial(write_squad, version=version), on, (16, 8, 9, 9), "question_answering", metrics, options
    )


def _written(data, write, on, metrics, sizes=(16, 5, 6, 6)):
    return Small(data, write, on, sizes, "sequence_to_sequence", metrics, WRITTEN)


SMALL = {
    "amazon_polarity": Small(
        "AmazonPolarity", write_amazon, ("roberta", "Houlsby"), (32, 8, 6, 6), options=(HELD_OUT,)
    ),
    "rotten_tomatoes": Small("RottenTomatoes", write_rotten_tomatoes, ("llama", "Houlsby"), (24, 8, 6, 6)),
    "imdb": Small("IMDB", write_imdb, ("t5", "ParallelAdapter"), (12, 8, 20, 20), options=(HELD_OUT,)),
    **{f"glue-{task}": _glue(task) for task in GLUE_ON},
    **{f"super_glue-{task}": _super_glue(task) for task in SUPER_GLUE_ON},
    "copa": _choices("COPA", write_copa, ("distilbert", "PTuningV2"), 32),
    "swag": _choices("SWAG", write_swag, ("electra", "PTuning"), 52),
    "squad-1.1": _squad("1.1", ("roberta", "Houlsby"), ANSWERS),
    "squad-2.0": _squad("2.0", ("gpt2", "LoReFT"), ANSWERS_2),
    "conll": Small(
        *("CoNLL", write_conll, ("deberta-v2", "LoRA"), (48, 11, 9, 9)),
        *("token_classification", ("precision", "recall", "f1")),
        options=("--data.max_length=24",),
    ),
    **{f"houlsby17-{task}": _houlsby17(number, task) for number, task in enumerate(WRITERS)},
    "xsum": _written("XSum", write_xsum, ("bart", "PrefixTuning"), ROUGE),
    "wmt16": _written("WMT16", write_translations, ("mbart", "Houlsby"), ("bleu", "chrf", "bleu_no_diacritics")),
    "text_classification": Small(
        "TextClassification", lambda path: write_reviews(path / "reviews.csv", 60), ("opt", "LoRA"), (48, 6, 6, 6)
    ),
    "text_to_text": _written("TextToText", write_pairs, ("t5", "LoRA"), (*ROUGE, "bleu", "chrf"), (24, 3, 3, 3)),
}
