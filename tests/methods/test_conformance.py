"""Every method on every architecture does what all methods must do."""

import re

import pytest

from peft_lightning.backbone import Backbone
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
from peft_lightning.tasks import build_task
from peft_lightning.testing import CHECKS, MODEL_TYPES, TASK, Case, save_tiny_backbone

D, F = 32, 48  # width and inner width of the tiny backbones
ENCODER_DECODERS = ("bart", "mbart", "t5")
DECODERS = ("gpt2", "opt", "llama", *ENCODER_DECODERS)
PRE_NORM = ("gpt2", "opt", "llama", "mbart", "t5")
ABOVE = {
    "bert": "bert.pooler",
    "gpt2": "transformer.ln_f",
    "opt": "model.decoder.final_layer_norm",
    "llama": "model.norm",
    "mbart": "model.decoder.layer_norm",
    "t5": "transformer.decoder.final_layer_norm",
}


class Sizes:
    """L layers, N attentions; queries are Q wide, keys and values K."""

    def __init__(self, backbone):
        self.model_type = backbone.model.config.model_type
        self.L = 4 if self.model_type in ENCODER_DECODERS else 3
        self.N = 6 if self.model_type in ENCODER_DECODERS else 3
        self.Q = {"t5": 24}.get(self.model_type, D)
        self.K = {"t5": 24, "llama": 16}.get(self.model_type, D)


def everything(backbone):
    return sum(p.numel() for p in backbone.pretrained.values())


def adapter(m):
    return 2 * m * D + m + D


def adapters(number, size):
    """A number of adapters a layer."""
    return lambda backbone: number * Sizes(backbone).L * size


def low_rank(query, key_or_value):
    """Updates of rank 4 of so many maps a layer."""

    def count(backbone):
        n = Sizes(backbone)
        return n.L * 4 * (query * (D + n.Q) + key_or_value * (D + n.K))

    return count


def all_low_rank(backbone):
    n = Sizes(backbone)
    return n.L * 4 * (2 * (D + n.Q) + 2 * (D + n.K) + 2 * (D + F))


def prefixes(backbone):
    n = Sizes(backbone)
    return 2 * 5 * n.K * n.N


def projected_prefixes(backbone):
    n = Sizes(backbone)
    return 5 * D + 6 * (D + 1) + 2 * n.N * n.K * 7


def edits(backbone):
    n = Sizes(backbone)
    reached = n.L - 1 if n.model_type in DECODERS else n.L
    return reached * (2 * 2 * D + 2)


def norms(backbone):
    return sum(p.numel() for norm in backbone.layer_norms for p in norm.parameters())


def biases(backbone):
    return sum(p.numel() for name, p in backbone.pretrained.items() if name.endswith(".bias"))


