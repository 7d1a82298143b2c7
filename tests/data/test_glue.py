"""GLUE from its own files, in the formats in which they are published, and laid out as on the Hub."""

import json
import zipfile

import pytest
from datasets import ClassLabel, Dataset, Features, Value
from small_glue import BAD, GOOD, lines, write_cola, write_mnli, write_stsb

from peft_lightning.cli import main
from peft_lightning.data import GLUE
from peft_lightning.errors import UserError
from peft_lightning.runs import RunDirectory

QUIET = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--trainer.accelerator=cpu"]


QQP = ("id", "qid1", "qid2", "question1", "question2", "is_duplicate")
MRPC_REST = ("#1 ID", "#2 ID", "#1 String", "#2 String")


def glue(tiny, task, source, **options):
    return GLUE(task=task, source=str(source), backbone=str(tiny()), **options)


def run_glue(tiny, root, task, run, *options):
    command = ["--model=LoRA", f"--model.backbone={tiny()}", "--data=GLUE", f"--data.task={task}"]
    command += [f"--data.source={root}", "--data.batch_size=8", "--data.max_length=16", *options]
    main(["fit", *command, "--trainer.max_epochs=1", f"--run_dir={run}", *QUIET])
    return RunDirectory(run)


def test_cola_without_header_with_literal_quotes(tiny, tmp_path):
    write_cola(tmp_path)
    for source in (tmp_path, tmp_path / "CoLA"):
        data = glue(tiny, "cola", source)
        assert [len(data.table(split)) for split in ("train", "validation", "test")] == [24, 8, 3]
        assert data.table("validation")[1] == {"row": 2, "text": GOOD, "label": 1}
        assert data.table("test")[0] == {"row": 1, "text": GOOD}
        assert data.task_description["monitor"] == "matthews"


def test_mrpc_from_the_publishers_files_and_the_list_of_development_pairs(tiny, tmp_path):
    header = ("\ufeffQuality", "#1 ID", "#2 ID", "#1 String", "#2 String")
    rows = [(i % 2, 100 + i, 200 + i, f"{GOOD} {i}", BAD) for i in range(6)]
    lines(tmp_path / "MRPC" / "msr_paraphrase_train.txt", header, *rows)
    lines(tmp_path / "MRPC" / "msr_paraphrase_test.txt", header, *rows[:2])
    lines(tmp_path / "MRPC" / "dev_ids.tsv", (101, 201), (104, 204))
    data = glue(tiny, "mrpc", tmp_path)
    assert [row["text"] for row in data.table("validation")] == [f"{GOOD} 1", f"{GOOD} 4"]
    assert data.table("validation")["label"][:] == [1, 0]
    assert [row["text"][-1] for row in data.table("train")] == ["0", "2", "3", "5"]
    assert data.table("test").column_names == ["row", "text", "text_pair"]
    assert data.table("validation")["row"][:] == [2, 5]
    assert data.table("train")["row"][:] == [1, 3, 4, 6]
    (tmp_path / "MRPC" / "dev_ids.tsv").unlink()
    with pytest.raises(UserError, match=r"no dev_ids\.tsv"):
        glue(tiny, "mrpc", tmp_path).table("train")


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        (b"1\t\xff\n", r"dev_ids\.tsv, line 1 is not UTF-8"),
        (b"7\t8\n", r"dev_ids\.tsv lists the pairs of ids of no row of msr_paraphrase_train\.txt; give GLUE's list"),
        (b"100\t200\n101\t201\n", r"dev_ids\.tsv lists the pairs of ids of all rows of msr_paraphrase_train\.txt"),
    ],
)
def test_a_wrong_list_of_development_pairs_is_refused(tiny, tmp_path, ids, words):
    rows = [(i, 100 + i, 200 + i, GOOD, BAD) for i in range(2)]
    lines(tmp_path / "MRPC" / "msr_paraphrase_train.txt", ("Quality", *MRPC_REST), *rows)
    (tmp_path / "MRPC" / "dev_ids.tsv").write_bytes(ids)
    with pytest.raises(UserError, match=words):
        glue(tiny, "mrpc", tmp_path).table("validation")


