"""One wrapper for every Hugging Face model: verbs that adapt it at named sites, and a way back."""

from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from peft_lightning.backbone.attention import PREFIX_ATTENTION
from peft_lightning.backbone.frozen import FrozenModel
from peft_lightning.backbone.pretrained import PretrainedValues, put
from peft_lightning.backbone.prompts import make_room
from peft_lightning.backbone.sites import Site
from peft_lightning.backbone.slots import After, AfterPart, Beside, Entrance, Instead, InsteadPart, Prefixed, Slot
from peft_lightning.errors import UserError
from peft_lightning.modules.prompt import InputPrompt
from peft_lightning.modules.text_ends import TextEnds

if TYPE_CHECKING:
    from peft_lightning.tasks import Task

Role = Literal["method", "layer_norm"]
# A map that sees the input of a sub-layer once a pass, by the sub-layer's output; DeBERTa's query also sees positions.
ENTRANCES = {"attention_output": "value", "cross_attention_output": "cross_query", "ffn_output": "ffn_in"}


@dataclass(frozen=True)
class Insertion:
    """What was put in, where, and how it got there."""

    site: Site
    path: str
    slot: Slot | Prefixed

    @property
    def module(self) -> nn.Module:
        """The method's own module."""
        return self.slot.inserted


class Backbone(FrozenModel):
    """A frozen pretrained model that methods adapt through its named sites, with a way back.

    Args:
        name: Hub id, local directory, or `embedded:minilm-l6`.
        task: Chooses the model class and sizes the head.
        revision: Branch, tag or commit on the Hub.
        gradient_checkpointing: Recompute activations in the backward pass instead of keeping them.

    Attributes:
        insertions: What methods inserted, in order.
        roles: Pretrained parameters that were unfrozen, by their original names, and what as.
        fingerprint: Tells pretrained weights apart, whatever the name they were loaded by.
        complete: False while parts of the adaptation are switched off, and once it is removed.

    Raises:
        UserError: The name leads to no backbone, or its architecture is not in the table.
    """

    def __init__(self, name: str, task: "Task", revision: str | None = None, gradient_checkpointing: bool = False):
        super().__init__(name, task, revision)
        self._values = PretrainedValues(name, task, revision, self.pretrained)
        self.fingerprint = self._values.fingerprint
        self.insertions: list[Insertion] = []
        self.roles: dict[str, Role] = {}
        self.complete = True
        self._hooks: list[RemovableHandle] = []
        self._own_attention = self.model.config._attn_implementation
        if gradient_checkpointing:
            self.model.activation_checkpointing_enable()

    # The verbs: to insert after, beside, instead and in front, and to train what is there

    def insert_after(self, site: Site, module: nn.Module) -> None:
        """From now on the site gives `module(output)`."""
        kind = After if site.part is None else partial(AfterPart, part=site.part)
        self._insert(kind, site, self._present_path(site.path), module)

    def insert_beside(self, site: Site, module: nn.Module) -> None:
        """From now on the site gives `module(output, entered)`, where `entered` is the input of the site's sub-layer.

        Args:
            site: `attention_output`, `cross_attention_output` or `ffn_output`.
            module: For example a parallel adapter.

        Raises:
            UserError: The site is not the output of a sub-layer.
        """
        if site.name not in ENTRANCES or site.layer is None:
            raise UserError(f"'{site.name}' is no output of a sub-layer; give {' or '.join(ENTRANCES)}.")
        entrance = Entrance()
        self.replace(self.layers[site.layer].sites[ENTRANCES[site.name]], entrance)
        self._insert(partial(Beside, entrance=entrance), site, self._present_path(site.path), module)

    def replace(self, site: Site, module: nn.Module) -> None:
        """From now on the pretrained module at the site is called through `module(base, *inputs)`.

        What was inserted after the site stays outside: adapters see the output of the replaced map, in whichever order
        the two were put in. At a linear map that is fused with others or kept transposed, `base` is a `LinearView`.
        """
        kind = Instead if site.part is None else partial(InsteadPart, part=site.part)
        self._insert(kind, site, self._innermost_path(site.path), module)

    def prefix(self, site: Site, module: nn.Module) -> None:
        """From now on the attention at the site `attention` also sees what `module(keys, values)` puts in front.

        Raises:
            UserError: Prefixes cannot be used on this architecture, or this attention has one already.
        """
        if self.architecture.prefix_obstacle:
            raise UserError(
                f"A {self.model.config.model_type} model cannot take prefixes: {self.architecture.prefix_obstacle}. "
                "Choose a method without prefixes or another backbone."
            )
        path = self._innermost_path(site.path)
        attention = self.model.get_submodule(path)
        if hasattr(attention, "prefix"):
            raise UserError(
                f"The attention of layer {site.layer} has a prefix already; use one prefix method at a time."
            )
        slot = Prefixed(module).train(attention.training)
        attention.add_module("prefix", slot)
        self.insertions.append(Insertion(site, path, slot))
        self._set_attention(PREFIX_ATTENTION)

    def prompt(self, module: InputPrompt) -> None:
        """From now on the sequence holds the module's virtual tokens; what the layers give has them cut off again.

        Hidden states between the layers, where transformers is asked for them, hold the virtual positions. Where a
        decoder reads an encoder, the virtual tokens are the encoder's, and the decoder sees them.

        Raises:
            UserError: There is a prompt already.
        """
        if any(isinstance(insertion.module, InputPrompt) for insertion in self.insertions):
            raise UserError("The input has a prompt already; use one prompt method at a time.")
        self.replace(self.embedding_site("word_embeddings"), module)
        slot = self.insertions[-1].slot
        assert isinstance(slot, Slot)
        self._hooks += make_room(self.model.base_model, self.architecture, slot, module)

    def text_ends(self) -> TextEnds:
        """Where the texts of a batch end, for modules that treat first and last tokens apart; noted in every pass."""
        ends = TextEnds()
        self._hooks.append(self.model.base_model.register_forward_pre_hook(ends.note, with_kwargs=True))
        return ends

    def unfreeze(self, *parts: nn.Module | nn.Parameter, role: Role = "method") -> None:
        """Trains pretrained parameters.

        Args:
            parts: Modules of the pretrained model, with all their parameters, or parameters.
            role: `method` if this is what the method is about; `layer_norm` if LayerNorms are trained beside it, which
                are counted apart and stay when layers are removed.
        """
        wanted = {id(p) for part in parts for p in ([part] if isinstance(part, nn.Parameter) else part.parameters())}
        for name, parameter in self.pretrained.items():
            if id(parameter) in wanted:
                parameter.requires_grad_(True)
                self.roles[name] = role

    @property
    def adapted_layers(self) -> list[int]:
        """The numbers of the layers in which something was inserted, or is trained as a part of the method."""
        inside = {insertion.site.layer for insertion in self.insertions}
        inside |= {self._layer_of(name) for name, role in self.roles.items() if role == "method"}
        return sorted(layer for layer in inside if layer is not None)

    # The way back

    @contextmanager
    def without(self, layers: Collection[int] | None = None, layer_norms: bool = False) -> Iterator[None]:
        """Takes the adaptation out of some layers for as long as the context lasts; the head stays.

        Inserted modules are switched off; trained parameters of the backbone have their pretrained values. A backward
        pass of what is computed here has to run here too: gradient checkpointing computes it again.

        Args:
            layers: Numbers of layers; None means everything, also outside the layers.
            layer_norms: Whether LayerNorms that were trained beside the method go back as well (always if `layers` is
                None).
        """
        switched = [i.slot for i in self.insertions if i.slot.enabled and (layers is None or i.site.layer in layers)]
        restored = [
            name
            for name, role in self.roles.items()
            if layers is None or ((role == "method" or layer_norms) and self._layer_of(name) in layers)
        ]
        with ExitStack() as undo:
            undo.callback(setattr, self, "complete", self.complete)
            self.complete = False
            for slot in switched:
                slot.enabled = False
                undo.callback(setattr, slot, "enabled", True)
            # All at once, so that removing one layer after another reads the files once.
            values = self._values.of(self.roles) if restored else {}
            for name in restored:
                parameter = self.pretrained[name]
                undo.callback(put, parameter, parameter.data)
                put(parameter, values[name])
            yield

    def remove(self) -> None:
        """Takes everything out for good: the modules, keys and values of the pretrained model; the head stays.

        Raises:
            UserError: Parts of the adaptation are switched off at this moment.
        """
        if any(not insertion.slot.enabled for insertion in self.insertions) or (self.roles and not self.complete):
            raise UserError("The adaptation cannot be removed while it is disabled; leave the context first.")
        values = self._values.of(self.roles)
        for insertion in reversed(self.insertions):
            if isinstance(insertion.slot, Prefixed):
                del self.model.get_submodule(insertion.path).prefix
            else:
                self.model.set_submodule(insertion.path, insertion.slot.base, strict=True)
        self.insertions.clear()
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()
        self._set_attention(self._own_attention)
        for name, value in values.items():
            put(self.pretrained[name], value.clone())
            self.pretrained[name].requires_grad_(False)
        self.roles.clear()
        self.complete = False

    def forward(self, **inputs: Tensor) -> Any:
        """What the transformers model returns for `input_ids [batch, length]`, `attention_mask` and so on."""
        if self.architecture.causal:
            # No further token follows, for which keys and values would have to be kept.
            return self.model(use_cache=False, **inputs)
        return self.model(**inputs)

    # How it is done

    def _insert(self, kind: Callable[[nn.Module, nn.Module], Slot], site: Site, path: str, module: nn.Module) -> None:
        base = self.model.get_submodule(path)
        slot = kind(base, module).train(base.training)
        self.model.set_submodule(path, slot, strict=True)
        self.insertions.append(Insertion(site, path, slot))

    def _set_attention(self, implementation: str) -> None:
        if self.model.config._attn_implementation != implementation:
            self.model.set_attn_implementation(implementation)
            if self.model.config._attn_implementation != implementation:
                raise UserError(f"This {self.model.config.model_type} model cannot use attention '{implementation}'.")
