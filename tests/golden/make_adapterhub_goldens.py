"""Writes what AdapterHub's package `adapters` computes, for tests/methods/test_against_adapterhub.py.

`adapters` needs an older transformers than this project, so that it cannot be installed beside it. The files in
tests/golden/adapterhub were written once, with

    Python 3.11, adapters 1.3.0, transformers 4.57.6, tokenizers 0.22.2, huggingface_hub 0.36.2, torch 2.13.0,
    safetensors 0.8.0, numpy 2.4.6, on a CPU

and need not be written again; a test checks their digests. To write them all the same, in an environment of its own:

    python3.11 -m venv /path/to/environment
    /path/to/environment/bin/pip install torch==2.13.0 adapters==1.3.0
    /path/to/environment/bin/python tests/golden/make_adapterhub_goldens.py

base.safetensors holds the backbone, its head, the batch and the logits of the model without adapters; every other file
the tensors of one method under AdapterHub's names, its logits, the gradient of one tensor by the sum of the squared
logits, and for one method the logits with the adapters of layer 1 left out. Tensors are rounded to half precision
before anything is computed from them, in single precision, and so are stored in half without loss; results, and
matrices that are orthonormal, in single.
"""

import hashlib
import json
from pathlib import Path

import adapters
import torch
import transformers
from adapters import (
    CompacterConfig,
    DoubleSeqBnConfig,
    LoReftConfig,
    MAMConfig,
    ParBnConfig,
    PrefixTuningConfig,
    SeqBnConfig,
)
from safetensors.torch import save_file
from transformers import BertConfig, BertForSequenceClassification

DIRECTORY = Path(__file__).parent / "adapterhub"
SIZES = {
    "vocab_size": 30,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 36,
    "max_position_embeddings": 12,
}
BOTTLENECK = {"reduction_factor": 8}  # 4 units
# 8 units, so that no factor of the Kronecker products is a single number.
KRONECKER = {"reduction_factor": 4, "phm_dim": 4, "non_linearity": "gelu_new"}
CASES = {
    "houlsby": (
        DoubleSeqBnConfig(non_linearity="gelu", **BOTTLENECK),
        "bert.encoder.layer.0.output.adapters.golden.adapter_down.0.weight",
        "h + W_up gelu(W_down h + b_down) + b_up behind both sub-layers, before the residual; no LayerNorm is trained",
    ),
    "pfeiffer": (
        SeqBnConfig(**BOTTLENECK),
        "bert.encoder.layer.0.output.adapters.golden.adapter_down.0.weight",
        "LN(W_up relu(W_down LN(h + x) + b_down) + b_up + h + x) around the LayerNorm of the feed-forward sub-layer",
    ),
    "parallel_adapter": (
        ParBnConfig(**BOTTLENECK),
        "bert.encoder.layer.0.output.adapters.golden.adapter_down.0.weight",
        "f + 4 (W_up relu(W_down x + b_down) + b_up) beside the feed-forward sub-layer",
    ),
    "mam": (
        MAMConfig(PrefixTuningConfig(prefix_length=3, bottleneck_size=6), ParBnConfig(**BOTTLENECK)),
        "bert.encoder.layer.0.output.adapters.golden.adapter_down.0.weight",
        "a prefix of 3 from a network with 6 units, positions unshifted, and the parallel adapter",
    ),
    "compacter": (
        CompacterConfig(**KRONECKER),
        "bert.shared_parameters.golden.phm_rule",
        "as houlsby, with gelu_new and matrices sum_i A_i (x) (s_i t_i) of one A for all, n = 4",
    ),
    # CompacterPlusPlusConfig stands around the LayerNorm as Pfeiffer's adapter does, which is not what its paper says.
    "compacter_plus_plus": (
        CompacterConfig(mh_adapter=False, **KRONECKER),
        "bert.shared_parameters.golden.phm_rule",
        "as compacter, behind the feed-forward sub-layer alone",
    ),
    "prefix_tuning": (
        PrefixTuningConfig(prefix_length=3, flat=True),
        "bert.encoder.layer.0.attention.self.prefix_tuning.pool.prefix_tunings.golden.self_prefix.control_trans",
        "a prefix of 3 in every attention, [n, 2 L, d], positions unshifted",
    ),
    "loreft": (
        LoReftConfig(prefix_positions=1, suffix_positions=0, tied_weights=True, r=2),
        "bert.encoder.layer.0.reft_layer.refts.golden.units.0.learned_source.weight",
        "h + R^T (W h + b - R h) at the first token behind every layer; only R itself is in the file",
    ),
}


