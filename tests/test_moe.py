"""model/moe.py: experts, their router, and all that a model with them goes through."""

import copy
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import TOY
from test_repo import ROOT
from torch import nn

import eval as evaluating
import sample
import train
from model import GPTConfig, TinyGPT, generate
from model.adapt.gptq import gptq
from model.generation.step import can_step
from model.gpt import MLP
from model.moe import BALANCE, MoE, active_weights, balance, shares
from model.numpy_gpt.params import from_torch
from utils.compress.__main__ import main as compress
from utils.config import OptimConfig
from utils.device import pick_device
from utils.doctor.inside import check
from utils.doctor.record import read
from utils.hub.__main__ import main as hub
from utils.training.memory import step_memory
from utils.training.models import load_model
from utils.training.objective import next_token
from utils.training.step import TrainStep

CONFIG = GPTConfig(
    vocab_size=50, block_size=16, n_layer=2, n_head=2, d_model=16, d_ff=24, experts=4, experts_top=2
)
EXPERTS = ["--experts", "4", "--experts_top", "2", "--d_ff", "24"]


def moe(seed=0, **changes):
    torch.manual_seed(seed)
    mixture = MoE(replace(CONFIG, **changes), MLP).double()
    for p in mixture.parameters():
        nn.init.normal_(p, 0, 0.3)
    return mixture


def every_expert(m, x):
    """A second way: each expert reads all tokens, and counts where the router wants it."""
    p = torch.softmax(x @ m.router.weight.T, -1)
    ranks = p.argsort(dim=-1, descending=True).argsort(dim=-1)
    w = p * (ranks < m.top)
    if m.top > 1:
        w = w / w.sum(-1, keepdim=True)
    return sum(w[..., i : i + 1] * expert(x) for i, expert in enumerate(m.experts))


@pytest.mark.parametrize("changes", [{}, {"experts_top": 1}, {"experts_top": 4}, {"mlp": "swiglu"},
                                     {"bias": False, "experts": 7, "experts_top": 3}])  # fmt: skip
