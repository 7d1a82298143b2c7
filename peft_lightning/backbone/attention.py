"""Key/value prefixes through transformers' attention interface.

Not through `past_key_values`: that route shifts positions, is dropped by gradient checkpointing and is ignored by some
encoders. An attention module with a child named `prefix` attends to the prefix as well; all others compute what
`sdpa` computes, bit for bit.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

PREFIX_ATTENTION = "peft_lightning_prefix"


def prefix_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    is_causal: bool | None = None,
    position_bias: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Scaled dot-product attention over `[prefix; tokens]`.

    `softmax(q [P_k; k]^T / sqrt(d_h)) [P_v; v]`: every query sees the whole prefix, whatever its mask says.

    Args:
        module: The attention module; its child `prefix`, if there is one, holds P_k and P_v.
        query: `[batch, heads, queries, head size]`.
        key: `[batch, heads, keys, head size]`.
        value: As `key`.
        attention_mask: Boolean or additive mask `[batch, 1 or heads, queries, keys]`, or None.
        is_causal: Whether a missing mask means a causal one.
        position_bias: T5's bias of scores by distance `[1, heads, queries, keys]`; 0 for the prefix.
        kwargs: Passed on to `sdpa`: dropout, scaling, ...

    Returns:
        The attended values `[batch, queries, heads, head size]` and None for the weights.
    """
    prefix = getattr(module, "prefix", None)
    if prefix is not None and prefix.enabled:
        queries, keys = query.shape[2], key.shape[2]
        causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
        if attention_mask is None and causal and queries > 1:
            # sdpa's own causal mask is aligned to the upper left, which the prefix would shift.
            attention_mask = torch.ones(1, 1, queries, keys, dtype=torch.bool, device=query.device).tril(keys - queries)
        key, value = prefix(key, value)
        if attention_mask is not None:
            seen = True if attention_mask.dtype == torch.bool else 0.0
            attention_mask = F.pad(attention_mask, (key.shape[2] - keys, 0), value=seen)
        if position_bias is not None:
            position_bias = F.pad(position_bias, (key.shape[2] - keys, 0))
        is_causal = False
    return sdpa_attention_forward(
        module, query, key, value, attention_mask, is_causal=is_causal, position_bias=position_bias, **kwargs
    )


AttentionInterface.register(PREFIX_ATTENTION, prefix_attention)
AttentionMaskInterface.register(PREFIX_ATTENTION, sdpa_mask)
