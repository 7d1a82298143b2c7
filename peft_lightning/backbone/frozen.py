"""A pretrained task model, frozen but for its head, and where its parts are."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from peft_lightning.backbone.architectures import architecture
from peft_lightning.backbone.linear_maps import as_seen
from peft_lightning.backbone.loading import load_pretrained, load_tokenizer, model_type
from peft_lightning.backbone.sites import Layer, Site, base_prefix, find_layers, find_sites
from peft_lightning.backbone.slots import Slot
from peft_lightning.errors import UserError

if TYPE_CHECKING:
    from peft_lightning.tasks import Task


class FrozenModel(nn.Module):
    """A pretrained task model with named sites, which stay where they were, whatever is put in.

    Args:
        name: Hub id, local directory, or `embedded:minilm-l6`.
        task: Chooses the model class and sizes the head.
        revision: Branch, tag or commit on the Hub.

    Attributes:
        model: The transformers model.
        pretrained: The pretrained parameters by their original names, whether frozen or not.
        head: All other parameters by name: the task's head, and a pooler that the file lacks. Every method trains them.
            Empty for a task whose head the backbone was pretrained with.
        layers: Its layers, from input to output; those of a decoder behind those of its encoder.

    Raises:
        UserError: The name leads to no backbone, or its architecture is not in the table.
    """

    def __init__(self, name: str, task: "Task", revision: str | None = None):
        super().__init__()
        self.name = name
        self.revision = revision
        self.architecture = architecture(model_type(name, revision))
        self.model, fresh = load_pretrained(name, task, revision)
        self._base = base_prefix(self.model)
        # The head of a task that the backbone was pretrained for, often its embeddings once more, is a part of it.
        kept = "" if task.pretrained_head else self._base
        self.pretrained = {
            key: parameter
            for key, parameter in self.model.named_parameters()
            if key.startswith(kept) and key not in fresh
        }
        known = {id(parameter) for parameter in self.pretrained.values()}
        self.head = {name: p for name, p in self.model.named_parameters() if id(p) not in known}
        for parameter in self.pretrained.values():
            parameter.requires_grad_(False)
        self.layers = list(find_layers(self.model, self.architecture))
        self._embeddings = find_sites(self.model, self.architecture.embeddings, self._base.rstrip("."))

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer that belongs to the model."""
        return load_tokenizer(self.name, self.revision)

    @property
    def width(self) -> int:
        """Hidden size d."""
        return self.model.config.hidden_size

    def kv_heads(self, site: Site) -> tuple[int, int]:
        """Number and size of the heads of keys and values of an attention.

        Several heads of queries may share one of keys and values, and its size need not be the hidden size divided by
        the number of heads.
        """
        config = self.model.config
        heads = config.num_attention_heads
        if site.path.startswith(f"{self._base}decoder."):
            # BART's decoder may have other heads than its encoder, whose number is that of the configuration.
            heads = getattr(config, "decoder_attention_heads", heads)
        size = getattr(config, "head_dim", None) or config.hidden_size // heads
        return getattr(config, "num_key_value_heads", None) or heads, size

    @property
    def pre_norm(self) -> bool:
        """Whether norms stand before the sub-layers rather than behind the residual."""
        rule = self.architecture.pre_norm
        return getattr(self.model.config, rule) if isinstance(rule, str) else rule

    @property
    def word_embeddings(self) -> Tensor:
        """The pretrained embeddings of the vocabulary `[tokens, width]`; the width need not be the hidden size."""
        weight = self.module_at(self.embedding_site("word_embeddings")).weight
        assert isinstance(weight, Tensor)
        return weight

    @property
    def position_room(self) -> int | None:
        """The number of tokens that the position table has room for; None if there is no such table."""
        if not self.position_sites:
            return None
        config = self.model.config
        taken = config.pad_token_id + 1 if self.architecture.positions_start_after_padding else 0
        return config.max_position_embeddings - taken

    def sites(self, *names: str) -> list[Site]:
        """All sites of these names, layer by layer.

        Raises:
            UserError: A name is not a site of this architecture.
        """
        for name in names:
            if not any(name in layer.sites for layer in self.layers):
                known = ", ".join(self.layers[0].sites)
                raise UserError(f"A {self.model.config.model_type} layer has no site '{name}'; its sites are {known}.")
        return [layer.sites[name] for layer in self.layers for name in names if name in layer.sites]

    def embedding_site(self, name: str) -> Site:
        """The site `name` outside the layers, for example `position_embeddings`.

        Raises:
            UserError: This model has no such site.
        """
        if name not in self._embeddings:
            raise UserError(
                f"This {self.model.config.model_type} model has no site '{name}' outside its layers; "
                f"there are {', '.join(self._embeddings)}."
            )
        return self._embeddings[name]

    @property
    def attention_sites(self) -> list[Site]:
        """Every attention, layer by layer: to the layer's own tokens, and to the encoder's in a decoder."""
        names = ("attention", "cross_attention")
        return [layer.sites[name] for layer in self.layers for name in names if name in layer.sites]

    @property
    def position_sites(self) -> list[Site]:
        """The tables of positions, one a stack; none where attention itself knows how far tokens are apart."""
        return [site for name, site in self._embeddings.items() if name.endswith("position_embeddings")]

    def module_at(self, site: Site) -> nn.Module:
        """The pretrained module at a site, behind anything that was inserted there."""
        return self.model.get_submodule(self._innermost_path(site.path))

    def base_at(self, site: Site) -> Any:
        """What a module that replaces the site is handed: the pretrained module, or a view of a linear map there."""
        return as_seen(self.module_at(site), site.part)

    @property
    def layer_norms(self) -> list[nn.Module]:
        """Every LayerNorm or RMSNorm of the backbone: those of each layer, and those outside the layers."""
        outside = [site for name, site in self._embeddings.items() if name.endswith("_norm")]
        return [*map(self.module_at, outside), *self.layer_norms_of(self.layers)]

    def layer_norms_of(self, layers: Iterable[Layer]) -> list[nn.Module]:
        """The norms inside these layers."""
        sites = [site for layer in layers for name, site in layer.sites.items() if name.endswith("_norm")]
        return [self.module_at(site) for site in sites]

    def layer_module(self, layer: Layer) -> nn.Module:
        """The transformers module of a layer."""
        return self.model.get_submodule(self._innermost_path(layer.path))

    @property
    def layer_chain_obstacle(self) -> str | None:
        """Why the layers are not one chain, in which each reads what the one before it gave; None where they are."""
        if len(self.architecture.stacks) > 1:
            return "its decoder also reads what its encoder gives"
        if "convolution_norm" in self._embeddings:
            return "its convolution joins what enters and what leaves the first layer"
        return None

    @property
    def layer_stack(self) -> nn.ModuleList:
        """What the model calls one after the other: its layers, with what was inserted around them."""
        stack = self.model.get_submodule(self._stack_path)
        assert isinstance(stack, nn.ModuleList)
        return stack

    @contextmanager
    def stacked(self, layers: Sequence[nn.Module]) -> Iterator[None]:
        """Within this context the model calls these modules where it would call its layers."""
        stack = self.model.get_submodule(self._stack_path)
        self.model.set_submodule(self._stack_path, nn.ModuleList(layers), strict=True)
        try:
            yield
        finally:
            self.model.set_submodule(self._stack_path, stack, strict=True)

    @property
    def above_layers(self) -> list[nn.Parameter]:
        """Pretrained parameters that the data passes after the layers: a pooler, if the backbone's file has one."""
        above = tuple(f"{self._base}{part}." for part in self.architecture.above)
        return [parameter for name, parameter in self.pretrained.items() if name.startswith(above)]

    @property
    def below_layers(self) -> list[nn.Parameter]:
        """All other pretrained parameters outside the layers: the embeddings and what belongs to them."""
        above = {id(parameter) for parameter in self.above_layers}
        outside = [parameter for name, parameter in self.pretrained.items() if self._layer_of(name) is None]
        return [parameter for parameter in outside if id(parameter) not in above]

    @property
    def _stack_path(self) -> str:
        (stack,) = self.architecture.stacks
        return f"{self._base}{stack.path}"

    def _present_path(self, path: str) -> str:
        """Where the module that was loaded at `path` is found now that slots stand before it."""
        found: list[str] = []
        module: nn.Module = self.model
        for part in path.split("."):
            while isinstance(module, Slot):
                found.append("base")
                module = module.base
            found.append(part)
            module = module.get_submodule(part)
        return ".".join(found)

    def _innermost_path(self, path: str) -> str:
        """Where the module itself is found, behind any slots that stand at its place too."""
        found = self._present_path(path)
        while isinstance(self.model.get_submodule(found), Slot):
            found += ".base"
        return found

    def _layer_of(self, name: str) -> int | None:
        return next((layer.index for layer in self.layers if name.startswith(f"{layer.path}.")), None)
