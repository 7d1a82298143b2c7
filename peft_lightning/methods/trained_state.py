"""The trained tensors of a method: which they are, and that a file holds exactly them."""

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from peft_lightning.errors import UserError

if TYPE_CHECKING:
    from peft_lightning.methods.base import AdaptationMethod

RECORD = "peft_lightning"
# Raised when files change in a way that an earlier version of this project would misread. A version that can still read
# the files of an earlier format, or change them into its own, says so in `check_format`.
FORMAT = 1


def trained_names(module: nn.Module, inserted: Collection[nn.Module]) -> frozenset[str]:
    """Names, in the state dict of `module`, of what training can change.

    That is every trained parameter, under each of its names if it is shared, and every persistent buffer of the
    inserted modules.
    """
    parameters = {name for name, p in module.named_parameters(remove_duplicate=False) if p.requires_grad}
    buffers = {id(b) for part in inserted for b in part.buffers()}
    persistent = module.state_dict(keep_vars=True)
    return frozenset(parameters | {name for name, tensor in persistent.items() if id(tensor) in buffers})


def check_tensors(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], source: str, method: str) -> None:
    """Checks that `found` holds every wanted tensor, in its shape, and no other.

    Raises:
        UserError: It does not; the message names the first tensors of each kind.
    """
    missing = sorted(wanted.keys() - found.keys())
    unexpected = sorted(found.keys() - wanted.keys())
    reshaped = [
        f"{name} is {list(found[name].shape)} there and {list(wanted[name].shape)} here"
        for name in sorted(wanted.keys() & found.keys())
        if found[name].shape != wanted[name].shape
    ]
    faults = [
        f"{kind} {_some(names)}"
        for kind, names in (("missing:", missing), ("unexpected:", unexpected), ("other sizes:", reshaped))
        if names
    ]
    if faults:
        raise UserError(
            f"{source} does not fit this {method}: {'; '.join(faults)}. Give the file of a run with the "
            "same method and the same options."
        )


def identity(method: "AdaptationMethod") -> dict[str, Any]:
    """What a file says of its origin, as plain values."""
    return {
        "format": FORMAT,
        "method": f"{type(method).__module__}.{type(method).__qualname__}",
        "backbone": method.backbone.name,
        "backbone_fingerprint": method.backbone.fingerprint,
    }


def check_format(record: Mapping[str, Any], source: str) -> None:
    """Checks that a file has a format that this version reads; format 1 is the first.

    Raises:
        UserError: It has not; the message says which version of peft_lightning does.
    """
    found = record.get("format")
    if isinstance(found, int) and found > FORMAT:
        raise UserError(
            f"{source} has format {found}, which a newer version of peft_lightning has written; this one reads format "
            f"{FORMAT}: update peft_lightning, or load the file with the version that wrote it."
        )
    if found != FORMAT:
        raise UserError(f"{source} has format {found}, which no version of peft_lightning writes; restore the file.")


def check_identity(record: Mapping[str, Any] | None, method: "AdaptationMethod", source: str) -> None:
    """Checks that a file was made by the same method on the same pretrained weights.

    Methods are told apart by class name, not by module: code moves, and every tensor is checked beside.

    Raises:
        UserError: It was not, or is no file of this project.
    """
    if not record:
        raise UserError(f"{source} was not written by peft_lightning; give a checkpoint of one of its runs.")
    check_format(record, source)
    here = identity(method)
    if class_name(record["method"]) != class_name(here["method"]):
        raise UserError(
            f"{source} was trained by {class_name(record['method'])}, not by {class_name(here['method'])}; choose the "
            "method of the file or another file."
        )
    if record["backbone_fingerprint"] != here["backbone_fingerprint"]:
        raise UserError(
            f"{source} was trained on other pretrained weights (backbone '{record['backbone']}') than those of "
            f"backbone '{here['backbone']}'; give the backbone and revision that it was trained on."
        )


def _some(names: list[str], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def class_name(class_path: str) -> str:
    """The last part of a dotted path."""
    return class_path.rpartition(".")[2]
