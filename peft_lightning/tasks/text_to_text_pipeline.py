"""The pipeline that writes a text for a text, which transformers 5 no longer has."""

from collections.abc import Mapping
from typing import Any

from transformers import GenerationConfig, Pipeline, PreTrainedModel


def generation_config(model: PreTrainedModel, options: Mapping[str, Any]) -> GenerationConfig:
    """The model's own generation configuration, but for some options."""
    return GenerationConfig.from_dict(model.generation_config.to_dict() | dict(options))


class TextToTextPipeline(Pipeline):
    """`{"prediction": text}` for a text, or a list of them for a list.

    Args:
        prefix: What stands before each text.
        cut_at: Number of tokens after which a text is cut.
        generation: What of the model's own generation configuration is to be different.
        kwargs: Arguments of `Pipeline`: model, tokenizer, device.
    """

    def __init__(self, *, prefix: str, cut_at: int, generation: Mapping[str, Any], **kwargs: Any):
        super().__init__(**kwargs)
        self.text_prefix = prefix
        self.cut_at = cut_at
        self.written_as = generation_config(self.model, generation)

    def _sanitize_parameters(self, **kwargs: Any) -> tuple[dict, dict, dict]:
        return {}, {}, {}

    def preprocess(self, text: str | Mapping[str, str], **kwargs: Any) -> Any:
        """Tokens of one text, or of the `text` of a row."""
        source = self.text_prefix + (text if isinstance(text, str) else text["text"])
        encoded = self.tokenizer(source, truncation=True, max_length=self.cut_at, return_tensors="pt")
        return {name: encoded[name] for name in ("input_ids", "attention_mask")}

    def _forward(self, inputs: Any, **kwargs: Any) -> Any:
        return {"written": self.model.generate(**inputs, generation_config=self.written_as)}

    def postprocess(self, outputs: Any, **kwargs: Any) -> dict[str, str]:
        """The text."""
        return {"prediction": self.tokenizer.decode(outputs["written"][0], skip_special_tokens=True).strip()}
