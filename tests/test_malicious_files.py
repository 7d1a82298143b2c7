"""No file makes this project run code: not as a checkpoint, a backbone, an adapter, or by a name in it."""

import json
import os
import pickle

import pytest
import torch

from peft_lightning import load_adapter
from peft_lightning.errors import UserError
from peft_lightning.methods import Houlsby, load_checkpoint
from peft_lightning.runs import RunDirectory
from peft_lightning.storage import generations
from peft_lightning.testing import Case, save_tiny_backbone
from peft_lightning.testing.probes import save_checkpoint

QUIET = "--trainer.enable_progress_bar=false"


@pytest.fixture
def bomb(tmp_path):
    """An object that makes a directory when it is unpickled; in the end that directory must not be there."""
    exploded = tmp_path / "exploded"

    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(exploded),)

    pickle.loads(pickle.dumps(Bomb()))
    exploded.rmdir()  # so it works
    yield Bomb()
    assert not exploded.exists()


@pytest.fixture
def evil_module(tmp_path, monkeypatch):
    """The name of a module that makes a directory when it is imported."""
    exploded = tmp_path / "imported"
    (tmp_path / "evil_module.py").write_text(f"import os\nos.mkdir({str(exploded)!r})\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield "evil_module"
    assert not exploded.exists()


def plant(content, path):
    """With a manifest that fits: whoever can write the one can write the other."""
    generations.save(path, lambda file: torch.save(content, file), 12)


def test_as_the_checkpoints_of_a_run(bomb, fit, refused, tmp_path, capsys):
    run = RunDirectory(fit(tmp_path / "run", epochs=1))
    content = torch.load(run.last_checkpoint, weights_only=True) | {"loops": bomb}
    plant(content, run.best_checkpoint)
    for verb in ("test", "validate", "predict"):
        assert f"{run.best_checkpoint} cannot be read: it holds something else" in refused([verb, run.path, QUIET])
    (tmp_path / "t.txt").write_text("a film\n")
    sentence = refused(["predict", run.path, "--input", tmp_path / "t.txt", "--output", tmp_path / "o.jsonl"])
    assert "could run code and is not loaded" in sentence
    plant(content, run.last_checkpoint)
    run.update_result({"status": "interrupted"})
    capsys.readouterr()
    with pytest.raises(SystemExit):
        fit(run.path, epochs=1)
    assert f"{run.last_checkpoint} cannot be read: it holds something else" in capsys.readouterr().err


@pytest.mark.parametrize("form", ["archive", "plain pickle"])
def test_as_a_checkpoint_that_is_given(bomb, fit, refused, tmp_path, form, capsys):
    run = RunDirectory(fit(tmp_path / "run", epochs=1))
    path = tmp_path / "given.ckpt"
    if form == "archive":
        torch.save({"state_dict": bomb}, path)
    else:
        path.write_bytes(pickle.dumps({"state_dict": bomb}))
    assert f"{path} cannot be read" in refused(["test", run.path, f"--ckpt_path={path}", QUIET])
    capsys.readouterr()
    with pytest.raises(SystemExit):
        fit(tmp_path / "new", f"--ckpt_path={path}")
    assert f"{path} cannot be read" in capsys.readouterr().err


def test_nobody_can_ask_for_it(fit, capsys, tmp_path):
    with pytest.raises(SystemExit):
        fit(tmp_path / "run", "--weights_only=false")
    assert "weights_only is false; leave it out" in capsys.readouterr().err


def test_as_the_weights_of_a_backbone(bomb, fit, tmp_path, capsys):
    backbone = save_tiny_backbone("bert", tmp_path / "backbone")
    (backbone / "model.safetensors").unlink()
    torch.save({"embeddings.word_embeddings.weight": bomb}, backbone / "pytorch_model.bin")
    with pytest.raises(SystemExit):
        fit(tmp_path / "run", f"--model.backbone={backbone}")
    assert f"Backbone '{backbone}' cannot be loaded" in capsys.readouterr().err


def test_as_code_that_a_backbone_brings_along(evil_module, fit, tmp_path, capsys):
    backbone = save_tiny_backbone("bert", tmp_path / "backbone")
    (backbone / "evil_module.py").write_text((tmp_path / "evil_module.py").read_text())
    config = json.loads((backbone / "config.json").read_text())
    names = {"AutoConfig": "evil_module.Config", "AutoModelForSequenceClassification": "evil_module.Model"}
    (backbone / "config.json").write_text(json.dumps(config | {"model_type": "evil", "auto_map": names}))
    with pytest.raises(SystemExit):
        fit(tmp_path / "run", f"--model.backbone={backbone}")
    assert f"Backbone '{backbone}' cannot be loaded" in capsys.readouterr().err


def test_as_an_adapter(bomb, tiny, tmp_path):
    directory = Case(Houlsby, tiny(), tmp_path).build().save_adapter(tmp_path / "adapter")
    torch.save({"weight": bomb}, directory / "adapter.safetensors")
    with pytest.raises(UserError, match="holds no readable adapter"):
        load_adapter(directory)


@pytest.mark.parametrize("place", ["method", "_class_path", "_instantiator"])
def test_by_a_name_in_a_checkpoint(evil_module, tiny, tmp_path, place):
    case = Case(Houlsby, tiny(), tmp_path)
    path = save_checkpoint(case.build(), case)
    content = torch.load(path, weights_only=True)
    content["peft_lightning" if place == "method" else "hyper_parameters"][place] = f"{evil_module}.Evil"
    torch.save(content, path)
    with pytest.raises(UserError, match=r"is not imported|does not have"):
        load_checkpoint(path)
    with pytest.raises((UserError, TypeError, ValueError)):
        Houlsby.load_from_checkpoint(path)
