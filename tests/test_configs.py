"""Every configuration that is shipped is complete and means what it says."""

from pathlib import Path

import pytest
import yaml

from peft_lightning.cli import main
from peft_lightning.studies import read_study

ROOT = Path(__file__).parent.parent
STUDIES = sorted(ROOT.glob("experiments/*/study*.yaml"))
RUNS = sorted({*ROOT.glob("configs/*.yaml"), *ROOT.glob("experiments/*/*.yaml")} - set(STUDIES))
# Second presets of a class say in their name what they are.
PRESETS = sorted(set(ROOT.glob("configs/method/*.yaml")) - {ROOT / "configs" / "method" / "ina_code.yaml"})
PARTS = sorted(ROOT.glob("configs/*/*.yaml"))


def parsed(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        main(["fit", *map(str, arguments), "--print_config"])
    assert stop.value.code == 0
    return yaml.safe_load(capsys.readouterr().out)


def assert_contains(found, wanted):
    """All that the file says has arrived; class names may have become full paths."""
    for key, value in wanted.items():
        if key == "class_path":
            assert found[key].rpartition(".")[2] == value
        elif isinstance(value, dict):
            assert_contains(found[key], value)
        elif not (isinstance(value, str) and value.endswith(".yaml")):
            assert found[key] == value, key


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_whole_runs(path, capsys):
    assert_contains(parsed(capsys, f"--config={path}"), yaml.safe_load(path.read_text()))


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_run_of_a_study_is_complete(path, capsys, tmp_path):
    study = read_study(path)
    for variant in study.variants:
        run = study.candidates(variant)[0]
        (tmp_path / "run.yaml").write_text(yaml.safe_dump(dict(run.config)))
        assert_contains(parsed(capsys, f"--config={tmp_path / 'run.yaml'}"), run.config)


@pytest.mark.parametrize("path", PARTS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_parts(path, capsys):
    part = {"method": "model"}.get(path.parent.name, path.parent.name)
    others = {"model": "Houlsby", "data": "RottenTomatoes", "trainer.max_epochs": "1"}
    others.pop(part, None)
    found = parsed(capsys, *(f"--{name}={value}" for name, value in others.items()), f"--{part}={path}")
    assert_contains(found[part], yaml.safe_load(path.read_text()))


def test_amazon_polarity_is_the_published_run(capsys):
    found = parsed(capsys, f"--config={ROOT / 'configs' / 'amazon_polarity.yaml'}")
    model, data = found["model"]["init_args"], found["data"]["init_args"]
    assert (model["backbone"], model["lr"], model["warmup"]) == ("FacebookAI/roberta-base", 3e-4, 0.0)
    assert (data["batch_size"], data["max_length"], found["trainer"]["max_steps"]) == (32, 100, 80_000)


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_the_preset_is_what_the_class_does_by_default(path, capsys):
    method = yaml.safe_load(path.read_text())["class_path"]
    preset = parsed(capsys, f"--model={path}", "--data=RottenTomatoes")["model"]
    assert preset == parsed(capsys, f"--model={method}", "--data=RottenTomatoes")["model"]


def test_presets_are_those_of_the_papers(capsys):
    def preset(method):
        path = ROOT / "configs" / "method" / f"{method}.yaml"
        return parsed(capsys, f"--model={path}", "--data=RottenTomatoes")["model"]["init_args"]

    houlsby = preset("houlsby")
    assert (houlsby["bottleneck"], houlsby["init_std"], houlsby["train_layer_norm"]) == (64, 1e-2, True)
    assert (houlsby["warmup"], houlsby["schedule"]) == (0.1, "linear")
    lora = preset("lora")
    assert (lora["rank"], lora["alpha"], lora["targets"], lora["warmup"]) == (8, 8.0, ["query", "value"], 0.06)
    ptuning = preset("ptuning_v2")
    assert (ptuning["dropout"], ptuning["shift_positions"], ptuning["warmup"]) == (0.1, True, 0.0)
