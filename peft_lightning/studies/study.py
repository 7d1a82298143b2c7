"""A study as it is written down, and the runs that follow from it: pure functions of the file and of finished runs."""

import itertools
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from peft_lightning.errors import NonFiniteError, UserError

KEYS = {"runs", "common", "variants", "seeds", "selection"}
Point = tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class PlannedRun:
    """One run of a study.

    Args:
        variant: Name of its variant.
        point: The options of the grid at which it stands, as pairs of option and value.
        seed: Its seed.
        directory: Its run directory.
        config: What `fit` is given, without seed and run directory.
    """

    variant: str
    point: Point
    seed: int
    directory: Path
    config: Mapping[str, Any]

    def __str__(self) -> str:
        """For example `Houlsby lr=0.001 seed 0`."""
        return " ".join([self.variant, *(f"{option}={value}" for option, value in self.point), f"seed {self.seed}"])


@dataclass(frozen=True)
class Study:
    """Variants, the grid of each, and how its best point is chosen.

    In the first stage every point of every grid runs with the seeds of the selection, and each variant's point with the
    best mean validation metric is chosen; in the second stage the chosen points run with all seeds. Test metrics take
    no part in the choice.

    Args:
        runs: Directory under which the runs lie.
        common: Configuration that all runs share.
        variants: Name -> `model`, the configuration of the method, and `grid`, its options to choose from.
        seeds: Seeds of the second stage.
        selection: Seeds of the first stage.
    """

    runs: Path
    common: Mapping[str, Any]
    variants: Mapping[str, Mapping[str, Any]]
    seeds: Sequence[int]
    selection: Sequence[int]

    def candidates(self, variant: str) -> list[PlannedRun]:
        """The first stage of one variant."""
        return [self._run(variant, point, seed) for point in self._points(variant) for seed in self.selection]

    def chosen(self, variant: str, results: Mapping[Path, Mapping[str, Any]]) -> list[PlannedRun] | None:
        """The second stage of one variant; None as long as a run of the first is not done.

        Args:
            variant: Its name.
            results: Run directory -> `result.json`, of all runs that are done.
        """
        scores: dict[Point, list[float]] = {}
        for run in self.candidates(variant):
            if run.directory not in results:
                return None
            result = results[run.directory]
            # A run that has diverged is worse than any other.
            diverged = result["status"] == NonFiniteError.status
            value = None if diverged else result["metrics"].get(f"val/{result['monitor']}")
            score = float("-inf") if value is None else value if result["mode"] == "max" else -value
            scores.setdefault(run.point, []).append(score)
        best = max(scores, key=lambda point: statistics.mean(scores[point]))
        return [self._run(variant, best, seed) for seed in self.seeds]

    def planned(self, results: Mapping[Path, Mapping[str, Any]]) -> Iterator[PlannedRun]:
        """All runs that are known to be needed so far, each once, finished ones included."""
        for variant in self.variants:
            wanted = [*self.candidates(variant), *(self.chosen(variant, results) or [])]
            yield from {run.directory: run for run in wanted}.values()

    @property
    def size(self) -> int:
        """The number of runs in the end."""
        extra = len(set(self.seeds) - set(self.selection))
        return sum(len(self.candidates(variant)) + extra for variant in self.variants)

    def _points(self, variant: str) -> list[Point]:
        grid = self.variants[variant].get("grid", {})
        return [tuple(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]

    def _run(self, variant: str, point: Point, seed: int) -> PlannedRun:
        model = self.variants[variant]["model"]
        options = {**self.common.get("model", {}), **model.get("init_args", {}), **dict(point)}
        config = {**self.common, "model": {"class_path": model["class_path"], "init_args": options}}
        place = "_".join(f"{option}{value}" for option, value in point) or "only"
        directory = self.runs / variant.replace(" ", "_") / place / f"seed{seed}"
        return PlannedRun(variant, point, seed, directory, config)


def read_study(path: Path) -> Study:
    """The study that a YAML file describes.

        runs: runs/rotten_tomatoes
        common:
          model: {backbone: embedded:minilm-l6}
          data: {class_path: RottenTomatoes, init_args: {train_size: 2000}}
          trainer: {max_epochs: 3}
        variants:
          LoRA:
            model: ../../configs/method/lora.yaml    # or a whole run, or {class_path: LoRA, init_args: {rank: 4}}
            grid: {lr: [1.0e-3, 3.0e-3]}
        seeds: [0, 1, 2]
        selection: [0]

    Raises:
        UserError: The file cannot be read, or a part is missing, unknown or of the wrong kind.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"Study {path} cannot be read ({error}).") from error
    except yaml.YAMLError as error:
        raise UserError(f"Study {path} is not YAML: {getattr(error, 'problem', error)}.") from error
    if not isinstance(content, dict) or content.keys() != KEYS:
        given = ", ".join(sorted(content)) if isinstance(content, dict) else "nothing"
        raise UserError(f"Study {path} has to hold {', '.join(sorted(KEYS))}, each once; it holds {given}.")
    variants = content["variants"]
    if not isinstance(variants, dict) or not variants:
        raise UserError(f"Study {path} has no variants; give at least one name with a model.")
    for name, variant in variants.items():
        if isinstance(variant, dict) and isinstance(variant.get("model"), str):
            variants[name] = variant = variant | {"model": _model_of(path, name, path.parent / variant["model"])}
        _check_variant(path, name, variant)
    for key in ("seeds", "selection"):
        seeds = content[key]
        right = isinstance(seeds, list) and seeds and all(isinstance(s, int) and s >= 0 for s in seeds)
        if not right or len(set(seeds)) < len(seeds):
            raise UserError(f"Study {path}: {key} is {seeds}; give a list of numbers of at least 0, each once.")
    if not set(content["selection"]) <= set(content["seeds"]):
        raise UserError(f"Study {path}: selection {content['selection']} is no part of seeds {content['seeds']}.")
    if not isinstance(content["common"], dict) or "data" not in content["common"]:
        raise UserError(f"Study {path}: common has no data; give what all runs share: model, data, trainer.")
    return Study(Path(content["runs"]), content["common"], variants, content["seeds"], content["selection"])


def _model_of(path: Path, name: str, file: Path) -> Any:
    """The model that another configuration describes, a part or a whole run."""
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"Study {path}: the model of variant {name}, {file}, cannot be read ({error}).") from error
    return content.get("model", content) if isinstance(content, dict) else content


def _check_variant(path: Path, name: str, variant: Any) -> None:
    if not isinstance(variant, dict) or not isinstance(variant.get("model"), dict):
        raise UserError(f"Study {path}: variant {name} has no model; give a class_path, and init_args if you like.")
    if "class_path" not in variant["model"]:
        raise UserError(f"Study {path}: the model of variant {name} has no class_path; name the method.")
    if unknown := variant.keys() - {"model", "grid"}:
        raise UserError(f"Study {path}: variant {name} holds {', '.join(sorted(unknown))}; it may hold model and grid.")
    grid = variant.get("grid", {})
    if not isinstance(grid, dict) or not all(isinstance(values, list) and values for values in grid.values()):
        raise UserError(f"Study {path}: the grid of variant {name} is {grid}; give a list of values for each option.")