def test_a_wrong_row_of_mrpc_is_named_by_its_number_in_the_file(tiny, tmp_path):
    rows = [(label, 100 + i, 200 + i, GOOD, BAD) for i, label in enumerate((0, 1, 0, 9))]
    lines(tmp_path / "MRPC" / "msr_paraphrase_train.txt", ("Quality", *MRPC_REST), *rows)
    lines(tmp_path / "MRPC" / "dev_ids.tsv", (100, 200))
    with pytest.raises(UserError, match=r"msr_paraphrase_train\.txt \(train\), row 4: column 'Quality' holds '9'"):
        glue(tiny, "mrpc", tmp_path).table("train")


def test_rows_of_qqp_that_lack_fields_are_left_out_with_a_warning(tiny, tmp_path):
    lines(
        tmp_path / "QQP" / "train.tsv",
        QQP,
        (0, 1, 2, "a film", "the plot", 1),
        (1, 3, 4, "a"),
        (2, 5, 6, "b", "c", 0),
    )
    data = glue(tiny, "qqp", tmp_path)
    with pytest.warns(UserWarning, match="1 rows lack fields and are left out, the first of them in line 3"):
        assert data.table("train")["text"][:] == ["a film", "b"]


def write_qqp_with_an_empty_question(root, layout):
    """As two training rows of the Hub's copy are."""
    rows = [(0, 1, 2, "a film", "the plot", 1), (1, 3, 4, "is it", "", 0), (2, 5, 6, "b", "c", 0)]
    if layout == "tsv":
        lines(root / "QQP" / "train.tsv", QQP, *rows)
        return root
    texts = {"question1": Value("string"), "question2": Value("string")}
    features = Features({**texts, "label": ClassLabel(names=["not_duplicate", "duplicate"]), "idx": Value("int32")})
    (root / "qqp").mkdir()
    table = Dataset.from_list(
        [{"question1": one, "question2": other, "label": label, "idx": n} for n, _, _, one, other, label in rows],
        features=features,
    )
    table.to_parquet(root / "qqp" / "train-00000-of-00001.parquet")
    (root / "README.md").write_text(
        "---\nconfigs:\n- config_name: qqp\n  data_files:\n  - split: train\n    path: qqp/train-*\n---\n"
    )
    return root


@pytest.mark.parametrize("layout", ["tsv", "hub"])
def test_an_empty_question_of_qqp_is_trained_on_with_a_warning(tiny, tmp_path, layout):
    data = glue(tiny, "qqp", write_qqp_with_an_empty_question(tmp_path, layout))
    with pytest.warns(UserWarning, match=r"1 rows have an empty text, the first of them row 2 \(column 'question2'\)"):
        assert data.table("train")[1] == {"row": 2, "text": "is it", "text_pair": "", "label": 0}
    text = data.tokenizer.decode(data.encoded("train")[1]["input_ids"])
    assert text.count("[SEP]") == 2


def test_rows_behind_those_left_out_keep_their_numbers(tiny, tmp_path):
    rows = [(0, 1, 2, "a film", "the plot", 1), (1, 3, 4, "a"), (2, 5, 6, "b", "c", 0), (3, 7, 8, "d", "e", 7)]
    lines(tmp_path / "QQP" / "train.tsv", QQP, rows[0], (), *rows[1:])
    refusal = "row 4: column 'is_duplicate' holds '7'"
    with pytest.warns(UserWarning, match="in line 4"), pytest.raises(UserError, match=refusal):
        glue(tiny, "qqp", tmp_path).table("train")
    lines(tmp_path / "QQP" / "train.tsv", QQP, *rows[:3], (2, 7, 8, "d", "e", 1))
    refusal = "row 4: column 'id' holds '2', the id of row 3"
    with pytest.warns(UserWarning, match="in line 3"), pytest.raises(UserError, match=refusal):
        glue(tiny, "qqp", tmp_path).table("train")


