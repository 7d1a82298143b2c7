"""The benchmarks, one LightningDataModule each."""

from peft_lightning.data.amazon_polarity import AmazonPolarity
from peft_lightning.data.base import Benchmark
from peft_lightning.data.rotten_tomatoes import RottenTomatoes
from peft_lightning.data.text import TextDataModule
from peft_lightning.data.text_classification import TextClassification
from peft_lightning.data.text_to_text import TextToText
from peft_lightning.data.wmt16 import WMT16
from peft_lightning.data.xsum import XSum

__all__ = [
    "WMT16",
    "AmazonPolarity",
    "Benchmark",
    "RottenTomatoes",
    "TextClassification",
    "TextDataModule",
    "TextToText",
    "XSum",
]