def top_layer(backbone):
    above = ABOVE.get(backbone.model.config.model_type, "nothing")
    layer = backbone.layers[-1].path
    return sum(p.numel() for name, p in backbone.pretrained.items() if name.startswith((layer, above)))


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
    "BitFit of two sites": (BitFit, {"targets": ["query", "ffn_in"]}, adapters(1, D + F), True),
    "Houlsby": (Houlsby, {"bottleneck": 8}, adapters(2, adapter(8)), False),
    "Houlsby parallel": (Houlsby, {"bottleneck": 8, "form": "parallel"}, adapters(2, adapter(8)), False),
    "Houlsby multiplicative": (
        Houlsby,
        {"bottleneck": 8, "form": "multiplicative", "placement": ["ffn"]},
        adapters(1, adapter(8)),
        False,
    ),
    "Houlsby deep": (
        Houlsby,
        {"bottleneck": 8, "depth": 2, "norm": "layer"},
        adapters(2, adapter(8) + 72 + 2 * D),
        False,
    ),
    "Houlsby without lower adapters": (
        Houlsby,
        {"bottleneck": 8, "drop_layers": 2, "placement": ["attention"]},
        lambda backbone: (Sizes(backbone).L - 2) * adapter(8),
        False,
    ),
    "Pfeiffer": (Pfeiffer, {}, adapters(1, adapter(2)), False),
    "ParallelAdapter": (ParallelAdapter, {"bottleneck": 8}, adapters(1, adapter(8)), False),
    "ParallelAdapter with learned scale": (
        ParallelAdapter,
        {"bottleneck": 8, "learned_scale": True, "placement": ["attention", "ffn"]},
        adapters(2, adapter(8) + 1),
        False,
    ),
    "MAM": (
        MAM,
        {"bottleneck": 8, "prompt_length": 5, "projection_size": 6},
        lambda backbone: adapters(1, adapter(8))(backbone) + projected_prefixes(backbone),
        False,
    ),
    "Compacter": (Compacter, {"n": 4, "bottleneck": 8}, lambda backbone: 6 * Sizes(backbone).L * (D + 8) + 4**3, False),
    "LoRA": (LoRA, {"rank": 4, "dropout": 0.1}, low_rank(1, 1), True),
    "LoRA on all maps": (
        LoRA,
        {"rank": 4, "targets": ["query", "key", "value", "attention_dense", "ffn_in", "ffn_out"]},
        all_low_rank,
        True,
    ),
    "LoRA rank stabilized": (
        LoRA,
        {"rank": 4, "rank_stabilized": True, "init": "gaussian", "lr_ratio": 16.0},
        low_rank(1, 1),
        True,
    ),
    "DoRA": (
        LoRA,
        {"rank": 4, "dora": True},
        lambda b: low_rank(1, 1)(b) + Sizes(b).L * (Sizes(b).Q + Sizes(b).K),
        True,
    ),
    "PiSSA": (LoRA, {"rank": 4, "init": "pissa"}, low_rank(1, 1), True),
    "VeRA": (VeRA, {"rank": 40}, lambda b: Sizes(b).L * (Sizes(b).Q + Sizes(b).K + 80), True),
    "AdaLoRA": (
        AdaLoRA,
        {"rank": 3, "init_rank": 4, "first_phase": 0.0, "mask_interval": 1, "targets": ["query", "value"]},
        lambda b: low_rank(1, 1)(b) + 2 * 4 * Sizes(b).L,
        True,
    ),
    "IA3": (IA3, {}, lambda b: Sizes(b).L * (2 * Sizes(b).K + F), True),
    "InA": (InA, {}, low_rank(1, 1), False),
    "InA of the code": (
        InA,
        {"targets": ["query", "key", "value"], "activation": "leaky_relu", "alpha": 16.0, "detach_threshold": True},
        low_rank(1, 2),
        False,
    ),
    "LoReFT": (LoReFT, {"rank": 2}, edits, False),
    "LoReFT of last tokens": (
        LoReFT,
        {"rank": 2, "last_positions": 2},
        lambda b: edits(b) + Sizes(b).L * (2 * 2 * D + 2),
        False,
    ),
    "PrefixTuning": (
        PrefixTuning,
        {"prompt_length": 5, "projection_size": 6},
        projected_prefixes,
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
        {"prompt_length": 5, "encoder": "mlp", "hidden": 6, "template": [1, 2, 2]},
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
        projected_prefixes,
        False,
    ),
    "PTuningV2": (PTuningV2, {"prompt_length": 5}, prefixes, False),
    "PTuningV2 with input prompt": (
        PTuningV2,
        {"prompt_length": 5, "input_prompt_length": 3},
        lambda b: prefixes(b) + 3 * embedding(b),
        False,
    ),
    "PTuningV2 without shift": (PTuningV2, {"prompt_length": 5, "shift_positions": False}, prefixes, False),
}
SHIFTED = ("PTuningV2", "PTuningV2 projected", "PTuningV2 with input prompt")
PREFIXES = ("PrefixTuning", "PTuningV2 without shift", "MAM", *SHIFTED)
# Combinations that cannot work, and what is said instead.
REFUSALS = {
    **{(name, "deberta-v2"): "deberta-v2 model cannot take prefixes" for name in PREFIXES},
    **{(name, kind): f"{kind} model has no biases" for name in METHODS if "BitFit" in name for kind in ("llama", "t5")},
    ("BitFit of two sites", "gpt2"): "'query', whose bias in a gpt2 model is one of 3 parts of that of attn.c_attn",
    **{("Pfeiffer", kind): f"This {kind} model has its LayerNorms before" for kind in PRE_NORM},
    **{(name, kind): f"a {kind} model has no table of positions" for name in SHIFTED for kind in ("llama", "t5")},
}
# One method of each kind of insertion runs on most architectures whenever tests are run, the others in the long tests.
KINDS = (
    "FullFineTuning",
    "BitFit",
    "Houlsby",
    "ParallelAdapter",
    "LoRA",
    "IA3",
    "LoReFT",
    "PromptTuning",
    "PrefixTuning",
)
LATER = ("xlm-roberta", "mbart")  # which have RoBERTa's row, and BART's with norms before the sub-layers
COMBINATIONS = [
    pytest.param(
        name,
        kind,
        marks=() if kind == "bert" or (name in KINDS and kind not in LATER) else pytest.mark.long,
        id=f"{name}-{kind}",
    )
    for name in METHODS
    for kind in MODEL_TYPES
    # Heads of encoders do not read the last tokens of the last layer, whose edit then trains nothing.
    if name != "LoReFT of last tokens" or kind in ("gpt2", "opt", "llama")
]


