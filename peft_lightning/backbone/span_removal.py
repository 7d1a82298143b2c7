"""The model without each span of its layers, computed together, so that no hidden state is computed twice.

Removing the layers `first` to `last` means: they compute what the pretrained layers compute, all others stay adapted.
One by one, the L(L+1)/2 spans and the intact model take `(L(L+1)/2 + 1) L` applications of a layer to a batch. But the
spans share most of their hidden states. What enters layer k is one of

- the state of the intact model,
- k states in which the removal began at some layer `first < k` and goes on,
- k(k-1)/2 states of spans that end before layer k - 1, and k of those that end at it, which are the k just named,

so that layer k is applied, adapted, to `1 + k + k(k-1)/2` states, and bare to `1 + k`: 376 applications instead of 948
for 12 layers, 2,624 instead of 7,224 for 24.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar

import torch
from torch import Tensor, nn
from transformers.utils import ModelOutput

from peft_lightning.backbone.backbone import Backbone

Span = tuple[int, int]
Key = TypeVar("Key")


def every_span(layers: int) -> list[Span]:
    """All spans (first, last) of so many layers, both ends included."""
    return [(first, last) for first in range(layers) for last in range(first, layers)]


def start_groups(layers: int, states: int) -> list[range]:
    """Consecutive first layers whose spans are carried together, so that they are no more than `states`, or one start.

    Args:
        layers: Number of layers L; L - i spans start at layer i.
        states: How many hidden states there may be at a time.
    """
    groups: list[range] = []
    for first in range(layers):
        if groups and sum(layers - start for start in groups[-1]) + layers - first <= states:
            groups[-1] = range(groups[-1].start, first + 1)
        else:
            groups.append(range(first, first + 1))
    return groups


class SpanRemoval:
    """Computes a model's output without the adaptation of each span of layers.

    A layer is run by the model's own forward pass over repeated rows, in which it stands alone in place of all layers
    and is given the states at hand. So masks, positions and whatever a method notes of a batch are the model's own.

    Args:
        backbone: The adapted model; it is as it was whenever nothing is being computed.
        layer_norms: Whether LayerNorms that were trained beside the method are removed in the span too.
        max_rows: The most rows (states times examples) that go through a layer at once, and that are kept for spans
            beside those of the intact model; but always those of one state, and those of the spans of one start.

    Attributes:
        applied: How often a layer was applied to a batch so far, by which the work is counted.
        obstacle: Why this model's spans cannot be computed together; None where they can.
    """

    def __init__(self, backbone: Backbone, layer_norms: bool = False, max_rows: int = 256):
        self.backbone = backbone
        self.layer_norms = layer_norms
        self.max_rows = max_rows
        self.applied = 0
        self.obstacle = backbone.layer_chain_obstacle

    @property
    def spans(self) -> list[Span]:
        """All spans of the model's layers."""
        return every_span(len(self.backbone.layers))

    def outputs(self, call: Callable[[Any], Any], batch: Mapping[str, Any]) -> Iterator[tuple[Span | None, Any]]:
        """The output of the intact model, as span None, then that without each span; each as `call` gives it.

        Args:
            call: Runs the model on a batch and returns its output, as an `AdaptationMethod` does.
            batch: Tensors with a row an example.
        """
        entered, output = self._intact(call, batch)
        yield None, output
        states = max(1, self.max_rows // len(entered[0]))
        for starts in start_groups(len(entered), states):
            yield from self._carry(call, batch, entered, starts, states).items()

    def _intact(self, call: Callable[[Any], Any], batch: Mapping[str, Any]) -> tuple[list[Tensor], Any]:
        """What enters each layer of the intact model, and its output."""
        entered: list[Tensor] = []

        def note(layer: nn.Module, inputs: tuple) -> None:
            entered.append(inputs[0])

        hooks = [layer.register_forward_pre_hook(note) for layer in self.backbone.layer_stack]
        try:
            output = call(batch)
        finally:
            for hook in hooks:
                hook.remove()
        self.applied += len(entered)
        return entered, output

    def _carry(
        self,
        call: Callable[[Any], Any],
        batch: Mapping[str, Any],
        entered: Sequence[Tensor],
        starts: Collection[int],
        states: int,
    ) -> dict[Span, Any]:
        """The outputs of all spans with these starts."""
        running: dict[int, Any] = {}  # start -> state from which the adaptation is still being removed
        finished: dict[Span, Any] = {}
        for layer in range(min(starts), len(entered)):
            ended = {(first, layer - 1): state for first, state in running.items()}
            begun = {layer: entered[layer]} if layer in starts else {}
            with self.backbone.without([layer], self.layer_norms):
                running = self._apply(layer, running | begun, call, batch, states)
            finished = self._apply(layer, finished | ended, call, batch, states)
        return finished | {(first, len(entered) - 1): output for first, output in running.items()}

    def _apply(
        self,
        layer: int,
        given: Mapping[Key, Tensor],
        call: Callable[[Any], Any],
        batch: Mapping[str, Any],
        states: int,
    ) -> dict[Key, Any]:
        """What one layer makes of each state, or, if it is the last one, what the model does."""
        keys = list(given)
        found: dict[Key, Any] = {}
        for at in range(0, len(keys), states):
            part = keys[at : at + states]
            with _alone(self.backbone, layer, torch.cat([given[key] for key in part])):
                results = _run(call, _repeated(batch, len(part)), len(part))
            found |= dict(zip(part, results, strict=True))
            self.applied += len(part)
        return found


class _Reached(Exception):  # noqa: N818  no error: the layer is done
    """Ends a forward pass behind the layer that it was made for."""

    def __init__(self, states: Tensor):
        super().__init__()
        self.states = states


class _Stop(nn.Module):
    """Stands where the next layer would."""

    def forward(self, states: Tensor, *args: Any, **kwargs: Any) -> NoReturn:
        raise _Reached(states)


@contextmanager
def _alone(backbone: Backbone, number: int, states: Tensor) -> Iterator[None]:
    """Within this context the model has the layer `number` alone, and this layer is given `states`."""
    layer, is_last = backbone.layer_stack[number], number == len(backbone.layers) - 1

    def give(module: nn.Module, inputs: tuple) -> tuple:
        return (states, *inputs[1:])

    hook = layer.register_forward_pre_hook(give)
    try:
        with backbone.stacked([layer] if is_last else [layer, _Stop()]):
            yield
    finally:
        hook.remove()


def _run(call: Callable[[Any], Any], batch: Mapping[str, Any], parts: int) -> Sequence[Any]:
    try:
        output = call(batch)
    except _Reached as reached:
        return reached.states.chunk(parts)
    return [_part(output, number, parts) for number in range(parts)]


def _repeated(batch: Mapping[str, Any], times: int) -> dict[str, Any]:
    return {
        name: value.repeat(times, *[1] * (value.dim() - 1)) if isinstance(value, Tensor) else value
        for name, value in batch.items()
    }


def _part(output: ModelOutput, number: int, parts: int) -> ModelOutput:
    tensors = {name: value for name, value in output.items() if isinstance(value, Tensor) and value.dim()}
    return type(output)(**{name: value.chunk(parts)[number] for name, value in tensors.items()})