def test_no_row_that_the_server_wants_is_left_out(tiny, tmp_path):
    lines(tmp_path / "QQP" / "test.tsv", ("id", "question1", "question2"), (0, "a", "b"), (1, "c"))
    with pytest.raises(UserError, match=r"QQP/test\.tsv, line 3 has 2 columns instead of 3"):
        glue(tiny, "qqp", tmp_path).table("test")


def test_a_row_that_is_broken_by_a_carriage_return_is_left_out_of_qqp_alone(tiny, tmp_path):
    lines(tmp_path / "QQP" / "train.tsv", QQP, (0, 1, 2, "a\rfilm", "b", 1), (1, 3, 4, "c", "d", 0))
    with pytest.warns(UserWarning, match="2 rows lack fields and are left out, the first of them in line 2"):
        assert glue(tiny, "qqp", tmp_path).table("train")["text"][:] == ["c"]
    path = tmp_path / "SST-2" / "train.tsv"
    path.parent.mkdir()
    path.write_bytes(b"sentence\tlabel\r\nthe plot\t0\r\na\rfilm\t1\r\n")
    with pytest.raises(UserError, match=r"SST-2/train\.tsv, line 3: a carriage return breaks the line at byte 2"):
        glue(tiny, "sst2", tmp_path).table("train")
    path.write_bytes(b"sentence\tlabel\r\nthe plot\t0\r\na film\t1\r\n")
    assert glue(tiny, "sst2", tmp_path).table("train")["text"][:] == ["the plot", "a film"]


def test_mnli_has_two_development_splits_and_the_diagnostic_set(tiny, tmp_path):
    write_mnli(tmp_path)
    data = glue(tiny, "mnli", tmp_path)
    assert data.evaluated("validate") == {"": "validation_matched", "mismatched": "validation_mismatched"}
    assert data.evaluated("predict") == {"": "test_matched", "mismatched": "test_mismatched", "ax": "ax"}
    assert data.task_description["also"] == ["mismatched"]
    assert data.table("train")["label"][:3] == [0, 1, 2]


def test_the_hubs_layout_with_its_column_names(tiny, tmp_path):
    """Files as in the Hub's repository, with the README that says which belong to which configuration."""
    labels = ["entailment", "neutral", "contradiction"]
    texts = {"premise": Value("string"), "hypothesis": Value("string")}
    features = Features({**texts, "label": ClassLabel(names=labels), "idx": Value("int32")})
    known = {"train": 2, "validation_matched": 1, "validation_mismatched": 0}
    tables = {"mnli": known | {"test_matched": -1, "test_mismatched": -1}, "ax": {"test": -1}}
    readme = "---\nconfigs:\n"
    for name, splits in tables.items():
        (tmp_path / name).mkdir()
        readme += f"- config_name: {name}\n  data_files:\n"
        for split, label in splits.items():
            rows = {"premise": [GOOD], "hypothesis": [BAD], "label": [label], "idx": [0]}
            path = tmp_path / name / f"{split}-00000-of-00001.parquet"
            Dataset.from_dict(rows, features=features).to_parquet(path)
            readme += f"  - split: {split}\n    path: {name}/{split}-*\n"
    (tmp_path / "README.md").write_text(f"{readme}---\n", encoding="utf-8")
    data = glue(tiny, "mnli", tmp_path)
    assert data.table("train")[0] == {"row": 1, "text": GOOD, "text_pair": BAD, "label": 2}
    assert data.table("test_matched")[0] == {"row": 1, "text": GOOD, "text_pair": BAD}
    assert data.evaluated("predict")["ax"] == "ax"


def test_held_out_rows_choose_and_the_development_split_is_tested(tiny, tmp_path):
    write_cola(tmp_path)
    data = glue(tiny, "cola", tmp_path, validation_size=6)
    assert [len(data.table(split)) for split in ("train", "held_out", "validation")] == [18, 6, 8]
    assert [data.evaluated(stage)[""] for stage in ("validate", "test")] == ["held_out", "validation"]