def redraw(parameters, std):
    """Random values around 0, or around 1 for the scales of LayerNorms, that half precision can hold."""
    with torch.no_grad():
        for name, parameter in parameters:
            centre = 1.0 if name.endswith("LayerNorm.weight") else 0.0
            parameter.copy_((centre + std * torch.randn_like(parameter)).half())


def make_model():
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig(num_labels=3, attn_implementation="eager", **SIZES)).eval()
    redraw(model.named_parameters(), 0.3)
    return model


def make_batch():
    torch.manual_seed(1)
    mask = torch.ones(2, 9, dtype=torch.long)
    mask[1, 6:] = 0
    segments = torch.zeros(2, 9, dtype=torch.long)
    segments[:, 4:] = 1
    ids = torch.randint(1, SIZES["vocab_size"], (2, 9))
    return {"input_ids": ids * mask, "attention_mask": mask, "token_type_ids": segments * mask}


def adapter_tensors(model, base):
    """The tensors of the adapter by name, the orthonormal ones as what they stand for."""
    found = {}
    for name, parameter in model.named_parameters():
        if name.replace(".base_layer", "") in base:
            continue
        if ".parametrizations." in name:
            owner = name.partition(".parametrizations.")[0]
            found[f"{owner}.weight"] = model.get_submodule(owner).weight.detach().contiguous()
        else:
            found[name] = parameter
    return found


def main():
    DIRECTORY.mkdir(exist_ok=True)
    batch, model = make_batch(), make_model()
    base = {name: parameter.detach().half() for name, parameter in model.named_parameters()}
    with torch.no_grad():
        bare = model(**batch).logits
    inputs = {f"batch.{name}": tensor for name, tensor in batch.items()}
    save_file(base | inputs | {"result.logits": bare}, DIRECTORY / "base.safetensors")

    for seed, (case, (config, of, _)) in enumerate(CASES.items()):
        model = make_model()
        adapters.init(model)
        torch.manual_seed(10 + seed)
        model.add_adapter("golden", config=config)
        model.set_active_adapters("golden")
        model.eval().requires_grad_(True)
        own = [(name, p) for name, p in model.named_parameters() if name not in base and "parametrizations" not in name]
        redraw(own, 0.5)
        tensors = adapter_tensors(model, base)
        logits = model(**batch).logits
        gradient = torch.autograd.grad(logits.square().sum(), dict(model.named_parameters())[of])[0]
        results = {"logits": logits.detach(), f"gradient.{of}": gradient}
        if case == "houlsby":
            model.set_active_adapters("golden", skip_layers=[1])
            results["logits_without_layer_1"] = model(**batch).logits.detach()
        assert all((logits - bare).abs().max() > 0.05 for name, logits in results.items() if "logits" in name), case
        stored = {
            name: tensor.detach() if name.endswith("projection.weight") else tensor.detach().half()
            for name, tensor in tensors.items()
        }
        save_file(stored | {f"result.{name}": t for name, t in results.items()}, DIRECTORY / f"{case}.safetensors")

    description = {
        "adapters": adapters.__version__,
        "transformers": transformers.__version__,
        "torch": torch.__version__.partition("+")[0],
        "model": {"model_type": "bert", "num_labels": 3, **SIZES},
        "semantics": {case: text for case, (_, _, text) in CASES.items()},
    }
    (DIRECTORY / "description.json").write_text(json.dumps(description, indent=2) + "\n")
    files = sorted(path for path in DIRECTORY.iterdir() if path.name != "SHA256SUMS")
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files]
    (DIRECTORY / "SHA256SUMS").write_text("".join(lines))


if __name__ == "__main__":
    main()
