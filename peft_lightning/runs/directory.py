"""A run directory: the files that `fit` writes and every later verb reads."""

import hashlib
import json
import logging
import math
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from peft_lightning.errors import UserError
from peft_lightning.storage import generations
from peft_lightning.storage.lock import locked
from peft_lightning.storage.writing import remove_partials, write_text

log = logging.getLogger(__name__)

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

    Beside each checkpoint stand its manifest, `best.ckpt.json`, and the one before it, `best.previous.ckpt`. While a
    process writes here there is also `run.lock`.

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
        self.lock = self.path / "run.lock"

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

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Keeps other processes from writing here, and removes what killed ones have left half written.

        Raises:
            UserError: Another process is writing here, or may be.
        """
        with locked(self.lock):
            for directory in (self.path, self.checkpoints):
                remove_partials(directory)
            yield

    def newest_checkpoint(self) -> tuple[Path | None, dict[Path, str]]:
        """The checkpoint to go on from: `last.ckpt`, or what Lightning saved when SLURM was about to end the job.

        Returns:
            The file, None if nothing was saved yet; and what is wrong with newer ones, if there are any.

        Raises:
            UserError: There are checkpoints and none of them is whole.
        """
        newest, faults = generations.newest([self.last_checkpoint, *self.path.glob("hpc_ckpt_*[0-9].ckpt")])
        if faults and newest is None:
            raise UserError(
                f"The run in {self.path} cannot go on: {_listed(faults)}. Restore one of these files from a copy; or "
                "remove them, to start anew."
            )
        return newest, faults

    def trained_checkpoint(self) -> Path:
        """The best checkpoint.

        Raises:
            UserError: Nothing was trained here yet, or the file is not what was saved.
        """
        path, previous = self.best_checkpoint, generations.previous_path(self.best_checkpoint)
        fault = generations.fault_of(path)
        if fault and self.lock.exists():
            time.sleep(1)  # a run that is being trained may be between file and manifest
            fault = generations.fault_of(path)
        if fault is None:
            return path
        if generations.fault_of(previous) is None:
            raise UserError(
                f"Checkpoint {path} cannot be read (it {fault}). The one before it, of step "
                f"{generations.step_of(previous)}, is whole; to take that one give --ckpt_path {previous}"
            )
        if not generations.is_there(path):
            raise UserError(f"{self.path} holds no trained model ({path} is missing); run fit first.")
        if generations.damage_of(path):
            raise UserError(f"Checkpoint {path} cannot be read (it {fault}); restore it from a copy.")
        log.warning(f"{path} {fault}; its own checksums are right.")
        return path

    def check_writable(self) -> None:
        """Makes the directory and a file in it, before hours are spent on a result that cannot be kept.

        Raises:
            UserError: That fails, or the directory holds files of these names that are no run's.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            for directory in (self.path, self.checkpoints) if self.checkpoints.exists() else (self.path,):
                with tempfile.TemporaryFile(dir=directory):
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
        if different := differences(self.read_config(), config):
            listed = "; ".join(f"{key} was {before!r} and is {now!r}" for key, (before, now) in different.items())
            raise UserError(
                f"Run directory {self.path} holds a run with another configuration: {listed}. "
                "Choose another --run_dir, or give the earlier options to go on with that run."
            )


def comparable(config: Mapping[str, Any]) -> dict[str, Any]:
    """The options that make a run what it is, as dotted key -> plain value."""
    flat = _flatten(json.loads(json.dumps(config, default=str)))
    return {key: value for key, value in flat.items() if not key.startswith(FREE_OPTIONS)}


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The comparable options in which two configurations differ, in order, with both values."""
    first, second = comparable(one), comparable(other)
    pairs = {key: (first.get(key), second.get(key)) for key in sorted(first.keys() | second.keys())}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


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


def _listed(faults: Mapping[Path, str]) -> str:
    return "; ".join(f"{path} {fault}" for path, fault in faults.items())


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
