"""AdapterActivity measures what plain hooks measure on each text by itself, without padding."""

import math

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Trainer
from small_files import rows_of
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from peft_lightning.backbone import load_tokenizer
from peft_lightning.callbacks import AdapterActivity
from peft_lightning.callbacks.activity import Activity, measure, measured_insertions
from peft_lightning.cli import main
from peft_lightning.errors import UserError
from peft_lightning.methods import (
    BitFit,
    Houlsby,
    InA,
    LinearProbe,
    LoRA,
    ParallelAdapter,
    Pfeiffer,
    PromptTuning,
    PTuningV2,
)
from peft_lightning.modules import (
    Bottleneck,
    InhibitedLowRank,
    LowRank,
    NormedBottleneck,
    ParallelBottleneck,
)
from peft_lightning.testing import Case
from peft_lightning.testing.case import TEXTS
from peft_lightning.testing.probes import make_loader

HEADS, HEAD_SIZE = 4, 8


def of_bottleneck(module, args, output):
    return args[0], output


def of_parallel(module, args, output):
    return args[0], args[0] + module.scale * module.bottleneck.change(args[1])


def of_normed(module, args, output):
    norm, summed = args
    start = F.layer_norm(summed, summed.shape[-1:], norm.weight, norm.bias, norm.eps)
    moved = summed + module.bottleneck.change(start)
    return start, F.layer_norm(moved, summed.shape[-1:], norm.weight, norm.bias, norm.eps)


def of_low_rank(module, args, output):
    base, x = args
    start = x @ base.weight.T + base.bias
    return start, start + module.scale * x @ module.A.T @ module.B.T


def of_inhibited(module, args, output):
    base, x = args
    z = x @ module.A.T
    start = x @ base.weight.T + base.bias
    gate = F.gelu(z - module.inhibition * z.max(-1, keepdim=True).values)
    return start, start + module.scale * gate @ module.B.T


@torch.no_grad()
def by_plain_hooks(method, kind, compute):
    """The mean of `||h' - h|| / ||h||` over all tokens, for each module of a class, in the order of the model."""
    modules = [module for module in method.backbone.model.modules() if isinstance(module, kind)]
    ratios = {module: [] for module in modules}

    def hook(module, args, output):
        before, after = compute(module, args, output)
        ratios[module] += ((after - before).norm(dim=-1) / before.norm(dim=-1)).flatten().tolist()

    handles = [module.register_forward_hook(hook) for module in modules]
    each_text_alone(method)
    for handle in handles:
        handle.remove()
    return [sum(found) / len(found) for found in ratios.values()]


def each_text_alone(method):
    tokenizer = load_tokenizer(method.backbone.name)
    with torch.no_grad():
        for text in TEXTS:
            method.backbone(**tokenizer(text, return_tensors="pt"))


def token_count(backbone):
    return sum(len(ids) for ids in load_tokenizer(str(backbone))(list(TEXTS))["input_ids"])


def measured(method, case, callback=None):
    """The rows that the callback writes under `trainer.validate`."""
    options = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = Trainer(default_root_dir=case.directory, callbacks=[callback or AdapterActivity()], **options)
    trainer.validate(method, make_loader(case, 2), verbose=False)
    return rows_of(case.directory / "adapter_activity_validation.csv")


@pytest.fixture
def case(tiny, tmp_path):
    return lambda method, model_type="bert", **options: Case(method, tiny(model_type), tmp_path, options)


@pytest.mark.parametrize(
    ("method", "options", "sites", "kind", "compute"),
    [
        (Houlsby, {"bottleneck": 4}, ["attention_output", "ffn_output"], Bottleneck, of_bottleneck),
        (ParallelAdapter, {"bottleneck": 4}, ["ffn_output"], ParallelBottleneck, of_parallel),
        (Pfeiffer, {"bottleneck": 4}, ["ffn_norm"], NormedBottleneck, of_normed),
        (LoRA, {"rank": 2}, ["query", "value"], LowRank, of_low_rank),
        (InA, {"rank": 4, "inhibition": 0.5}, ["query", "key"], InhibitedLowRank, of_inhibited),
    ],
)
def test_it_is_what_plain_hooks_measure_on_each_text_alone(case, method, options, sites, kind, compute):
    chosen = case(method, **options)
    built = chosen.trained()
    rows = measured(built, chosen)
    assert [(int(row["layer"]), row["site"]) for row in rows] == [(layer, site) for layer in range(3) for site in sites]
    assert {row["module"] for row in rows} == {kind.__name__}
    assert {int(row["tokens"]) for row in rows} == {2 * token_count(chosen.backbone)}
    found = [float(row["moved"]) for row in rows]
    assert found == pytest.approx(by_plain_hooks(built, kind, compute), rel=1e-4)
    assert min(found) > 1e-3
    assert built.backbone.model.state_dict().keys() == chosen.build().backbone.model.state_dict().keys()


