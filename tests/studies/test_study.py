"""A study expands into runs, chooses on validation, goes on where it stopped, and reports what was found."""

import csv
import math
import shutil

import pytest
import torch
import yaml

from peft_lightning.cli import main
from peft_lightning.errors import UserError
from peft_lightning.methods import LoRA
from peft_lightning.studies import read_study, run_study
from peft_lightning.studies.one_run import carry_out


def write(path, **changes):
    content = {
        "runs": str(path.parent / "runs"),
        "common": {"data": {"class_path": "RottenTomatoes"}, "trainer": {"max_epochs": 1}, "model": {"warmup": 0.1}},
        "variants": {
            "LoRA": {"model": {"class_path": "LoRA", "init_args": {"rank": 2}}, "grid": {"lr": [1e-3, 1e-2]}},
            "Linear probe": {"model": {"class_path": "LinearProbe"}},
        },
        "seeds": [0, 1, 2],
        "selection": [0],
    }
    path.write_text(yaml.safe_dump(content | changes, sort_keys=False))
    return path


def result(validation, mode="max"):
    return {"status": "done", "monitor": "accuracy", "mode": mode, "metrics": {"val/accuracy": validation}}


def test_the_first_stage_is_the_grid_with_the_seeds_of_the_selection(tmp_path):
    study = read_study(write(tmp_path / "study.yaml"))
    planned = list(study.planned({}))
    assert [str(run) for run in planned] == ["LoRA lr=0.001 seed 0", "LoRA lr=0.01 seed 0", "Linear probe seed 0"]
    assert [run.directory.relative_to(tmp_path / "runs").as_posix() for run in planned] == [
        "LoRA/lr0.001/seed0",
        "LoRA/lr0.01/seed0",
        "Linear_probe/only/seed0",
    ]
    assert planned[1].config["model"] == {"class_path": "LoRA", "init_args": {"warmup": 0.1, "rank": 2, "lr": 1e-2}}
    assert study.size == 2 + 2 + 1 + 2


@pytest.mark.parametrize(("mode", "best"), [("max", 1e-2), ("min", 1e-3)])
def test_the_second_stage_is_the_best_point_on_validation_with_all_seeds(tmp_path, mode, best):
    study = read_study(write(tmp_path / "study.yaml"))
    first, second = study.candidates("LoRA")
    assert study.chosen("LoRA", {first.directory: result(0.7, mode)}) is None
    chosen = study.chosen("LoRA", {first.directory: result(0.7, mode), second.directory: result(0.8, mode)})
    assert [(run.point, run.seed) for run in chosen] == [((("lr", best),), seed) for seed in (0, 1, 2)]


def test_a_run_that_diverged_is_never_chosen(tmp_path):
    study = read_study(write(tmp_path / "study.yaml"))
    first, second = study.candidates("LoRA")
    diverged = result(0.9) | {"status": "nonfinite"}
    for worse in (diverged, result(None)):
        chosen = study.chosen("LoRA", {first.directory: worse, second.directory: result(0.1)})
        assert chosen[0].point == (("lr", 1e-2),)


def test_a_run_that_diverges_is_a_result_and_one_without_memory_a_failure(study, tmp_path, monkeypatch):
    original = LoRA.training_step

    def training_step(self, batch, batch_idx):
        if self.hparams.rank == 3:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return original(self, batch, batch_idx) * (math.inf if self.hparams.lr == 1e-2 else 1)

    monkeypatch.setattr(LoRA, "training_step", training_step)
    variants = {
        "Diverging": {"model": {"class_path": "LoRA"}, "grid": {"lr": [1e-2, 1e-3]}},
        "Large": {"model": {"class_path": "LoRA", "init_args": {"rank": 3}}},
    }
    read, executed = read_study(study(variants=variants, seeds=[0])), []
    for _ in range(2):
        with pytest.raises(UserError, match=r"1 of 3 runs have failed: Large seed 0 \(oom\)"):
            run_study(read, lambda run: executed.append(str(run)) or execute_here(run))
    assert executed == ["Diverging lr=0.01 seed 0", "Diverging lr=0.001 seed 0", "Large seed 0", "Large seed 0"]
    assert [row["status"] for row in rows_of(tmp_path / "runs" / "runs.csv")] == ["nonfinite", "done"]
    (row,) = rows_of(tmp_path / "runs" / "table.csv")
    assert row["chosen"] == "lr=0.001"


@pytest.mark.parametrize("whole", [True, False])
def test_a_model_may_be_that_of_another_configuration(tmp_path, whole):
    model = {"class_path": "LoRA", "init_args": {"rank": 3, "lr": 1.0}}
    (tmp_path / "lora.yaml").write_text(yaml.safe_dump({"model": model, "trainer": {}} if whole else model))
    variants = {"LoRA": {"model": "lora.yaml", "grid": {"lr": [0.1]}}}
    (run,) = read_study(write(tmp_path / "study.yaml", variants=variants)).candidates("LoRA")
    assert run.config["model"]["init_args"] == {"warmup": 0.1, "rank": 3, "lr": 0.1}


@pytest.fixture
def study(tmp_path, tiny, reviews):
    def write_it(**changes):
        common = {
            "model": {"backbone": str(tiny())},
            "data": {"class_path": "TextClassification", "init_args": {"source": str(reviews), "max_length": 16}},
            "trainer": {"max_epochs": 1, "accelerator": "cpu", "enable_progress_bar": False, "limit_train_batches": 2},
        }
        return write(tmp_path / "study.yaml", **{"common": common, "seeds": [0, 1]} | changes)

    return write_it


