"""Whole runs on decoders and encoder-decoders: training, files, prediction one by one and in batches."""

import json

import pytest

from peft_lightning import load_run
from peft_lightning.cli import main

TEXTS = ["a good film", "dull", "it is the worst plot ever"]


@pytest.mark.parametrize(
    ("model_type", "model", "options"),
    [
        ("gpt2", "LoRA", []),
        ("bart", "PrefixTuning", ["--model.projection_size=8"]),
        ("t5", "ParallelAdapter", ["--model.gradient_checkpointing=true"]),
        ("llama", "Houlsby", ["--trainer.precision=bf16-mixed"]),
        ("opt", "PTuningV2", ["--model.prompt_length=5"]),
        ("mbart", "LoReFT", []),
        ("xlm-roberta", "IA3", []),
    ],
)
def test_a_run_from_the_command_line(model_type, model, options, fit, tmp_path):
    run = fit(tmp_path / "run", *options, model=model, model_type=model_type)
    main(["test", str(run)])
    result = json.loads((run / "result.json").read_text())
    assert result["status"] == "done"
    assert {"val/accuracy", "test/accuracy"} <= result["metrics"].keys()
    classify = load_run(run).pipeline()
    together, alone = classify(TEXTS, batch_size=3), [classify(text)[0] for text in TEXTS]
    assert [row["label"] for row in together] == [row["label"] for row in alone]
    assert [row["score"] for row in together] == pytest.approx([row["score"] for row in alone], abs=1e-4)
