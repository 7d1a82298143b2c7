"""WMT16 translation of news: ro-en has 610,320 pairs of sentences (Bojar et al. 2016)."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from datasets import Dataset

from peft_lightning.data.files import read_source
from peft_lightning.data.lines import read_parallel
from peft_lightning.data.text_to_text import TextToText
from peft_lightning.errors import UserError

# The languages of WMT16, and mBART's codes for them.
LANGUAGES = {
    "cs": "cs_CZ",
    "de": "de_DE",
    "en": "en_XX",
    "fi": "fi_FI",
    "ro": "ro_RO",
    "ru": "ru_RU",
    "tr": "tr_TR",
}
SPLITS = ("train", "validation", "test")


class WMT16(TextToText):
    """Translation from English to Romanian, or between another pair; sacreBLEU and chrF.

    Into Romanian there is beside `bleu` also `bleu_no_diacritics`, which is what He et al. 2022 report. The defaults
    are those of their exps/run_en_ro.sh on mBART-large-cc25: 150 tokens, 5 beams, up to 150 tokens with the start
    token, which is the `val_max_target_length` that their run_translation.py evaluates with, label smoothing 0.1; the
    loss chooses the checkpoint. They fill batches by tokens, 4,096 of them; here
    batches have a number of pairs.

    Args:
        pair: The pair as the Hub names it: `ro-en`, `de-en`, ...
        direction: From which language to which, for example `ro-en`; by default out of English.
        source: Hub id; or a directory with a file a split and language, a sentence a line: `train.en`, `train.ro`,
            `validation.en`, ...; or one laid out as on the Hub.
        source_prefix: What stands before each sentence: nothing for mBART, `translate English to Romanian: ` for T5.
        source_language: Code of the source's language for tokenizers that mark it; by default mBART's, as `en_XX`.
        target_language: The same of the target's.
        metrics: By default `bleu`, and `bleu_no_diacritics` into Romanian.
        kwargs: Arguments of `TextToText`.

    Raises:
        UserError: There is no such pair or direction.
    """

    columns_by_option = False

    def __init__(
        self,
        pair: str = "ro-en",
        direction: str | None = None,
        source: str = "wmt/wmt16",
        source_prefix: str = "",
        source_language: str | None = None,
        target_language: str | None = None,
        max_length: int = 150,
        max_target_length: int = 150,
        metrics: Sequence[str] | None = None,
        num_beams: int = 5,
        max_new_tokens: int | None = 149,
        label_smoothing: float = 0.1,
        monitor: str = "loss",
        **kwargs: Any,
    ):
        languages = pair.split("-")
        if len(languages) != 2 or languages[1] != "en" or languages[0] not in set(LANGUAGES) - {"en"}:
            pairs = ", ".join(f"{language}-en" for language in LANGUAGES if language != "en")
            raise UserError(f"pair is '{pair}'; give one of {pairs}.")
        directions = [f"en-{languages[0]}", pair]
        direction = direction or directions[0]
        if direction not in directions:
            raise UserError(f"direction is '{direction}'; for the pair {pair} give {' or '.join(directions)}.")
        read, written = direction.split("-")
        romanian = ["bleu_no_diacritics"] if written == "ro" else []
        super().__init__(
            source=source,
            source_column=read,
            target_column=written,
            source_prefix=source_prefix,
            source_language=source_language or LANGUAGES[read],
            target_language=target_language or LANGUAGES[written],
            max_length=max_length,
            max_target_length=max_target_length,
            metrics=metrics or ["bleu", *romanian],
            num_beams=num_beams,
            max_new_tokens=max_new_tokens,
            label_smoothing=label_smoothing,
            monitor=monitor,
            **kwargs,
        )
        self.pair = pair

    @cached_property
    def raw(self) -> dict[str, Dataset]:
        """Files of lines, or what the Hub has, with a column a language."""
        languages, directory = self.pair.split("-"), Path(self.source)
        if directory.is_dir():
            found = {split: read_parallel(directory, split, languages) for split in SPLITS}
            tables = {split: table for split, table in found.items() if table is not None}
            if tables:
                return tables
        return {split: _columns(table) for split, table in read_source(self.source, self.revision, self.pair).items()}

    def where_column(self, split: str, column: str) -> str:
        """The file of the language, if there is one."""
        path = Path(self.source) / f"{split}.{column}"
        return f"{path} ({split})" if path.is_file() else self.where(split)

    @property
    def split_off(self) -> dict[str, float | int]:
        """None: all splits are published."""
        return {}


def _columns(table: Dataset) -> Dataset:
    """The two texts of the column `translation` as columns of their own."""
    flat = table.flatten()
    nested = [name for name in flat.column_names if name.startswith("translation.")]
    return flat.rename_columns({name: name.removeprefix("translation.") for name in nested})
