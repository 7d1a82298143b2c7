"""How prefix methods are put into a backbone."""

from peft_lightning.backbone import Backbone
from peft_lightning.modules import Prefix, PrefixTrunk, ReparametrizedPrefix


def insert_prefixes(
    backbone: Backbone,
    prompt_length: int,
    projection_size: int | None = None,
    init_std: float = 0.02,
    dropout: float = 0.0,
) -> None:
    """Gives every attention a prefix, that of a decoder to its encoder included.

    Args:
        backbone: The backbone.
        prompt_length: Number n of virtual tokens.
        projection_size: Size of the hidden layer of a network that all prefixes come from; None trains them directly.
        init_std: Standard deviation of prefixes that are trained directly.
        dropout: Probability with which an entry of a prefix is dropped in training.
    """
    trunk = None if projection_size is None else PrefixTrunk(prompt_length, backbone.width, projection_size)
    for site in backbone.attention_sites:
        heads, head_size = backbone.kv_heads(site)
        if trunk is None:
            backbone.prefix(site, Prefix(prompt_length, heads, head_size, init_std, dropout))
        else:
            backbone.prefix(site, ReparametrizedPrefix(trunk, heads, head_size, dropout))
