"""Each method against its formula as plain hooks on a plain transformers model, with weights that are not small."""

from functools import partial
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from plain_models import (
    PLACES,
    TEXTS,
    assert_equal_and_different_from_bare,
    part,
    part_at,
    plain_model,
)
from torch import nn

from peft_lightning.backbone import load_tokenizer
from peft_lightning.methods import (
    IA3,
    Houlsby,
    InA,
    LoRA,
    LoReFT,
    PrefixTuning,
    PTuningV2,
    VeRA,
)
from peft_lightning.modules import InhibitedLowRank
from peft_lightning.testing import Case

WITH_PREFIX = [name for name in PLACES if name != "deberta-v2"]


@pytest.fixture(params=PLACES)
def model_type(request):
    return request.param


@pytest.fixture
def batch(tiny, model_type):
    return dict(load_tokenizer(str(tiny(model_type)))(TEXTS, padding=True, return_tensors="pt"))


def test_houlsby(tiny, model_type, batch, tmp_path):
    """Adapter(h) = h + W_up gelu(W_down h + b_down) + b_up behind both sub-layers, and the trained LayerNorms."""
    method = Case(Houlsby, tiny(model_type), tmp_path, {"bottleneck": 8}).trained()
    plain, bare = (plain_model(tiny, model_type, method) for _ in range(2))
    trained_norms = {name: method.backbone.pretrained[name] for name in method.backbone.roles}
    assert len(trained_norms) == 2 * (2 * 3 + (2 if model_type == "deberta-v2" else 1))
    plain.load_state_dict(trained_norms, strict=False)

    def adapter(module, inputs, output, weights):
        return output + F.linear(F.gelu(F.linear(output, weights[0], weights[1])), weights[2], weights[3])

    for insertion in method.backbone.insertions:
        weights = list(insertion.module.parameters())
        part_at(plain, model_type, insertion).register_forward_hook(partial(adapter, weights=weights))
    assert_equal_and_different_from_bare(method, plain, bare, batch)


@pytest.mark.parametrize(
    "options",
    [
        {"form": "parallel"},
        {"form": "parallel", "placement": ["attention"], "drop_layers": 1},
        {"form": "multiplicative"},
        {"form": "multiplicative", "placement": ["ffn"], "norm": "layer"},
        {"depth": 2, "activation": "tanh"},
        {"norm": "layer"},
        {"norm": "batch", "form": "parallel"},
        {"placement": ["attention"]},
        {"placement": ["ffn"], "drop_layers": 2},
    ],
    ids=str,
)
def test_variations_of_houlsby(tiny, model_type, batch, tmp_path, options):
    """h + A(h) behind, f + A(x) or f (1 + A(x)) beside the sub-layer f(x); A with another layer or a LayerNorm."""
    method = Case(
        Houlsby, tiny(model_type), tmp_path, {"bottleneck": 8, "train_layer_norm": False, **options}
    ).trained()
    plain, bare = (plain_model(tiny, model_type, method) for _ in range(2))
    form, f = options.get("form", "serial"), torch.tanh if "activation" in options else F.gelu
    entered = {}

    def enter_layer(module, inputs, kwargs, layer):
        entered["attention_output", layer] = inputs[0] if inputs else kwargs["hidden_states"]

    def leave_attention(module, inputs, output, layer):
        entered["ffn_output", layer] = output

    def change(adapter, x):
        if options.get("norm") == "layer":
            x = F.layer_norm(x, (32,), adapter.norm.weight, adapter.norm.bias, 1e-5)
        if options.get("norm") == "batch":
            x = (x - adapter.norm.running_mean) / (adapter.norm.running_var + 1e-5).sqrt()
            x = x * adapter.norm.weight + adapter.norm.bias
        x = f(x @ adapter.down.weight.T + adapter.down.bias)
        if "depth" in options:
            x = f(x @ adapter.inner[0].weight.T + adapter.inner[0].bias)
        return x @ adapter.up.weight.T + adapter.up.bias

    def adapt(module, inputs, output, adapter, site):
        if form == "serial":
            return output + change(adapter, output)
        changed = change(adapter.bottleneck, entered[site])
        return output * (1 + changed) if form == "multiplicative" else output + changed

    for layer in range(3):
        whole = plain.get_submodule(f"{PLACES[model_type][0]}.{layer}")
        whole.register_forward_pre_hook(partial(enter_layer, layer=layer), with_kwargs=True)
        norm = part(plain, model_type, layer, "attention_norm")
        norm.register_forward_hook(partial(leave_attention, layer=layer))
    adapters = [i for i in method.backbone.insertions if i.site.name.endswith("_output")]
    placement = options.get("placement", ["attention", "ffn"])
    wanted = product(range(options.get("drop_layers", 0), 3), placement)
    assert [(i.site.layer, i.site.name) for i in adapters] == [(layer, f"{name}_output") for layer, name in wanted]
    for insertion in adapters:
        hook = partial(adapt, adapter=insertion.module, site=(insertion.site.name, insertion.site.layer))
        part_at(plain, model_type, insertion).register_forward_hook(hook)
    assert_equal_and_different_from_bare(method, plain, bare, batch)


