"""The logger behind `metrics.csv`: one row a step that was logged, kept over restarts."""

import csv
import io
import time
from argparse import Namespace
from collections.abc import Mapping
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from peft_lightning.runs.directory import RunDirectory, write_text

SECONDS_BETWEEN_WRITES = 10


class MetricsFile(Logger):
    """Writes `metrics.csv` with the columns `epoch`, `step` and one a metric.

    Lightning's own CSV logger deletes the file that an earlier start of the run has written; this one goes on behind
    the rows that the checkpoint knows. The file is written at least with every checkpoint.

    Args:
        run: Where to write.
    """

    def __init__(self, run: RunDirectory):
        super().__init__()
        self.run = run
        self.rows: list[dict[str, Any]] = []
        self._written = 0.0

    @property
    def name(self) -> str:
        """Empty, so that what others put under `save_dir/name/version` lands in the run directory."""
        return ""

    @property
    def version(self) -> str:
        """Empty, as the name."""
        return ""

    @property
    def save_dir(self) -> str:
        """The run directory."""
        return str(self.run.path)

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Hyper-parameters are in `config.yaml`."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Adds the metrics of one step; those of the same step share a row."""
        step = step or 0
        if self.rows and int(self.rows[-1]["step"]) == step:
            self.rows[-1] |= metrics
        else:
            self.rows.append({"step": step, **metrics})

    @rank_zero_only
    def save(self) -> None:
        """Writes all rows, unless that was done a moment ago: in a long run the whole file is long."""
        if time.monotonic() - self._written > SECONDS_BETWEEN_WRITES:
            self.write()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Writes all rows at the end of training."""
        self.write()

    def place(self) -> dict[str, Any]:
        """What a checkpoint has to know: the number of rows, and the last one, to which metrics may still be added."""
        return {"count": len(self.rows), "last": dict(self.rows[-1]) if self.rows else {}}

    def go_on(self, count: int, last: Mapping[str, Any]) -> None:
        """Goes on behind the rows of an earlier start; what was measured after its checkpoint is measured again."""
        self.rows = self._earlier_rows()[:count]
        if len(self.rows) == count > 0:
            self.rows[-1] = dict(last)

    def write(self) -> None:
        """Writes all rows."""
        if self.rows:
            names = {name for row in self.rows for name in row} - {"epoch", "step"}
            text = io.StringIO()
            writer = csv.DictWriter(text, ["epoch", "step", *sorted(names)], lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)
            write_text(self.run.metrics, text.getvalue())
            self._written = time.monotonic()

    def _earlier_rows(self) -> list[dict[str, Any]]:
        if not self.run.metrics.is_file():
            return []
        with self.run.metrics.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
