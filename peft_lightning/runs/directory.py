"""A run directory: the files that `fit` writes and every later verb reads."""

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from peft_lightning.errors import UserError

# What may differ between two starts of one run, because it changes no number.
FREE_OPTIONS = (
    "checkpoint_every_n_steps",
    "ckpt_path",
    "data.init_args.num_workers",
    "halve_batch_if_out_of_memory",
    "return_predictions",
    "run_dir",
    "trainer.default_root_dir",
    "trainer.enable_model_summary",
    "trainer.enable_progress_bar",
    "trainer.log_every_n_steps",
    "trainer.logger",
    "trainer.max_time",
    "trainer.profiler",
    "verbose",
    "weights_only",
)


class RunDirectory:
    """The paths and small files of one run.

        config.yaml  environment.json  metrics.csv  result.json
        checkpoints/best.ckpt  checkpoints/last.ckpt  tensorboard/

    Args:
        path: The directory; it need not exist.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.config = self.path / "config.yaml"
        self.environment = self.path / "environment.json"
        self.metrics = self.path / "metrics.csv"
        self.result = self.path / "result.json"
        self.checkpoints = self.path / "checkpoints"
        self.best_checkpoint = self.checkpoints / "best.ckpt"
        self.last_checkpoint = self.checkpoints / "last.ckpt"
        self.predictions = self.predictions_of("")

    def predictions_of(self, name: str) -> Path:
        """The file of predictions for an evaluated set, of which the main one has no name."""
        return self.path / (f"predictions_{name}.jsonl" if name else "predictions.jsonl")

    @classmethod
    def existing(cls, path: str | Path) -> "RunDirectory":
        """The directory of a run that was started before.

        Raises:
            UserError: There is none.
        """
        run = cls(path)
        if not run.config.is_file():
            raise UserError(f"{path} is no run directory: it holds no config.yaml; give a directory that fit wrote.")
        return run

    @property
    def is_done(self) -> bool:
        """Whether training came to its end."""
        return self.read_result().get("status") == "done"

    def read_config(self) -> dict[str, Any]:
        """What `config.yaml` holds.

        Raises:
            UserError: It is damaged.
        """
        try:
            config = yaml.safe_load(self.config.read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise UserError(f"{self.config} cannot be read ({_first_line(error)}); restore the file.") from error
        if not isinstance(config, dict) or not {"model", "data"} <= config.keys():
            raise UserError(f"{self.config} is not the configuration of a run; restore the file.")
        return config

    def read_result(self) -> dict[str, Any]:
        """What `result.json` holds; empty if it is not there yet."""
        return _read_json(self.result)

    def read_environment(self) -> dict[str, Any]:
        """What `environment.json` holds; empty if it is not there yet."""
        return _read_json(self.environment)

    def update_result(self, changes: Mapping[str, Any]) -> None:
        """Merges into `result.json`; metrics are merged one by one."""
        result = self.read_result()
        metrics = {**result.get("metrics", {}), **changes.get("metrics", {})}
        write_json(self.result, {**result, **changes, "metrics": metrics})

    def newest_checkpoint(self) -> Path | None:
        """The checkpoint to go on from: `last.ckpt`, or what Lightning saved when SLURM was about to end the job."""
        saved = [path for path in (self.last_checkpoint, *self.path.glob("hpc_ckpt_*.ckpt")) if path.is_file()]
        return max(saved, key=lambda path: path.stat().st_mtime_ns, default=None)

    def trained_checkpoint(self) -> Path:
        """The best checkpoint.

        Raises:
            UserError: Nothing was trained here yet.
        """
        if not self.best_checkpoint.is_file():
            raise UserError(f"{self.path} holds no trained model ({self.best_checkpoint} is missing); run fit first.")
        return self.best_checkpoint

    def check_writable(self) -> None:
        """Makes the directory and a file in it, before hours are spent on a result that cannot be kept.

        Raises:
            UserError: That fails, or the directory holds files of these names that are no run's.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path):
                pass
        except OSError as error:
            raise UserError(
                f"Run directory {self.path} cannot be written ({error.strerror}); choose another one with --run_dir."
            ) from error
        ours = (self.environment, self.metrics, self.result, self.checkpoints)
        found = [path.name for path in ours if path.exists()]
        if found and not self.config.is_file():
            raise UserError(
                f"{self.path} holds {', '.join(found)} but no config.yaml, so that it is no run that could go on; "
                "choose another --run_dir, or move these files away."
            )

    def check_config(self, config: Mapping[str, Any]) -> None:
        """Compares the configuration of a new start with that of the earlier one.

        Raises:
            UserError: They differ; the message lists the options with both values.
        """
        if not self.config.is_file():
            return
        before, now = comparable(self.read_config()), comparable(config)
        different = [
            f"{key} was {before.get(key)!r} and is {now.get(key)!r}"
            for key in sorted(before.keys() | now.keys())
            if before.get(key) != now.get(key)
        ]
        if different:
            raise UserError(
                f"Run directory {self.path} holds a run with another configuration: {'; '.join(different)}. "
                "Choose another --run_dir, or give the earlier options to go on with that run."
            )


def comparable(config: Mapping[str, Any]) -> dict[str, Any]:
    """The options that make a run what it is, as dotted key -> plain value."""
    flat = _flatten(json.loads(json.dumps(config, default=str)))
    return {key: value for key, value in flat.items() if not key.startswith(FREE_OPTIONS)}


def default_run_directory(config: Mapping[str, Any]) -> Path:
    """`runs/DATA/METHOD/HASH/seedN`: the same options always lead to the same place."""
    options = comparable(config)
    seed = options.pop("seed_everything")
    digest = hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()[:8]
    data, method = (str(options[f"{part}.class_path"]).rpartition(".")[2] for part in ("data", "model"))
    return Path("runs") / data / method / digest / f"seed{seed}"


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a file that is either the old one or the new one, whenever the process is stopped."""
    write_text(path, json.dumps(_finite(content), indent=2, allow_nan=False) + "\n")


def write_text(path: Path, content: str) -> None:
    """As `write_json`, for text."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(content, encoding="utf-8")
    os.replace(temporary, path)


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({_first_line(error)}); restore the file, or remove it.") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged: it does not hold what a run writes; restore the file, or remove it.")
    return content


def _finite(value: Any) -> Any:
    """Numbers that JSON does not know (NaN, infinity) become null."""
    if isinstance(value, Mapping):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict) and value:
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
