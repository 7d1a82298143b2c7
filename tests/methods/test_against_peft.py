"""Each method that the package peft has as well against peft, with the same weights, none of which is small."""

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from peft_lightning.methods import (
    IA3,
    AdaLoRA,
    LayerNormTuning,
    LoRA,
    PrefixTuning,
    PromptTuning,
    PTuning,
    PTuningV2,
    VeRA,
)
from peft_lightning.methods.rank_allocation import Budget, RankAllocator
from peft_lightning.testing import Case

peft = pytest.importorskip("peft", minversion="0.21")
# peft 0.21 with transformers 5.23
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

ALL_MAPS = ["query", "key", "value", "attention_dense", "ffn_in", "ffn_out"]
# peft matches the ends of names by default, and `dense` would also be the pooler's and the head's.
PEFT_ALL_MAPS = r".*\.layer\.\d+\.(attention\.self\.(query|key|value)|(attention\.output|intermediate|output)\.dense)"


@pytest.fixture(params=["bert", "roberta"])
def model_type(request):
    return request.param


@pytest.fixture
def trained(tiny, model_type, tmp_path):
    def build(method, **options):
        return Case(method, tiny(model_type), tmp_path, options)

    return build


def plain_model(case, method):
    """The unadapted transformers model with the method's head."""
    model = AutoModelForSequenceClassification.from_pretrained(case.backbone, num_labels=3).eval()
    model.load_state_dict(method.backbone.head, strict=False)
    return model


def peft_model(case, method, config, tensors, **shared):
    """The model of peft, with these tensors and the method's head where its own were trainable; nothing is left over.

    Tensors have the keys of peft's files, without the beginning that those of all layers have.
    """
    model = peft.get_peft_model(plain_model(case, method), config).eval()
    state = {f"base_model.model.{name}": tensor.detach() for name, tensor in (tensors | method.backbone.head).items()}
    state |= {f"base_model.{name}": tensor for name, tensor in shared.items()}
    result = peft.set_peft_model_state_dict(model, state)
    assert not result.unexpected_keys
    assert not {name for name, p in model.named_parameters() if p.requires_grad} & set(result.missing_keys)
    return model


def inputs(case):
    return {name: tensor for name, tensor in case.batch().items() if name != "labels"}


def assert_equal_and_different_from_bare(case, method, theirs, **their_inputs):
    batch = inputs(case)
    with torch.no_grad():
        found, wanted = method(batch).logits, theirs(**batch, **their_inputs).logits
        untouched = plain_model(case, method)(**batch).logits
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)
    assert (found - untouched).abs().max() > 0.05


def inserted(method):
    return [(insertion.site.path, insertion.module) for insertion in method.backbone.insertions]


LOW_RANK = {
    "LoRA": ({}, {}),
    "rsLoRA": ({"rank_stabilized": True}, {"use_rslora": True}),
    "DoRA": ({"dora": True}, {"use_dora": True}),
    # Building it splits the weights, here and there, so that one start is checked against the other.
    "PiSSA": ({"init": "pissa"}, {"init_lora_weights": "pissa"}),
    "PiSSA, rank stabilized": (
        {"init": "pissa", "rank_stabilized": True},
        {"init_lora_weights": "pissa", "use_rslora": True},
    ),
}


@pytest.mark.parametrize("name", LOW_RANK)
@pytest.mark.parametrize("everywhere", [False, True])
def test_low_rank_updates_and_their_gradients(trained, name, everywhere):
    ours, theirs = LOW_RANK[name]
    case = trained(LoRA, rank=4, alpha=6.0, targets=ALL_MAPS if everywhere else ["query", "value"], **ours)
    method = case.trained()
    targets = PEFT_ALL_MAPS if everywhere else ["query", "value"]
    config = peft.LoraConfig(task_type="SEQ_CLS", r=4, lora_alpha=6.0, target_modules=targets, **theirs)
    parameters = {f"{path}.lora_A.weight": module.A for path, module in inserted(method)}
    parameters |= {f"{path}.lora_B.weight": module.B for path, module in inserted(method)}
    if name == "DoRA":
        parameters |= {f"{path}.lora_magnitude_vector": module.magnitude for path, module in inserted(method)}
    model = peft_model(case, method, config, parameters)
    assert_equal_and_different_from_bare(case, method, model)

    # In double precision, so that small gradients say something; PiSSA has split its weights in single precision.
    tolerance = 1e-4 if "PiSSA" in name else 1e-9
    for logits in (method.double()(inputs(case)).logits, model.double()(**inputs(case)).logits):
        logits.square().sum().backward()
    live = dict(model.named_parameters())
    for key, parameter in parameters.items():
        start, end = key.rsplit(".weight", 1)[0], ".weight"
        gradient = live[f"base_model.model.{start}.default{end}"].grad
        torch.testing.assert_close(parameter.grad, gradient, atol=tolerance * float(gradient.abs().max()), rtol=0)


