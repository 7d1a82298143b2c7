"""From the table of architectures to the named sites of one model."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from transformers import PreTrainedModel

from peft_lightning.backbone.architectures import Architecture, Place
from peft_lightning.backbone.linear_maps import Part


@dataclass(frozen=True)
class Site:
    """A named place in the model.

    Args:
        name: For example `query` or `ffn_output`.
        path: Where its module stood when the model was loaded, from the task model.
        layer: Number of its layer, counted from 0 at the input; None outside the layers.
        part: Which part of the module's output is meant; None means all of it.
    """

    name: str
    path: str
    layer: int | None
    part: Part | None = None


@dataclass(frozen=True)
class Layer:
    """One layer of the model: its number, its path from the task model, and its sites by name."""

    index: int
    path: str
    sites: dict[str, Site] = field(repr=False)


def base_prefix(model: PreTrainedModel) -> str:
    """What names in the base model begin with, `bert.` for example; nothing where the task model is itself the base."""
    return "" if model.base_model is model else f"{model.base_model_prefix}."


def find_layers(model: PreTrainedModel, architecture: Architecture) -> Iterator[Layer]:
    """The layers of all stacks, from input to output."""
    stacks = [(f"{base_prefix(model)}{stack.path}", stack.sites) for stack in architecture.stacks]
    layers = [
        (f"{path}.{name}", sites) for path, sites in stacks for name, _ in model.get_submodule(path).named_children()
    ]
    for index, (path, sites) in enumerate(layers):
        yield Layer(index, path, find_sites(model, sites, path, index))


def find_sites(
    model: PreTrainedModel, places: Mapping[str, Place], parent: str, layer: int | None = None
) -> dict[str, Site]:
    """The sites at these places below the module `parent`, without those that this configuration leaves out."""
    before = f"{parent}." if parent else ""
    inside = {path for path, _ in model.get_submodule(parent).named_modules(remove_duplicate=False)}
    found = {}
    for name, place in places.items():
        part = place if isinstance(place, Part) else None
        options = (place.path,) if isinstance(place, Part) else (place,) if isinstance(place, str) else place
        for option in inside.intersection(options):
            found[name] = Site(name, f"{before}{option}" if option else parent, layer, part)
    return found