def test_lora(tiny, model_type, batch, tmp_path):
    """W x + b + (alpha / r) B A x on query and value."""
    method = Case(LoRA, tiny(model_type), tmp_path, {"rank": 4, "alpha": 6.0}).trained()
    plain, bare = (plain_model(tiny, model_type, method) for _ in range(2))

    def low_rank(module, inputs, output, a, b):
        return output + 6.0 / 4 * inputs[0] @ a.T @ b.T

    for insertion in method.backbone.insertions:
        hook = partial(low_rank, a=insertion.module.A, b=insertion.module.B)
        part_at(plain, model_type, insertion).register_forward_hook(hook)
    assert_equal_and_different_from_bare(method, plain, bare, batch)


def test_vera(tiny, model_type, batch, tmp_path):
    """W x + b + v_b * (B (v_d * (A x))) on query and value, with one A and one B for all."""
    method = Case(VeRA, tiny(model_type), tmp_path, {"rank": 40}).trained()
    plain, bare = (plain_model(tiny, model_type, method) for _ in range(2))
    shared = method.backbone.insertions[0].module.projection
    assert (shared.A.shape, shared.B.shape) == ((40, 32), (32, 40))

    def update(module, inputs, output, vectors):
        return output + vectors.b * (vectors.d * (inputs[0] @ shared.A.T) @ shared.B.T)

    for insertion in method.backbone.insertions:
        part_at(plain, model_type, insertion).register_forward_hook(partial(update, vectors=insertion.module))
    assert_equal_and_different_from_bare(method, plain, bare, batch)


INA = {
    "paper": ({}, ["query", "key"], 1.0),
    "paper, r = 8": ({"rank": 8, "alpha": 8.0, "inhibition": 0.9}, ["query", "key"], 1.0),
    "code": (
        {"targets": ["query", "key", "value"], "activation": "leaky_relu", "alpha": 16.0},
        ["query", "key", "value"],
        4.0,
    ),
    "held threshold": ({"detach_threshold": True}, ["query", "key"], 1.0),
}


@pytest.mark.parametrize("preset", INA)
def test_ina(tiny, model_type, batch, tmp_path, preset):
    """W x + b + s B f(z - p max(z)) with z = A x, where rows of z may be negative throughout."""
    options, targets, scale = INA[preset]
    method = Case(InA, tiny(model_type), tmp_path, options).trained()
    # The units of the first query differ by positive factors, and those of the first key are their negatives: of the
    # same x one of the two makes nothing but negative units.
    query, key = (insertion.module.A for insertion in method.backbone.insertions[:2])
    with torch.no_grad():
        query.copy_(torch.linspace(1, 0.3, len(query))[:, None] * query[:1])
        key.copy_(-query)
    plain, bare = (plain_model(tiny, model_type, method) for _ in range(2))
    f = partial(F.leaky_relu, negative_slope=0.01) if preset == "code" else F.gelu
    share = options.get("inhibition", 0.3)
    strongest = []

    def inhibited(module, inputs, output, a, b):
        z = inputs[0] @ a.T
        most = z.amax(-1, keepdim=True)
        strongest.append(most)
        most = most.detach() if "detach_threshold" in options else most
        return output + scale * f(z - share * most) @ b.T

    found = [(i.site.layer, i.site.name) for i in method.backbone.insertions]
    assert found == list(product(range(3), targets))
    for insertion in method.backbone.insertions:
        hook = partial(inhibited, a=insertion.module.A, b=insertion.module.B)
        part_at(plain, model_type, insertion).register_forward_hook(hook)
    assert_equal_and_different_from_bare(method, plain, bare, batch)
    assert (torch.cat([most.flatten() for most in strongest]) < 0).unique().tolist() == [False, True]


