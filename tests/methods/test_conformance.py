"""Every method on every architecture does what all methods must do."""

import pytest

from peft_lightning.errors import UserError
from peft_lightning.methods import (
    IA3,
    MAM,
    AdaLoRA,
    BitFit,
    Compacter,
    FullFineTuning,
    Houlsby,
    InA,
    LayerNormTuning,
    LinearProbe,
    LoRA,
    LoReFT,
    ParallelAdapter,
    Pfeiffer,
    PrefixTuning,
    PromptTuning,
    PTuning,
    PTuningV2,
    TopLayers,
    VeRA,
)
from peft_lightning.testing import CHECKS, MODEL_TYPES, Case

D, L, F = 32, 3, 48  # width, layers and inner width of the tiny backbones


def everything(backbone):
    return sum(p.numel() for p in backbone.pretrained.values())


def adapter(m):
    return 2 * m * D + m + D


def norms(backbone):
    return sum(p.numel() for norm in backbone.layer_norms for p in norm.parameters())


def biases(backbone):
    return sum(p.numel() for name, p in backbone.pretrained.items() if name.endswith("bias"))


def top_layer(backbone):
    layer = backbone.layers[-1].path
    return sum(p.numel() for name, p in backbone.pretrained.items() if name.startswith((layer, "bert.pooler")))


def embedding(backbone):
    return backbone.word_embeddings.shape[1]


