"""One clear sentence for what the command line got wrong."""

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentError
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from peft_lightning.data import Benchmark
from peft_lightning.errors import UserError
from peft_lightning.methods import AdaptationMethod

_KINDS: dict[str, tuple[str, type]] = {"model": ("method", AdaptationMethod), "data": ("DataModule", Benchmark)}
_LINKED = {
    "backbone": "--model.backbone",
    "backbone_revision": "--model.revision",
    "seed": "--seed_everything",
}


def check_arguments(arguments: Sequence[str]) -> None:
    """Checks what the parser would overrule without a word or report without saying where.

    Raises:
        UserError: A configuration file cannot be read or is only a part of one, or an option is given for the data that
            the data takes from elsewhere.
    """
    for option, value in _options_with_values(arguments):
        if option in ("--config", "-c") and value is not None:
            _check_config(Path(value))
        linked = re.fullmatch(r"--data\.(?:init_args\.)?(\w+)", option)
        if linked and linked[1] in _LINKED:
            raise UserError(f"{option} is not an option of its own: the data takes it from {_LINKED[linked[1]]}.")


def check_leftovers(arguments: Sequence[str], config: Mapping[str, Any]) -> None:
    """Checks that no file gives an option which the class chosen in the end lacks: the parser drops it silently.

    Args:
        arguments: The command line.
        config: What the parser made of it.

    Raises:
        UserError: There is one.
    """
    for option, value in _options_with_values(arguments):
        path = Path(value or "")
        if option not in ("--config", "-c", "--model", "--data") or not path.is_file():
            continue
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        parts = content if option in ("--config", "-c") else {option.removeprefix("--"): content}
        for part in _KINDS.keys() & parts.keys():
            given = parts[part]
            if isinstance(given, str) and (path.parent / given).is_file():
                given = yaml.safe_load((path.parent / given).read_text(encoding="utf-8"))
            options = given.get("init_args") or {} if isinstance(given, dict) else {}
            chosen = config[part]["class_path"].rpartition(".")[2]
            dropped = sorted(options.keys() - config[part].get("init_args", {}).keys())
            if dropped:
                raise UserError(
                    f"{path} gives {', '.join(dropped)}, which {chosen} does not have; take a configuration without "
                    f"options of another class, or choose {given.get('class_path', 'that class')}."
                )


def complaint(error: BaseException) -> str | None:
    """The sentence to print for an error that the user can mend; None for any other error.

    The parser wraps what it finds, and what constructors raise, in several layers; the innermost says what is wrong.
    """
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, UserError):
            return str(cause)
        if isinstance(cause, MisconfigurationException):
            return str(cause).splitlines()[0]
    return _parse_error(causes) if isinstance(error, ArgumentError) else None


def exit_status(error: BaseException) -> int:
    """The exit status for an error that has a sentence: 2 for options, else what the error says."""
    if isinstance(error, ArgumentError):
        return 2
    return next((cause.exit_status for cause in _causes(error) if isinstance(cause, UserError)), 1)


