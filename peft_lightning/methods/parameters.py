"""How many parameters are trained, counted apart: method, head, LayerNorm."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass

from torch import nn

from peft_lightning.backbone import Backbone


@dataclass(frozen=True)
class ParameterReport:
    """Numbers of parameters; a tensor that is shared counts once.

    Args:
        method: Trained parameters that belong to the method: what it inserted, and what it is about in the backbone.
        head: Trained parameters outside the backbone: the task's head, and a pooler that the backbone's file lacks.
        layer_norm: LayerNorm parameters that are trained beside the method.
        trained: The sum of the three.
        backbone: All pretrained parameters, trained or not.
    """

    method: int
    head: int
    layer_norm: int
    trained: int
    backbone: int

    @property
    def percent(self) -> float:
        """Trained parameters in percent of the backbone's."""
        return 100 * self.trained / self.backbone

    def as_dict(self) -> dict[str, int]:
        """The five numbers by name."""
        return asdict(self)

    @classmethod
    def of(cls, backbone: Backbone) -> "ParameterReport":
        """Counts an adapted backbone."""
        inserted = [p for insertion in backbone.insertions for p in insertion.module.parameters()]
        by_role = {
            role: [backbone.pretrained[name] for name, given in backbone.roles.items() if given == role]
            for role in ("method", "layer_norm")
        }
        method = _count_trained([*inserted, *by_role["method"]])
        head = _count_trained(backbone.head.values())
        layer_norm = _count_trained(by_role["layer_norm"])
        everything = sum(p.numel() for p in {id(p): p for p in backbone.pretrained.values()}.values())
        return cls(method, head, layer_norm, method + head + layer_norm, everything)


def _count_trained(parameters: Iterable[nn.Parameter]) -> int:
    return sum(p.numel() for p in {id(p): p for p in parameters if p.requires_grad}.values())
