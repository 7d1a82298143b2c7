"""The linear maps that low-rank and scaling methods act on."""

from collections.abc import Sequence

from torch import nn

from peft_lightning.backbone import Backbone, LinearMap, LinearView, Site
from peft_lightning.errors import UserError


def linear_targets(backbone: Backbone, targets: Sequence[str]) -> list[tuple[Site, LinearMap]]:
    """The sites of these names, layer by layer, each with the linear map that stands there.

    A map that is fused with others or kept transposed comes as a view that looks like `nn.Linear`.

    Raises:
        UserError: `targets` is no list of distinct site names, or one of them is no linear map.
    """
    if isinstance(targets, str) or not targets or len(set(targets)) < len(targets):
        raise UserError(f"targets is {targets!r}; give a list of linear maps, each once, for example [query,value].")
    found = []
    for site in backbone.sites(*targets):
        linear = backbone.base_at(site)
        if not isinstance(linear, (nn.Linear, LinearView)):
            raise UserError(f"targets holds '{site.name}', which is no linear map; give query, key, value, ...")
        found.append((site, linear))
    return found
