"""The benchmarks, one LightningDataModule each."""

from peft_lightning.data.amazon_polarity import AmazonPolarity
from peft_lightning.data.base import Benchmark
from peft_lightning.data.glue import GLUE
from peft_lightning.data.rotten_tomatoes import RottenTomatoes
from peft_lightning.data.squad import SQuAD
from peft_lightning.data.text import TextDataModule
from peft_lightning.data.text_classification import TextClassification

__all__ = ["GLUE", "AmazonPolarity", "Benchmark", "RottenTomatoes", "TextClassification", "TextDataModule"]
