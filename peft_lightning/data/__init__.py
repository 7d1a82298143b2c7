"""The benchmarks, one LightningDataModule each."""

from peft_lightning.data.amazon_polarity import AmazonPolarity
from peft_lightning.data.base import Benchmark
from peft_lightning.data.choices import ChoiceDataModule
from peft_lightning.data.conll import CoNLL
from peft_lightning.data.copa import COPA
from peft_lightning.data.glue import GLUE
from peft_lightning.data.houlsby17 import Houlsby17
from peft_lightning.data.imdb import IMDB
from peft_lightning.data.rotten_tomatoes import RottenTomatoes
from peft_lightning.data.squad import SQuAD
from peft_lightning.data.super_glue import SuperGLUE
from peft_lightning.data.swag import SWAG
from peft_lightning.data.text import TextDataModule
from peft_lightning.data.text_classification import TextClassification
from peft_lightning.data.text_to_text import TextToText
from peft_lightning.data.wmt16 import WMT16
from peft_lightning.data.xsum import XSum

__all__ = [
    "COPA",
    "GLUE",
    "IMDB",
    "SWAG",
    "WMT16",
    "AmazonPolarity",
    "Benchmark",
    "ChoiceDataModule",
    "CoNLL",
    "Houlsby17",
    "RottenTomatoes",
    "SQuAD",
    "SuperGLUE",
    "TextClassification",
    "TextDataModule",
    "TextToText",
    "XSum",
]
