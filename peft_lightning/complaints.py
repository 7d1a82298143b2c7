"""One clear sentence for what the command line got wrong."""

import inspect
import re
from collections.abc import Iterator

from jsonargparse import ArgumentError

from peft_lightning.data import TextDataModule
from peft_lightning.errors import UserError
from peft_lightning.methods import AdaptationMethod

_KINDS: dict[str, tuple[str, type]] = {"model": ("method", AdaptationMethod), "data": ("DataModule", TextDataModule)}


def complaint(error: BaseException) -> str | None:
    """The sentence to print for an error that the user can mend; None for any other error.

    The parser wraps what it finds, and what constructors raise, in several layers; the innermost says what is wrong.
    """
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, UserError):
            return str(cause)
    return _parse_error(causes) if isinstance(error, ArgumentError) else None


def _parse_error(causes: list[BaseException]) -> str:
    messages = [str(cause) for cause in causes]
    keys = list(dict.fromkeys(key for message in messages for key in re.findall(r'Parser key "([\w.]+)"', message)))
    class_path = next((found[1] for m in messages if (found := re.search(r"class_path '([\w.]+)'", m))), None)
    reason = messages[-1].strip().splitlines()[0]
    if unknown := re.fullmatch(r"Option '(\w+)' is not accepted", reason):
        if class_path and (cls := _class(class_path)):
            return f"{cls.__name__} has no option '{unknown[1]}'; its options are {', '.join(_options(cls))}."
    elif (
        keys
        and keys[0] in _KINDS
        and re.match(r"Expected a dot import|No module named|Import path|module .* has no", reason)
    ):
        kind, base = _KINDS[keys[0]]
        known = ", ".join(sorted(cls.__name__ for cls in _children(base)))
        given = class_path or reason.rpartition(": ")[2].removeprefix("Import path ").split(" ")[0]
        return f"There is no {kind} '{given}'; choose one of {known}, or give the dotted path of your own class."
    option = f"option --{'.'.join(keys)}" + (f" of {class_path.rpartition('.')[2]}" if class_path else "")
    return f"{option}: {_plain(reason)}" if keys else _plain(reason)


def _children(base: type) -> list[type]:
    return base.__subclasses__()


def _class(path: str) -> type | None:
    name = path.rpartition(".")[2]
    return next((cls for _, base in _KINDS.values() for cls in _children(base) if cls.__name__ == name), None)


def _options(cls: type) -> list[str]:
    """The constructor's options, with those that `**kwargs` hands on to the parents."""
    names: list[str] = []
    for parent in cls.__mro__:
        if constructor := vars(parent).get("__init__"):
            parameters = inspect.signature(constructor).parameters.values()
            names += [p.name for p in parameters if p.kind is not p.VAR_KEYWORD and p.name != "self"]
        if parent in (AdaptationMethod, TextDataModule):
            break
    return [name for name in dict.fromkeys(names) if name != "task"]


def _plain(reason: str) -> str:
    reason = re.sub(r"<class '(\w+)'>", r"\1", reason)
    reason = re.sub(r"typing\.Literal\[(.*?)\]", r"one of \1", reason)
    return re.sub(r"^Expected an? (.*)\. Got value: (.*)$", r"expected \1, got '\2'.", reason)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error:
        yield error
        error = error.__cause__ or error.__context__
