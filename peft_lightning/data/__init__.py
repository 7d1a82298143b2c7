"""The benchmarks, one LightningDataModule each."""

from peft_lightning.data.amazon_polarity import AmazonPolarity
from peft_lightning.data.base import Benchmark
from peft_lightning.data.houlsby17 import Houlsby17
from peft_lightning.data.imdb import IMDB
from peft_lightning.data.rotten_tomatoes import RottenTomatoes
from peft_lightning.data.super_glue import SuperGLUE
from peft_lightning.data.text import TextDataModule
from peft_lightning.data.text_classification import TextClassification

__all__ = [
    "IMDB",
    "AmazonPolarity",
    "Benchmark",
    "Houlsby17",
    "RottenTomatoes",
    "SuperGLUE",
    "TextClassification",
    "TextDataModule",
]