def test_the_inhibited_share_is_that_of_units_below_a_share_of_the_largest(case):
    chosen = case(InA, rank=4)
    built = chosen.trained()
    rows = measured(built, chosen, AdapterActivity([0.1, 0.9]))
    modules = [module for module in built.backbone.model.modules() if isinstance(module, InhibitedLowRank)]
    shares = {module: {0.1: [], 0.9: []} for module in modules}

    def hook(module, args, output):
        for token in (args[1] @ module.A.T).flatten(0, 1):
            for level, found in shares[module].items():
                found.append(sum(float(unit) < level * float(token.max()) for unit in token) / len(token))

    for module in modules:
        module.register_forward_hook(hook)
    each_text_alone(built)
    for row, found in zip(rows, shares.values(), strict=True):
        for level, values in found.items():
            assert float(row[f"inhibited_at_{level}"]) == pytest.approx(sum(values) / len(values), abs=1e-6)
    assert all(float(row["inhibited_at_0.1"]) < float(row["inhibited_at_0.9"]) < 1 for row in rows)


def test_a_prefix_is_measured_by_what_its_attention_gives(case):
    chosen = case(PTuningV2, prompt_length=3)
    built = chosen.trained()
    rows = measured(built, chosen)
    found, attentions = [], [layer.attention.self for layer in built.backbone.model.bert.encoder.layer]
    entered = {attention: [] for attention in attentions}
    for attention in attentions:
        attention.query.register_forward_pre_hook(lambda _, args, a=attention: entered[a].append(args[0]))
    each_text_alone(built)

    def attend(attention, hidden, with_prefix):
        query, key, value = (
            getattr(attention, name)(hidden)[0].unflatten(-1, (HEADS, HEAD_SIZE)) for name in ("query", "key", "value")
        )
        if with_prefix:
            prefix = attention.prefix.inserted
            key, value = torch.cat([prefix.key, key]), torch.cat([prefix.value, value])
        scores = torch.einsum("qhd,khd->hqk", query, key) / math.sqrt(HEAD_SIZE)
        return torch.einsum("hqk,khd->qhd", scores.softmax(-1), value).flatten(1)

    with torch.no_grad():
        for attention, texts in entered.items():
            ratios = []
            for hidden in list(texts):
                bare, moved = (attend(attention, hidden, with_prefix) for with_prefix in (False, True))
                ratios += ((moved - bare).norm(dim=-1) / bare.norm(dim=-1)).tolist()
            found.append(sum(ratios) / len(ratios))
    assert [row["site"] for row in rows] == ["attention"] * 3
    assert [float(row["moved"]) for row in rows] == pytest.approx(found, rel=1e-4)


@pytest.mark.parametrize("model_type", ["deberta-v2", "gpt2", "opt", "t5"])
@pytest.mark.parametrize(("method", "options"), [(LoRA, {"rank": 2}), (Houlsby, {"bottleneck": 4})])
def test_tokens_are_counted_once_on_every_architecture(case, method, options, model_type):
    """DeBERTa uses a map twice, GPT-2 fuses three, OPT may join batch and length, T5 has two stacks."""
    chosen = case(method, model_type, **options)
    built = chosen.trained()
    activity = Activity(len(insertions := measured_insertions(built)), 0, torch.device("cpu"))
    before = built.backbone(**built.task.inputs(chosen.batch())).logits
    with torch.no_grad():
        measure(built, insertions, chosen.batch(), [], activity)
    tokens, moved, _ = activity.compute()
    assert set(tokens.tolist()) == {token_count(chosen.backbone)}
    assert 1e-3 < float(moved.min()) <= float(moved.max()) < 1e3
    assert torch.equal(built.backbone(**built.task.inputs(chosen.batch())).logits, before)