def _options_with_values(arguments: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    for position, argument in enumerate(arguments):
        if argument.startswith("-"):
            option, equals, value = argument.partition("=")
            following = arguments[position + 1] if position + 1 < len(arguments) else None
            yield option, value if equals else following


def _check_config(path: Path) -> None:
    if not path.is_file():
        return  # the parser says so itself
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise UserError(f"Configuration {path} is not UTF-8; save it as UTF-8.") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise UserError(f"Configuration {path}{where} is not YAML: {getattr(error, 'problem', error)}.") from error
    if not isinstance(content, dict):
        raise UserError(f"Configuration {path} holds no options; give a YAML file of options.")
    if "class_path" in content:
        raise UserError(
            f"{path} is one part of a configuration, not a whole one; give it as --model {path} or --data {path}."
        )


def _parse_error(causes: list[BaseException]) -> str:
    messages = [str(cause) for cause in causes]
    keys = list(dict.fromkeys(key for message in messages for key in re.findall(r'Parser key "([\w.]+)"', message)))
    class_path = next((found[1] for m in messages if (found := re.search(r"class_path '([\w.]+)'", m))), None)
    reason = messages[-1].strip().splitlines()[0]
    unknown = re.fullmatch(r"Option '([\w.]+)' is not accepted", reason)
    if unknown and class_path and (cls := _class(class_path)):
        return f"{cls.__name__} has no option '{unknown[1]}'; its options are {', '.join(_options(cls))}."
    if len(keys) == 1 and keys[0] in _KINDS and (sentence := _unknown_class(keys[0], class_path, reason)):
        return sentence
    option = f"option --{'.'.join(keys)}" + (f" of {class_path.rpartition('.')[2]}" if class_path else "")
    return f"{option}: {_expectation(messages, reason)}" if keys else _plain(reason)


def _unknown_class(key: str, class_path: str | None, reason: str) -> str | None:
    kind, base = _KINDS[key]
    # Those that others inherit from, as `TextDataModule`, are no choice themselves.
    ours = [c.__name__ for c in _descendants(base) if c.__module__.startswith("peft_lightning.") and _is_choice(c)]
    advice = f"choose one of {', '.join(sorted(ours))}, or give the dotted path of your own class"
    if other := re.fullmatch(r"Import path (\S+) does not correspond to a subclass.*", reason):
        return f"{other[1]} is no {kind}; {advice}."
    if plain := re.fullmatch(r"Expected a dot import path string: (\S+)", reason):
        return f"There is no {kind} '{plain[1]}'; {advice}."
    missing = re.fullmatch(r"No module named '([\w.]+)'", reason)
    if missing and class_path and not class_path.startswith(f"{missing[1]}."):
        return f"{class_path} cannot be imported: {reason}."
    if class_path and (missing or re.search(r"has no attribute|cannot import", reason)):
        return f"There is no {kind} '{class_path}' ({reason}); {advice}."
    return None


def _descendants(base: type) -> list[type]:
    children: list[type] = base.__subclasses__()
    return children + [found for child in children for found in _descendants(child)]


def _is_choice(cls: type) -> bool:
    return issubclass(cls, AdaptationMethod) or getattr(cls, "raw", None) is not Benchmark.raw


def _class(path: str) -> type | None:
    name = path.rpartition(".")[2]
    return next((cls for _, base in _KINDS.values() for cls in _descendants(base) if cls.__name__ == name), None)


def _options(cls: type) -> list[str]:
    """The constructor's options, with those that `**kwargs` hands on to the parents."""
    names: list[str] = []
    for parent in cls.__mro__:
        if constructor := vars(parent).get("__init__"):
            parameters = inspect.signature(constructor).parameters.values()
            names += [p.name for p in parameters if p.kind is not p.VAR_KEYWORD and p.name != "self"]
        if parent in (AdaptationMethod, Benchmark):
            break
    return [name for name in dict.fromkeys(names) if name != "task" and name not in _LINKED.keys() - {"backbone"}]


def _expectation(messages: list[str], reason: str) -> str:
    """What the innermost union of plain types expected, or else the innermost reason."""
    # Given a part of one of several classes, a callback's option, only the innermost reason is about that part.
    union = re.compile(r"Subtypes: \[(?!<class 'peft_lightning)(.*)\]\n(?:.*\n)*?Given value: (?!NestedArg)(.*)")
    found = next((match for message in reversed(messages) if (match := union.search(message))), None)
    return f"expected {_plain(found[1])}, got '{found[2]}'." if found else _plain(reason)


def _plain(reason: str) -> str:
    reason = re.sub(r"<class '(?:[\w.]+\.)?(\w+)'>", r"\1", reason)
    reason = re.sub(r"typing\.Literal\[(.*?)\]", r"one of \1", reason).replace("collections.abc.", "")
    reason = reason.replace("NoneType", "null")
    return re.sub(r"^Expected an? (.*)\. Got value: (.*)$", r"expected \1, got '\2'.", reason)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error:
        yield error
        error = error.__cause__ or error.__context__