def test_testing_without_labels_says_what_to_do_instead(tiny, tmp_path, refused, capsys):
    write_cola(tmp_path)
    run = run_glue(tiny, tmp_path, "cola", tmp_path / "run")
    said = capsys.readouterr().out
    assert f"  peft-lightning validate {run.path}\n  peft-lightning predict {run.path}\n" in said
    assert "peft-lightning test" not in said
    sentence = refused(["test", run.path])
    for words in (
        "GLUE publishes no labels of its test split",
        "validate RUN",
        "predict RUN",
        "--data.validation_size",
    ):
        assert words in sentence
    held_out = run.config.read_text().replace("validation_size: null", "validation_size: 4")
    run.config.write_text(held_out)
    main(["summary", str(run.path)])
    assert f"  peft-lightning test {run.path}\n" in capsys.readouterr().out


def test_the_submission_has_the_servers_files_and_labels(tiny, tmp_path, capsys):
    for write in (write_cola, write_stsb, write_mnli):
        write(tmp_path)
    runs = [run_glue(tiny, tmp_path, task, tmp_path / "runs" / task) for task in ("cola", "stsb", "mnli")]
    assert {"val/pearson", "val/spearman"} <= runs[1].read_result()["metrics"].keys()
    for run in runs:
        main(["predict", str(run.path), *QUIET[:1]])
    capsys.readouterr()
    main(["glue-submission", "--output", str(tmp_path / "out" / "glue.zip"), *(str(run.path) for run in runs)])
    assert "The server also wants SST-2.tsv, MRPC.tsv, QQP.tsv, QNLI.tsv, RTE.tsv, WNLI.tsv." in capsys.readouterr().out
    with zipfile.ZipFile(tmp_path / "out" / "glue.zip") as archive:
        written = {path.name: path.read_bytes() for run in runs for path in run.path.glob("*.tsv")}
        assert written == {name: archive.read(name) for name in archive.namelist()}
        tables = {
            name: [line.split("\t") for line in archive.read(name).decode().splitlines()] for name in archive.namelist()
        }
    assert {name: len(table) - 1 for name, table in tables.items()} == {
        "CoLA.tsv": 3,
        "STS-B.tsv": 1,
        "MNLI-m.tsv": 4,
        "MNLI-mm.tsv": 4,
        "AX.tsv": 5,
    }
    assert all(table[0] == ["index", "prediction"] for table in tables.values())
    assert [row[0] for row in tables["CoLA.tsv"][1:]] == ["0", "1", "2"]
    assert {row[1] for row in tables["CoLA.tsv"][1:]} <= {"0", "1"}
    assert 0.0 <= float(tables["STS-B.tsv"][1][1]) <= 5.0
    predicted = [json.loads(line)["label"] for line in runs[2].predictions_of("ax").read_text().splitlines()]
    assert [row[1] for row in tables["AX.tsv"][1:]] == predicted
    assert set(predicted) <= {"entailment", "neutral", "contradiction"}


def test_a_submission_has_the_publishers_numbers_and_no_row_too_few(tiny, tmp_path, refused):
    lines(write_cola(tmp_path) / "CoLA" / "test.tsv", ("index", "sentence"), *[(10 + i, GOOD) for i in range(9)])
    run = run_glue(tiny, tmp_path, "cola", tmp_path / "run")
    main(["predict", str(run.path), "--trainer.limit_predict_batches=1", *QUIET[:1]])
    sentence = refused(["glue-submission", "--output", tmp_path / "glue.zip", run.path])
    assert f"{run.predictions} holds 5 of 9 rows" in sentence
    assert not (tmp_path / "glue.zip").exists()
    run.predictions.unlink()
    assert f"{run.path / 'CoLA.tsv'} exists; move it away first" in refused(["predict", run.path, *QUIET])
    (run.path / "CoLA.tsv").unlink()
    main(["predict", str(run.path), *QUIET[:1]])
    main(["glue-submission", "--output", str(tmp_path / "glue.zip"), str(run.path)])
    with zipfile.ZipFile(tmp_path / "glue.zip") as archive:
        rows = [line.split("\t") for line in archive.read("CoLA.tsv").decode().splitlines()[1:]]
    assert [index for index, _ in rows] == [str(10 + i) for i in range(9)]
    assert [json.loads(line)["index"] for line in run.predictions.read_text().splitlines()] == [i for i, _ in rows]


