"""What a task reads from a model without each span of its layers."""

from collections.abc import Iterator
from typing import Any

from peft_lightning.backbone import Span, SpanRemoval
from peft_lightning.methods import AdaptationMethod
from peft_lightning.tasks import Batch


def span_answers(method: AdaptationMethod, removal: SpanRemoval, batch: Batch) -> Iterator[tuple[Span | None, Any]]:
    """What `task.answer` gives for the intact model, as span None, then for the model without each span of layers.

    Args:
        method: The trained method.
        removal: Computes the outputs of all spans at once, unless it has an obstacle.
        batch: A batch of the task.
    """
    task = method.task
    if removal.obstacle:
        yield None, task.answer(method, batch)
        for span in removal.spans:
            with method.layers_removed(*span, layer_norms=removal.layer_norms):
                yield span, task.answer(method, batch)
        return
    recording = _Recording(method, removal)
    yield None, task.answer(recording, batch)
    for span in removal.spans:
        yield span, task.answer(_Replay(recording, span), batch)


class _Recording:
    """Stands for the method while a task asks it, perhaps several times, and keeps what each span would have said."""

    def __init__(self, method: AdaptationMethod, removal: SpanRemoval):
        self.method = method
        self.removal = removal
        self.outputs: list[dict[Span | None, Any]] = []

    def __call__(self, batch: Batch) -> Any:
        self.outputs.append(dict(self.removal.outputs(self.method, batch)))
        return self.outputs[-1][None]


class _Replay:
    """Gives the answers of one span to the same questions."""

    def __init__(self, recording: _Recording, span: Span):
        self.answers = iter([outputs[span] for outputs in recording.outputs])

    def __call__(self, batch: Batch) -> Any:
        return next(self.answers)
