"""Every configuration that is shipped is complete and means what it says."""

from pathlib import Path

import pytest
import yaml

from peft_lightning import data
from peft_lightning.cli import main
from peft_lightning.data.glue_tasks import GLUE_TASKS
from peft_lightning.studies import read_study

ROOT = Path(__file__).parent.parent
STUDIES = sorted(path for path in ROOT.glob("experiments/*/*.yaml") if "variants" in yaml.safe_load(path.read_text()))
RUNS = sorted({*ROOT.glob("configs/*.yaml"), *ROOT.glob("experiments/*/*.yaml")} - set(STUDIES))
# Second presets of a class say in their name what they are.
PRESETS = sorted(set(ROOT.glob("configs/method/*.yaml")) - {ROOT / "configs" / "method" / "ina_code.yaml"})
# Length, batch and the metric that chooses, and what else the paper or script that the file names says.
WINDOWS = {"doc_stride": 128, "max_query_length": 64, "n_best_size": 20, "max_answer_length": 30}
OF_THE_PAPERS = {
    "amazon_polarity": (100, 32, "accuracy", {}),
    "conll2003": (152, 16, "f1", {}),
    "copa": (128, 16, "accuracy", {"wording": "conjunction"}),
    "glue": (128, 32, "matthews", {"task": "cola"}),
    "houlsby17": (128, 32, "accuracy", {}),
    "imdb": (512, 24, "accuracy", {}),
    "rotten_tomatoes": (80, 32, "accuracy", {}),
    "squad": (384, 32, "f1", {"version": "1.1", **WINDOWS}),
    "squad_v2": (384, 48, "f1", {"version": "2.0", **WINDOWS, "null_score_diff_threshold": 0.0}),
    "super_glue": (128, 32, "accuracy", {"wic_wording": "question"}),
    "swag": (80, 16, "accuracy", {}),
    "wmt16": (150, 100, "loss", {"max_target_length": 150, "num_beams": 5, "max_new_tokens": 149}),
    "xsum": (512, 16, "rouge2", {"max_target_length": 128, "num_beams": 6, "max_new_tokens": 59, "min_new_tokens": 9}),
}
TABLE_1_OF_GLUE = {
    **dict.fromkeys(("sst2", "mnli", "qnli", "rte", "wnli"), "accuracy"),
    **dict.fromkeys(("mrpc", "qqp"), "f1"),
    **{"cola": "matthews", "stsb": "spearman"},
}
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
        elif key == "callbacks":
            for one, other in zip(found[key], value, strict=True):
                assert_contains(one, other)
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


@pytest.mark.parametrize("name", OF_THE_PAPERS)
def test_the_values_of_data_are_those_of_the_papers(name):
    content = yaml.safe_load((ROOT / "configs" / "data" / f"{name}.yaml").read_text())
    length, batch, metric, more = OF_THE_PAPERS[name]
    values = content["init_args"]
    assert {key: values[key] for key in ("max_length", "batch_size", *more)} == {
        **{"max_length": length, "batch_size": batch},
        **more,
    }
    # CoNLL would look for its tags on the Hub.
    tags = {"labels": ["O"]} if name == "conll2003" else {}
    assert getattr(data, content["class_path"])(**values, **tags).task_description["monitor"] == metric


def test_every_benchmark_has_its_papers_values():
    files = {path.stem for path in ROOT.glob("configs/data/*.yaml")}
    assert files - {"text_classification", "text_to_text"} == set(OF_THE_PAPERS)
    assert {task: facts.monitor for task, facts in GLUE_TASKS.items()} == TABLE_1_OF_GLUE


def test_amazon_polarity_is_the_published_run(capsys):
    found = parsed(capsys, f"--config={ROOT / 'configs' / 'amazon_polarity.yaml'}")
    model, reviews = found["model"]["init_args"], found["data"]["init_args"]
    assert (model["backbone"], model["lr"], model["warmup"]) == ("FacebookAI/roberta-base", 3e-4, 0.0)
    assert (reviews["batch_size"], reviews["max_length"], found["trainer"]["max_steps"]) == (32, 100, 80_000)


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
