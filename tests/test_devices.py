"""Two processes compute what one does."""

import json
import subprocess
import sys

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
    command = [sys.executable, "-m", "peft_lightning"]
    subprocess.run([*command, "fit", "--model=Houlsby", *options, *common, *two], check=True, timeout=300)
    result = run.read_result()
    assert result["status"] == "done"
    validated = result["metrics"]
    main(["validate", str(run.path), *common])
    assert run.read_result()["metrics"] == pytest.approx(validated, abs=1e-6)

    subprocess.run([*command, "predict", str(run.path), *common, *two], check=True, timeout=300)
    on_two = run.predictions.read_text()
    run.predictions.unlink()
    main(["predict", str(run.path), *common])
    rows = [[json.loads(line) for line in text.splitlines()] for text in (on_two, run.predictions.read_text())]
    assert [row["row"] for row in rows[0]] == [row["row"] for row in rows[1]] == list(range(1, 22))
    assert [row["label"] for row in rows[0]] == [row["label"] for row in rows[1]]
