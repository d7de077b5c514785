"""LoRA's adapters: what they compute, what learns, how they come and go."""

import copy
import math

import pytest
import torch
from hub_models import model as small_model

import model.adapt.few_rows as few_rows_module
from model import generate
from model.adapt.few_rows import few_rows, undo
from model.adapt.lora import (
    LoRALinear,
    adapters,
    add_lora,
    frozen_to,
    load_lora,
    lora_state,
    merge_lora,
    undo_lora,
    without_lora,
)
from model.adapt.lora_config import LoRAConfig
from model.generation.step import can_step

IDS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6], [2, 7, 1, 8, 2, 8, 1, 8]])


def spread(model, seed=1):
    """Give the adapters matrices as if they had learnt something."""
    torch.manual_seed(seed)
    load_lora(model, {name: 0.1 * torch.randn_like(t) for name, t in lora_state(model).items()})
    return model


def logits(model):
    with torch.no_grad():
        return model.eval()(IDS)[0]


@pytest.fixture(params=["gpt2", "llama"])
def model(request):
    return small_model(request.param)


def test_the_start_is_the_base_to_the_bit(model):
    before = logits(model)
    add_lora(model, LoRAConfig(lora=4))
    assert torch.equal(logits(model), before)
    n = 5 if model.config.gated else 4
    assert len(adapters(model)) == 2 * n


def test_the_equation_by_hand():
    layer = torch.nn.Linear(3, 2)
    made = LoRALinear(3, 2)
    made.weight, made.bias = layer.weight, layer.bias
    made.lora_A = torch.nn.Parameter(torch.tensor([[1.0, 0.0, 2.0]]))
    made.lora_B = torch.nn.Parameter(torch.tensor([[3.0], [-1.0]]))
    made.scale = 0.5
    x = torch.tensor([[1.0, 1.0, 1.0], [0.0, 2.0, 0.0]])
    added = torch.tensor([[4.5, -1.5], [0.0, 0.0]])  # 0.5 (x A^T) B^T: x A^T is 3 and 0
    torch.testing.assert_close(made(x), layer(x) + added)
    torch.testing.assert_close(made.product(), torch.tensor([[1.5, 0, 3], [-0.5, 0, -1]]))


def test_gradients_only_at_the_adapters(model):
    add_lora(model, LoRAConfig(lora=2))
    spread(model)
    model.train()(IDS, IDS)[1].backward()
    for name, p in model.named_parameters():
        assert (p.grad is not None) == name.endswith(("lora_A", "lora_B")), name
        assert p.grad is None or p.grad.abs().sum() > 0


def test_at_the_start_only_b_has_a_gradient(model):
    add_lora(model, LoRAConfig(lora=2))
    model.train()(IDS, IDS)[1].backward()
    for layer in adapters(model).values():
        assert layer.lora_A.grad.abs().sum() == 0 < layer.lora_B.grad.abs().sum()


def test_merged_is_the_same_and_the_base_stays_as_it_was(model):
    base = {name: t.clone() for name, t in model.state_dict().items()}
    shared = model.blocks[0].mlp.up.weight
    add_lora(model, LoRAConfig(lora=3))
    spread(model)
    expected = logits(model)
    assert (
        expected - logits(small_model("llama" if model.config.gated else "gpt2"))
    ).abs().max() > 0.1
    with without_lora(model):
        off = logits(model)
    merge_lora(model)
    assert (logits(model) - expected).abs().max() <= 1e-6 * expected.abs().max()
    assert not adapters(model)
    assert model.state_dict().keys() == base.keys()
    assert torch.equal(shared, base["blocks.0.mlp.up.weight"])  # what others may share
    assert all(p.requires_grad for p in model.parameters())
    model.load_state_dict(base)
    assert torch.equal(logits(model), off)


