"""Muon: orthogonal steps, beside the singular value decomposition and torch's own Muon."""

import math

import pytest
import torch
from toys import batch, toy, train_step

from utils.config import OptimConfig
from utils.device import pick_device
from utils.training.muon import ABC, Muon, orthogonal
from utils.training.objective import next_token
from utils.training.optim import make_optimizer, muon_groups

CPU = pick_device("cpu", "float32")
MUON = OptimConfig(optimizer="muon", lr=0.01, weight_decay=0.1, momentum=0.9)


def muon_for(model, config):
    return make_optimizer(model.parameters(), config, matrices=muon_groups(model))


@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 8, 32), (2, 32, 8), (1, 1, 5), (1, 5, 1)])
def test_orthogonal_is_near_u_vt(shape):
    """U and V stay as the decomposition has them; the singular values go near 1, together."""
    X = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    U, _, Vt = torch.linalg.svd(X, full_matrices=False)
    found = U.mT @ orthogonal(X) @ Vt.mT  # diagonal, if U and V are the same
    S = found.diagonal(dim1=1, dim2=2)
    assert found.sub(torch.diag_embed(S)).abs().max() < 1e-3
    assert S.min() > 0.5
    assert S.max() < 1.3


def test_orthogonal_by_hand():
    """One value s: s / |s| = 1, and three times a s + b s^3 + c s^5."""
    s = 8.0934 - 23.6204 + 17.4462
    s = 3.6366 * s - 2.7219 * s**3 + 0.5365 * s**5
    s = 2.6613 * s - 1.9772 * s**3 + 0.4526 * s**5
    assert orthogonal(torch.tensor([[[-7.0]]])).item() == pytest.approx(-s, rel=1e-5)
    assert orthogonal(torch.zeros(1, 2, 3)).abs().sum() == 0  # no gradient, no step


def test_orthogonal_of_singular_values_far_apart():
    """From 1 % of the root of their eighth powers' sum on, they come between 0.73 and 1.27."""
    g = torch.Generator().manual_seed(3)
    U, V = (torch.linalg.qr(torch.randn(n, 24, generator=g)).Q for n in (24, 60))
    for S in (torch.logspace(-1.9, 0, 24), torch.ones(24), torch.eye(24)[0].clamp(min=0.011)):
        found = torch.linalg.svdvals(orthogonal((U * S @ V.mT)[None] * 1e-6))
        assert found.min() > 0.72
        assert found.max() < 1.28


def test_a_stack_is_its_matrices_one_by_one():
    X = torch.randn(4, 12, 20, generator=torch.Generator().manual_seed(2))
    X[1] *= 1e4
    apart = torch.cat([orthogonal(x[None]) for x in X])
    torch.testing.assert_close(orthogonal(X), apart, rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this torch has no Muon")
def test_three_steps_beside_torch(monkeypatch):
    """torch.optim.Muon works in bfloat16, each matrix by itself, with the same scale of lr.

    Its polynomial is another, so both go on with that of Newton and Schulz until S = 1.
    """
    newton_schulz = 15 / 8, -10 / 8, 3 / 8
    monkeypatch.setattr("utils.training.muon.ABC", (*ABC, *4 * [newton_schulz]))
    ours, theirs = (
        [torch.nn.Parameter(torch.randn(s, generator=torch.Generator().manual_seed(5)))
         for s in ((16, 16), (32, 16), (16, 40), (16, 16))]
        for _ in range(2)
    )  # fmt: skip
    groups = [{"params": [p], "rows": [len(p)]} for p in ours]
    kwargs = {"lr": 0.02, "momentum": 0.9, "weight_decay": 0.3}
    muon = Muon(groups, **kwargs, dtype=torch.bfloat16)
    peer = torch.optim.Muon(theirs, **kwargs, adjust_lr_fn="match_rms_adamw",
        ns_coefficients=newton_schulz, ns_steps=25)  # fmt: skip
    for seed in range(3):
        for params in (ours, theirs):
            g = torch.Generator().manual_seed(seed)
            for p in params:
                p.grad = torch.randn(p.shape, generator=g)
        muon.step()
        peer.step()
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=0.02 * 0.2 * math.sqrt(40) * 0.05)


def test_which_parameters_are_whose():
    """Muon has the blocks' matrices; queries, keys and values are three, of their own heights."""
    model = toy(n_head=4, n_kv_head=2, mlp="swiglu", tie_weights=False)
    names = {id(p): name for name, p in model.named_parameters()}
    rows = {names[id(p)]: g["rows"] for g in muon_groups(model) for p in g["params"]}
    assert rows["blocks.1.attn.qkv.weight"] == [16, 8, 8]
    assert rows["blocks.0.attn.proj.weight"] == [16]
    assert rows["blocks.0.mlp.gate.weight"] == [64]
    assert len(rows) == 2 * 5
    optimizer = muon_for(model, MUON)
    all_of_them = [id(p) for g in optimizer.param_groups for p in g["params"]]
    assert sorted(all_of_them) == sorted(names)  # each once
    by_adamw = {names[id(p)] for g in optimizer.optimizers[0].param_groups for p in g["params"]}
    assert {"tok_emb.weight", "head.weight", "norm.weight"} <= by_adamw
    assert not by_adamw & set(rows)


def test_queries_keys_and_values_are_made_orthogonal_apart():
    model = toy(n_layer=1, bias=False)
    before = model.blocks[0].attn.qkv.weight.detach().clone()
    optimizer = muon_for(model, OptimConfig(optimizer="muon", lr=0.5, weight_decay=0))
    train_step(model, next_token, [batch(0)], optimizer, CPU.scaler(), CPU, grad_clip=0)
    for part in (before - model.blocks[0].attn.qkv.weight).split(16):
        S = torch.linalg.svdvals(part / (0.5 * 0.2 * 4))
        assert S.max() < 1.3
        assert S.mean() > 0.5


def test_decay_pulls_without_a_direction():
    """With a gradient of zero only the decay is left: w (1 - lr lambda)."""
    model = toy()
    optimizer = muon_for(model, MUON)
    w = model.blocks[0].mlp.up.weight
    before = w.detach().clone()
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    torch.testing.assert_close(w.detach(), before * (1 - 0.01 * 0.1))


def test_state_goes_through_a_file_and_back(tmp_path):
    """Three steps are two steps, saved, loaded into a fresh optimizer, and a third: to the bit."""
    ends = []
    for again in (False, True):
        model = toy()
        optimizer = muon_for(model, MUON)
        for i in range(3):
            if again and i == 2:
                torch.save([model.state_dict(), optimizer.state_dict()], tmp_path / "s.pt")
                weights, state = torch.load(tmp_path / "s.pt", weights_only=True)
                model = toy()
                model.load_state_dict(weights)
                optimizer = muon_for(model, MUON)
                optimizer.load_state_dict(state)
            train_step(model, next_token, [batch(i)], optimizer, CPU.scaler(), CPU)
        ends.append(list(model.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


def test_one_batch_is_learnt_by_heart():
    model = toy(zero_init=True)
    optimizer = muon_for(model, MUON)
    for _ in range(60):
        loss, _, _ = train_step(model, next_token, [batch(0)], optimizer, CPU.scaler(), CPU)
    assert loss < 0.1


def test_a_frozen_parameter_stays():
    model = toy()
    model.blocks[0].mlp.up.weight.requires_grad_(False)
    before = model.blocks[0].mlp.up.weight.clone()
    optimizer = muon_for(model, MUON)
    train_step(model, next_token, [batch(0)], optimizer, CPU.scaler(), CPU)
    assert torch.equal(model.blocks[0].mlp.up.weight, before)
