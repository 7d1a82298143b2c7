"""Every method on every architecture does what all methods must do."""

import pytest

from peft_lightning.errors import UserError
from peft_lightning.methods import FullFineTuning, Houlsby, LinearProbe, LoRA, PTuningV2
from peft_lightning.testing import CHECKS, MODEL_TYPES, Case

WIDTH, LAYERS = 32, 3
# Method, options, the number of its parameters by the formula of its paper, and whether it merges.
METHODS = {
    "FullFineTuning": (FullFineTuning, {}, lambda backbone: sum(p.numel() for p in backbone.pretrained.values()), True),
    "Houlsby": (Houlsby, {"bottleneck": 8}, lambda _: 2 * LAYERS * (2 * 8 * WIDTH + 8 + WIDTH), False),
    "LoRA": (LoRA, {"rank": 4, "dropout": 0.1}, lambda _: LAYERS * 2 * 4 * (WIDTH + WIDTH), True),
    "PTuningV2": (PTuningV2, {"prompt_length": 5}, lambda _: 2 * 5 * WIDTH * LAYERS, False),
    "LinearProbe": (LinearProbe, {}, lambda _: 0, True),
}


@pytest.mark.parametrize("model_type", MODEL_TYPES)
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_conformance(check, name, model_type, tiny, tmp_path):
    method, options, count, merges = METHODS[name]
    case = Case(method, tiny(model_type), tmp_path, options, count, merges)
    if name == "PTuningV2" and model_type == "deberta-v2":
        with pytest.raises(UserError, match="deberta-v2 model cannot take prefixes"):
            case.build()
        return
    check(case)
