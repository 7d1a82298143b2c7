"""The benchmarks, one LightningDataModule each."""

from peft_lightning.data.amazon_polarity import AmazonPolarity
from peft_lightning.data.base import Benchmark
from peft_lightning.data.glue import GLUE
from peft_lightning.data.rotten_tomatoes import RottenTomatoes
from peft_lightning.data.squad import SQuAD
from peft_lightning.data.text import TextDataModule
from peft_lightning.data.text_classification import TextClassification

__all__ = ["GLUE", "AmazonPolarity", "Benchmark", "RottenTomatoes", "TextClassification", "TextDataModule"]
from peft_lightning.data.choices import ChoiceDataModule
from peft_lightning.data.conll import CoNLL
from peft_lightning.data.copa import COPA
from peft_lightning.data.rotten_tomatoes import RottenTomatoes
from peft_lightning.data.swag import SWAG
from peft_lightning.data.text import TextDataModule
from peft_lightning.data.text_classification import TextClassification

__all__ = [
    "COPA",
    "SWAG",
    "AmazonPolarity",
    "Benchmark",
    "ChoiceDataModule",
    "CoNLL",
    "RottenTomatoes",
    "TextClassification",
    "TextDataModule",
]
