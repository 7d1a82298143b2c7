"""Options that several adapter methods have in common: where adapters stand, and how large they are."""

from collections.abc import Sequence

from peft_lightning.errors import UserError

SUB_LAYERS = ("attention", "cross_attention", "ffn")


def sub_layer_outputs(placement: Sequence[str]) -> list[str]:
    """The sites at the outputs of these sub-layers.

    Raises:
        UserError: `placement` is not a list of sub-layers, each once.
    """
    wrong = isinstance(placement, str) or not placement or set(placement) - set(SUB_LAYERS)
    if wrong or len(set(placement)) < len(placement):
        raise UserError(
            f"placement is {placement!r}; give a list of sub-layers, each once, of {', '.join(SUB_LAYERS)}; for "
            "example [attention,ffn]."
        )
    return [f"{name}_output" for name in placement]


def bottleneck_size(width: int, bottleneck: int | None, reduction_factor: int) -> int:
    """The size that is given, or else the width divided by the factor.

    Raises:
        UserError: The factor is not between 1 and the width.
    """
    if bottleneck is None and not 1 <= reduction_factor <= width:
        raise UserError(f"reduction_factor is {reduction_factor}; give one between 1 and {width}, the hidden size.")
    return width // reduction_factor if bottleneck is None else bottleneck