PAPER = {
    "target_modules": r".*(attention\.self\.(key|value)|layer\.\d+\.output\.dense)",
    "feedforward_modules": r".*layer\.\d+\.output\.dense",
}


@pytest.mark.parametrize(
    ("targets", "patterns"),
    [(["key", "value", "ffn_out"], PAPER), (["key", "value", "attention_dense", "ffn_out"], {})],
    ids=["paper", "default of peft"],
)
def test_ia3(trained, targets, patterns):
    case = trained(IA3, targets=targets)
    method = case.trained()
    # A row beside maps whose input is scaled, a column beside those whose output is.
    vectors = {
        f"{path}.ia3_l": module.scale.reshape((1, -1) if path.endswith("dense") else (-1, 1))
        for path, module in inserted(method)
    }
    theirs = peft_model(case, method, peft.IA3Config(task_type="SEQ_CLS", **patterns), vectors)
    assert_equal_and_different_from_bare(case, method, theirs)


@pytest.mark.parametrize(
    ("targets", "their_targets"),
    [(["query", "value"], ["query", "value"]), (["ffn_in"], ["intermediate.dense"])],
    ids=["query and value", "a map that is not square"],
)
def test_vera(trained, targets, their_targets):
    """With our random matrices, which peft would draw otherwise."""
    case = trained(VeRA, rank=40, targets=targets)
    method = case.trained()
    config = peft.VeraConfig(task_type="SEQ_CLS", r=40, target_modules=their_targets, save_projection=True)
    vectors = {f"{path}.vera_lambda_b": module.b for path, module in inserted(method)}
    vectors |= {f"{path}.vera_lambda_d": module.d for path, module in inserted(method)}
    projection = inserted(method)[0][1].projection
    theirs = peft_model(case, method, config, vectors, vera_A=projection.A, vera_B=projection.B)
    assert_equal_and_different_from_bare(case, method, theirs)


@pytest.mark.filterwarnings("ignore:Unsupported layer type:UserWarning")  # peft's only check is for linear maps
def test_layer_norm_tuning(trained):
    case = trained(LayerNormTuning)
    method = case.trained()
    tensors = {}
    for name in method.backbone.roles:
        module, _, kind = name.rpartition(".")
        tensors[f"{module}.ln_tuning_layers.{kind}"] = method.backbone.pretrained[name]
    assert len(tensors) == 2 * (2 * 3 + 1)
    config = peft.LNTuningConfig(task_type="SEQ_CLS", target_modules=["LayerNorm"])
    assert_equal_and_different_from_bare(case, method, peft_model(case, method, config, tensors))


def prefix_model(case, method, encoder, **options):
    """peft's model with a prefix, whose tensors are these; its head is trained in place."""
    config = peft.PrefixTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=5, **options)
    model = peft.get_peft_model(plain_model(case, method), config).eval()
    model.prompt_encoder.default.load_state_dict(encoder, strict=True)
    return model


def flat_prefix(method):
    """`[n, 2 L d]`: key and value of the first layer, of the second, ..."""
    pairs = [
        matrix for _, module in inserted(method) if hasattr(module, "key") for matrix in (module.key, module.value)
    ]
    return torch.stack(pairs, 1).flatten(1)


def unshifted(case, model_type):
    """The positions that peft, which moves all positions by the length of the prefix, makes the usual ones of."""
    mask = case.batch()["attention_mask"]
    counted = torch.arange(mask.shape[1]).expand_as(mask)
    # RoBERTa counts from its padding id + 1 and leaves padding at the padding id, 1.
    return (counted if model_type == "bert" else (counted + 2) * mask + (1 - mask)) - 5


def test_prefix_tuning_without_network(trained, model_type):
    case = trained(PrefixTuning, prompt_length=5, projection=False)
    method = case.trained()
    theirs = prefix_model(case, method, {"embedding.weight": flat_prefix(method)})
    assert_equal_and_different_from_bare(case, method, theirs, position_ids=unshifted(case, model_type))


@pytest.mark.parametrize("method", [PrefixTuning, PTuningV2])
def test_prefixes_from_a_network(trained, model_type, method):
    case = trained(method, prompt_length=5, projection=True, projection_size=6)
    method = case.trained()
    layers = [module for _, module in inserted(method) if hasattr(module, "trunk")]
    encoder = {
        "embedding.weight": layers[0].trunk.embedding,
        "transform.0.weight": layers[0].trunk.linear.weight,
        "transform.0.bias": layers[0].trunk.linear.bias,
        "transform.2.weight": torch.cat([layer.linear.weight for layer in layers]),
        "transform.2.bias": torch.cat([layer.linear.bias for layer in layers]),
    }
    theirs = prefix_model(case, method, encoder, prefix_projection=True, encoder_hidden_size=6)
    shifts = isinstance(method, PTuningV2)
    positions = {} if shifts else {"position_ids": unshifted(case, model_type)}
    assert_equal_and_different_from_bare(case, method, theirs, **positions)


