"""SWAG and COPA from files as published: rows, sequences, splits, whole runs, and what is refused."""

import csv
import json

import pytest
from datasets import ClassLabel, Dataset, Features, Value
from small_choices import write_copa, write_swag

from peft_lightning.cli import main
from peft_lightning.data import COPA, SWAG
from peft_lightning.errors import UserError
from peft_lightning.runs import RunDirectory


@pytest.fixture(scope="module")
def swag(tmp_path_factory):
    return write_swag(tmp_path_factory.mktemp("swag"))


@pytest.fixture(scope="module")
def copa(tmp_path_factory):
    return write_copa(tmp_path_factory.mktemp("copa"))


@pytest.fixture
def tokens(tiny):
    return {"backbone": str(tiny())}


def test_a_row_of_swag_is_a_sentence_and_the_beginning_of_the_next_with_each_ending(swag, tokens):
    data = SWAG(source=str(swag), **tokens)
    with (swag / "train.csv").open(encoding="utf-8", newline="") as file:
        published = list(csv.DictReader(file))[3]
    endings = [published[f"ending{number}"] for number in range(4)]
    assert data.example("train", 3) == {
        "row": 4,
        "text": "the film, a story",
        "choices": [f"the plot {ending}" for ending in endings],
        "true": int(published["label"]),
    }
    assert "true" not in data.example("test", 0)
    encoded = data.encoded("train")[3]
    words = data.tokenizer.convert_ids_to_tokens(encoded["input_ids"][2])
    assert " ".join(words) == f"[CLS] the film [UNK] a story [SEP] the plot {endings[2]} [SEP]"
    assert encoded["length"] == max(map(len, encoded["input_ids"]))
    batch = next(iter(data.val_dataloader()[0]))
    assert batch["input_ids"].shape == batch["attention_mask"].shape == batch["token_type_ids"].shape
    assert batch["input_ids"].shape[:2] == (12, 4)
    assert batch["labels"].shape == (12,)


def test_a_second_sentence_without_a_beginning_is_its_ending(tmp_path, tokens):
    for name in ("train", "val", "test"):
        (tmp_path / f"{name}.csv").write_text("sent1,sent2,ending0,ending1,ending2,ending3,label\na film,,x,y,z,w,1\n")
    assert SWAG(source=str(tmp_path), **tokens).example("train", 0)["choices"] == ["x", "y", "z", "w"]


@pytest.mark.parametrize(
    ("wording", "behind"),
    [
        ("question", ["What was the cause of this?", "What happened as a result?"]),
        ("conjunction", ["because", "so"]),
    ],
)
def test_a_row_of_copa_is_a_premise_with_its_question_and_two_sentences(copa, tokens, wording, behind):
    data = COPA(source=str(copa), wording=wording, **tokens)
    assert [data.example("train", row)["text"] for row in (0, 1)] == [f"the plot was good {text}" for text in behind]
    assert all(row["choices"][row["label"]] == "the film was great" for row in data.table("train"))


def test_copies_laid_out_as_on_the_hub(tmp_path, tokens):
    """A configuration among others, numbers with declared names, and -1 for what is not known."""
    features = {name: Value("string") for name in ("premise", "choice1", "choice2", "question")}
    features |= {"label": ClassLabel(names=["choice1", "choice2"])}
    lines = ["---", "configs:"]
    for config in ("boolq", "copa"):
        lines += [f"- config_name: {config}", "  data_files:"]
        for split, labels in {"train": [1, 0], "validation": [0, 1], "test": [-1, -1]}.items():
            rows = {"premise": ["a", "b"], "choice1": ["c", "d"], "choice2": ["e", "f"], "question": ["cause"] * 2}
            path = tmp_path / config / f"{split}-00000-of-00001.parquet"
            path.parent.mkdir(exist_ok=True)
            Dataset.from_dict({**rows, "label": labels}, Features(features)).to_parquet(path)
            lines += [f"  - split: {split}", f"    path: {config}/{split}-*"]
    (tmp_path / "README.md").write_text("\n".join([*lines, "---", ""]))
    data = COPA(source=str(tmp_path), **tokens)
    assert [data.example("train", row)["true"] for row in (0, 1)] == [1, 0]
    assert [row["choices"] for row in data.table("test")] == [["c", "e"], ["d", "f"]]
    # The Hub's conversion to Parquet does not say what the configurations are called; one alone has no name.
    (tmp_path / "README.md").unlink()
    for source in (tmp_path, tmp_path / "copa"):
        assert COPA(source=str(source), **tokens).table("train").to_list() == data.table("train").to_list()