@pytest.mark.parametrize("activation", ["gelu", "leaky_relu", "relu"])
def test_inhibition_raises_units_that_are_all_negative(activation):
    """z - 0.9 max(z) of (-0.5, -1, -2, -3) is (-0.05, -0.55, -1.55, -2.55); ReLU lets nothing of that pass."""
    update = InhibitedLowRank(4, 4, rank=4, alpha=4.0, inhibition=0.9, activation=activation)
    base = nn.Linear(4, 4)
    with torch.no_grad():
        update.A.copy_(torch.eye(4))
        update.B.copy_(torch.eye(4))
    z = torch.tensor([[[-0.5, -1.0, -2.0, -3.0]]])
    wanted = getattr(F, activation)(torch.tensor([[[-0.05, -0.55, -1.55, -2.55]]]))
    torch.testing.assert_close(update(base, z) - base(z), wanted, atol=1e-6, rtol=0)
    assert bool(wanted.any()) == (activation != "relu")


def test_ia3(tiny, model_type, batch, tmp_path):
    """l_k * k, l_v * v, and W_2 (l_ff * f(W_1 x + b_1)) + b_2."""
    method = Case(IA3, tiny(model_type), tmp_path).trained()
    plain, bare = (plain_model(tiny, model_type, method) for _ in range(2))
    assert len(method.backbone.insertions) == 9
    for insertion in method.backbone.insertions:
        vector, scaled = insertion.module.scale, part_at(plain, model_type, insertion)
        if insertion.site.name == "ffn_out":
            scaled.register_forward_pre_hook(lambda module, inputs, vector=vector: inputs[0] * vector)
        else:
            scaled.register_forward_hook(lambda module, inputs, output, vector=vector: output * vector)
    assert_equal_and_different_from_bare(method, plain, bare, batch)


@pytest.mark.parametrize("positions", [1, 2])
def test_loreft(tiny, model_type, batch, tmp_path, positions):
    """h + R^T (W h + b - R h) at the first tokens behind every layer; R by Gram and Schmidt."""
    method = Case(LoReFT, tiny(model_type), tmp_path, {"rank": 3, "positions": positions}).trained()
    plain, bare = (plain_model(tiny, model_type, method) for _ in range(2))

    def edit(module, inputs, output, edits):
        rows = []
        for row in edits.basis:
            row = row - sum((row @ other) * other for other in rows)
            rows.append(row / row.norm())
        r, first = torch.stack(rows), output[:, :positions]
        first = first + (first @ edits.linear.weight.T + edits.linear.bias - first @ r.T) @ r
        return torch.cat([first, output[:, positions:]], 1)

    assert len(method.backbone.insertions) == 3
    for insertion in method.backbone.insertions:
        last = part(plain, model_type, insertion.site.layer, "ffn_norm")
        last.register_forward_hook(partial(edit, edits=insertion.module))
    assert_equal_and_different_from_bare(method, plain, bare, batch)


