"""The arguments that an object was constructed with, and those it can be constructed with."""

import inspect
from types import FrameType
from typing import Any


def constructor_arguments(instance: object, frame: FrameType | None) -> dict[str, Any]:
    """What the outermost constructor of `instance` was called with, defaults included.

    With these arguments, and no others, the same class can be called again: a subclass may fix options of its parents,
    which are then no arguments of its own.

    Args:
        instance: The object that is being constructed.
        frame: The frame of one of its constructors, while it runs.
    """
    outermost = frame
    while frame is not None and _is_constructor_of(instance, frame):
        outermost, frame = frame, frame.f_back
    assert outermost is not None
    names, _, keywords, values = inspect.getargvalues(outermost)
    return {name: values[name] for name in names[1:]} | (values[keywords] if keywords else {})


def constructor_options(cls: type) -> set[str]:
    """The names that the constructor of `cls` takes, with those that `**kwargs` hands on to its parents."""
    names: set[str] = set()
    for parent in cls.__mro__:
        if constructor := vars(parent).get("__init__"):
            parameters = inspect.signature(constructor).parameters.values()
            names |= {p.name for p in parameters if p.kind is not p.VAR_KEYWORD}
            if all(p.kind is not p.VAR_KEYWORD for p in parameters):
                break
    return names - {"self"}


def _is_constructor_of(instance: object, frame: FrameType) -> bool:
    names = frame.f_code.co_varnames
    return frame.f_code.co_name == "__init__" and bool(names) and frame.f_locals.get(names[0]) is instance
