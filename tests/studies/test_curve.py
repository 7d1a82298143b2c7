"""A study can show a metric against a number of its grid: every point, with all seeds, and what went wrong."""

import csv
import json
import math
from pathlib import Path

import pytest
import yaml

from peft_lightning.cli import main
from peft_lightning.errors import UserError
from peft_lightning.runs import RunDirectory
from peft_lightning.studies import read_study, run_study
from peft_lightning.studies.curve_points import curve_points

STD = "callbacks.InitScale.std"


def write(path, **changes):
    houlsby = {"class_path": "Houlsby", "init_args": {"bottleneck": 4}}
    content = {
        "runs": str(path.parent / "runs"),
        "common": {
            "data": {"class_path": "RottenTomatoes"},
            "trainer": {"max_epochs": 1, "callbacks": [{"class_path": "AdapterActivity"}]},
        },
        "variants": {
            "Small": {"model": houlsby, "grid": {STD: [1e-2, 1e-4]}},
            "Other": {"model": houlsby, "grid": {STD: [1e-4]}, "data": {"class_path": "IMDB"}},
        },
        "seeds": [0, 1, 2],
        "selection": [0, 1, 2],
        "figure": {"x": STD},
    }
    merged = {key: value for key, value in (content | changes).items() if value is not None}
    path.write_text(yaml.safe_dump(merged, sort_keys=False))
    return path


def result(accuracy, loss=0.5):
    return {
        "status": "done",
        "monitor": "accuracy",
        "mode": "max",
        "seconds": 1,
        "metrics": {"val/accuracy": accuracy, "val/loss": loss, "val/f1": 0.1},
    }


def test_every_point_of_the_grid_runs_with_all_seeds(tmp_path):
    study = read_study(write(tmp_path / "study.yaml"))
    planned = list(study.planned({}))
    assert len(planned) == study.size == 9
    assert [str(run) for run in planned[:4]] == [
        *(f"Small {STD}=0.01 seed {seed}" for seed in (0, 1, 2)),
        f"Small {STD}=0.0001 seed 0",
    ]
    assert len({run.directory for run in planned}) == 9
    assert not any(run.tested for run in planned)
    all_done = {run.directory: result(0.5) for run in planned}
    assert [run.directory for run in study.planned(all_done)] == [run.directory for run in planned]


def test_an_option_of_a_callback_is_set_beside_what_the_trainer_has(tmp_path):
    study = read_study(write(tmp_path / "study.yaml"))
    small, other = (study.candidates(variant)[0].config for variant in ("Small", "Other"))
    assert small["trainer"] == {
        "max_epochs": 1,
        "callbacks": [
            {"class_path": "AdapterActivity", "init_args": {}},
            {"class_path": "InitScale", "init_args": {"std": 1e-2}},
        ],
    }
    assert small["model"]["init_args"] == {"bottleneck": 4}
    assert (small["data"]["class_path"], other["data"]["class_path"]) == ("RottenTomatoes", "IMDB")
    assert study.common["trainer"]["callbacks"] == [{"class_path": "AdapterActivity"}]


def test_an_option_of_a_callback_that_the_trainer_has_is_replaced(tmp_path):
    callback = {"class_path": "my.Stop", "init_args": {"patience": 1, "monitor": "val/loss"}}
    common = {"data": {"class_path": "IMDB"}, "trainer": {"callbacks": [callback]}}
    variants = {"A": {"model": {"class_path": "LoRA"}, "grid": {"callbacks.my.Stop.patience": [2, 3]}}}
    figure = {"x": "callbacks.my.Stop.patience", "scale": "linear"}
    study = read_study(write(tmp_path / "study.yaml", common=common, variants=variants, figure=figure))
    given = [run.config["trainer"]["callbacks"] for run in study.candidates("A")[::3]]
    assert given == [[{"class_path": "my.Stop", "init_args": {"patience": n, "monitor": "val/loss"}}] for n in (2, 3)]


def test_points_are_means_with_standard_errors_and_count_what_was_lost(tmp_path):
    study = read_study(write(tmp_path / "study.yaml"))
    small, other = study.candidates("Small"), study.candidates("Other")
    values = [result(0.7), result(0.8), result(0.9), result(0.5), result(0.5, None), result(None)]
    results = {run.directory: value for run, value in zip(small, values, strict=True)}
    results |= {run.directory: result(0.5) for run in other[:2]}
    low, high, lacking = curve_points(study, results)
    assert (high.variant, high.x, high.metric, high.counted) == ("Small", 1e-2, "val/accuracy", 3)
    assert high.mean == pytest.approx(0.8)
    assert high.error == pytest.approx(0.1 / math.sqrt(3))
    assert (low.x, low.mean, low.error, low.diverged, low.missing, low.counted) == (1e-4, 0.5, None, 2, 0, 1)
    assert (lacking.variant, lacking.mean, lacking.diverged, lacking.missing) == ("Other", None, 0, 1)


