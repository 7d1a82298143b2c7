"""Each method that AdapterHub has as well against what its package computed, which tests/golden keeps."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import BertConfig, BertModel

from peft_lightning.methods import MAM, Compacter, Houlsby, LoReFT, ParallelAdapter, Pfeiffer, PrefixTuning
from peft_lightning.modules import Bottleneck, KroneckerBottleneck, Prefix, ReparametrizedPrefix

GOLDEN = Path(__file__).parent.parent / "golden" / "adapterhub"
TASK = {"type": "classification", "labels": ["bad", "good", "dull"], "max_length": 9}
SUB_LAYERS = {"attention_output": "attention.output", "ffn_output": "output", "ffn_norm": "output"}
POOL = "bert.encoder.layer.0.attention.self.prefix_tuning.pool.prefix_tunings.golden.self_prefix"


def whole(tensor):
    return tensor


def linear(module, place):
    yield module.weight, f"{place}.weight", whole
    yield module.bias, f"{place}.bias", whole


def kronecker(module, place):
    yield module.s, f"{place}.W_left", whole
    yield module.t, f"{place}.W_right", whole
    yield module.bias, f"{place}.b", whole
    yield module.rule.A, "bert.shared_parameters.golden.phm_rule", whole


def adapters(method):
    for insertion in method.backbone.insertions:
        place = f"bert.encoder.layer.{insertion.site.layer}.{SUB_LAYERS.get(insertion.site.name)}.adapters.golden"
        module = getattr(insertion.module, "bottleneck", insertion.module)
        for kind, maps in ((Bottleneck, linear), (KroneckerBottleneck, kronecker)):
            if isinstance(module, kind):
                yield from maps(module.down, f"{place}.adapter_down.0")
                yield from maps(module.up, f"{place}.adapter_up")


def prefixes(method):
    """One tensor there holds `[n, 2 L, heads, head size]`, or `[2 L d, k]`: key and value of each layer in turn."""
    for insertion in method.backbone.insertions:
        module, layer = insertion.module, insertion.site.layer
        if isinstance(module, Prefix):
            for part, parameter in enumerate((module.key, module.value)):
                number = 2 * layer + part
                yield parameter, f"{POOL}.control_trans", lambda flat, i=number: flat.view(3, 6, 4, 8)[:, i]
        elif isinstance(module, ReparametrizedPrefix):
            yield module.trunk.embedding, f"{POOL}.wte.weight", whole
            yield from linear(module.trunk.linear, f"{POOL}.control_trans.0")
            for parameter, key, _ in linear(module.linear, f"{POOL}.control_trans.2"):
                yield parameter, key, lambda rows, i=layer: rows.chunk(3)[i]


def edits(method):
    for insertion in method.backbone.insertions:
        place = f"bert.encoder.layer.{insertion.site.layer}.reft_layer.refts.golden.units.0"
        yield insertion.module.basis, f"{place}.projection.weight", whole
        yield from linear(insertion.module.linear, f"{place}.learned_source")


# The method, its options, and the correspondence: our parameter, their tensor, and which part of it.
CASES = {
    "houlsby": (Houlsby, {"bottleneck": 4, "train_layer_norm": False}, [adapters]),
    "pfeiffer": (Pfeiffer, {"bottleneck": 4}, [adapters]),
    "parallel_adapter": (ParallelAdapter, {"bottleneck": 4, "scale": 4.0}, [adapters]),
    "mam": (MAM, {"prompt_length": 3, "projection_size": 6, "bottleneck": 4, "scale": 4.0}, [adapters, prefixes]),
    "compacter": (Compacter, {"bottleneck": 8, "train_layer_norm": False}, [adapters]),
    "compacter_plus_plus": (
        Compacter,
        {"bottleneck": 8, "train_layer_norm": False, "placement": ["ffn"]},
        [adapters],
    ),
    "prefix_tuning": (PrefixTuning, {"prompt_length": 3, "projection": False}, [prefixes]),
    "loreft": (LoReFT, {"rank": 2}, [edits]),
}


def golden(name):
    """Tensors in single precision, by what they are: the model's or the adapter's, the batch, the results."""
    parts = {"": {}, "batch": {}, "result": {}}
    for key, tensor in load_file(GOLDEN / f"{name}.safetensors").items():
        kind, _, rest = key.partition(".")
        kind, rest = (kind, rest) if kind in parts else ("", key)
        parts[kind][rest] = tensor.float() if tensor.is_floating_point() else tensor
    return parts[""], parts["batch"], parts["result"]


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    """A directory with the stored weights; the head, the batch, and the logits without adapters."""
    directory = tmp_path_factory.mktemp("golden")
    tensors, batch, results = golden("base")
    model = BertModel(BertConfig(**json.loads((GOLDEN / "description.json").read_text())["model"]))
    encoder = {key.removeprefix("bert."): tensor for key, tensor in tensors.items() if key.startswith("bert.")}
    model.load_state_dict(encoder, strict=True)
    model.save_pretrained(directory)
    head = {key: tensor for key, tensor in tensors.items() if not key.startswith("bert.")}
    return directory, head, batch, results["logits"]


@pytest.fixture
def build(backbone):
    directory, head, *_ = backbone

    def method(kind, options):
        found = kind(backbone=str(directory), task=TASK, **options).eval()
        assert found.backbone.head.keys() == head.keys()
        with torch.no_grad():
            for name, parameter in found.backbone.head.items():
                parameter.copy_(head[name])
        return found

    return method


def assert_close(found, wanted):
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", CASES)
def test_logits_and_a_gradient(backbone, build, name):
    *_, batch, bare = backbone
    tensors, _, results = golden(name)
    kind, options, maps = CASES[name]
    method = build(kind, options)
    pairs = [pair for correspondence in maps for pair in correspondence(method)]
    assert {key for _, key, _ in pairs} == tensors.keys()
    trained = {id(p) for p in method.parameters() if p.requires_grad} - {id(p) for p in method.backbone.head.values()}
    assert {id(parameter) for parameter, _, _ in pairs} == trained
    with torch.no_grad():
        for parameter, key, part in pairs:
            assert parameter.shape == part(tensors[key]).shape
            parameter.copy_(part(tensors[key]))

    logits = method(batch).logits
    assert_close(logits, results["logits"])
    assert (logits - bare).abs().max() > 0.05
    with method.disabled():
        assert_close(method(batch).logits, bare)

    logits.square().sum().backward()
    (gradient,) = (key for key in results if key.startswith("gradient."))
    of = [(parameter, part) for parameter, key, part in pairs if gradient == f"gradient.{key}"]
    assert of
    for parameter, part in of:
        wanted = part(results[gradient])
        torch.testing.assert_close(parameter.grad, wanted, atol=1e-4 * float(wanted.abs().max()), rtol=0)

    if "logits_without_layer_1" in results:
        with method.layers_removed(1, 1):
            assert_close(method(batch).logits, results["logits_without_layer_1"])


def test_every_file_is_compared_and_is_what_was_written():
    lines = [line.split() for line in (GOLDEN / "SHA256SUMS").read_text().splitlines()]
    written = {name: digest for digest, name in lines}
    files = {path.name: path for path in GOLDEN.iterdir() if path.name != "SHA256SUMS"}
    assert (
        files.keys() == written.keys() == {"base.safetensors", "description.json"} | {f"{c}.safetensors" for c in CASES}
    )
    for name, path in files.items():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == written[name], name


def test_the_versions_are_those_that_the_script_names():
    description = json.loads((GOLDEN / "description.json").read_text())
    script = (GOLDEN.parent / "make_adapterhub_goldens.py").read_text()
    for package in ("adapters", "transformers", "torch"):
        assert f"{package} {description[package]}" in script
    assert description["semantics"].keys() == CASES.keys()