def attend_to_prefixes(plain, model_type, batch, insertions, virtual):
    """Attention over [P; tokens] written out as softmax(q k^T / sqrt(d_h)) v in place of transformers' attention."""
    q, k, v = ("q_lin", "k_lin", "v_lin") if model_type == "distilbert" else ("query", "key", "value")

    def split(tensor):
        return tensor.view(2, -1, 4, 8).transpose(1, 2)

    def attend(module, inputs, kwargs, output, prefix):
        hidden = inputs[0] if inputs else kwargs["hidden_states"]
        query, key, value = (split(getattr(module, name)(hidden)) for name in (q, k, v))
        virtual_key, virtual_value = (matrix.transpose(0, 1).expand(2, -1, -1, -1) for matrix in virtual(prefix))
        key, value = torch.cat([virtual_key, key], 2), torch.cat([virtual_value, value], 2)
        seen = torch.cat([torch.ones(2, 5), batch["attention_mask"]], 1).bool()[:, None, None]
        weights = (query @ key.transpose(-1, -2) / 8**0.5).masked_fill(~seen, -torch.inf).softmax(-1)
        joined = (weights @ value).transpose(1, 2).reshape(2, -1, 32)
        return (module.out_lin(joined) if model_type == "distilbert" else joined), None

    found = [insertion for insertion in insertions if insertion.site.layer is not None]
    assert [insertion.site.layer for insertion in found] == [0, 1, 2]
    for insertion in found:
        hook = partial(attend, prefix=insertion.module)
        part_at(plain, model_type, insertion).register_forward_hook(hook, with_kwargs=True)


@pytest.mark.parametrize("model_type", WITH_PREFIX)
@pytest.mark.parametrize("shift", [True, False])
def test_ptuning_v2(tiny, model_type, batch, tmp_path, shift):
    """Trained keys and values in front of those of the text, which may be moved behind them."""
    options = {"prompt_length": 5, "shift_positions": shift}
    method = Case(PTuningV2, tiny(model_type), tmp_path, options).trained()
    plain, bare = (plain_model(tiny, model_type, method) for _ in range(2))
    attend_to_prefixes(plain, model_type, batch, method.backbone.insertions, lambda prefix: (prefix.key, prefix.value))
    if shift:
        table = plain.base_model.embeddings.position_embeddings
        table.register_forward_hook(lambda module, inputs, output: F.embedding(inputs[0] + 5, module.weight))
    assert_equal_and_different_from_bare(method, plain, bare, batch)


@pytest.mark.parametrize("model_type", WITH_PREFIX)
def test_prefix_tuning(tiny, model_type, batch, tmp_path):
    """The trained keys and values are W_2 tanh(W_1 E + b_1) + b_2, of which all but W_2 and b_2 is shared by all."""
    options = {"prompt_length": 5, "projection_size": 6}
    method = Case(PrefixTuning, tiny(model_type), tmp_path, options).trained()
    plain, bare = (plain_model(tiny, model_type, method) for _ in range(2))
    trunk = method.backbone.insertions[0].module.trunk

    def virtual(prefix):
        inner = torch.tanh(trunk.embedding @ trunk.linear.weight.T + trunk.linear.bias)
        both = inner @ prefix.linear.weight.T + prefix.linear.bias
        return both[:, :32].view(5, 4, 8), both[:, 32:].view(5, 4, 8)

    attend_to_prefixes(plain, model_type, batch, method.backbone.insertions, virtual)
    assert_equal_and_different_from_bare(method, plain, bare, batch)


def test_lora_on_the_fused_map_of_gpt2(tiny, tmp_path):
    """(alpha / r) B A x is added to the columns of key and value, in whatever order the targets are given."""
    options = {"rank": 4, "alpha": 6.0, "targets": ["value", "key"]}
    method = Case(LoRA, tiny("gpt2"), tmp_path, options).trained()
    plain, bare = (plain_model(tiny, "gpt2", method) for _ in range(2))
    batch = dict(load_tokenizer(str(tiny("gpt2")))(TEXTS, padding=True, return_tensors="pt"))
    columns = {"key": slice(32, 64), "value": slice(64, 96)}

    def low_rank(module, inputs, output, a, b, where):
        changed = output.clone()
        changed[..., where] += 6.0 / 4 * inputs[0] @ a.T @ b.T
        return changed

    for insertion in method.backbone.insertions:
        hook = partial(low_rank, a=insertion.module.A, b=insertion.module.B, where=columns[insertion.site.name])
        plain.transformer.h[insertion.site.layer].attn.c_attn.register_forward_hook(hook)
    assert_equal_and_different_from_bare(method, plain, bare, batch)
    merged = method.merge().transformer.h[1].attn.c_attn.weight
    update = merged - bare.transformer.h[1].attn.c_attn.weight
    value, key = (i.module for i in method.backbone.insertions if i.site.layer == 1)
    assert torch.equal(update[:, :32], torch.zeros(32, 32))
    torch.testing.assert_close(update[:, 32:64], 1.5 * (key.B @ key.A).T)
    torch.testing.assert_close(update[:, 64:], 1.5 * (value.B @ value.A).T)