def test_it_is_a_loop_over_experts(changes):
    """Values and all gradients to 1e-12."""
    m, x = moe(**changes), torch.randn(3, 5, 16, dtype=torch.double, requires_grad=True)
    weight = torch.randn(3, 5, 16, dtype=torch.double)
    found = []
    for way in (m, lambda x: every_expert(m, x)):
        m.zero_grad()
        y = way(x)
        found.append((y, torch.autograd.grad((y * weight).sum(), [x, *m.parameters()])))
    (ours, grads), (theirs, others) = found
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    for a, b in zip(grads, others, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_no_token_is_dropped_and_no_expert_is_without_gradient():
    """All tokens to one expert: the others have a gradient of 0, which DDP and AdamW ask for."""
    m, x = moe(experts_top=1), torch.ones(2, 8, 16, dtype=torch.double)
    with torch.no_grad():
        m.router.weight.copy_(torch.tensor([0.0, 0, 9, 0])[:, None].expand(4, 16))
    y = m(x)
    torch.testing.assert_close(y, m.experts[2](x))
    y.sum().backward()
    norms = [[float(p.grad.abs().sum()) for p in expert.parameters()] for expert in m.experts]
    assert [sum(norm) > 0 for norm in norms] == [False, False, True, False]
    assert torch.bincount(torch.tensor([2])).tolist() == [0, 0, 1]
    assert shares(torch.tensor([[0, 2], [2, 1]]), 4) == [1, 1, 2, 0]


def test_the_balancing_loss_by_hand():
    """Switch, eq. 4: E sum f_i P_i. 1 if all is even, E if all go to one; used with value 0."""
    m = moe(experts_top=1).train()
    with torch.no_grad():
        m.router.weight.zero_()
    m(torch.randn(2, 3, 16, dtype=torch.double))
    assert m.balance.item() == pytest.approx(1)  # whoever is chosen, P is 1/4
    with torch.no_grad():
        m.router.weight.copy_(torch.eye(4, 16) * 50)
    m(torch.eye(4, 16, dtype=torch.double)[None])  # token i to expert i
    assert m.balance.item() == pytest.approx(1)
    m(torch.eye(4, 16, dtype=torch.double)[None, [1, 1, 1]])
    assert m.balance.item() == pytest.approx(4)
    with torch.no_grad():
        m.router.weight.copy_(torch.eye(4, 16) * 2)
    x = torch.eye(4, 16, dtype=torch.double)[None, [0, 0, 1, 3]]
    m(x)
    p = torch.softmax(2 * torch.eye(4), -1)[[0, 0, 1, 3]].mean(0)
    by_hand = 4 * (torch.tensor([2, 1, 0, 1]) / 4 * p).sum()
    assert m.balance.item() == pytest.approx(float(by_hand))
    (expected,) = torch.autograd.grad(m.balance, m.router.weight, retain_graph=True)
    loss = balance(m)
    assert (loss.item(), m.balance, balance(m)) == (0, None, 0.0)
    (grad,) = torch.autograd.grad(loss, m.router.weight)
    torch.testing.assert_close(grad, BALANCE * expected)
    m.eval()(x)
    assert m.balance is None
    assert balance(nn.Linear(2, 2)) == 0.0


def test_a_step_reports_the_next_token_and_trains_the_router():
    """The mean over micro-batches; without the balancing loss the routers' gradient differs."""
    torch.manual_seed(0)
    model, idx = TinyGPT(CONFIG), torch.randint(50, (4, 17))
    batches = [(part[:, :-1], part[:, 1:]) for part in idx.split((1, 3))]
    whole = next_token(model, (idx[:, :-1], idx[:, 1:]))[0] / 64
    balance(model)
    means = []
    for x, y in batches:
        next_token(model, (x, y))
        losses = [block.mlp.balance for block in model.blocks]
        means.append(sum(losses) / 2 * x.numel() / 64)
        balance(model)
    router = model.blocks[0].mlp.router.weight
    params = list(model.parameters())
    expected = torch.autograd.grad(whole + BALANCE * sum(means), params)
    optimizer = torch.optim.SGD(params, lr=1.0)
    before = [p.detach().clone() for p in params]
    step = TrainStep(model, next_token, optimizer, pick_device("cpu").scaler(), pick_device("cpu"),
                     grad_clip=0)  # fmt: skip
    loss, _, _ = step(batches)
    assert loss == pytest.approx(whole.item(), rel=1e-6)
    for p, b, g in zip(params, before, expected, strict=True):
        torch.testing.assert_close(b - p, g, rtol=1e-4, atol=1e-6)
    assert any(p is router for p in params)


def test_a_model_writes_and_is_counted():
    """With the cache as without it; what a token is multiplied by are two of four experts."""
    torch.manual_seed(1)
    model = TinyGPT(CONFIG).eval()
    assert not can_step(model)
    prompt = torch.randint(50, (2, 3))
    texts = [
        torch.stack(list(generate(model, prompt, 9, temperature=0, cache=cached)))
        for cached in (True, False)
    ]
    assert torch.equal(*texts)
    dense = TinyGPT(replace(CONFIG, experts=0, d_ff=48))
    router = 2 * 16 * 4
    assert active_weights(model) == active_weights(dense) + router
    assert model.flops_per_token() == dense.flops_per_token() + 6 * router
    one = TinyGPT(replace(CONFIG, experts=0)).n_params()
    assert model.n_params() == one + router + 2 * 3 * (16 * 24 * 2 + 24 + 16)
    down = [m.down.weight.detach() for m in model.modules() if isinstance(m, MLP)]
    std = torch.cat([w.flatten() for w in down]).std()
    assert float(std) == pytest.approx(0.02 / 2, rel=0.1)  # sqrt(2 n_layer) = 2
    copy.deepcopy(model.train())(prompt)


def test_wrong_numbers_of_experts():
    for changes, said in (
        ({"experts": 1}, "experts=1 must be 0, or 2 and more"),
        ({"experts": -1}, "experts=-1 must be 0"),
        ({"experts": 4, "experts_top": 5}, "experts=4 must be 0, or 5 and more"),
        ({"experts_top": 0}, "experts_top=0 must be at least 1"),
    ):
        with pytest.raises(ValueError, match=said):
            replace(CONFIG, **changes)
    assert GPTConfig().experts == 0


def test_memory_is_counted_for_experts():
    """Four experts hold more than one MLP of the same work, by 16 bytes for each idle weight."""
    cpu, optim = pick_device("cpu"), OptimConfig()
    config = replace(CONFIG, d_model=128, d_ff=512, block_size=64)
    dense = step_memory(replace(config, experts=0, d_ff=1024), optim, cpu, 4, False)
    idle = 2 * 2 * 2 * 128 * 512
    mixture = step_memory(config, optim, cpu, 4, False)
    assert 12 * idle < mixture - dense < 18 * idle  # gradients are not all there at once


def flags(text_file, *more, steps=6):
    own = ["--data", str(text_file), *TOY, "--n_layer", "2", *EXPERTS, "--eval_every", "3"]
    return [*own, "--lr", "3e-3", "--steps", str(steps), *more]


def test_the_life_of_a_run_with_experts(text_file, capfd):
    """Dry run, training, exact resume, recomputed, evaluation, writing."""
    train.main(flags(text_file, "--dry-run"))
    said = capfd.readouterr().out
    assert "parameters  12,880, 3,072 of them idle at each token" in said
    assert train.main(flags(text_file, "--run", "whole")) == 0
    assert train.main(flags(text_file, "--run", "cut", steps=3)) == 0
    assert train.main(["--run", "cut", "--resume", "--steps", "6"]) == 0
    assert train.main(flags(text_file, "--run", "again", "--recompute")) == 0
    losses = [
        json.loads(Path(f"runs/{run}/summary.json").read_text("utf-8"))["best_val_loss"]
        for run in ("whole", "again")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    for run in ("whole", "cut"):
        evaluating.main(["--run", run])
        sample.main(["--run", run, "--prompt", "the", "--steps", "5"])


@pytest.mark.slow
def test_two_ranks_with_experts_are_one(text_file):
    """DDP waits for a gradient of each expert, chosen or not; losses are those of one process."""
    common = flags(text_file, "--batch_size", "1", "--log_every", "1", "--experts", "8")
    assert train.main([*common, "--run", "one", "--accum", "2"]) == 0
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command += ["--", str(ROOT / "train.py"), *common, "--run", "two"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr[-2000:]
    one, two = (
        [line.split(",")[4] for line in Path(f"runs/{run}/metrics.csv").read_text().splitlines()]
        for run in ("one", "two")
    )
    assert len(one) > 6
    assert [float(x) for x in one[1:] if x] == pytest.approx([float(x) for x in two[1:] if x])


def test_what_cannot_leave_or_be_calibrated_is_said(text_file, error_of):
    """Export, NumPy, GPTQ refuse experts; rounding, adapters, --watch and the doctor take them."""
    llama = ["--mlp", "swiglu", "--pos", "rope", "--norm", "rmsnorm", "--bias", "false"]
    assert train.main(flags(text_file, "--run", "r", "--watch", *llama, steps=3)) == 0
    for to in ("hf", "gguf", "html"):
        assert "experts=4" in error_of(hub, "export", "r", "--to", to, f"out.{to}")
    model, _, _ = load_model(Path("runs/r"))
    with pytest.raises(ValueError, match="experts=4 are not computed here"):
        from_torch(model.state_dict(), model.config)
    with pytest.raises(ValueError, match="experts=4 can't be calibrated"):
        gptq(model, torch.zeros(1, 8, dtype=torch.long), 16)
    compress(["r", "--int8", "--out", "r8"])
    sample.main(["--run", "r8", "--prompt", "the", "--steps", "5"])
    tune = ["--run", "r2", "--init", "r", "--lora", "2", *llama]
    assert train.main(flags(text_file, *tune, steps=2)) == 0
    assert "dead" not in " ".join(map(str, check(read(Path("runs/r")))))