def test_several_adapters_on_one_base_without_reloading_it(model):
    weights = [p.data_ptr() for p in model.parameters()]
    plain, seen = logits(model), []
    for rank, seed in ((2, 1), (5, 2)):
        add_lora(model, LoRAConfig(lora=rank))
        spread(model, seed)
        seen.append(logits(model))
        undo_lora(model)
        assert torch.equal(logits(model), plain)
    assert not torch.equal(*seen)
    assert [p.data_ptr() for p in model.parameters()] == weights


def test_the_factor():
    assert LoRAConfig(lora=8).scale == 2
    assert LoRAConfig(lora=8, lora_alpha=4).scale == 0.5
    assert LoRAConfig(lora=16, lora_alpha=4, lora_rs=True).scale == 1


def test_targets_are_chosen_by_name(model):
    add_lora(model, LoRAConfig(lora=2, lora_targets="qkv down"))
    assert {name.split(".")[-1] for name in adapters(model)} == {"qkv", "down"}


def test_dropout_is_of_what_adapters_read(model):
    add_lora(model, LoRAConfig(lora=2, lora_dropout=0.5))
    spread(model)
    torch.manual_seed(0)
    one, other = model.train()(IDS)[0], model(IDS)[0]
    assert not torch.equal(one, other)
    assert torch.equal(logits(model), logits(model))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_frozen_weights_in_bfloat16(model, dtype):
    """Under autocast products are in bfloat16 all the same: weights may be so already."""
    add_lora(model, LoRAConfig(lora=2))
    spread(model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected = logits(model)
    frozen_to(model, dtype)
    assert {layer.weight.dtype for layer in adapters(model).values()} == {dtype}
    assert model.blocks[0].norm1.weight.dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(logits(model), expected)
        model.train()(IDS, IDS)[1].backward()
    assert all(layer.lora_B.grad.dtype == torch.float32 for layer in adapters(model).values())
    logits(model)  # without autocast, too


def test_it_writes_what_the_merged_model_writes(model):
    add_lora(model, LoRAConfig(lora=4))
    spread(model)
    texts = []
    for way in (lambda m: m, few_rows, merge_lora):
        ids = [list(map(int, row)) for row in generate(way(model), IDS, 30, temperature=0)]
        texts.append(ids)
    assert texts[0] == texts[1] == texts[2]


def test_gradients_are_those_of_the_merged_weight(model):
    """With G = dL/dW, the chain rule on W + s B A gives dL/dB = s G A^T and dL/dA = s B^T G."""
    spread(add_lora(model, LoRAConfig(lora=3, lora_alpha=4)))
    merged = merge_lora(copy.deepcopy(model))
    for m in (model, merged):
        m.train()(IDS, IDS)[1].backward()
    for name, layer in adapters(model).items():
        G, s = merged.get_submodule(name).weight.grad, layer.scale
        torch.testing.assert_close(layer.lora_B.grad, s * G @ layer.lora_A.T, rtol=1e-3, atol=1e-6)
        torch.testing.assert_close(layer.lora_A.grad, s * layer.lora_B.T @ G, rtol=1e-3, atol=1e-6)


def test_a_step_of_decoding_reads_weights_in_pieces_where_that_is_faster(model, monkeypatch):
    """It left the layers with adapters alone: a Zen 4 read those in up to 4 times the time."""
    monkeypatch.setattr("model.adapt.few_rows.faster_cut", lambda layers, rows: True)
    monkeypatch.setattr("model.adapt.few_rows.NUMEL", 0)
    spread(add_lora(model, LoRAConfig(lora=4)))
    expected, state = logits(model), list(model.state_dict())
    few_rows(model)
    assert can_step(model)
    assert all(layer.pieces >= 2 for layer in adapters(model).values())
    called = []
    whole = few_rows_module.product
    monkeypatch.setattr(few_rows_module, "product", lambda *a: called.append(a[2]) or whole(*a))
    torch.testing.assert_close(logits(model), expected, atol=1e-5, rtol=1e-5)
    assert len(called) == len(adapters(model)) + 1  # the head, too
    assert list(model.state_dict()) == state
    undo(model)
    assert not any(layer.pieces for layer in adapters(model).values())
    assert torch.equal(logits(model), expected)


def test_taking_adapters_off_rounded_weights_gives_float32(model):
    """Layers kept weights of bfloat16 and biases of float32, which do not multiply."""
    before = logits(model)
    frozen_to(add_lora(model, LoRAConfig(lora=2)), torch.bfloat16)
    undo_lora(model)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    off = (logits(model) - before).abs().max()
    assert 0 < off < 0.02 * before.abs().max()


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_recomputed_activations_give_the_same_gradients(model, dropout):
    add_lora(model, LoRAConfig(lora=2, lora_dropout=dropout))
    spread(model)
    grads = []
    for again in (False, True):
        torch.manual_seed(0)
        model.activation_checkpointing = again
        model.zero_grad()
        model.train()(IDS, IDS)[1].backward()
        grads.append([layer.lora_A.grad.clone() for layer in adapters(model).values()])
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


def test_a_seed_gives_the_same_adapters(model):
    states = []
    for _ in range(2):
        add_lora(model, LoRAConfig(lora=2), generator=torch.Generator().manual_seed(7))
        states.append(lora_state(model))
        undo_lora(model)
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    A = states[0]["blocks.0.attn.qkv.lora_A"]
    assert A.abs().max() <= 1 / math.sqrt(A.size(1)) < 1.2 * A.abs().max()


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"lora": -1}, "lora=-1 must be a rank"),
        ({"lora": 65}, "lora=65 is more than 64"),
        ({"lora": 2, "lora_targets": "gates"}, "'gates'; give all, or some of qkv"),
        ({"lora": 2, "lora_targets": " "}, "names no layer"),
        ({"lora": 2, "lora_dropout": 1.0}, "lora_dropout=1.0"),
        ({"lora": 2, "lora_alpha": -2}, "lora_alpha=-2"),
        ({"lora": 2, "lora_alpha": math.nan}, "lora_alpha=nan"),
        ({"lora": 0}, "lora=0 must be a rank"),
    ],
)
def test_what_cannot_be_is_refused(values, says):
    with pytest.raises(ValueError, match=says):
        add_lora(small_model("llama"), LoRAConfig(**values))