def test_a_decoder_counts_the_tokens_of_the_target_and_reads_those_of_the_source(tiny, tmp_path):
    """With a prefix, whose attention is computed twice: no cache may grow in between."""
    for method, options in ((LoRA, {"rank": 2, "targets": ["query", "cross_query", "cross_key"]}), (PTuningV2, {})):
        more = {} if method is LoRA else {"prompt_length": 3, "shift_positions": False}
        task = {"type": "sequence_to_sequence", "max_length": 16, "max_target_length": 8, "metrics": ["rouge"]}
        built = method(backbone=str(tiny("bart")), task=task, **options | more).eval()
        batch = {
            "input_ids": torch.tensor([[0, 5, 6, 7, 2], [0, 5, 2, 1, 1]]),
            "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
            "labels": torch.tensor([[0, 5, 2], [0, 2, -100]]),
        }
        insertions = measured_insertions(built)
        activity = Activity(len(insertions), 0, torch.device("cpu"))
        with torch.no_grad():
            measure(built, insertions, batch, [], activity)
        counted = {
            ("cross_query" in built.backbone.layers[i.site.layer].sites, i.site.name): int(tokens)
            for i, tokens in zip(insertions, activity.tokens, strict=True)
        }
        assert counted == (
            {(False, "query"): 8, (True, "query"): 5, (True, "cross_query"): 5, (True, "cross_key"): 8}
            if method is LoRA
            else {(False, "attention"): 8, (True, "attention"): 5, (True, "cross_attention"): 5}
        )


def test_in_a_run_the_files_are_those_of_the_last_validation(fit, tmp_path):
    run = fit(tmp_path / "run", "--trainer.callbacks+=AdapterActivity", model="InA")
    stem = run / "adapter_activity_validation"
    in_fit = rows_of(stem.with_suffix(".csv"))
    assert stem.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert stem.with_suffix(".pdf").read_bytes().startswith(b"%PDF")
    options = ("--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu")
    main(["validate", str(run), "--ckpt_path=last", *options])
    now = rows_of(stem.with_suffix(".csv"))
    assert [row["tokens"] for row in now] == [row["tokens"] for row in in_fit]
    assert [float(row["moved"]) for row in now] == pytest.approx([float(row["moved"]) for row in in_fit], rel=1e-5)
    main(["test", str(run), *options])
    assert (run / "adapter_activity_test.csv").is_file()
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"images": 0}).Reload()
    assert set(events.Tags()["images"]) == {"adapter_activity/validation", "adapter_activity/test"}


def test_a_finished_run_can_be_looked_at_and_stays_as_it_is(fit, tmp_path):
    run = fit(tmp_path / "run", "--trainer.limit_train_batches=2", epochs=1)
    before = {path: path.read_bytes() for path in (run / "config.yaml", *(run / "checkpoints").iterdir())}
    main(["validate", str(run), "--trainer.callbacks+=AdapterActivity", "--trainer.enable_progress_bar=false"])
    assert len(rows_of(run / "adapter_activity_validation.csv")) == 6
    assert all(path.read_bytes() == content for path, content in before.items())


@pytest.mark.parametrize("name", ["BitFit", "LinearProbe", "PromptTuning"])
def test_a_method_without_anything_to_measure_is_refused(case, name):
    method = {"BitFit": BitFit, "LinearProbe": LinearProbe, "PromptTuning": PromptTuning}[name]
    built = case(method).build()
    reason = "adds positions instead" if name == "PromptTuning" else "inserts nothing there"
    with pytest.raises(UserError, match=rf"{name}.*{reason}|{reason}"):
        AdapterActivity().setup(None, built, "fit")
    AdapterActivity().setup(None, built, "predict")


def test_a_wrong_level_is_named(fit, tmp_path, capsys):
    with pytest.raises(SystemExit):
        fit(tmp_path / "run", "--trainer.callbacks+=AdapterActivity", "--trainer.callbacks.inhibition_levels=[0.3,1.5]")
    assert "inhibition_levels holds 1.5; give shares of at least 0 and below 1" in capsys.readouterr().err
