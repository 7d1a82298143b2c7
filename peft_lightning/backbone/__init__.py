"""One wrapper for every Hugging Face model."""

from peft_lightning.backbone.architectures import ARCHITECTURES, Architecture, Stack
from peft_lightning.backbone.backbone import Backbone, Insertion
from peft_lightning.backbone.linear_maps import LinearMap, LinearView, Part
from peft_lightning.backbone.loading import load_tokenizer
from peft_lightning.backbone.sites import Layer, Site
from peft_lightning.backbone.span_removal import Span, SpanRemoval, every_span

__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "Backbone",
    "Insertion",
    "Layer",
    "LinearMap",
    "LinearView",
    "Part",
    "Site",
    "Span",
    "SpanRemoval",
    "Stack",
    "every_span",
    "load_tokenizer",
]