def test_gpt2_has_no_gate():
    with pytest.raises(ValueError, match="'gate', but the blocks have no such layer"):
        add_lora(small_model("gpt2"), LoRAConfig(lora=2, lora_targets="gate"))


def test_adapters_of_another_shape_are_refused(model):
    add_lora(model, LoRAConfig(lora=2))
    state = lora_state(model)
    with pytest.raises(ValueError, match="comes first"):
        add_lora(model, LoRAConfig(lora=2))
    with pytest.raises(ValueError, match="do not belong together"):
        load_lora(model, dict(list(state.items())[1:]))
    name = "blocks.1.attn.proj.lora_B"
    with pytest.raises(ValueError, match=r"must be \(r,64\) and \(64,r\)"):
        load_lora(model, {**state, name: torch.zeros(63, 2)})
    assert torch.equal(lora_state(model)[name], state[name])


def test_without_lora_within_itself_stays_without():
    """The inner end turned the adapters on again."""
    m = add_lora(small_model("llama"), LoRAConfig(lora=2))
    layer = next(iter(adapters(m).values()))
    with without_lora(m):
        with without_lora(m):
            assert not layer.on
        assert not layer.on
    assert layer.on


@pytest.mark.parametrize("what", [{"lora_alpha": 8.0}, {"lora_rs": True}, {"lora_targets": "qkv"}])
def test_settings_of_adapters_need_a_rank(what):
    with pytest.raises(ValueError, match="is of adapters, but lora=0"):
        LoRAConfig(**what)
