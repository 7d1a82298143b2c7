"""Where and with what a run was made."""

import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

import peft_lightning

PACKAGES = (
    "peft_lightning",
    "torch",
    "lightning",
    "transformers",
    "tokenizers",
    "datasets",
    "torchmetrics",
    "jsonargparse",
    "numpy",
    "sacrebleu",
    "rouge-score",
)
LONGEST_DIFF = 200_000
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "PYTHONHASHSEED")


def describe_environment(deterministic: bool | str | None = None) -> dict[str, Any]:
    """Versions, hardware, the command and the state of the source tree, as plain values.

    Args:
        deterministic: What `--trainer.deterministic` asks for.
    """
    accelerators = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(sys.argv),
        "working_directory": os.getcwd(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "host": platform.node(),
        "cpus": os.cpu_count(),
        "determinism": describe_determinism(deterministic),
        "accelerators": accelerators,
        "cuda": torch.version.cuda,
        "packages": {name: _version(name) for name in PACKAGES},
        "git": _git_state(),
    }


def describe_determinism(requested: bool | str | None) -> dict[str, Any]:
    """How far two runs of this process with the same seed are equal, and what that depends on.

    Returns:
        `requested`: `--trainer.deterministic`. `achieved`: `strict` (an operation that is not deterministic is
        refused), `warn` (it warns) or `none` (whatever is fastest is used). On a CPU the operations used here are
        deterministic at every level for a given number of threads; on GPUs none but `strict` promises it.
    """
    enabled, warns = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    return {
        "requested": requested,
        "achieved": "none" if not enabled else "warn" if warns else "strict",
        "threads": torch.get_num_threads(),
        "interop_threads": torch.get_num_interop_threads(),
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "cudnn_deterministic": torch.backends.cudnn.deterministic,
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "cudnn_allow_tf32": torch.backends.cudnn.allow_tf32,
        "cublas_workspace": os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
        "environment": {name: os.environ[name] for name in THREAD_VARIABLES if name in os.environ},
    }


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git_state() -> dict[str, Any] | None:
    """Commit and uncommitted changes of the tree that the package is imported from; None if there is no such tree."""
    source = Path(peft_lightning.__file__).parent
    try:
        commit = _git(source, "rev-parse", "HEAD").strip()
        changed = _git(source, "status", "--porcelain").splitlines()
        diff = _git(source, "diff", "HEAD")
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "dirty": bool(changed), "changed": changed, "diff": diff[:LONGEST_DIFF]}


def _git(directory: Path, *arguments: str) -> str:
    command = ["git", "-C", str(directory), *arguments]
    done = subprocess.run(command, check=True, capture_output=True, timeout=30)
    return done.stdout.decode(errors="replace")
