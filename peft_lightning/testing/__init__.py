"""Tools to test adaptation methods with: tiny backbones and the conformance suite."""

from peft_lightning.testing.case import TASK, Case
from peft_lightning.testing.conformance import CHECKS
from peft_lightning.testing.tiny import MODEL_TYPES, save_tiny_backbone

__all__ = ["CHECKS", "MODEL_TYPES", "TASK", "Case", "save_tiny_backbone"]
