"""A study as it is written down, and the runs that follow from it: pure functions of the file and of finished runs."""

import itertools
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from peft_lightning.errors import NonFiniteError, UserError
from peft_lightning.studies.callback_options import CALLBACKS, is_callback_option, with_callback_options
from peft_lightning.studies.curve import Curve, read_curve

KEYS = {"runs", "common", "variants", "seeds", "selection"}
MORE_KEYS = {"figure"}
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
        tested: Whether the run is tested after it was trained.
    """

    variant: str
    point: Point
    seed: int
    directory: Path
    config: Mapping[str, Any]
    tested: bool = True

    def __str__(self) -> str:
        """For example `Houlsby lr=0.001 seed 0`."""
        return " ".join([self.variant, *(f"{option}={value}" for option, value in self.point), f"seed {self.seed}"])


@dataclass(frozen=True)
class Study:
    """Variants, the grid of each, and how its best point is chosen.

    In the first stage every point of every grid runs with the seeds of the selection, and each variant's point with the
    best mean validation metric is chosen; in the second stage the chosen points run with all seeds. Test metrics take
    no part in the choice. Where both have the same seeds, every point runs with all of them.

    Args:
        runs: Directory under which the runs lie.
        common: Configuration that all runs share.
        variants: Name -> `model`, the configuration of the method; `grid`, its options to choose from; and `data`, if
            it is not that of all. An option of a callback is called `callbacks.CLASS.OPTION` in the grid.
        seeds: Seeds of the second stage.
        selection: Seeds of the first stage.
        curve: The figure, if it shows every point and not the chosen ones.
    """

    runs: Path
    common: Mapping[str, Any]
    variants: Mapping[str, Mapping[str, Any]]
    seeds: Sequence[int]
    selection: Sequence[int]
    curve: Curve | None = None

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
        part = self.variants[variant]
        model, own = part["model"], {option: value for option, value in point if not is_callback_option(option)}
        options = {**self.common.get("model", {}), **model.get("init_args", {}), **own}
        config = {**self.common, "model": {"class_path": model["class_path"], "init_args": options}}
        if "data" in part:
            config["data"] = part["data"]
        callbacks = {option: value for option, value in point if is_callback_option(option)}
        if callbacks:
            config["trainer"] = with_callback_options(self.common.get("trainer", {}), callbacks)
        place = "_".join(f"{option}{value}" for option, value in point) or "only"
        directory = self.runs / variant.replace(" ", "_") / place / f"seed{seed}"
        tested = self.curve is None or self.curve.split == "test"
        return PlannedRun(variant, point, seed, directory, config, tested)


def read_study(path: Path, source: str | None = None) -> Study:
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

    With a `figure` it shows all points, and `selection` has to hold all `seeds`:

        variants:
          Houlsby:
            model: ../../configs/method/houlsby.yaml
            grid: {callbacks.InitScale.std: [1.0e-3, 1.0e-2, 1.0e-1]}
        figure: {x: callbacks.InitScale.std, scale: log, split: validation}

    Args:
        path: The file.
        source: Where the data is, instead of what the file says.

    Raises:
        UserError: The file cannot be read, or a part is missing, unknown or of the wrong kind.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"Study {path} cannot be read ({error}).") from error
    except yaml.YAMLError as error:
        raise UserError(f"Study {path} is not YAML: {getattr(error, 'problem', error)}.") from error
    if not isinstance(content, dict) or content.keys() - MORE_KEYS != KEYS:
        given = ", ".join(sorted(content)) if isinstance(content, dict) else "nothing"
        raise UserError(
            f"Study {path} has to hold {', '.join(sorted(KEYS))}, each once, and may hold "
            f"{', '.join(sorted(MORE_KEYS))}; it holds {given}."
        )
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
    common = content["common"]
    with_data = isinstance(common, dict) and ("data" in common or all("data" in part for part in variants.values()))
    if not with_data:
        raise UserError(f"Study {path}: common has no data; give what all runs share: model, data, trainer.")
    curve = read_curve(path, content["figure"], variants) if "figure" in content else None
    if curve and set(content["selection"]) != set(content["seeds"]):
        raise UserError(
            f"Study {path}: the figure shows every point with all seeds, and selection is {content['selection']}; make "
            f"it {content['seeds']}, as seeds."
        )
    common = common if source is None else _with_source(path, common, source)
    return Study(Path(content["runs"]), common, variants, content["seeds"], content["selection"], curve)


def _with_source(path: Path, common: Mapping[str, Any], source: str) -> dict[str, Any]:
    data = common.get("data")
    if not isinstance(data, dict):
        raise UserError(f"Study {path}: data is '{data}'; write it as class_path and init_args to give another source.")
    return {**common, "data": {**data, "init_args": {**data.get("init_args", {}), "source": source}}}


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
    if unknown := variant.keys() - {"model", "grid", "data"}:
        raise UserError(
            f"Study {path}: variant {name} holds {', '.join(sorted(unknown))}; it may hold model, grid and data."
        )
    grid = variant.get("grid", {})
    if not isinstance(grid, dict) or not all(isinstance(values, list) and values for values in grid.values()):
        raise UserError(f"Study {path}: the grid of variant {name} is {grid}; give a list of values for each option.")
    for option in grid:
        if "." in option and not is_callback_option(option):
            raise UserError(
                f"Study {path}: the grid of variant {name} has {option}; give an option of the method, or "
                f"{CALLBACKS}.CLASS.OPTION for one of a callback."
            )