def test_the_metric_may_be_another_than_the_monitored_one(tmp_path):
    study = read_study(write(tmp_path / "study.yaml", figure={"x": STD, "metric": "f1"}))
    results = {run.directory: result(0.9) for run in study.planned({})}
    assert {(point.metric, point.mean) for point in curve_points(study, results)} == {("val/f1", 0.1)}
    wrong = read_study(write(tmp_path / "study.yaml", figure={"x": STD, "metric": "bleu"}))
    with pytest.raises(UserError, match="metric bleu, which Small does not have; give one of accuracy, loss, f1"):
        curve_points(wrong, results)


def rows_of(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_report_shows_points_errors_gaps_and_what_was_lost(tmp_path):
    """Two runs have diverged, one never comes to its end: it fails again, is named, and leaves a gap."""
    study = read_study(write(tmp_path / "study.yaml"))
    small, other = study.candidates("Small"), study.candidates("Other")
    values = [result(0.7), result(0.8), result(0.9), result(0.5), result(0.5, None), result(None)]
    for run, value in zip([*small, *other[:2]], [*values, result(0.5), result(0.5)], strict=True):
        run.directory.mkdir(parents=True)
        (run.directory / "result.json").write_text(json.dumps(value))
    with pytest.raises(UserError, match=rf"1 of 9 runs have failed: Other {STD}=0.0001 seed 2"):
        run_study(study, lambda run: 1)
    runs = tmp_path / "runs"
    assert len(rows_of(runs / "runs.csv")) == 8
    low, high, lacking = rows_of(runs / "figure.csv")
    assert (float(high["mean"]), float(high["error"])) == pytest.approx((0.8, 0.1 / math.sqrt(3)))
    assert (low["diverged"], low["missing"], lacking["missing"], lacking["mean"]) == ("2", "0", "1", "")
    assert (runs / "figure.md").read_text().splitlines() == [
        "| std | Small | Other |",
        "| ---: | ---: | ---: |",
        "| 0.0001 | 0.5000 (2 of 3 diverged) | - (1 of 3 missing) |",
        "| 0.01 | 0.8000 ± 0.0577 |  |",
        "",
        "validation accuracy, mean ± standard error, n = 3 seeds",
    ]
    assert (runs / "figure.png").read_bytes().startswith(b"\x89PNG")
    pdf = (runs / "figure.pdf").read_bytes()
    assert pdf.startswith(b"%PDF")
    assert b"/CIDFontType2" in pdf  # the outlines of type 42
    assert b"/Type3" not in pdf


def test_what_is_drawn_is_what_was_found(tmp_path, monkeypatch):
    """One line a variant in colours and markers of its own; lost runs are said in the figure."""
    from peft_lightning.studies import curve_report

    drawn = []
    monkeypatch.setattr(curve_report, "save_figure", lambda figure, stem: drawn.append(figure) or [])
    study = read_study(write(tmp_path / "study.yaml", figure={"x": STD, "label": "deviation"}))
    values = [0.7, 0.8, 0.9, 0.4, 0.5, None, 0.5, 0.6, 0.7]
    results = {run.directory: result(value) for run, value in zip(study.planned({}), values, strict=True)}
    curve_report.write_curve(study.curve, curve_points(study, results), tmp_path / "figure")
    (axes,) = drawn[0].axes
    assert (axes.get_xscale(), axes.get_xlabel()) == ("log", "deviation")
    assert axes.get_ylabel() == "validation accuracy, mean ± standard error, n = 3 seeds"
    first, second = (container.lines[0] for container in axes.containers)
    assert (list(first.get_xdata()), list(first.get_ydata())) == ([1e-4, 1e-2], pytest.approx([0.45, 0.8]))
    assert list(second.get_ydata()) == pytest.approx([0.6])
    assert first.get_color() != second.get_color()
    assert first.get_marker() != second.get_marker()
    assert [text.get_text() for text in axes.texts] == ["1/6 diverged"]


def test_the_command_trains_each_point_and_tests_none(tmp_path, tiny, reviews, capsys, monkeypatch):
    common = {
        "model": {"backbone": str(tiny()), "lr": 1e-2},
        "data": {"class_path": "TextClassification", "init_args": {"source": str(reviews), "max_length": 16}},
        "trainer": {"max_epochs": 1, "accelerator": "cpu", "enable_progress_bar": False, "limit_train_batches": 1},
    }
    variants = {"Small": {"model": {"class_path": "Houlsby"}, "grid": {STD: [1e-3, 1.0]}}}
    path = write(tmp_path / "study.yaml", common=common, variants=variants, seeds=[0], selection=[0])
    run_study(read_study(path), execute_here)
    runs = [RunDirectory(run.directory) for run in read_study(path).planned({})]
    for run, std in zip(runs, (1e-3, 1.0), strict=True):
        (callback,) = run.read_config()["trainer"]["callbacks"]
        assert callback["init_args"] == {"std": std}
        assert not any(name.startswith("test/") for name in run.read_result()["metrics"])
    before = {run.path: run.result.stat().st_mtime_ns for run in runs}
    main(["study", str(path)])
    assert (tmp_path / "runs" / "figure.md").read_text() in capsys.readouterr().out
    assert {run.path: run.result.stat().st_mtime_ns for run in runs} == before
    points = rows_of(tmp_path / "runs" / "figure.csv")
    assert [float(row["mean"]) for row in points] == [run.read_result()["metrics"]["val/accuracy"] for run in runs]


def execute_here(run):
    """As in a process of its own, which takes longer."""
    from peft_lightning.studies.one_run import carry_out

    config = Path(run.directory.parent / "study_config.yaml")
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(yaml.safe_dump(dict(run.config)))
    carry_out(str(config), str(run.seed), str(run.directory), *(["test"] if run.tested else []))
    return 0


LORA = {"class_path": "LoRA"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"figure": {"y": "lr"}}, "figure holds y; give x, an option of the grids"),
        ({"figure": {"x": STD, "colour": "red"}}, "figure holds x, colour"),
        ({"figure": "log"}, "figure holds log"),
        ({"figure": {"x": STD, "scale": "sqrt"}}, "scale of the figure is sqrt; give one of log, linear"),
        ({"figure": {"x": STD, "split": "train"}}, "split of the figure is train; give one of validation, test"),
        ({"figure": {"x": STD, "metric": 7}}, "metric of the figure is 7; give a text"),
        ({"figure": {"x": "lr"}}, f"against lr, and the grid of variant Small has {STD}"),
        ({"variants": {"A": {"model": LORA}}}, "the grid of variant A has no option"),
        ({"variants": {"A": {"model": LORA, "grid": {STD: [1.0], "lr": [1.0]}}}}, f"variant A has {STD}, lr"),
        ({"variants": {"A": {"model": LORA, "grid": {STD: ["low"]}}}}, "has the value 'low'; give numbers above 0"),
        (
            {"variants": {"A": {"model": LORA, "grid": {STD: ["1e-3"]}}}},
            "'1e-3'; give numbers above 0 for a log axis, written as 1.0e-03",
        ),
        (
            {"variants": {"A": {"model": LORA, "grid": {STD: [0.0]}}}},
            "the value 0.0; give numbers above 0 for a log axis",
        ),
        ({"variants": {"A": {"model": LORA, "grid": {STD: [True]}}}}, "the value True"),
        ({"variants": {"A": {"model": LORA, "grid": {STD: [1.0, 1]}}}}, "has a value twice"),
        ({"selection": [0]}, "selection is [0]; make it [0, 1, 2], as seeds"),
        (
            {"variants": {"A": {"model": LORA, "grid": {"data.train_size": [1]}}}, "figure": None},
            "has data.train_size; give an option of the method, or callbacks.CLASS.OPTION",
        ),
        ({"variants": {"A": {"model": LORA, "grid": {"callbacks.std": [1]}}}, "figure": None}, "has callbacks.std"),
        ({"common": {}, "figure": None}, "common has no data"),
    ],
)
def test_a_wrong_figure_is_named(tmp_path, refused, changes, message):
    assert message in refused(["study", write(tmp_path / "study.yaml", **changes)])


def test_a_linear_axis_may_hold_zero(tmp_path):
    variants = {"A": {"model": LORA, "grid": {"dropout": [0.0, 0.1]}}}
    study = read_study(write(tmp_path / "study.yaml", variants=variants, figure={"x": "dropout", "scale": "linear"}))
    assert study.size == 6


def test_the_figure_may_be_of_the_test_split(tmp_path):
    study = read_study(write(tmp_path / "study.yaml", figure={"x": STD, "split": "test"}))
    assert all(run.tested for run in study.planned({}))
