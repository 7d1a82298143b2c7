"""XSum: 226,711 BBC articles, each with a summary of one sentence (Narayan et al. 2018, arXiv:1808.08745)."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from datasets import Dataset

from peft_lightning.data.files import CONVERTED, read_source
from peft_lightning.data.text_to_text import TextToText


class XSum(TextToText):
    """The one-sentence summary of an article; ROUGE-1, -2, -L and -Lsum.

    The defaults are those of He et al. 2022 (exps/run_xsum.sh) on BART-large: 512 tokens of the article, 6 beams, 10 to
    60 tokens with the start token, no trigram twice, label smoothing 0.1; ROUGE-2 chooses the checkpoint.

    Articles that the copy has without text are left out of training, and a warning counts them. Evaluation keeps them,
    as papers report the mean over all rows of the published split.

    Args:
        source: Hub id; or a directory with `train.jsonl`, `validation.jsonl` and `test.jsonl` of `document`, `summary`
            and `id`, or one laid out as on the Hub.
        revision: Branch, tag or commit on the Hub; by default the Hub's own conversion to Parquet, which is there
            whether the repository holds a script, which `datasets` no longer runs, or files.
        source_prefix: What stands before each article: nothing for BART, `summarize: ` for T5.
        kwargs: Arguments of `TextToText`.
    """

    columns_by_option = False
    sources_may_be_empty = True

    def __init__(
        self,
        source: str = "EdinburghNLP/xsum",
        revision: str | None = CONVERTED,
        source_prefix: str = "",
        max_length: int = 512,
        max_target_length: int = 128,
        metrics: Sequence[str] = ("rouge",),
        num_beams: int = 6,
        max_new_tokens: int | None = 59,
        min_new_tokens: int = 9,
        no_repeat_ngram_size: int = 3,
        label_smoothing: float = 0.1,
        monitor: str = "rouge2",
        batch_size: int = 16,
        **kwargs: Any,
    ):
        super().__init__(
            source=source,
            revision=revision,
            source_column="document",
            target_column="summary",
            source_prefix=source_prefix,
            max_length=max_length,
            max_target_length=max_target_length,
            metrics=metrics,
            num_beams=num_beams,
            max_new_tokens=max_new_tokens,
            min_new_tokens=min_new_tokens,
            no_repeat_ngram_size=no_repeat_ngram_size,
            label_smoothing=label_smoothing,
            monitor=monitor,
            batch_size=batch_size,
            **kwargs,
        )

    @cached_property
    def raw(self) -> dict[str, Dataset]:
        """The three splits."""
        return read_source(self.source, self.revision)

    def id_column(self, split: str) -> str:
        """The BBC's number of the article."""
        return "id"

    @property
    def split_off(self) -> dict[str, float | int]:
        """None: all splits are published."""
        return {}