@pytest.mark.parametrize("model_type", ["gpt2", "mbart", "t5"])
def test_loreft_edits_what_leaves_the_layer(tiny, model_type, tmp_path):
    """h + R^T (W h + b - R h) at the first token behind every layer but the last, whose first token nobody reads."""
    method = Case(LoReFT, tiny(model_type), tmp_path, {"rank": 2}).trained()
    plain, bare = (plain_model(tiny, model_type, method) for _ in range(2))
    batch = dict(load_tokenizer(str(tiny(model_type)))(TEXTS, padding=True, return_tensors="pt"))

    def edit(module, inputs, output, part):
        hidden = (output[0] if isinstance(output, tuple) else output).clone()
        first, rotation = hidden[:, 0].clone(), part.rotation()
        hidden[:, 0] = first + (part.linear(first) - first @ rotation.T) @ rotation
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    layers = [plain.get_submodule(layer.path) for layer in method.backbone.layers]
    assert len(method.backbone.insertions) == len(layers) - 1
    for insertion in method.backbone.insertions:
        layers[insertion.site.layer].register_forward_hook(partial(edit, part=insertion.module))
    assert_equal_and_different_from_bare(method, plain, bare, batch)


@pytest.mark.parametrize("model_type", ["bart", "t5"])
def test_adapters_may_stand_at_cross_attention_too(tiny, model_type, tmp_path):
    case = Case(Houlsby, tiny(model_type), tmp_path, {"bottleneck": 8, "placement": ["cross_attention"]})
    adapter = 2 * 8 * 32 + 8 + 32
    assert case.build().parameter_report.method == 2 * adapter
    beside = case.trained(form="parallel")
    with beside.disabled():
        bare = beside(case.batch()).logits
    assert (beside(case.batch()).logits - bare).abs().max() > 0.01


@pytest.mark.parametrize("model_type", ["bert", "roberta", "gpt2", "llama"])
def test_loreft_of_first_and_last_tokens(tiny, model_type, tmp_path):
    """Each text by itself, without padding: its first two and its last three tokens, of a short one half and half."""
    options = {"rank": 2, "positions": 2, "last_positions": 3}
    method = Case(LoReFT, tiny(model_type), tmp_path, options).trained()
    tokenizer = load_tokenizer(str(tiny(model_type)))
    batch = dict(tokenizer(TEXTS, padding=True, return_tensors="pt"))
    lengths = batch["attention_mask"].sum(1).tolist()
    assert min(lengths) < 6 <= max(lengths)
    for row, length in enumerate(lengths):
        plain, bare = (plain_model(tiny, model_type, method) for _ in range(2))
        half = length // 2
        places = {"first": range(min(2, half)), "last": range(length - min(3, half), length)}

        def edit(module, inputs, output, part, places=places):
            hidden = (output[0] if isinstance(output, tuple) else output).clone()
            for place in places[part.side]:
                h, rotation = hidden[:, place].clone(), part.rotation()
                hidden[:, place] = h + (part.linear(h) - h @ rotation.T) @ rotation
            return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

        layers = [plain.get_submodule(layer.path) for layer in method.backbone.layers]
        assert len(method.backbone.insertions) == 2 * len(layers) - (model_type in ("gpt2", "llama"))
        for insertion in method.backbone.insertions:
            layers[insertion.site.layer].register_forward_hook(partial(edit, part=insertion.module))
        text = {name: tensor[row : row + 1, :length] for name, tensor in batch.items()}
        with torch.no_grad():
            found, wanted, untouched = method(batch).logits[row], plain(**text).logits[0], bare(**text).logits[0]
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)
        assert (found - untouched).abs().max() > 0.05
