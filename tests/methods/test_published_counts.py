"""Numbers of trained parameters at the sizes that papers report, which tiny backbones could not tell apart.

Built from configurations on the meta device: nothing is loaded, and no weight takes any memory.
"""

import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from peft_lightning.backbone import frozen as frozen_module
from peft_lightning.backbone import pretrained as pretrained_module
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

BACKBONES = {
    "bert-base": ("bert", {}),
    "bert-large": (
        "bert",
        {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096},
    ),
    "roberta-base": ("roberta", {"vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1}),
}
TASK = {"type": "classification", "labels": ["bad", "good"], "max_length": 128}
HEADS = {"bert-base": 1_538, "bert-large": 2_050, "roberta-base": 592_130}
NORMS = {"bert-base": 38_400, "bert-large": 100_352, "roberta-base": 38_400}
QKV, ALL = ["query", "key", "value"], ["query", "key", "value", "attention_dense", "ffn_in", "ffn_out"]
PLAIN = {"train_layer_norm": False}

# Method, options, and its parameters on BERT-base, BERT-large and RoBERTa-base.
COUNTS = {
    "LoRA r=1": (LoRA, {"rank": 1}, 36_864, 98_304, 36_864),
    "LoRA r=4": (LoRA, {"rank": 4}, 147_456, 393_216, 147_456),
    "LoRA r=8": (LoRA, {"rank": 8}, 294_912, 786_432, 294_912),
    "LoRA r=16": (LoRA, {"rank": 16}, 589_824, 1_572_864, 589_824),
    "LoRA of all maps r=8": (LoRA, {"rank": 8, "targets": ALL}, 1_327_104, 3_538_944, 1_327_104),
    "DoRA r=8": (LoRA, {"rank": 8, "dora": True}, 313_344, 835_584, 313_344),
    "InA q,k r=4": (InA, {"rank": 4}, 147_456, 393_216, 147_456),
    "InA q,k r=8": (InA, {"rank": 8}, 294_912, 786_432, 294_912),
    "InA q,k,v r=4": (InA, {"rank": 4, "targets": QKV}, 221_184, 589_824, 221_184),
    "InA q,k,v r=8": (InA, {"rank": 8, "targets": QKV}, 442_368, 1_179_648, 442_368),
    "VeRA r=256": (VeRA, {"rank": 256}, 24_576, 61_440, 24_576),
    "VeRA r=1024": (VeRA, {"rank": 1024}, 43_008, 98_304, 43_008),
    "AdaLoRA r=12": (AdaLoRA, {}, 1_991_520, 5_310_144, 1_991_520),
    "AdaLoRA r=8": (AdaLoRA, {"init_rank": 8}, 1_327_680, 3_540_096, 1_327_680),
    "prompt n=20": (PromptTuning, {"prompt_length": 20, "init": "uniform"}, 15_360, 20_480, 15_360),
    "prompt n=100": (PromptTuning, {"init": "uniform"}, 76_800, 102_400, 76_800),
    "P-Tuning n=20, MLP of 128": (PTuning, {"encoder": "mlp", "hidden": 128}, 229_376, 300_288, 229_376),
    "P-Tuning n=20, MLP of 768": (PTuning, {"encoder": "mlp", "hidden": 768}, 1_787_136, 2_185_728, 1_787_136),
    "P-Tuning n=9, LSTM of the paper": (PTuning, {"prompt_length": 9}, 8_278_272, 14_707_712, 8_278_272),
    "Houlsby m=1": (Houlsby, {"bottleneck": 1, **PLAIN}, 55_320, 147_504, 55_320),
    "Houlsby m=2": (Houlsby, {"bottleneck": 2, **PLAIN}, 92_208, 245_856, 92_208),
    "Houlsby m=8": (Houlsby, {"bottleneck": 8, **PLAIN}, 313_536, 835_968, 313_536),
    "Houlsby m=48": (Houlsby, {"bottleneck": 48, **PLAIN}, 1_789_056, 4_770_048, 1_789_056),
    "Houlsby m=64": (Houlsby, {}, 2_379_264, 6_343_680, 2_379_264),
    "Houlsby m=256": (Houlsby, {"bottleneck": 256, **PLAIN}, 9_461_760, 25_227_264, 9_461_760),
    "Houlsby m=512": (Houlsby, {"bottleneck": 512, **PLAIN}, 18_905_088, 50_405_376, 18_905_088),
    "Pfeiffer m=d/16": (Pfeiffer, {}, 894_528, 3_171_840, 894_528),
    "Pfeiffer m=48": (Pfeiffer, {"bottleneck": 48}, 894_528, 2_385_024, 894_528),
    "Pfeiffer m=64": (Pfeiffer, {"bottleneck": 64}, 1_189_632, 3_171_840, 1_189_632),
    # The papers leave the biases out, (r + d) L of these numbers.
    "parallel r=16": (ParallelAdapter, {"bottleneck": 16}, 294_912 + 9_408, 786_432 + 24_960, 304_320),
    "parallel r=384": (ParallelAdapter, {"bottleneck": 384}, 7_091_712, 18_908_160, 7_091_712),
    "parallel r=512": (ParallelAdapter, {"bottleneck": 512}, 9_452_544, 25_202_688, 9_452_544),
    "MAM l=16 r=16 without network": (
        MAM,
        {"prompt_length": 16, "bottleneck": 16, "projection": False},
        589_824 + 9_408,
        1_572_864 + 24_960,
        599_232,
    ),
    "MAM l=30 r=512 without network": (
        MAM,
        {"prompt_length": 30, "bottleneck": 512, "projection": False},
        10_005_504,
        26_677_248,
        10_005_504,
    ),
    "MAM l=30 r=384 with network": (
        MAM,
        {"prompt_length": 30, "bottleneck": 384},
        22_493_984,
        40_221_472 + 18_908_160,
        22_493_984,
    ),
    "Compacter": (Compacter, {}, 57_088, 152_128, 57_088),
    "Compacter++": (Compacter, {"placement": ["ffn"]}, 28_576, 76_096, 28_576),
    "LoReFT r=1": (LoReFT, {}, 18_444, 49_176, 18_444),
    "LoReFT r=1, first and last": (LoReFT, {"last_positions": 1}, 36_888, 98_352, 36_888),
    "prefix n=16": (PrefixTuning, {"prompt_length": 16, "projection": False}, 294_912, 786_432, 294_912),
    "prefix n=30": (PrefixTuning, {"prompt_length": 30, "projection": False}, 552_960, 1_474_560, 552_960),
    "prefix n=30, network of 512": (PrefixTuning, {"prompt_length": 30}, 9_872_384, 25_770_496, 9_872_384),
    "prefix n=30, network of 768": (
        PrefixTuning,
        {"prompt_length": 30, "projection_size": 768},
        14_787_840,
        38_615_808,
        14_787_840,
    ),
    "prefix n=30, network of 800": (
        PrefixTuning,
        {"prompt_length": 30, "projection_size": 800},
        15_402_272,
        40_221_472,
        15_402_272,
    ),
    "P-Tuning v2 n=16": (PTuningV2, {"prompt_length": 16}, 294_912, 786_432, 294_912),
    "P-Tuning v2 n=20": (PTuningV2, {"prompt_length": 20}, 368_640, 983_040, 368_640),
    "P-Tuning v2 n=20 with network": (
        PTuningV2,
        {"prompt_length": 20, "projection": True},
        9_864_704,
        25_760_256,
        9_864_704,
    ),
    "P-Tuning v2 n=128": (PTuningV2, {"prompt_length": 128}, 2_359_296, 6_291_456, 2_359_296),
    "(IA)^3": (IA3, {}, 55_296, 147_456, 55_296),
    "(IA)^3 as peft has it": (
        IA3,
        {"targets": ["key", "value", "attention_dense", "ffn_out"]},
        64_512,
        172_032,
        64_512,
    ),
    "BitFit": (BitFit, {}, 102_912, 272_384, 102_144),
    "BitFit of query and ffn_in": (BitFit, {"targets": ["query", "ffn_in"]}, 46_080, 122_880, 46_080),
    "LayerNorms": (LayerNormTuning, {}, 38_400, 100_352, 38_400),
    "LayerNorms of the layers": (LayerNormTuning, {"embedding_norm": False}, 36_864, 98_304, 36_864),
    "head": (LinearProbe, {}, 0, 0, 0),
    "top 1 layer": (TopLayers, {"k": 1, "train_pooler": False}, 7_087_872, 12_596_224, 7_087_872),
    "top 2 layers": (TopLayers, {"k": 2, "train_pooler": False}, 14_175_744, 25_192_448, 14_175_744),
    "top 4 layers": (TopLayers, {"k": 4, "train_pooler": False}, 28_351_488, 50_384_896, 28_351_488),
    "top 6 layers": (TopLayers, {"k": 6, "train_pooler": False}, 42_527_232, 75_577_344, 42_527_232),
    "top 1 layer and pooler": (TopLayers, {"k": 1}, 7_087_872 + 590_592, 12_596_224 + 1_049_600, 7_087_872),
    "everything": (
        FullFineTuning,
        {},
        109_483_778 - HEADS["bert-base"],
        335_143_938 - HEADS["bert-large"],
        124_647_170 - HEADS["roberta-base"],
    ),
}


@pytest.fixture
def published(monkeypatch):
    """`published(method, "bert-base")` is the method on that backbone, none of whose weights exist."""

    def load(name, task, revision=None):
        kind, options = BACKBONES[name]
        config = AutoConfig.for_model(kind, **options, **task.model_options())
        model = AutoModelForSequenceClassification.from_config(config)
        base = f"{model.base_model_prefix}."
        return model, frozenset(key for key, _ in model.named_parameters() if not key.startswith(base))

    monkeypatch.setattr(frozen_module, "load_pretrained", load)
    monkeypatch.setattr(frozen_module, "model_type", lambda name, revision=None: BACKBONES[name][0])
    monkeypatch.setattr(pretrained_module, "_fingerprint", lambda parameters: "")

    def build(method, name, **options):
        with torch.device("meta"):
            return method(backbone=name, task=TASK, **options)

    return build


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("name", COUNTS)
def test_counts(published, name, backbone):
    method, options, *counts = COUNTS[name]
    report = published(method, backbone, **options).parameter_report
    with_norms = method in (Houlsby, Compacter) and "train_layer_norm" not in options
    assert report.method == counts[list(BACKBONES).index(backbone)]
    assert report.head == HEADS[backbone]
    assert report.layer_norm == (NORMS[backbone] if with_norms else 0)
    assert report.trained == report.method + report.head + report.layer_norm


@pytest.mark.parametrize(
    ("method", "options", "bert", "roberta"),
    [
        (LoRA, {}, 296_450, 887_042),
        (LoRA, {"rank": 16}, 591_362, 1_181_954),
        (InA, {"rank": 8, "targets": QKV}, 443_906, 1_034_498),
        (Houlsby, PLAIN, 2_380_802, 2_971_394),
        (Houlsby, {}, 2_419_202, 3_009_794),
        (Pfeiffer, {}, 896_066, 1_486_658),
        (ParallelAdapter, {"bottleneck": 512}, 9_454_082, 10_044_674),
        (MAM, {"prompt_length": 30, "bottleneck": 512, "projection": False}, 10_007_042, 10_597_634),
        (MAM, {"prompt_length": 30, "bottleneck": 384}, 22_495_522, 23_086_114),
        (PromptTuning, {"prompt_length": 20, "init": "uniform"}, 16_898, 607_490),
        (PTuning, {"encoder": "mlp", "hidden": 128}, 230_914, 821_506),
        (PTuning, {"encoder": "mlp"}, 1_788_674, 2_379_266),
        (PTuning, {"hidden": 768}, 27_175_682, 27_766_274),
        (PTuningV2, {}, 370_178, 960_770),
        (PrefixTuning, {"prompt_length": 30, "projection": False}, 554_498, 1_145_090),
        (PrefixTuning, {"prompt_length": 30, "projection_size": 768}, 14_789_378, 15_379_970),
        (IA3, {}, 56_834, 647_426),
        (BitFit, {}, 104_450, 694_274),
        (LayerNormTuning, {}, 39_938, 630_530),
        (LinearProbe, {}, 1_538, 592_130),
        (FullFineTuning, {}, 109_483_778, 124_647_170),
    ],
)
def test_counts_with_the_head(published, method, options, bert, roberta):
    """As other libraries print them, for two labels."""
    for backbone, count in (("bert-base", bert), ("roberta-base", roberta)):
        assert published(method, backbone, **options).parameter_report.trained == count


@pytest.mark.parametrize(
    ("method", "options", "percent"),
    [
        (Houlsby, {"bottleneck": 2, **PLAIN}, 0.08),
        (Houlsby, {"bottleneck": 2}, 0.12),
        (Houlsby, {}, 2.21),
    ],
)
def test_percentages_of_the_adapters(published, method, options, percent):
    """Of the pretrained parameters, without the head, on BERT-base."""
    report = published(method, "bert-base", **options).parameter_report
    assert report.backbone == 109_482_240
    assert round(100 * (report.trained - report.head) / report.backbone, 2) == percent
