"""A T5 of 1.2 million random weights and a tokenizer learnt from files, to run summarisation and translation with.

    python experiments/benchmarks/random_t5.py OUTPUT FILE [FILE ...]

Each FILE is plain text, or JSON lines, of which all texts are taken.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

PAD, END, UNKNOWN = "<pad>", "</s>", "<unk>"


def texts(path: Path) -> Iterator[str]:
    """The lines of a file, or the texts in its JSON lines."""
    for line in path.read_text(encoding="utf-8").split("\n"):
        if path.suffix == ".jsonl" and line:
            yield from (value for value in json.loads(line).values() if isinstance(value, str))
        else:
            yield line


def tokenizer_of(files: list[Path], size: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE, with the end token behind each text as in T5."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[PAD, END, UNKNOWN],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((text for file in files for text in texts(file)), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single=f"$A {END}", special_tokens=[(END, 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        unk_token=UNKNOWN,
        model_input_names=["input_ids", "attention_mask"],
    )


def main() -> None:
    """Saves model and tokenizer."""
    parser = argparse.ArgumentParser(description="Save a small random T5 and a tokenizer learnt from texts.")
    parser.add_argument("output", type=Path, help="directory to write")
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="texts, or JSON lines")
    parser.add_argument("--vocabulary", type=int, default=4000, help="size of the vocabulary")
    parser.add_argument("--seed", type=int, default=0, help="seed of the weights")
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    tokenizer = tokenizer_of(options.files, options.vocabulary)
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=128,
        d_kv=32,
        d_ff=256,
        num_layers=2,
        num_heads=4,
        decoder_start_token_id=0,
        pad_token_id=0,
        eos_token_id=1,
    )
    model = T5ForConditionalGeneration(config)
    model.save_pretrained(options.output)
    tokenizer.save_pretrained(options.output)
    print(f"{options.output}: {model.num_parameters():,} parameters, {len(tokenizer):,} tokens")


if __name__ == "__main__":
    main()
