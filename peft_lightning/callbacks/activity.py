"""How far inserted modules move what passes through them, measured in one forward pass after another."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from peft_lightning.backbone import Backbone, Insertion
from peft_lightning.backbone.slots import Entrance, Prefixed
from peft_lightning.errors import UserError
from peft_lightning.methods import AdaptationMethod
from peft_lightning.modules import InhibitedLowRank, InputPrompt
from peft_lightning.tasks import Batch, SequenceToSequence
from peft_lightning.tasks.sequence_to_sequence import PADDING

Note = Callable[[Tensor, Tensor, Tensor], None]


class Activity(Metric):
    """Sums over tokens, a place a module: exact on any number of devices.

    Args:
        modules: Number of modules.
        levels: Number of inhibition levels.
        device: Where the sums are kept, in float64 where that exists.
    """

    full_state_update = False
    tokens: Tensor
    moved: Tensor
    inhibited: Tensor

    def __init__(self, modules: int, levels: int, device: torch.device):
        super().__init__()
        kind = torch.float32 if device.type == "mps" else torch.float64
        for name, shape in (("tokens", (modules,)), ("moved", (modules,)), ("inhibited", (modules, levels))):
            self.add_state(name, torch.zeros(shape, dtype=kind), dist_reduce_fx="sum")
        self.to(device)

    def update(self, module: int, moved: Tensor, inhibited: Tensor | None) -> None:
        """Adds the tokens of one batch.

        Args:
            module: Number of the module.
            moved: `||h' - h|| / ||h||` of each token `[tokens]`.
            inhibited: Share of units that each level inhibits at each token `[tokens, levels]`; None without units.
        """
        self.tokens[module] += len(moved)
        self.moved[module] += moved.sum(dtype=self.moved.dtype)
        if inhibited is not None:
            self.inhibited[module] += inhibited.sum(0, dtype=self.inhibited.dtype)

    def compute(self) -> tuple[Tensor, Tensor, Tensor]:
        """Number of tokens `[modules]`, mean of `moved` `[modules]`, mean shares `[modules, levels]`."""
        return self.tokens, self.moved / self.tokens, self.inhibited / self.tokens[:, None]


def measured_insertions(method: AdaptationMethod) -> list[Insertion]:
    """The modules that a method has inserted in layers.

    Raises:
        UserError: It has inserted none, or a prompt, which moves no hidden state.
    """
    insertions, name = method.backbone.insertions, type(method).__name__
    if any(isinstance(insertion.module, InputPrompt) for insertion in insertions):
        raise UserError(
            f"AdapterActivity measures how far modules move hidden states, and the prompt of {name} adds positions "
            "instead; leave AdapterActivity out, or choose a method without a prompt."
        )
    found = [i for i in insertions if i.site.layer is not None and not isinstance(i.module, Entrance)]
    if not found:
        raise UserError(
            f"AdapterActivity measures what a method inserts in layers, and {name} inserts nothing there; leave "
            "AdapterActivity out, or choose a method that does."
        )
    return found


def measure(
    method: AdaptationMethod, insertions: Sequence[Insertion], batch: Batch, levels: Sequence[float], activity: Activity
) -> None:
    """Adds one batch to the sums, in a forward pass of its own.

    Args:
        method: The method, in evaluation mode.
        insertions: The modules that are measured.
        batch: The batch.
        levels: Inhibition levels.
        activity: The sums.
    """
    modules = [insertion.module for insertion in insertions]  # before watches stand there

    def note(number: int, before: Tensor, after: Tensor, x: Tensor) -> None:
        module, mask = modules[number], _token_mask(method, insertions[number], batch)
        inhibited = _of_tokens(module.inhibited(x, levels), mask) if isinstance(module, InhibitedLowRank) else None
        activity.update(number, _of_tokens(_moved(before, after), mask), inhibited)

    with ExitStack() as watches:
        for number, insertion in enumerate(insertions):
            watches.enter_context(_watched(method.backbone, insertion, partial(note, number)))
        method(batch)


class _Watch(nn.Module):
    """Stands before an inserted module and notes what it makes of the first thing that passes.

    Args:
        inserted: The module.
        note: Is given what the place gives without the module, what it gives with it, and what entered.
    """

    def __init__(self, inserted: nn.Module, note: Note):
        super().__init__()
        self.inserted = inserted
        self.note: Note | None = note

    def forward(self, first: Any, *inputs: Any, **options: Any) -> Any:
        """What the module gives for the output of a site, or for the module that it replaces and its inputs."""
        after = self.inserted(first, *inputs, **options)
        # Once a pass: DeBERTa's maps are used again for positions, and what is replaced may hold other watches.
        note, self.note = self.note, None
        if note:
            replaces = not isinstance(first, Tensor)
            before = first(*inputs, **options) if replaces else first
            note(_tensor(before), _tensor(after), inputs[0] if replaces else first)
        return after


@contextmanager
def _watched(backbone: Backbone, insertion: Insertion, note: Note) -> Iterator[None]:
    """Within this context one forward pass through the place of a module is noted."""
    slot = insertion.slot
    if isinstance(slot, Prefixed):
        handle = backbone.module_at(insertion.site).register_forward_hook(_without_prefix(slot, note), with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()
    else:
        inserted = slot.inserted
        slot.inserted = _Watch(inserted, note)
        try:
            yield
        finally:
            slot.inserted = inserted


def _without_prefix(slot: Prefixed, note: Note) -> Callable[..., None]:
    """A hook of an attention that computes it again without its prefix."""

    def hook(attention: nn.Module, args: tuple, options: dict[str, Any], output: Any) -> None:
        if slot.enabled:
            slot.enabled = False
            try:
                before = attention(*args, **options)
            finally:
                slot.enabled = True
            note(_tensor(before), _tensor(output), _tensor(output))

    return hook


def _tensor(output: Any) -> Tensor:
    return output[0] if isinstance(output, tuple) else output


def _moved(before: Tensor, after: Tensor) -> Tensor:
    """`||after - before|| / ||before||` over the last dimension, in float32."""
    before, after = before.float(), after.float()
    size = torch.linalg.vector_norm(before, dim=-1).clamp_min(torch.finfo(before.dtype).tiny)
    return torch.linalg.vector_norm(after - before, dim=-1) / size


def _token_mask(method: AdaptationMethod, insertion: Insertion, batch: Batch) -> Tensor:
    """True at tokens that are not padding, `[batch, length]`; choices of one example are rows of their own."""
    site, layer = insertion.site, method.backbone.layers[insertion.site.layer or 0]
    # A decoder's keys and values of attention to an encoder are those of the encoder's tokens.
    in_decoder = "cross_query" in layer.sites and site.name not in ("cross_key", "cross_value")
    if in_decoder and isinstance(method.task, SequenceToSequence):
        return batch["labels"] != PADDING
    mask = batch["attention_mask"].bool()
    return mask.flatten(0, -2)


def _of_tokens(values: Tensor, mask: Tensor) -> Tensor:
    """Those entries of `[batch, length, ...]` that belong to tokens, `[tokens, ...]`; OPT joins the first two."""
    joined = values.flatten(0, 1) if values.shape[:2] == mask.shape else values
    return joined[mask.flatten()]
