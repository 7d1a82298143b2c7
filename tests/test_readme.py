"""What the README shows works as it stands there."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from peft_lightning.cli import main
from peft_lightning.runs import RunDirectory
from peft_lightning.testing import CHECKS, MODEL_TYPES

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
ROOT = Path(__file__).parent.parent


def block(name):
    """The code block that is marked with this name."""
    return re.search(rf"<!-- tested: {re.escape(name)} -->\n```\w+\n(.*?)```", README, re.DOTALL)[1]


def commands(verb):
    """All `peft-lightning VERB` commands, as lists of arguments."""
    text = README.replace("\\\n", " ")
    return [line.split()[1:] for line in re.findall(rf"^(?:srun )?(peft-lightning {verb} .*)$", text, re.MULTILINE)]


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory):
    """A directory in which the quickstart was run, with the real backbone and data but few and small steps."""
    directory = tmp_path_factory.mktemp("quickstart")
    limits = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=60", "--data.batch_size=16"]
    limits += ["--model.lr=1e-3", "--trainer.limit_val_batches=5", "--trainer.enable_progress_bar=false"]
    run = directory / "runs" / "quickstart"
    main(["fit", f"--config={ROOT / 'configs' / 'quickstart.yaml'}", f"--run_dir={run}", *limits])
    main(["test", str(run), "--trainer.enable_progress_bar=false"])
    return directory


def test_the_quickstart_learns_something_real(quickstart):
    """960 of its 13,648 examples already beat guessing by far, with the parameters that the README states."""
    result = RunDirectory(quickstart / "runs" / "quickstart").read_result()
    assert result["metrics"]["test/accuracy"] > 0.7
    parameters = result["parameters"]
    assert parameters["method"] == 595_200 == 6 * 2 * (2 * 64 * 384 + 64 + 384)
    assert (parameters["head"], parameters["layer_norm"]) == (2 * 384 + 2, 13 * 2 * 384)
    assert parameters["backbone"] == 22_713_216
    assert result["checkpoint_bytes"] < 1.05 * 4 * parameters["trained"] + 32 * 1024


def test_the_story_in_python(quickstart, monkeypatch, capsys):
    monkeypatch.chdir(quickstart)
    names = {}
    exec(block("story"), names)
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 3
    assert printed[0].startswith("[{'label': 'pos', 'score': 0.")
    assert len(set(printed)) == 3
    size = sum(path.stat().st_size for path in (quickstart / "my_adapter").iterdir())
    assert 2.3e6 < size < 2.6e6
    scores = [
        pipe("a film", top_k=None)
        for pipe in (names["load_run"]("runs/quickstart").pipeline(), names["same"].pipeline())
    ]
    assert scores[0] == scores[1]
    assert "adapter" not in str(names["model"].state_dict().keys())


def test_a_method_outside_the_package_passes_the_suite(tmp_path):
    for name in ("my_method.py", "test_my_method.py"):
        (tmp_path / name).write_text(block(name), encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(tmp_path),
        str(tmp_path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout
    assert f"{len(CHECKS) * len(MODEL_TYPES)} passed" in done.stdout


def test_a_method_outside_the_package_has_a_command_line(tmp_path, tiny, reviews, monkeypatch):
    (tmp_path / "my_method.py").write_text(block("my_method.py"), encoding="utf-8")
    script = Path(sys.executable).with_name("peft-lightning")
    options = [f"--model.backbone={tiny()}", "--data=TextClassification", f"--data.source={reviews}"]
    options += ["--data.max_length=16", "--trainer.max_epochs=1", "--trainer.enable_progress_bar=false"]
    fit = [script, "fit", "--model=my_method.SSF", "--model.sites=[ffn_output]", *options, "--run_dir=run"]
    subprocess.run(fit, cwd=tmp_path, check=True, timeout=300)
    monkeypatch.chdir(tmp_path)
    main(["test", "run", "--trainer.enable_progress_bar=false"])
    (tmp_path / "t.txt").write_text("a film\n")
    main(["predict", "run", "--input", "t.txt", "--output", "o.jsonl"])
    assert json.loads((tmp_path / "o.jsonl").read_text())["label"] in ("bad", "good")
    result = RunDirectory(tmp_path / "run").read_result()
    assert result["method"] == "SSF"
    assert result["parameters"]["method"] == 3 * 2 * 32
    assert "test/accuracy" in result["metrics"]


@pytest.mark.parametrize("arguments", commands("fit"), ids=" ".join)
def test_fit_commands_parse(arguments, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "my_method.py").write_text(block("my_method.py"), encoding="utf-8")
    with pytest.raises(SystemExit) as stop:
        main([*arguments, "--print_config"])
    assert stop.value.code == 0


def test_there_are_commands_to_test():
    assert len(commands("fit")) >= 4
    assert {verb for verb in ("test", "predict", "summary") if commands(verb)} == {"test", "predict", "summary"}