@pytest.mark.parametrize(("name", "model_type"), COMBINATIONS)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_conformance(check, name, model_type, tiny, tmp_path):
    method, options, count, merges = METHODS[name]
    case = Case(method, tiny(model_type), tmp_path, options, count, merges)
    if (name, model_type) in REFUSALS:
        with pytest.raises(UserError, match=re.escape(REFUSALS[name, model_type])):
            case.build()
        return
    check(case)


# Configurations of a family that move its sites, or change their sizes: opt-350m, T5 1.1, a LLaMA with biases, and a
# BART whose decoder has heads of another size.
VARIANTS = {
    "bart": {"decoder_attention_heads": 2},
    "opt": {"do_layer_norm_before": False, "word_embed_proj_dim": 16},
    "t5": {"feed_forward_proj": "gated-gelu"},
    "llama": {"attention_bias": True, "mlp_bias": True},
}


@pytest.mark.long
@pytest.mark.parametrize("model_type", VARIANTS)
@pytest.mark.parametrize("name", ["FullFineTuning", "Houlsby", "LoRA on all maps", "MAM", "LoReFT", "IA3"])
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_variants_of_a_family(check, name, model_type, tmp_path):
    """The check raises an AssertionError, as `tests/testing` proves of each."""
    method, options, _, merges = METHODS[name]
    backbone = save_tiny_backbone(model_type, tmp_path / "backbone", **VARIANTS[model_type])
    check(Case(method, backbone, tmp_path, options, merges=merges))


def test_refusals_go_by_the_configuration_not_by_the_family(tmp_path):
    """opt-350m has norms behind the residual, and a LLaMA may have biases."""
    for model_type, name in (("opt", "Pfeiffer"), ("llama", "BitFit"), ("llama", "BitFit of two sites")):
        method, options, count, _ = METHODS[name]
        backbone = save_tiny_backbone(model_type, tmp_path / model_type, **VARIANTS[model_type])
        report = Case(method, backbone, tmp_path, options).build().parameter_report
        assert report.method == count(Backbone(str(backbone), build_task(TASK)))


def test_all_biases_of_a_fused_map_can_be_trained(tiny, tmp_path):
    case = Case(BitFit, tiny("gpt2"), tmp_path, {"targets": ["query", "key", "value"]})
    assert case.build().parameter_report.method == 3 * 3 * D
    with pytest.raises(UserError, match="'key', whose bias in a gpt2 model is one of 3 parts"):
        case.build(targets=["ffn_in", "key", "value"])


def test_ia3_as_published_for_t5(tiny, tmp_path):
    """The vectors of T-Few: keys and values of all three attentions, and the inner activations."""
    targets = ["key", "value", "cross_key", "cross_value", "ffn_out"]
    case = Case(IA3, tiny("t5"), tmp_path, {"targets": targets}, merges=True)
    assert case.build().parameter_report.method == 2 * (2 * 24 + F) + 2 * (4 * 24 + F)
    for name in ("merging_is_exact_or_refused", "layers_can_be_removed", "only_declared_parameters_train"):
        next(check for check in CHECKS if check.__name__ == name)(case)


def test_prefixes_have_the_heads_of_their_attention(tmp_path):
    method, options, *_ = METHODS["PrefixTuning"]
    backbone = save_tiny_backbone("bart", tmp_path / "bart", **VARIANTS["bart"])
    case = Case(method, backbone, tmp_path, options)
    assert case.build()(case.batch()).logits.isfinite().all()
