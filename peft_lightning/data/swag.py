"""SWAG: how a described scene goes on, four choices (Zellers et al. 2018, arXiv:1808.05326)."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from datasets import Dataset

from peft_lightning.data.choices import ChoiceDataModule
from peft_lightning.data.files import read_source

ENDINGS = [f"ending{number}" for number in range(4)]


def swag_choices(batch: Mapping[str, list]) -> tuple[list[str], list[list[str]]]:
    """The first sentence, and the beginning of the second with each of its four endings."""
    starts = [(start or "").strip() for start in batch["sent2"]]
    rows = zip(starts, *(batch[name] for name in ENDINGS), strict=True)
    return batch["sent1"], [[f"{start} {ending}".strip() for ending in endings] for start, *endings in rows]


class SWAG(ChoiceDataModule):
    """Which of four endings follows: 73,546 training, 20,006 validation and 20,005 unlabelled test rows; accuracy.

    The first sequence is `sent1`, the second `sent2` with an ending, as in BERT (Devlin et al. 2019, section 4.4).

    Args:
        source: Hub id; or a directory with the publisher's `train.csv`, `val.csv` and `test.csv`, or laid out as on the
            Hub.
        kwargs: Arguments of `ChoiceDataModule`.
    """

    text_columns = ["sent1", *ENDINGS]
    other_columns = ["sent2"]
    choices = ["0", "1", "2", "3"]
    compose = staticmethod(swag_choices)

    def __init__(self, source: str = "allenai/swag", **kwargs: Any):
        super().__init__(source=source, **kwargs)

    @cached_property
    def raw(self) -> dict[str, Dataset]:
        """The publisher's files, or the configuration `regular` of the Hub's copy."""
        return read_source(self.source, self.revision, "regular")
