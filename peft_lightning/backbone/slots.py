"""Slots: the modules that stand where something was inserted, and can be switched off.

A slot keeps the module that stood there as `base` and the method's own module as `inserted`. Switched off, it computes
exactly what `base` computes; taken out, it leaves `base` in its place.
"""

from typing import Any

from torch import Tensor, nn

from peft_lightning.backbone.linear_maps import Part, as_seen


class Slot(nn.Module):
    """A place where a module was inserted.

    Args:
        base: The module that stood there.
        inserted: The module of the adaptation method.
    """

    def __init__(self, base: nn.Module, inserted: nn.Module):
        super().__init__()
        self.base = base
        self.inserted = inserted
        self.enabled = True

    @property
    def weight(self) -> Any:
        """The base's weight, which T5 asks a map for to see its precision."""
        return self.base.weight


class After(Slot):
    """`inserted(base(x))`."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the base, then what was inserted after it, on the first tensor where the base gives several."""
        output = self.base(*args, **kwargs)
        if not self.enabled:
            return output
        return (self.inserted(output[0]), *output[1:]) if isinstance(output, tuple) else self.inserted(output)


class Instead(Slot):
    """`inserted(base, x)`: the inserted module decides what to do with the one it replaces.

    A linear map that is kept transposed is handed over as a `LinearView`.
    """

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the inserted module, which is handed the base and the arguments of the base."""
        return self.inserted(as_seen(self.base), *args, **kwargs) if self.enabled else self.base(*args, **kwargs)


class AfterPart(Slot):
    """`After` on a part of the base's output; the other parts pass unchanged.

    Args:
        base: The module that computes all parts.
        inserted: The module of the adaptation method.
        part: Which of them.
    """

    def __init__(self, base: nn.Module, inserted: nn.Module, part: Part):
        super().__init__(base, inserted)
        self.part = part

    def forward(self, x: Tensor) -> Tensor:
        """Runs the base, then what was inserted after its part."""
        output = self.base(x)
        return self.part.put(output, self.inserted(self.part.of(output))) if self.enabled else output


class InsteadPart(AfterPart):
    """`Instead` on a part of the base's output: the inserted module is handed a `LinearView` of that part."""

    def forward(self, x: Tensor) -> Tensor:
        """Runs the base once, and the inserted module for its part."""
        output = self.base(x)
        if not self.enabled:
            return output

        def call(given: Tensor) -> Tensor:
            return self.part.of(output if given is x else self.base(given))

        view = as_seen(innermost(self.base), self.part, call)
        return self.part.put(output, self.inserted(view, x))


class Entrance(nn.Module):
    """Keeps what enters a sub-layer until `Beside` takes it, in the same forward pass."""

    cannot_merge = "a path beside a sub-layer is not a change of its weights"

    def __init__(self) -> None:
        super().__init__()
        self._entered: Tensor | None = None

    def forward(self, base: nn.Module, x: Tensor) -> Tensor:
        """What `base` gives for the input."""
        self._entered = x
        return base(x)

    def take(self) -> Tensor:
        """The input, once."""
        entered, self._entered = self._entered, None
        assert entered is not None, "the sub-layer was left without having been entered"
        return entered

    def __getstate__(self) -> dict[str, Any]:
        """All but an activation that a broken-off pass has left behind, which can be neither copied nor pickled."""
        return self.__dict__ | {"_entered": None}


class Beside(Slot):
    """`inserted(base(x), entered)`: the inserted module also sees what entered the sub-layer.

    Args:
        base: The module that gives the sub-layer's output.
        inserted: The module of the adaptation method.
        entrance: What stands where the sub-layer begins.
    """

    def __init__(self, base: nn.Module, inserted: nn.Module, entrance: Entrance):
        super().__init__(base, inserted)
        self.entrance = entrance

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the base, then what was inserted beside the sub-layer."""
        output = self.base(*args, **kwargs)
        return self.inserted(output, self.entrance.take()) if self.enabled else output


class Prefixed(nn.Module):
    """Holds a prefix as the child `prefix` of an attention module, where `prefix_attention` finds it.

    Args:
        inserted: Maps keys and values `[batch, heads, length, head size]` to longer ones.
    """

    def __init__(self, inserted: nn.Module):
        super().__init__()
        self.inserted = inserted
        self.enabled = True

    def forward(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values with the prefix in front of them."""
        return self.inserted(key, value)


def innermost(module: nn.Module) -> nn.Module:
    """The pretrained module behind all slots at its place."""
    while isinstance(module, Slot):
        module = module.base
    return module