def execute_here(run):
    """As in a process of its own, which takes longer."""
    config = run.directory.parent / "study_config.yaml"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(yaml.safe_dump(dict(run.config)))
    try:
        carry_out(str(config), str(run.seed), str(run.directory), *(["test"] if run.tested else []))
    except SystemExit as stop:
        return stop.code
    return 0


def rows_of(path):
    with path.open() as lines:
        return list(csv.DictReader(lines))


def test_a_study_makes_table_and_figure_and_goes_on_after_an_interruption(study, tmp_path):
    read = read_study(study())
    files = run_study(read, execute_here)
    runs = tmp_path / "runs"
    assert files == [runs / name for name in ("runs.csv", "table.csv", "table.md", "figure.png")]
    rows, table = rows_of(runs / "runs.csv"), {row["variant"]: row for row in rows_of(runs / "table.csv")}
    assert len(rows) == 5 == read.size
    validation = {row["options"]: float(row["validation"]) for row in rows if row["seed"] == "0"}
    assert table["LoRA"]["chosen"] == max(("lr=0.001", "lr=0.01"), key=validation.__getitem__)
    test = [float(row["test"]) for row in rows if row["options"] == table["LoRA"]["chosen"]]
    assert len(test) == 2
    assert float(table["LoRA"]["test"]) == pytest.approx(sum(test) / 2)
    assert float(table["LoRA"]["test_error"]) == pytest.approx(abs(test[0] - test[1]) / 2)
    assert int(table["LoRA"]["method"]) == 3 * 2 * 2 * 64
    assert "| Linear probe | " in (runs / "table.md").read_text()
    assert (runs / "figure.png").read_bytes().startswith(b"\x89PNG")

    executed = []
    shutil.rmtree(runs / "Linear_probe" / "only" / "seed1")
    run_study(read, lambda run: executed.append(str(run)) or execute_here(run))
    assert executed == ["Linear probe seed 1"]
    assert [row["test"] for row in rows_of(runs / "runs.csv")] == [row["test"] for row in rows]


def test_a_run_that_fails_is_named_and_does_not_stop_the_others(study, tmp_path):
    variants = {
        "Wrong": {"model": {"class_path": "LoRA", "init_args": {"rank": 99}}},
        "Right": {"model": {"class_path": "LinearProbe"}},
    }
    with pytest.raises(UserError, match=r"1 of 4 runs have failed: Wrong seed 0"):
        run_study(read_study(study(variants=variants)), execute_here)
    assert [row["variant"] for row in rows_of(tmp_path / "runs" / "table.csv")] == ["Right"]


@pytest.mark.parametrize("status", [130, 143, 75])
def test_an_interruption_ends_the_study_with_its_status(study, status):
    executed = []
    with pytest.raises(SystemExit) as stop:
        run_study(read_study(study()), lambda run: executed.append(run) or status)
    assert stop.value.code == status
    assert len(executed) == 1


def test_the_command_executes_each_run_in_a_process_on_the_source_that_is_given(study, tmp_path, reviews, capsys):
    path = study(variants={"Probe": {"model": {"class_path": "LinearProbe"}}}, seeds=[0])
    path.write_text(path.read_text().replace(str(reviews), "elsewhere.csv"))
    main(["study", str(path), "--source", str(reviews)])
    printed = capsys.readouterr().out
    assert (tmp_path / "runs" / "table.md").read_text() in printed
    assert str(tmp_path / "runs" / "figure.png") in printed


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"colour": "blue"}, "it holds colour, common"),
        ({"variants": {}}, "has no variants"),
        ({"variants": {"A": {"grid": {}}}}, "variant A has no model"),
        ({"variants": {"A": {"model": "none.yaml"}}}, "none.yaml, cannot be read"),
        ({"variants": {"A": {"model": {}}}}, "variant A has no class_path"),
        ({"variants": {"A": {"model": {"class_path": "LoRA"}, "lr": 1}}}, "variant A holds lr"),
        ({"variants": {"A": {"model": {"class_path": "LoRA"}, "grid": {"lr": 1}}}}, "give a list of values"),
        ({"seeds": []}, "seeds is []"),
        ({"seeds": [0, 0]}, "each once"),
        ({"selection": [7]}, "no part of seeds"),
        ({"common": {}}, "common has no data"),
    ],
)
def test_a_wrong_study_is_named(tmp_path, changes, message):
    with pytest.raises(UserError) as caught:
        read_study(write(tmp_path / "study.yaml", **changes))
    assert message in str(caught.value)


def test_data_that_has_no_place_for_a_source_is_named(tmp_path):
    path = write(tmp_path / "study.yaml", common={"data": "RottenTomatoes"})
    with pytest.raises(UserError, match="data is 'RottenTomatoes'"):
        read_study(path, source="elsewhere.csv")


@pytest.mark.parametrize(("text", "message"), [("a: [", "is not YAML"), (None, "cannot be read"), ("7", "it holds")])
def test_a_file_that_is_no_study_is_named(refused, tmp_path, text, message):
    path = tmp_path / "study.yaml"
    if text:
        path.write_text(text)
    assert message in refused(["study", str(path)])