def lstm_prompt(e):
    """E, two LSTM layers of e / 2 units each way with 4 gates and 2 biases each, and two linear maps."""
    layer = 2 * 4 * (e // 2) * (e + e // 2 + 2)
    return 5 * e + 2 * layer + 2 * (e * e + e)


# Method, options, the number of its parameters by the formula of its paper, and whether it merges.
METHODS = {
    "FullFineTuning": (FullFineTuning, {}, everything, True),
    "TopLayers": (TopLayers, {"k": 1}, top_layer, True),
    "LinearProbe": (LinearProbe, {}, lambda _: 0, True),
    "LayerNormTuning": (LayerNormTuning, {}, norms, True),
    "BitFit": (BitFit, {}, biases, True),
    "BitFit of two sites": (BitFit, {"targets": ["query", "ffn_in"]}, lambda _: L * (D + F), True),
    "Houlsby": (Houlsby, {"bottleneck": 8}, lambda _: 2 * L * adapter(8), False),
    "Houlsby parallel": (Houlsby, {"bottleneck": 8, "form": "parallel"}, lambda _: 2 * L * adapter(8), False),
    "Houlsby multiplicative": (
        Houlsby,
        {"bottleneck": 8, "form": "multiplicative", "placement": ["ffn"]},
        lambda _: L * adapter(8),
        False,
    ),
    "Houlsby deep": (
        Houlsby,
        {"bottleneck": 8, "depth": 2, "norm": "layer"},
        lambda _: 2 * L * (adapter(8) + 72 + 2 * D),
        False,
    ),
    "Houlsby without lower adapters": (
        Houlsby,
        {"bottleneck": 8, "drop_layers": 2, "placement": ["attention"]},
        lambda _: adapter(8),
        False,
    ),
    "Pfeiffer": (Pfeiffer, {}, lambda _: L * adapter(2), False),
    "ParallelAdapter": (ParallelAdapter, {"bottleneck": 8}, lambda _: L * adapter(8), False),
    "ParallelAdapter with learned scale": (
        ParallelAdapter,
        {"bottleneck": 8, "learned_scale": True, "placement": ["attention", "ffn"]},
        lambda _: 2 * L * (adapter(8) + 1),
        False,
    ),
    "MAM": (
        MAM,
        {"bottleneck": 8, "prompt_length": 5, "projection_size": 6},
        lambda _: L * adapter(8) + 5 * D + 6 * (D + 1) + 2 * L * D * 7,
        False,
    ),
    "Compacter": (Compacter, {"n": 4, "bottleneck": 8}, lambda _: 2 * L * 3 * (D + 8) + 4**3, False),
    "LoRA": (LoRA, {"rank": 4, "dropout": 0.1}, lambda _: L * 2 * 4 * (D + D), True),
    "LoRA on all maps": (
        LoRA,
        {"rank": 4, "targets": ["query", "key", "value", "attention_dense", "ffn_in", "ffn_out"]},
        lambda _: L * 4 * (4 * (D + D) + 2 * (D + F)),
        True,
    ),
    "LoRA rank stabilized": (
        LoRA,
        {"rank": 4, "rank_stabilized": True, "init": "gaussian", "lr_ratio": 16.0},
        lambda _: L * 2 * 4 * (D + D),
        True,
    ),
    "DoRA": (LoRA, {"rank": 4, "dora": True}, lambda _: L * 2 * (4 * (D + D) + D), True),
    "PiSSA": (LoRA, {"rank": 4, "init": "pissa"}, lambda _: L * 2 * 4 * (D + D), True),
    "VeRA": (VeRA, {"rank": 40}, lambda _: 2 * L * (D + 40), True),
    "AdaLoRA": (
        AdaLoRA,
        {"rank": 3, "init_rank": 4, "first_phase": 0.0, "mask_interval": 1},
        lambda _: L * 4 * (4 * (2 * D + 1) + 2 * (D + F + 1)),
        True,
    ),
    "IA3": (IA3, {}, lambda _: L * (2 * D + F), True),
    "InA": (InA, {}, lambda _: L * 2 * 4 * (D + D), False),
    "InA of the code": (
        InA,
        {"targets": ["query", "key", "value"], "activation": "leaky_relu", "alpha": 16.0, "detach_threshold": True},
        lambda _: L * 3 * 4 * (D + D),
        False,
    ),
    "LoReFT": (LoReFT, {"rank": 2}, lambda _: L * (2 * 2 * D + 2), False),
    "PrefixTuning": (
        PrefixTuning,
        {"prompt_length": 5, "projection_size": 6},
        lambda _: 5 * D + 6 * (D + 1) + 2 * L * D * 7,
        False,
    ),
    "PromptTuning": (PromptTuning, {"prompt_length": 5}, lambda b: 5 * embedding(b), False),
    "PromptTuning from words": (
        PromptTuning,
        {"prompt_length": 5, "init": "vocabulary"},
        lambda b: 5 * embedding(b),
        False,
    ),
    "PTuning": (PTuning, {"prompt_length": 5}, lambda b: lstm_prompt(embedding(b)), False),
    "PTuning with MLP": (
        PTuning,
        {"prompt_length": 5, "encoder": "mlp", "hidden": 6, "position": "after_first"},
        lambda b: 5 * embedding(b) + 6 * (embedding(b) + 1) + 6 * 7 + embedding(b) * 7,
        False,
    ),
    "PTuning with backbone": (
        PTuning,
        {"prompt_length": 5, "encoder": "none", "backbone_lr": 1e-3},
        lambda b: 5 * embedding(b) + everything(b),
        False,
    ),
    "PTuningV2 projected": (
        PTuningV2,
        {"prompt_length": 5, "projection": True, "projection_size": 6},
        lambda _: 5 * D + 6 * (D + 1) + 2 * L * D * 7,
        False,
    ),
    "PTuningV2": (PTuningV2, {"prompt_length": 5}, lambda _: 2 * 5 * D * L, False),
}
PREFIXES = ("PrefixTuning", "PTuningV2", "PTuningV2 projected", "MAM")


# One method of each kind of insertion; on architectures other than BERT the rest runs with `make test-long`.
KINDS = (
    "FullFineTuning",
    "BitFit",
    "Houlsby",
    "Pfeiffer",
    "ParallelAdapter",
    "LoRA",
    "IA3",
    "LoReFT",
    "PromptTuning",
    "PrefixTuning",
)


COMBINATIONS = [
    pytest.param(
        name,
        model_type,
        marks=[] if model_type == "bert" or name in KINDS else [pytest.mark.long],
        id=f"{name}-{model_type}",
    )
    for name in METHODS
    for model_type in MODEL_TYPES
]


@pytest.mark.parametrize(("name", "model_type"), COMBINATIONS)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_conformance(check, name, model_type, tiny, tmp_path):
    method, options, count, merges = METHODS[name]
    case = Case(method, tiny(model_type), tmp_path, options, count, merges)
    if name in PREFIXES and model_type == "deberta-v2":
        with pytest.raises(UserError, match="deberta-v2 model cannot take prefixes"):
            case.build()
        return
    check(case)
