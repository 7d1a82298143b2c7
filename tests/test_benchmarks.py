"""Every DataModule through fit, validate, test and predict, from small files in the publishers' formats."""

import json
import math
import zipfile
from itertools import product

import pytest
import sacrebleu
from rouge_score.rouge_scorer import RougeScorer
from small_benchmarks import ARCHITECTURES, ROUGE, SMALL
from torchmetrics.functional.text import squad as torchmetrics_squad

from peft_lightning import data
from peft_lightning.cli import main
from peft_lightning.data.glue_tasks import GLUE_TASKS
from peft_lightning.data.houlsby17_tasks import HOULSBY17_TASKS
from peft_lightning.data.super_glue import TASKS as SUPER_GLUE_TASKS
from peft_lightning.runs import RunDirectory, write_submission
from peft_lightning.tasks.chunks import chunks
from peft_lightning.testing import MODEL_TYPES

# Small files have other sizes than the paper's, and too few rows for all their labels.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*Houlsby et al. had", "ignore:.*splits are drawn at random", "ignore:.*no row has the label"
)

# transformers has no such head for them; T5's for words sits on its encoder alone.
NO_HEAD = {
    "multiple_choice": ("gpt2", "opt", "llama", "bart", "mbart", "t5"),
    "token_classification": ("opt", "bart", "mbart", "t5"),
    "sequence_to_sequence": tuple(kind for kind in ARCHITECTURES if kind not in ("bart", "mbart", "t5")),
}
QUIET = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]


def fit_command(small, source, backbone, method, run):
    options = {"PrefixTuning": ["--model.projection_size=8"]}.get(method, [])
    options += [] if any("max_length" in option for option in small.options) else ["--data.max_length=16"]
    return [
        *("fit", f"--model={method}", f"--model.backbone={backbone}", "--model.lr=1e-2"),
        *(f"--data={small.data}", f"--data.source={source}", "--data.batch_size=5", *small.options, *options),
        *(f"--run_dir={run}", "--trainer.max_epochs=1", "--trainer.enable_model_summary=false", *QUIET),
    ]


def run_all_verbs(small, directory, backbone, method):
    """Fits, validates, tests and predicts, and looks at what that gives; the run."""
    (directory / "data").mkdir()
    run = RunDirectory(directory / "run")
    main(fit_command(small, small.write(directory / "data"), backbone, method, run.path))
    fitted = run.read_result()["metrics"]
    for verb in ("validate", "test", "predict"):
        main([verb, str(run.path), *QUIET])
    metrics = run.read_result()["metrics"]
    assert {name: metrics[name] for name in fitted} == pytest.approx(fitted, abs=1e-4)
    check_metrics(small, run)
    check_predictions(small, run)
    FILES.get(small.data, lambda run, rows: None)(run, read(run))


def read(run, name=""):
    return [json.loads(line) for line in run.predictions_of(name).read_text(encoding="utf-8").splitlines()]


def check_metrics(small, run):
    """All are there, and are numbers; of how many examples is recorded."""
    result, examples = run.read_result(), run.read_environment()["examples"]
    train, chosen, tested, _ = small.sizes
    names = (*small.metrics, "loss")
    sets = {"": tested} | {f"{name}_": rows for name, rows in small.evaluated.items()}
    assert result["status"] == "done"
    assert set(result["metrics"]) == {f"val/{n}" for n in names} | {f"test/{s}{n}" for s in sets for n in names}
    assert [n for n, value in result["metrics"].items() if value is None or not math.isfinite(value)] == []
    # SQuAD trains on windows, of which a question may have several.
    assert examples.pop("train") >= train if small.kind == "question_answering" else examples.pop("train") == train
    assert list(examples.values()) == [chosen]
    if "accuracy" in names:
        for name, rows in sets.items():
            right = rows * result["metrics"][f"test/{name}accuracy"]
            assert right == pytest.approx(round(right), abs=1e-4)
    if small.kind == "sequence_to_sequence":
        assert set(result["recipes"]) == {*small.metrics, "generation"}


def check_predictions(small, run):
    """Each row once, in order; where the labels are known, what is predicted gives the metrics of the test again."""
    for name, count in {"": small.sizes[3], **small.predicted}.items():
        rows = read(run, name)
        numbers = [row["row"] for row in rows]
        assert numbers == sorted(set(numbers))
        assert len(numbers) == count
        assert all(("true" in row) == small.labelled for row in rows)
    if small.labelled:
        metrics = run.read_result()["metrics"]
        for name, value in COUNTED_AGAIN[small.kind](read(run)).items():
            if name in small.metrics:
                assert metrics[f"test/{name}"] == pytest.approx(value, abs=1e-4), name


def accuracy(rows):
    return {"accuracy": sum(row["label"] == row["true"] for row in rows) / len(rows)}


def entities(rows):
    found = [(chunks(row["true"]), chunks(row["tags"])) for row in rows]
    right, both = sum(len(true & tags) for true, tags in found), sum(len(true) + len(tags) for true, tags in found)
    return {"f1": 2 * right / both if both else 0.0}


def answers(rows):
    """As torchmetrics counts them; it knows version 1.1 only, in which every question has an answer."""
    if not all(row["true"] for row in rows):
        return {}
    found = [{"id": row["id"], "prediction_text": row["answer"]} for row in rows]
    true = [{"id": row["id"], "answers": {"text": row["true"], "answer_start": [0] * len(row["true"])}} for row in rows]
    return {name: value.item() for name, value in torchmetrics_squad(found, true).items()}


