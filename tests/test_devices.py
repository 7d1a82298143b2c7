"""Two processes compute what one does, and make tokens once."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from peft_lightning.cli import main
from peft_lightning.runs import RunDirectory


def test_two_processes_train_and_count_every_example_once(fit, tmp_path, tiny, reviews):
    """19 validation and 21 test examples do not divide by 2; metrics and predictions are those of one process."""
    run = RunDirectory(tmp_path / "run")
    common = ["--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu"]
    two = ["--trainer.devices=2", "--trainer.strategy=ddp"]
    options = [f"--model.backbone={tiny()}", "--data=TextClassification", f"--data.source={reviews}"]
    options += ["--data.max_length=16", "--data.batch_size=4", f"--run_dir={run.path}", "--trainer.max_epochs=2"]
    command = [sys.executable, str(Path(__file__).parent / "logged_maps.py")]
    package = str(Path(__file__).parents[1])
    alone = os.environ | {"HF_HOME": str(tmp_path / "cache"), "MAPS": str(tmp_path / "maps"), "PYTHONPATH": package}
    fit = [*command, "fit", "--model=Houlsby", *options, *common, *two]
    subprocess.run(fit, check=True, timeout=300, env=alone)
    # Training and validation rows, checked and encoded by the first process; the second finds both in the cache.
    assert (tmp_path / "maps").read_text().split("\n") == ["0 _check_batch", "0 _encode_batch"] * 2 + [""]
    result = run.read_result()
    assert result["status"] == "done"
    validated = result["metrics"]
    main(["validate", str(run.path), *common])
    assert run.read_result()["metrics"] == pytest.approx(validated, abs=1e-6)

    subprocess.run([*command, "predict", str(run.path), *common, *two], check=True, timeout=300, env=alone)
    on_two = run.predictions.read_text()
    run.predictions.unlink()
    main(["predict", str(run.path), *common])
    rows = [[json.loads(line) for line in text.splitlines()] for text in (on_two, run.predictions.read_text())]
    assert [row["row"] for row in rows[0]] == [row["row"] for row in rows[1]] == list(range(1, 22))
    assert [row["label"] for row in rows[0]] == [row["label"] for row in rows[1]]