@pytest.mark.parametrize("shift", [True, False])
def test_ptuning_v2(trained, model_type, shift):
    """peft's prefix tuning is P-Tuning v2: it moves the text behind the prefix."""
    case = trained(PTuningV2, prompt_length=5, shift_positions=shift)
    method = case.trained()
    theirs = prefix_model(case, method, {"embedding.weight": flat_prefix(method)})
    positions = {} if shift else {"position_ids": unshifted(case, model_type)}
    assert_equal_and_different_from_bare(case, method, theirs, **positions)


def adalora_model(case, method, **options):
    """peft's model with our triplets; it divides by the rank + 1e-5."""
    config = peft.AdaLoraConfig(
        task_type="SEQ_CLS", init_r=4, lora_alpha=6.0, target_modules=PEFT_ALL_MAPS, total_step=10, **options
    )
    tensors = {}
    for path, module in inserted(method):
        tensors |= {f"{path}.lora_A": module.Q, f"{path}.lora_B": module.P, f"{path}.lora_E": module.singular[:, None]}
        tensors |= {f"{path}.ranknum": torch.tensor([4.0])}
    return peft_model(case, method, config, tensors)


def test_adalora(trained):
    case = trained(AdaLoRA, rank=2, init_rank=4, alpha=6.0 * 4 / (4 + 1e-5))
    method = case.trained()
    assert_equal_and_different_from_bare(case, method, adalora_model(case, method))


def test_the_ranks_of_adalora_are_shared_out_as_in_peft(trained):
    """The same random gradients in ten steps, of which the seven with a falling budget are compared one by one."""
    case = trained(AdaLoRA, rank=2, init_rank=4)
    method = case.trained()
    model = adalora_model(case, method, target_r=2, tinit=2, tfinal=3, deltaT=2, beta1=0.8, beta2=0.7)
    live = dict(model.named_parameters())
    budget = Budget(start=18 * 4, target=18 * 2, total=10, first=2, last=3)
    allocator = RankAllocator(method.updates, budget, beta1=0.8, beta2=0.7, interval=2)
    theirs = model.base_model.rankallocator
    kept = []
    for step in range(1, 8):
        for path, module in inserted(method):
            for key, parameter in (("A", module.Q), ("B", module.P), ("E", module.singular)):
                twin = live[f"base_model.model.{path}.lora_{key}.default"]
                parameter.grad = torch.randn_like(parameter)
                twin.grad = parameter.grad.reshape(twin.shape).clone()
                with torch.no_grad():
                    parameter -= 0.1 * parameter.grad
                    twin -= 0.1 * twin.grad
        allocator.after_step(step)
        theirs.update_and_allocate(model, step, force_mask=step == 7)
        for path, module in inserted(method):
            singular = live[f"base_model.model.{path}.lora_E.default"].flatten()
            torch.testing.assert_close(module.singular, singular, msg=f"step {step}")
        kept.append(sum(int(module.singular.count_nonzero()) for _, module in inserted(method)))
    assert kept == [72, 72, 72, int(36 + 36 * 0.6**3), 72, int(36 + 36 * 0.2**3), 36]


def prompt_states(case, method, config, tensors):
    """The last hidden states of peft's model at the positions of the text: its head would read a virtual token."""
    model = peft.get_peft_model(plain_model(case, method), config).eval()
    model.prompt_encoder.default.load_state_dict(tensors, strict=True)
    with torch.no_grad():
        return model(**inputs(case), output_hidden_states=True).hidden_states[-1][:, config.num_virtual_tokens :]


def assert_equal_states(case, method, wanted):
    batch = inputs(case)
    real = batch["attention_mask"].bool()
    with torch.no_grad():
        found = method.backbone.model.base_model(**batch).last_hidden_state
        bare = plain_model(case, method).base_model(**batch).last_hidden_state
    torch.testing.assert_close(found[real], wanted[real], atol=1e-5, rtol=0)
    assert (found - bare)[real].abs().max() > 0.05


def test_prompt_tuning(trained):
    case = trained(PromptTuning, prompt_length=5)
    method = case.trained()
    config = peft.PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=5)
    prompt = {"embedding.weight": inserted(method)[0][1].prompt.detach()}
    assert_equal_states(case, method, prompt_states(case, method, config, prompt))


@pytest.mark.parametrize("encoder", ["lstm", "mlp"])
def test_p_tuning(trained, encoder):
    case = trained(PTuning, prompt_length=5, encoder=encoder, hidden=6)
    method = case.trained()
    config = peft.PromptEncoderConfig(
        task_type="SEQ_CLS",
        num_virtual_tokens=5,
        encoder_reparameterization_type=encoder.upper(),
        encoder_hidden_size=6,
        encoder_dropout=0.0,
    )
    network = inserted(method)[0][1]
    tensors = {"embedding.weight": network.embedding.detach()}
    tensors |= {f"mlp_head.{name}": tensor for name, tensor in network.mlp.state_dict().items()}
    if encoder == "lstm":
        tensors |= {f"lstm_head.{name}": tensor for name, tensor in network.lstm.state_dict().items()}
    assert_equal_states(case, method, prompt_states(case, method, config, tensors))