@pytest.mark.parametrize("task", ["cola", "stsb"])
def test_the_texts_of_a_file_are_labelled_by_a_run_of_glue(tiny, tmp_path, task):
    {"cola": write_cola, "stsb": write_stsb}[task](tmp_path)
    run = run_glue(tiny, tmp_path, task, tmp_path / "run")
    source, target = tmp_path / "in.csv", tmp_path / "out.jsonl"
    source.write_text("sentence,sentence1,sentence2\na film,the plot,a film\n", encoding="utf-8")
    main(["predict", str(run.path), "--input", str(source), "--output", str(target)])
    row = json.loads(target.read_text())
    if task == "cola":
        assert (row["text"], row["label"] in row["scores"]) == ("a film", True)
    else:
        assert (row["text"], row["text_pair"], type(row["score"])) == ("the plot", "a film", float)


def test_a_submission_of_what_it_cannot_hold_is_refused(tiny, tmp_path, refused, fit):
    write_cola(tmp_path)
    run = run_glue(tiny, tmp_path, "cola", tmp_path / "run")
    out = ["--output", tmp_path / "glue.zip"]
    assert "holds no predictions; run: peft-lightning predict" in refused(["glue-submission", *out, run.path])
    main(["predict", str(run.path), *QUIET[:1]])
    assert "second run of the task cola" in refused(["glue-submission", *out, run.path, run.path])
    other = fit(tmp_path / "other", model="LinearProbe", epochs=1)
    assert "is a run of TextClassification; give runs of GLUE" in refused(["glue-submission", *out, other])
    (tmp_path / "glue.zip").touch()
    assert "exists; choose another --output" in refused(["glue-submission", *out, run.path])


@pytest.mark.parametrize(
    ("task", "file", "content", "words"),
    [
        (
            "cola",
            "CoLA/train.tsv",
            "gj04\t1\t\tfine\ngj04\t1\tfine\n",
            ["line 2 has 3 columns instead of 4"],
        ),
        ("cola", "CoLA/train.tsv", "gj04\t1\t\tfine\ngj04\t-1\t\tbad\n", ["row 2", "'-1'", "can only be predicted"]),
        ("cola", "CoLA/train.tsv", "gj04\t1\t\tfine\ngj04\t2\t\tbad\n", ["row 2", "column 'label' holds '2'"]),
        ("cola", "CoLA/train.tsv", "gj04\t1\t\tfine\ngj04\t1\t\t \n", ["row 2", "column 'sentence' is empty"]),
        (
            "sst2",
            "SST-2/train.tsv",
            "sentence\tlabel\na film\t0.5\n",
            ["row 1", "'0.5'", "not one of the labels"],
        ),
        ("stsb", "STS-B/train.tsv", "sentence1\tsentence2\tscore\na\tb\t5.5\n", ["row 1", "'5.5'", "from 0 to 5"]),
        ("stsb", "STS-B/train.tsv", "sentence1\tsentence2\tscore\na\tb\tmuch\n", ["row 1", "'much'", "no number"]),
        ("rte", "RTE/train.tsv", "index\tsentence1\tlabel\n0\ta\tentailment\n", ["no column 'sentence2'"]),
        ("sst2", "SST-2/train.tsv", b"sentence\tlabel\na film\t0\n\xff film\t1\n", ["line 3: byte 1 is not UTF-8"]),
    ],
)
def test_wrong_files_are_named_by_line_or_row(tiny, tmp_path, task, file, content, words):
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as caught:
        glue(tiny, task, tmp_path).table("train")
    assert [word for word in words if word not in str(caught.value)] == []


def test_the_hub_without_a_network_and_unknown_tasks(tiny, refused, tmp_path):
    with pytest.raises(UserError, match="'nyu-mll/glue' cannot be loaded"):
        GLUE(task="rte", backbone=str(tiny())).table("train")
    sentence = refused(["fit", "--model=LoRA", "--data=GLUE", "--data.task=sst5", f"--run_dir={tmp_path}"], status=2)
    assert "--data" in sentence
    assert "sst5" in sentence
