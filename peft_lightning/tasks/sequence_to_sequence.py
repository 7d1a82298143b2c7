"""A text for a text: summaries, translations."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor
from torchmetrics import MetricCollection
from transformers import AutoModelForSeq2SeqLM, PreTrainedModel, PreTrainedTokenizerBase

from peft_lightning.errors import UserError
from peft_lightning.tasks.base import Batch, Task
from peft_lightning.tasks.text_metrics import (
    DIACRITICS_RECIPE,
    LSUM_RECIPE,
    ROUGE,
    ROUGE_RECIPE,
    CorpusScore,
    MeanPercent,
    bleu,
    bleu_no_diacritics,
    chrf,
    rouge,
)
from peft_lightning.tasks.text_to_text_pipeline import TextToTextPipeline, generation_config

PADDING = -100
CORPUS_SCORES = {"bleu": {"bleu": bleu, "chrf": chrf}, "bleu_no_diacritics": {"bleu_no_diacritics": bleu_no_diacritics}}
METRICS = ("rouge", *CORPUS_SCORES)


@dataclass(frozen=True)
class Answer:
    """What an encoder-decoder says of a batch.

    Args:
        logits: Of each token of the reference, given those before it: `[batch, target length, vocabulary]`.
        texts: What it writes by itself, one text an example.
    """

    logits: Tensor
    texts: list[str]


class SequenceToSequence(Task):
    """Cross entropy of each token of the target given those before it; generation with beams in evaluation.

    The loss is the mean over all tokens of a batch that are not padding; with label smoothing e it is
    `(1 - e) nll + e mean_v(-log p_v)` over the vocabulary, as in transformers and fairseq. The evaluated loss is the
    mean over all tokens of the set. Metrics compare generated texts with the whole references, in percent: `rouge`
    gives rouge1, rouge2, rougeL and rougeLsum, `bleu` gives bleu and chrf; `bleu_no_diacritics` is the Romanian one.

    Args:
        max_length: Number of tokens after which the source is cut.
        max_target_length: Number of tokens after which the target is cut in training and for the loss.
        metrics: `rouge`, `bleu`, `bleu_no_diacritics`, or several of them.
        num_beams: Number of beams; 1 takes the most probable token each time.
        max_new_tokens: The most tokens to write, the start token not counted; by default `max_target_length`.
        min_new_tokens: The fewest.
        length_penalty: Power of the length by which scores of beams are divided; above 0 longer texts are preferred.
        no_repeat_ngram_size: Number of tokens that may not come twice in the same order; 0 allows all.
        label_smoothing: The e of the loss.
        source_prefix: What stands before each source; a pipeline puts it there.
        source_language: What a pipeline tells a tokenizer that marks languages.
        decoder_start_token_id: What generation starts from; by default what the backbone says.
        forced_bos_token_id: The first token that is written; by default what the backbone says.
        monitor: Metric that chooses the best checkpoint; `loss`, or one of those that `metrics` gives.
        mode: `max` if more of it is better, else `min`.
        also: Names of further sets that are evaluated.

    Raises:
        UserError: An option is impossible.
    """

    auto_model = AutoModelForSeq2SeqLM
    pretrained_head = True

    def __init__(
        self,
        max_length: int,
        max_target_length: int,
        metrics: Sequence[str],
        num_beams: int = 1,
        max_new_tokens: int | None = None,
        min_new_tokens: int = 0,
        length_penalty: float = 1.0,
        no_repeat_ngram_size: int = 0,
        label_smoothing: float = 0.0,
        source_prefix: str = "",
        source_language: str | None = None,
        decoder_start_token_id: int | None = None,
        forced_bos_token_id: int | None = None,
        monitor: str = "loss",
        mode: str = "min",
        also: Sequence[str] = (),
    ):
        super().__init__(max_length, monitor, mode, also)
        longest = max_target_length if max_new_tokens is None else max_new_tokens
        for option, value, least in (
            ("max_target_length", max_target_length, 2),
            ("num_beams", num_beams, 1),
            ("max_new_tokens", longest, 1),
            ("min_new_tokens", min_new_tokens, 0),
            ("no_repeat_ngram_size", no_repeat_ngram_size, 0),
        ):
            if value < least:
                raise UserError(f"{option} is {value}; give at least {least}.")
        if min_new_tokens > longest:
            raise UserError(f"min_new_tokens is {min_new_tokens}, and at most {longest} are written; give fewer.")
        if not 0 <= label_smoothing < 1:
            raise UserError(f"label_smoothing is {label_smoothing}; give a number from 0 up to but not including 1.")
        unknown = sorted(set(metrics) - set(METRICS))
        if unknown or not metrics:
            raise UserError(f"metrics are {list(metrics)}; give some of {', '.join(METRICS)}.")
        self.wanted = [name for name in METRICS if name in metrics]
        self.max_target_length = max_target_length
        self.max_new_tokens = longest
        self.label_smoothing = label_smoothing
        self.source_prefix = source_prefix
        self.source_language = source_language
        self.generation: dict[str, Any] = {
            "num_beams": num_beams,
            "do_sample": False,
            "use_cache": True,
            "max_length": None,
            "max_new_tokens": longest,
            "min_length": None,
            "min_new_tokens": min_new_tokens,
            "length_penalty": length_penalty,
            "no_repeat_ngram_size": no_repeat_ngram_size,
        }
        for option, token in (
            ("decoder_start_token_id", decoder_start_token_id),
            ("forced_bos_token_id", forced_bos_token_id),
        ):
            if token is not None:
                self.generation[option] = token

    def model_options(self) -> dict[str, Any]:
        """None: the model is what it was pretrained as."""
        return {}

    @property
    def longest(self) -> dict[str, int]:
        """Source, target, and what is written behind the start token."""
        return super().longest | {
            "max_target_length": self.max_target_length,
            "max_new_tokens": self.max_new_tokens,
        }

    @property
    def recipes(self) -> dict[str, str]:
        """The variant of ROUGE, sacreBLEU's signatures, and how texts are generated."""
        found = {name: LSUM_RECIPE if name == "rougeLsum" else ROUGE_RECIPE for name in self._names() if name in ROUGE}
        for name, metric in self._corpus_scores().items():
            recipe = DIACRITICS_RECIPE if name == "bleu_no_diacritics" else "{}"
            found[name] = recipe.format(f"sacreBLEU {metric.signature}")
        generation = {name: value for name, value in self.generation.items() if value is not None}
        return found | {"generation": ", ".join(f"{name} {value}" for name, value in generation.items())}

    def inputs(self, batch: Batch) -> dict[str, Any]:
        """Source and target; the model shifts the target to the right as it was pretrained with."""
        return {name: batch[name] for name in ("input_ids", "attention_mask", "labels")}

    def weight(self, batch: Batch) -> int:
        """The number of tokens of the targets."""
        return int((batch["labels"] != PADDING).sum())

    def answer(self, method: Any, batch: Batch) -> Answer:
        """Logits of the reference, and generated texts."""
        source = {name: batch[name] for name in ("input_ids", "attention_mask")}
        model, tokenizer = method.backbone.model, method.backbone.tokenizer
        written = model.generate(**source, generation_config=generation_config(model, self.generation))
        texts = tokenizer.batch_decode(written, skip_special_tokens=True)
        return Answer(method(batch).logits, [text.strip() for text in texts])

    def loss(self, output: Any, batch: Batch) -> Tensor:
        """Mean cross entropy of `output.logits [batch, length, vocabulary]` over the tokens, in float32."""
        logits, labels = output.logits.float().flatten(0, 1), batch["labels"].flatten()
        return F.cross_entropy(logits, labels, ignore_index=PADDING, label_smoothing=self.label_smoothing)

    def metrics(self) -> MetricCollection:
        """Those asked for."""
        scores = {name: MeanPercent() for name in self._names() if name in ROUGE}
        return MetricCollection({**scores, **self._corpus_scores()}, compute_groups=False)

    def update(self, metrics: MetricCollection, output: Answer, batch: Batch) -> None:
        """Compares the generated texts with the references."""
        references: Any = batch["reference"]
        scores = rouge(output.texts, references) if "rouge" in self.wanted else {}
        for name, metric in metrics.items():
            if name in scores:
                metric.update(scores[name])
            else:
                metric.update(output.texts, references)

    def decode(self, output: Answer, batch: Batch) -> list[dict[str, Any]]:
        """`{"prediction": text}` an example."""
        return [{"prediction": text} for text in output.texts]

    def pipeline(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, device: str) -> TextToTextPipeline:
        """A pipeline that writes a text for a text, as evaluation does."""
        if self.source_language is not None and hasattr(tokenizer, "src_lang"):
            tokenizer.src_lang = self.source_language
        return TextToTextPipeline(
            model=model,
            tokenizer=tokenizer,
            device=device,
            prefix=self.source_prefix,
            cut_at=self.max_length,
            generation=self.generation,
        )

    def read(self, output: Any) -> dict[str, Any]:
        """The text that the pipeline has written."""
        return dict(output)

    def _names(self) -> list[str]:
        groups = {"rouge": ROUGE, **CORPUS_SCORES}
        return [name for group in self.wanted for name in groups[group]]

    def _corpus_scores(self) -> dict[str, CorpusScore]:
        groups = [CORPUS_SCORES[group] for group in self.wanted if group in CORPUS_SCORES]
        return {name: make() for group in groups for name, make in group.items()}
