"""Signals, really sent to a study: the run that is being trained saves, the study ends, the same command goes on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from peft_lightning.runs import RunDirectory
from peft_lightning.studies import read_study, run_study
from peft_lightning.studies.one_run import carry_out

SLOW = """
import os, time
from peft_lightning.methods import LinearProbe

class Slow(LinearProbe):
    def training_step(self, batch, batch_idx):
        time.sleep(float(os.environ["SECONDS_A_BATCH"]))
        return super().training_step(batch, batch_idx)
"""


@pytest.fixture
def study(tmp_path, tiny, reviews):
    """A study of two runs whose batches take as long as is asked for."""
    (tmp_path / "slow_probe.py").write_text(SLOW, encoding="utf-8")
    data = {"source": str(reviews), "max_length": 16, "batch_size": 8}
    content = {
        "runs": str(tmp_path / "runs"),
        "common": {
            "model": {"backbone": str(tiny())},
            "data": {"class_path": "TextClassification", "init_args": data},
            "trainer": {"max_epochs": 1, "accelerator": "cpu", "enable_progress_bar": False},
            "checkpoint_every_n_steps": 2,
        },
        "variants": {"Slow": {"model": {"class_path": "slow_probe.Slow"}}},
        "seeds": [0, 1],
        "selection": [0, 1],
    }
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    return tmp_path / "study.yaml"


def start(study):
    path = os.pathsep.join([str(Path(__file__).parents[2]), str(study.parent)])
    return subprocess.Popen(
        [sys.executable, "-m", "peft_lightning", "study", str(study)],
        stderr=subprocess.PIPE,
        text=True,
        cwd=study.parent,
        env=os.environ | {"SECONDS_A_BATCH": "0.5", "PYTHONPATH": path},
    )


def execute_here(run):
    """As in a process of its own, which takes longer."""
    config = run.directory.parent / "study_config.yaml"
    config.write_text(yaml.safe_dump(dict(run.config)), encoding="utf-8")
    carry_out(str(config), str(run.seed), str(run.directory), "test")
    return 0


# Ctrl-C in a terminal is SIGINT to the group of the study.
@pytest.mark.parametrize(
    ("number", "status"),
    [
        (signal.SIGTERM, 143),
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.long),
        pytest.param(signal.SIGUSR1, 75, marks=pytest.mark.long),
    ],
)
def test_a_signal_ends_the_run_with_its_checkpoint_and_the_study(study, tmp_path, monkeypatch, capsys, number, status):
    run = RunDirectory(tmp_path / "runs" / "Slow" / "only" / "seed0")
    stopped = start(study)
    while not run.last_checkpoint.exists():
        assert stopped.poll() is None
        time.sleep(0.1)
    sent = time.time()
    stopped.send_signal(number)
    _, errors = stopped.communicate(timeout=120)
    saved, ended = run.last_checkpoint.with_name("last.ckpt.json").stat().st_mtime - sent, time.time() - sent
    print(f"{number.name}: saved after {saved:.1f} s, the study ended after {ended:.1f} s")
    assert stopped.returncode == status
    assert 0 < saved < 10
    at = torch.load(run.last_checkpoint, weights_only=True)["global_step"]
    assert run.read_result()["status"] == "interrupted"
    assert f"Stopped by {number.name} at step {at}" in errors
    assert f"Study stopped by {number.name} in Slow seed 0; the same command goes on from there." in errors
    assert [path.name for path in run.path.parent.iterdir()] == ["seed0"]

    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("SECONDS_A_BATCH", "0")
    run_study(read_study(study), execute_here)
    assert f"Going on from {run.last_checkpoint}, step {at}\n" in capsys.readouterr().out
    assert [path.read_text().count('"done"') for path in run.path.parent.glob("*/result.json")] == [1, 1]
