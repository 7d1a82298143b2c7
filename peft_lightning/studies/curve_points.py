"""The numbers of a curve: pure functions of a study and of its finished runs."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft_lightning.errors import UserError
from peft_lightning.studies.study import PlannedRun, Study

Results = Mapping[Path, Mapping[str, Any]]


@dataclass(frozen=True)
class CurvePoint:
    """One variant at one value of x, over its seeds.

    Args:
        variant: Its name.
        x: The value.
        metric: What was measured, for example `val/accuracy`.
        mean: Mean over the runs that are done and have not diverged; None if a run is missing or all have diverged.
        error: Its standard error, `s / sqrt(n)` with ddof 1; None without a mean, or where it is of one run.
        seeds: How many runs the point should have.
        missing: How many of them are not done.
        diverged: How many of them have ended with a loss or a metric that is no number.
    """

    variant: str
    x: float
    metric: str
    mean: float | None
    error: float | None
    seeds: int
    missing: int
    diverged: int

    @property
    def counted(self) -> int:
        """How many runs the mean is of."""
        return self.seeds - self.missing - self.diverged


def curve_points(study: Study, results: Results) -> list[CurvePoint]:
    """All points of the figure of a study, variant by variant, x ascending.

    Args:
        study: A study with a figure.
        results: Run directory -> `result.json`, of all runs that are done.

    Raises:
        UserError: A run does not have the metric that the figure wants.
    """
    points = []
    for variant in study.variants:
        by_x: dict[float, list[PlannedRun]] = {}
        for run in study.candidates(variant):
            by_x.setdefault(dict(run.point)[_curve(study).x], []).append(run)
        points += [_point(study, variant, x, by_x[x], results) for x in sorted(by_x)]
    return points


def _point(study: Study, variant: str, x: float, runs: Sequence[PlannedRun], results: Results) -> CurvePoint:
    curve = _curve(study)
    prefix = {"validation": "val", "test": "test"}[curve.split]
    done = [results[run.directory] for run in runs if run.directory in results]
    monitor = next((result["monitor"] for result in results.values()), "metric")
    metric = f"{prefix}/{curve.metric or monitor}"
    for result in done:
        if metric not in result["metrics"]:
            known = ", ".join(name.removeprefix(f"{prefix}/") for name in result["metrics"] if name.startswith(prefix))
            raise UserError(
                f"The figure is of the metric {curve.metric}, which {variant} does not have; give one of {known}."
            )
    # What is no number in a result.json is null.
    right = [
        r["metrics"][metric] for r in done if None not in (r["metrics"][metric], r["metrics"].get(f"{prefix}/loss", 0))
    ]
    missing = len(runs) - len(done)
    mean = statistics.mean(right) if right and not missing else None
    error = statistics.stdev(right) / math.sqrt(len(right)) if mean is not None and len(right) > 1 else None
    return CurvePoint(variant, x, metric, mean, error, len(runs), missing, len(done) - len(right))


def _curve(study: Study) -> Any:
    assert study.curve is not None, "the study has no figure of this kind"
    return study.curve
