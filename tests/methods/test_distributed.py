"""Methods on two processes: plain DDP does, and what FSDP gives of a sharded model is what a checkpoint keeps."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from test_conformance import KINDS, METHODS
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import FullStateDictConfig, FullyShardedDataParallel, StateDictType, fully_shard
from torch.nn.parallel import DistributedDataParallel

from peft_lightning.methods import Houlsby
from peft_lightning.testing import Case

RANDOM_DROP = (Houlsby, {"bottleneck": 8, "drop_layers": 2, "drop": "random"}, None, False)
OTHERS = sorted(METHODS.keys() - set(KINDS))


class TrainingLoss(nn.Module):
    """What is wrapped: the training step of a method."""

    def __init__(self, method):
        super().__init__()
        self.method = method
        method._trainer = SimpleNamespace(optimizers=[SimpleNamespace(param_groups=[{"lr": 0.0}])], current_epoch=0)
        method.log = lambda *args, **kwargs: None

    def forward(self, batch, batch_idx):
        return self.method.training_step(batch, batch_idx)


def on_two_processes(work, directory):
    torch.multiprocessing.start_processes(_process, (work, directory), nprocs=2, start_method="fork")


def _process(rank, work, directory):
    dist.init_process_group("gloo", f"file://{directory / 'rendezvous'}", rank=rank, world_size=2)
    work(rank)
    dist.destroy_process_group()


def train(rank, cases):
    """Three steps; DDP refuses the second if a parameter had no gradient in the first."""
    for name, case in cases.items():
        method = case.build().train()
        model = DistributedDataParallel(TrainingLoss(method))
        trained = [p for p in method.parameters() if p.requires_grad]
        optimizer = torch.optim.SGD(trained, lr=1e-2)
        texts = case.batch()
        mine = {key: value[rank::2] for key, value in texts.items()}
        for step in range(3):
            optimizer.zero_grad()
            try:
                model(mine, step).backward()
            except RuntimeError as error:
                raise AssertionError(f"{name}: {error}") from error
            optimizer.step()
        for parameter in trained:
            other = parameter.detach().clone()
            dist.broadcast(other, src=0)
            assert torch.equal(other, parameter), name


@pytest.mark.parametrize("names", [KINDS, pytest.param(OTHERS, marks=pytest.mark.long)], ids=["kinds", "others"])
def test_plain_ddp_trains_every_method(names, tiny, tmp_path):
    kind = {"LoReFT of last tokens": "gpt2"}
    chosen = {name: METHODS[name] for name in names} | {"random AdapterDrop": RANDOM_DROP}
    cases = {
        name: Case(method, tiny(kind.get(name, "bert")), tmp_path, options)
        for name, (method, options, *_) in chosen.items()
    }
    on_two_processes(partial(train, cases=cases), tmp_path)


def sharded_1(method):
    """As Lightning's `fsdp` strategy gathers a model."""
    layers = {type(method.backbone.model.get_submodule(layer.path)) for layer in method.backbone.layers}
    policy = partial(torch.distributed.fsdp.wrap.transformer_auto_wrap_policy, transformer_layer_cls=layers)
    model = FullyShardedDataParallel(
        method, auto_wrap_policy=policy, use_orig_params=True, device_id=torch.device("cpu")
    )
    assert any("_fsdp_wrapped_module" in name for name, _ in method.named_parameters())
    with FullyShardedDataParallel.state_dict_type(model, StateDictType.FULL_STATE_DICT, FullStateDictConfig()):
        return model.state_dict()


def sharded_2(method):
    """As its `model_parallel` strategy does."""
    for layer in method.backbone.layers:
        fully_shard(method.backbone.model.get_submodule(layer.path))
    fully_shard(method)
    return get_model_state_dict(method, options=StateDictOptions(full_state_dict=True))


def filter_sharded(rank, cases, shard):
    for name, case in cases.items():
        method = case.build()
        wanted = {key: tensor.clone() for key, tensor in method.trained_state().items()}
        checkpoint = {"state_dict": shard(method)}
        if rank == 0:
            assert len(checkpoint["state_dict"]) > len(wanted), name
            method.on_save_checkpoint(checkpoint)
            kept = checkpoint["state_dict"]
            assert kept.keys() == wanted.keys(), name
            assert all(torch.equal(kept[key], wanted[key]) for key in wanted), name


@pytest.mark.filterwarnings("ignore:FSDP.state_dict_type:FutureWarning")  # which Lightning 2.6 calls too
@pytest.mark.parametrize("shard", [sharded_1, sharded_2], ids=["fsdp", "fsdp2"])
def test_a_sharded_model_leaves_the_trained_tensors_in_its_checkpoint(shard, tiny, tmp_path):
    cases = {name: Case(METHODS[name][0], tiny(), tmp_path, METHODS[name][1]) for name in ("Houlsby", "LoRA")}
    on_two_processes(partial(filter_sharded, cases=cases, shard=shard), tmp_path)