@pytest.fixture
def command(tiny, tmp_path):
    def arguments(data, source, *options, model="Houlsby", model_type="bert"):
        return [
            *("fit", f"--model={model}", f"--model.backbone={tiny(model_type)}", "--model.lr=1e-2", f"--data={data}"),
            *(
                f"--data.source={source}",
                "--data.batch_size=8",
                "--data.max_length=24",
                f"--run_dir={tmp_path / 'run'}",
            ),
            *("--trainer.max_epochs=1", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"),
            *("--trainer.enable_model_summary=false", *options),
        ]

    return arguments


def test_what_can_be_learnt_is_learnt(command, swag, tmp_path):
    main(command("SWAG", swag, "--trainer.max_epochs=6"))
    assert RunDirectory(tmp_path / "run").read_result()["metrics"]["val/accuracy"] > 0.7


def test_without_rows_held_out_there_is_nothing_to_test_on(command, copa, tmp_path, refused):
    main(command("COPA", copa))
    sentence = refused(["test", tmp_path / "run"])
    assert "COPA publishes no labels of its test split: validate RUN" in sentence


HEADER = "sent1,sent2,ending0,ending1,ending2,ending3,label\n"
WRONG_SWAG = [
    (HEADER + "a,b,c,d,e,f,1\n" * 2 + "a,b,c,d,e,f\n", ["train.csv, row 3 has 6 fields and should have 7"]),
    (HEADER + "a,b,c,d,e,f,1\n" + "a,b,c,d,e,f,g,1\n", ["train.csv, row 2 has 8 fields and should have 7"]),
    (HEADER + "a,b,c,d,e,f,4\n", ["(train), row 1", "'label' holds '4'", "['0', '1', '2', '3']"]),
    (HEADER + "a,b,c,d,e,f,-1\n", ["row 1", "'label' holds '-1'", "unlabelled rows are marked", "only be predicted"]),
    (HEADER + "a,b,c,,e,f,1\n", ["row 1", "column 'ending1' is empty"]),
    (HEADER + ",b,c,d,e,f,1\n", ["row 1", "column 'sent1' is empty"]),
    (HEADER.replace("sent2", "sentence2") + "a,b,c,d,e,f,1\n", ["no column 'sent2'", "sentence2", "as published"]),
    (HEADER.replace(",label", "") + "a,b,c,d,e,f\n", ["no column 'label'"]),
]


@pytest.mark.parametrize(("content", "words"), WRONG_SWAG)
def test_a_wrong_row_of_swag_is_named(command, refused, tmp_path, content, words):
    write_swag(tmp_path)
    (tmp_path / "train.csv").write_text(content, encoding="utf-8")
    sentence = refused(command("SWAG", tmp_path))
    assert [word for word in words if word not in sentence] == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"question": "reason"}, ["row 2", "'question' holds 'reason'", "neither 'cause' nor 'effect'"]),
        ({"label": 2}, ["row 2", "'label' holds 2", "['choice1', 'choice2']"]),
        ({"label": -1}, ["row 2", "'label' holds -1", "only be predicted"]),
        ({"choice2": ""}, ["row 2", "column 'choice2' is empty"]),
    ],
)
def test_a_wrong_row_of_copa_is_named(tokens, tmp_path, change, words):
    row = {"premise": "a", "choice1": "b", "choice2": "c", "question": "cause", "label": 0}
    (tmp_path / "train.jsonl").write_text(json.dumps(row) + "\n" + json.dumps(row | change) + "\n")
    with pytest.raises(UserError) as refusal:
        COPA(source=str(tmp_path), **tokens).table("train")
    assert [word for word in words if word not in str(refusal.value)] == []


def test_impossible_sizes_are_refused(command, refused, copa):
    assert "validation_size is 0" in refused(command("COPA", copa, "--data.validation_size=0"))
    assert "split of 40 rows cannot be taken" in refused(command("COPA", copa, "--data.validation_size=40"))
