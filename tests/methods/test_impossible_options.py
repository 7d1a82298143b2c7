"""Options that cannot work are named with their value and what would work, when the method is built."""

import re

import pytest

from peft_lightning.errors import UserError
from peft_lightning.methods import (
    IA3,
    MAM,
    BitFit,
    Compacter,
    Houlsby,
    InA,
    LayerNormTuning,
    LoRA,
    LoReFT,
    ParallelAdapter,
    Pfeiffer,
    PrefixTuning,
    PTuningV2,
    TopLayers,
    VeRA,
)
from peft_lightning.testing import Case


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        (TopLayers, {"k": 0}, "k is 0; this backbone has 3 layers: give a number from 1 to 3"),
        (TopLayers, {"k": 4}, "k is 4; this backbone has 3 layers: give a number from 1 to 3"),
        (LayerNormTuning, {"weights": False, "biases": False}, "leaves nothing to train"),
        (BitFit, {"targets": ["attention"]}, "has no biases at attention"),
        (BitFit, {"targets": []}, "targets is []; give a list of sites"),
        (BitFit, {"targets": "query"}, "targets is 'query'; give a list of sites"),
        (Houlsby, {"bottleneck": 0}, "bottleneck is 0; give a size of at least 1"),
        (Houlsby, {"depth": 0}, "depth is 0; give a number of layers of at least 1"),
        (Houlsby, {"init_std": -1.0}, "init_std is -1.0; give a standard deviation of at least 0"),
        (Houlsby, {"activation": "wild"}, "activation 'wild' is not known; give one of gelu, tanh"),
        (Houlsby, {"placement": ["ffn", "head"]}, "placement is ['ffn', 'head']; give a list of sub-layers"),
        (Houlsby, {"placement": []}, "placement is []; give a list of sub-layers"),
        (Houlsby, {"drop_layers": 3}, "drop_layers is 3; this backbone has 3 layers: give 0 to 2"),
        (Pfeiffer, {"reduction_factor": 33}, "reduction_factor is 33; give one between 1 and 32, the hidden size"),
        (ParallelAdapter, {"dropout": 1.0}, "dropout is 1.0; give a probability of at least 0 and below 1"),
        (MAM, {"projection_size": 0}, "projection_size is 0; give a size of at least 1"),
        (Compacter, {"n": 3, "bottleneck": 8}, "n is 3, which does not divide 32"),
        (Compacter, {"n": 4, "bottleneck": 6}, "n is 4, which does not divide 6"),
        (Compacter, {"n": 0}, "n is 0"),
        (LoRA, {"rank": 0}, "rank is 0; give one between 1 and 32"),
        (LoRA, {"rank": 33}, "rank is 33; give one between 1 and 32"),
        (LoRA, {"dora": True, "init": "pissa"}, "dora is true and init is pissa"),
        (LoRA, {"lr_ratio": 0.0}, "lr_ratio is 0.0; give a number above 0"),
        (LoRA, {"targets": ["query", "query"]}, "each once"),
        (VeRA, {"rank": 0}, "rank is 0; give one of at least 1"),
        (VeRA, {"projection_seed": -1}, "projection_seed is -1"),
        (IA3, {"targets": ["attention_norm"]}, "'attention_norm', which is no linear map"),
        (IA3, {"targets": ["quay"]}, "no site 'quay'; its sites are attention, query, key"),
        (InA, {"inhibition": 1.0}, "inhibition is 1.0; give a share of at least 0 and below 1"),
        (InA, {"activation": "tanh"}, "activation 'tanh' is not known; give one of gelu, leaky_relu, relu, elu, selu"),
        (LoReFT, {"rank": 33}, "rank is 33; give one between 1 and 32, the size of the hidden state"),
        (LoReFT, {"positions": 0}, "positions is 0 and last_positions is 0"),
        (LoReFT, {"last_positions": -1}, "last_positions is -1"),
        (PrefixTuning, {"prompt_length": 0}, "prompt_length is 0"),
        (PTuningV2, {"init_std": -1.0}, "init_std is -1.0"),
    ],
)
def test_impossible_options_are_named(tiny, tmp_path, method, options, message):
    with pytest.raises(UserError, match=re.escape(message)):
        Case(method, tiny(), tmp_path, options).build()


@pytest.mark.parametrize("model_type", ["bart", "mbart", "t5"])
def test_decoders_that_read_an_encoder_have_no_last_tokens(tiny, tmp_path, model_type):
    with pytest.raises(UserError, match=f"last_positions is 2, and the decoder of a {model_type} model does not know"):
        Case(LoReFT, tiny(model_type), tmp_path, {"last_positions": 2}).build()
