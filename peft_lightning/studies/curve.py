"""The figure of a study whose runs are all wanted: a metric against a number that its grids have."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from peft_lightning.errors import UserError

Scale = Literal["log", "linear"]
Split = Literal["validation", "test"]


@dataclass(frozen=True)
class Curve:
    """A line a variant: mean and standard error of a metric over all seeds, against an option of the grid.

    Args:
        x: The option, as the grids have it.
        label: What the x axis is called; by default the name of the option.
        scale: Its scale.
        split: Whether the metric is that of the best validation of a run, or that of the test split; without `test`
            no run is tested.
        metric: The metric, for example `accuracy`; by default the one that chooses the best checkpoint.
    """

    x: str
    label: str
    scale: Scale = "log"
    split: Split = "validation"
    metric: str | None = None


def read_curve(path: Path, content: Any, variants: Mapping[str, Mapping[str, Any]]) -> Curve:
    """The figure that a study describes under `figure`.

    Args:
        path: The file of the study.
        content: What stands there.
        variants: The variants of the study, already checked.

    Raises:
        UserError: A key is missing, unknown or of the wrong kind; or a grid has other options than x, or values of x
            that have no place on the axis.
    """
    known = [field.name for field in fields(Curve)]
    if not isinstance(content, dict) or "x" not in content or content.keys() - set(known):
        given = ", ".join(map(str, content)) if isinstance(content, dict) else content
        raise UserError(
            f"Study {path}: figure holds {given}; give x, an option of the grids, and perhaps {', '.join(known[1:])}."
        )
    x = content["x"]
    options: dict[str, Any] = {"label": str(x).rpartition(".")[2]} | content
    curve = Curve(**options)
    for key, value, choices in (("scale", curve.scale, get_args(Scale)), ("split", curve.split, get_args(Split))):
        if value not in choices:
            raise UserError(f"Study {path}: {key} of the figure is {value}; give one of {', '.join(choices)}.")
    for key, value in asdict(curve).items():
        if not isinstance(value, str | None):
            raise UserError(f"Study {path}: {key} of the figure is {value}; give a text.")
    for name, variant in variants.items():
        _check_grid(path, name, variant.get("grid", {}), curve)
    return curve


def _check_grid(path: Path, name: str, grid: Mapping[str, list[Any]], curve: Curve) -> None:
    if list(grid) != [curve.x]:
        has = ", ".join(grid) or "no option"
        raise UserError(
            f"Study {path}: the figure shows one line a variant against {curve.x}, and the grid of variant {name} has "
            f"{has}; give it {curve.x} alone, and make variants of what differs otherwise."
        )
    for value in grid[curve.x]:
        number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")
        if not number or (curve.scale == "log" and value <= 0):
            wanted = "numbers above 0 for a log axis" if curve.scale == "log" else "numbers"
            hint = f", written as {float(value):.1e}" if isinstance(value, str) and _is_number(value) else ""
            raise UserError(f"Study {path}: {curve.x} of variant {name} has the value {value!r}; give {wanted}{hint}.")
    if len(set(grid[curve.x])) < len(grid[curve.x]):
        raise UserError(f"Study {path}: {curve.x} of variant {name} has a value twice; give each once.")


def _is_number(text: str) -> bool:
    """Whether it would be a number if YAML did not ask for a point: 1e-3 is a text there, 1.0e-3 is not."""
    try:
        float(text)
    except ValueError:
        return False
    return True