def written(rows):
    found, true = [row["prediction"] for row in rows], [row["true"] for row in rows]
    scores = [RougeScorer(ROUGE, use_stemmer=True).score(*pair) for pair in zip(true, found, strict=True)]
    return {
        **{name: 100 * sum(score[name].fmeasure for score in scores) / len(scores) for name in ROUGE},
        "bleu": sacrebleu.corpus_bleu(found, [true]).score,
        "chrf": sacrebleu.corpus_chrf(found, [true]).score,
    }


COUNTED_AGAIN = {
    "classification": accuracy,
    "token_classification": entities,
    "question_answering": answers,
    "sequence_to_sequence": written,
}


def check_submission(run, rows):
    """The files that GLUE's server takes, with a line a row."""
    write_submission([run], run.path / "glue.zip")
    task = run.read_config()["data"]["init_args"]["task"]
    with zipfile.ZipFile(run.path / "glue.zip") as archive:
        found = {name: archive.read(name).decode().splitlines() for name in archive.namelist()}
    names = ("MNLI-m", "MNLI-mm", "AX") if task == "mnli" else (GLUE_TASKS[task].folder,)
    assert set(found) == {f"{name}.tsv" for name in names}
    first = found[f"{names[0]}.tsv"]
    assert first[0] == "index\tprediction"
    assert [line.split("\t")[0] for line in first[1:]] == [str(number) for number in range(len(rows))]


def check_answers(run, rows):
    """The official formats: answers, n-best lists, and for version 2.0 what its evaluator finds thresholds from."""
    files = {path.name: json.loads(path.read_text(encoding="utf-8")) for path in run.path.glob("*.json")}
    given, nbest = files["predictions.json"], files["nbest_predictions.json"]
    assert given == {row["id"]: row["answer"] for row in rows}
    for row in rows:
        assert row["answer"] in row["context"]
        assert sum(entry["probability"] for entry in nbest[row["id"]]) == pytest.approx(1)
        assert all(entry.keys() == {"text", "probability", "start_logit", "end_logit"} for entry in nbest[row["id"]])
    if run.read_config()["data"]["init_args"]["version"] == "2.0":
        odds, spans = files["null_odds.json"], files["best_span_predictions.json"]
        assert given == {name: "" if odds[name] > 0 else spans[name] for name in given}
        assert all(spans.values())
        metrics = run.read_result()["metrics"]
        for kind in ("exact_match", "f1"):
            both = (6 * metrics[f"test/has_answer_{kind}"] + 3 * metrics[f"test/no_answer_{kind}"]) / 9
            assert metrics[f"test/{kind}"] == pytest.approx(both)
            assert metrics[f"test/best_{kind}"] >= max(metrics[f"test/{kind}"], 100 / 3) - 1e-9


def check_columns(run, rows):
    """The file for conlleval: word, true and predicted tag."""
    blocks = (run.path / "predictions.conll").read_text(encoding="utf-8").split("\n\n")
    lines = [[line.split(" ") for line in block.splitlines()] for block in blocks]
    assert lines == [[list(word) for word in zip(row["tokens"], row["true"], row["tags"], strict=True)] for row in rows]


def check_numbers(run, rows):
    """The publisher's own numbers of the rows, which files to be submitted need."""
    assert [row["idx"] for row in rows] == [100, 101, 102, 103]
    assert {"idx", "row", "text", "text_pair", "label", "scores"} == rows[0].keys() - {"word"}


FILES = {"GLUE": check_submission, "SQuAD": check_answers, "CoNLL": check_columns, "SuperGLUE": check_numbers}


@pytest.mark.parametrize("name", SMALL)
def test_all_verbs(name, tiny, tmp_path):
    model_type, method = SMALL[name].on
    run_all_verbs(SMALL[name], tmp_path, tiny(model_type), method)


OTHERS = [
    (name, model_type)
    for name, model_type in product(SMALL, ARCHITECTURES)
    if model_type != SMALL[name].on[0] and model_type not in NO_HEAD.get(SMALL[name].kind, ())
]


@pytest.mark.long
@pytest.mark.parametrize(("name", "model_type"), OTHERS)
def test_all_verbs_on_every_architecture(name, model_type, tiny, tmp_path):
    run_all_verbs(SMALL[name], tmp_path, tiny(model_type), "LoRA")


WITHOUT_HEAD = {"multiple_choice": "copa", "token_classification": "conll", "sequence_to_sequence": "xsum"}


@pytest.mark.parametrize(
    ("kind", "model_type"), [(kind, model_type) for kind, without in NO_HEAD.items() for model_type in without]
)
def test_a_backbone_without_such_a_head_is_refused_in_one_sentence(kind, model_type, tiny, tmp_path, refused):
    small, task = SMALL[WITHOUT_HEAD[kind]], "".join(word.title() for word in kind.split("_"))
    sentence = refused(fit_command(small, small.write(tmp_path), tiny(model_type), "LoRA", tmp_path / "run"))
    assert f"is a {model_type} model, which cannot be loaded as AutoModelFor" in sentence
    assert f"for the task {task}: " in sentence
    assert f" {model_type}," not in sentence.split("one of the types")[1]
    assert sentence.count(". ") == 0
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_nothing_is_left_out():
    """A new DataModule, task or architecture has to be put into the table."""
    concrete = {name for name in data.__all__ if getattr(data, name).raw is not data.Benchmark.raw}
    assert {small.data for small in SMALL.values()} == concrete
    for prefix, tasks in (("glue", GLUE_TASKS), ("super_glue", SUPER_GLUE_TASKS), ("houlsby17", HOULSBY17_TASKS)):
        assert {name.removeprefix(f"{prefix}-") for name in SMALL if name.startswith(f"{prefix}-")} == set(tasks)
    assert {small.on[0] for small in SMALL.values()} == set(ARCHITECTURES) == set(MODEL_TYPES)
