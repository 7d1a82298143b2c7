"""What all tests share: no network, a cache of their own, tiny backbones and small files."""

import os
import tempfile

# Tests run in one process a core; threads of their own would wait for each other.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HOME"] = tempfile.mkdtemp(prefix="peft_lightning_tests_")
os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"

import pytest
from small_files import write_reviews

from peft_lightning.cli import main
from peft_lightning.testing import save_tiny_backbone


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """`tiny("bert")` is the directory of a tiny random BERT; each is made once."""
    made = {}

    def backbone(model_type="bert"):
        if model_type not in made:
            made[model_type] = save_tiny_backbone(model_type, tmp_path_factory.mktemp(model_type))
        return made[model_type]

    return backbone


@pytest.fixture(scope="session")
def reviews(tmp_path_factory):
    """A directory with train.csv (96 rows), validation.csv (19) and test.csv (21)."""
    directory = tmp_path_factory.mktemp("reviews")
    for seed, (split, count) in enumerate({"train": 96, "validation": 19, "test": 21}.items()):
        write_reviews(directory / f"{split}.csv", count, seed)
    return directory


@pytest.fixture
def fit(tiny, reviews):
    """`fit(run_dir, "--model.bottleneck", "4")` runs the command on the tiny BERT and the small files."""

    def command(run_dir, *options, model="Houlsby", data="TextClassification", model_type="bert", epochs=2):
        main(
            [
                "fit",
                f"--model={model}",
                f"--model.backbone={tiny(model_type)}",
                "--model.lr=1e-2",
                f"--data={data}",
                f"--data.source={reviews}",
                "--data.batch_size=8",
                "--data.max_length=16",
                f"--run_dir={run_dir}",
                f"--trainer.max_epochs={epochs}",
                "--trainer.accelerator=cpu",
                "--trainer.enable_progress_bar=false",
                "--trainer.enable_model_summary=false",
                *options,
            ]
        )
        return run_dir

    return command


@pytest.fixture
def refused(capsys):
    """`refused([...command...])` is the one sentence that a command which must fail prints."""

    def command(arguments, status=1):
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
        assert stop.value.code == status
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("peft-lightning: error: ")]
        assert len(lines) == 1
        return lines[0]

    return command
