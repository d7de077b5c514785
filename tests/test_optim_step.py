"""One optimizer step, its learning rate, the device that it runs on."""

import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toys import batch, toy, train_step

from utils.config import OptimConfig
from utils.device import TABLE, compiled, keep_freed_memory, pick_device
from utils.distributed import SINGLE, Distributed
from utils.training.objective import next_token
from utils.training.optim import lr_at, make_optimizer
from utils.training.step import blame, mean_loss

CPU = pick_device("cpu", "float32")


def test_lr_by_hand():
    at = [lr_at(i, 6, OptimConfig(lr=1.0, min_lr=0.0, warmup=2)) for i in range(8)]
    assert at == pytest.approx([1 / 3, 2 / 3, 1, 0.5 + math.sqrt(0.125), 0.5, 0.14645, 0, 0], 1e-4)


def test_lr_over_ten_thousand_steps():
    """The schedule as nanoGPT states it, written out a second time."""
    for step in range(10_000):
        if step < 100:
            expected = 1e-3 * (step + 1) / 101
        else:
            coefficient = 0.5 * (1 + math.cos(math.pi * (step - 100) / 9900))
            expected = 1e-4 + coefficient * 9e-4
        got = lr_at(step, 10_000, OptimConfig(lr=1e-3, min_lr=1e-4, warmup=100))
        assert got == pytest.approx(expected, rel=1e-12)


@given(st.integers(0, 50), st.integers(1, 50), st.integers(0, 120))
def test_lr_stays_between_its_bounds(warmup, steps, step):
    lr = lr_at(step, steps, OptimConfig(lr=1.0, min_lr=0.1, warmup=warmup))
    assert 0 < lr <= 1
    if step >= max(warmup, steps):
        assert lr == 0.1


def test_a_small_learning_rate_needs_no_second_flag():
    """OptimConfig(lr=5e-5) was refused, since the default min_lr was above it."""
    assert OptimConfig(lr=5e-5).last_lr == 5e-6
    assert lr_at(9, 9, OptimConfig(lr=1.0, warmup=0)) == 0.1
    with pytest.raises(ValueError, match=r"min_lr=0\.1 must be"):
        OptimConfig(lr=5e-5, min_lr=0.1)


def test_an_optimizer_for_parameters_without_a_model():
    """It wanted a model; Muon alone must know which matrices it is for."""
    params = [torch.nn.Parameter(torch.ones(2, 2)), torch.nn.Parameter(torch.ones(2))]
    decayed, kept = make_optimizer(iter(params), OptimConfig()).param_groups
    assert (decayed["params"], kept["params"]) == ([params[0]], [params[1]])
    with pytest.raises(ValueError, match="muon_groups"):
        make_optimizer(params, OptimConfig(optimizer="muon"))


def test_only_matrices_decay():
    model = toy()
    decayed, kept = make_optimizer(model.parameters(), OptimConfig(weight_decay=0.3)).param_groups
    assert decayed["weight_decay"] == 0.3
    assert kept["weight_decay"] == 0
    names = {id(p): name for name, p in model.named_parameters()}
    assert all(names[id(p)].endswith("weight") for p in decayed["params"])
    biases_and_gains = {names[id(p)] for p in kept["params"]}
    assert "norm.weight" in biases_and_gains
    assert "blocks.0.attn.qkv.bias" in biases_and_gains
    assert len(decayed["params"]) + len(kept["params"]) == len(list(model.parameters()))


def test_one_step_is_adamw_written_out():
    """Loshchilov & Hutter, algorithm 2, by hand: m, v, bias correction, decoupled decay."""
    model, config = toy(), OptimConfig(
        lr=0.01, weight_decay=0.1, beta1=0.9, beta2=0.99, grad_clip=0
    )
    optimizer = make_optimizer(model.parameters(), config)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    x, y = batch(0)
    model(x, y)[1].backward()
    grads = {n: p.grad.clone() for n, p in model.named_parameters()}
    model.zero_grad()
    train_step(model, next_token, [(x, y)], optimizer, CPU.scaler(), CPU, grad_clip=0.0)
    for name, p in model.named_parameters():
        decay = 0.1 if p.ndim >= 2 else 0.0
        update = grads[name] / (grads[name].abs() + 1e-8)  # m and v corrected: g and g**2
        expected = before[name] * (1 - 0.01 * decay) - 0.01 * update
        torch.testing.assert_close(p, expected, rtol=1e-4, atol=1e-5)


def agree(x, y, at, optimizer_of, clip, **bounds):
    """One step on the rows (x, y) at once is one on two micro-batches, cut at a row."""
    results = []
    for batches in ([(x, y)], [(x[:at], y[:at]), (x[at:], y[at:])]):
        model = toy()
        parts = optimizer_of(model), CPU.scaler(), CPU
        loss, norm, _ = train_step(model, next_token, batches, *parts, grad_clip=clip)
        results.append((loss, norm, model.state_dict()))
    (loss, norm, one), (loss2, norm2, two) = results
    assert loss == pytest.approx(loss2, rel=1e-6)
    assert norm == pytest.approx(norm2, rel=1e-5)
    for name in one:
        torch.testing.assert_close(one[name], two[name], **bounds)


def test_accumulation_equals_one_large_batch():
    def adamw(model):
        return make_optimizer(model.parameters(), OptimConfig())

    agree(*batch(1, rows=6), 3, adamw, 1.0, rtol=1e-3, atol=1e-4)


def test_tokens_weigh_not_micro_batches():
    """Targets of -1 do not count: 4 rows of 8, and 2 rows of which 3 targets are left, are 35."""
    x, y = batch(1, rows=6)
    y = y.clone()
    y[4:] = -1
    y[4, :3] = torch.tensor([5, 6, 7])

    def sgd(model):
        return torch.optim.SGD(model.parameters(), lr=1.0)

    agree(x, y, 4, sgd, 0.0, rtol=1e-5, atol=1e-6)


def test_a_micro_batch_without_a_target_changes_nothing():
    x, y = batch(1)
    results = []
    for batches in ([(x, y)], [(x, y), (x, torch.full_like(y, -1))]):
        model = toy()
        optimizer = make_optimizer(model.parameters(), OptimConfig())
        step = train_step(model, next_token, batches, optimizer, CPU.scaler(), CPU)
        results.append((step[:2], model))
    (one, model), (two, other) = results
    assert one == pytest.approx(two, rel=1e-6)
    same = zip(model.parameters(), other.parameters(), strict=True)
    for a, b in same:
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)
    empty = [(x, torch.full_like(y, -1))]
    with pytest.raises(ValueError, match="a step without a target"):
        train_step(model, next_token, empty, optimizer, CPU.scaler(), CPU)


def test_an_overflow_of_float16_skips_the_step_and_halves_the_scale():
    """By the scaler of the CPU: the norm that is given tells of it, and the tracker counts it."""
    model, scaler = toy(), torch.amp.GradScaler("cpu", init_scale=2.0**10)
    optimizer = make_optimizer(model.parameters(), OptimConfig())
    hook = model.norm.weight.register_hook(lambda g: g * math.inf)
    before = [p.detach().clone() for p in model.parameters()]
    loss, norm, _ = train_step(model, next_token, [batch(0)], optimizer, scaler, CPU)
    assert math.isfinite(loss)
    assert not math.isfinite(norm)
    assert scaler.get_scale() == 2.0**9
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    scaler.update(0.5)
    with pytest.raises(FloatingPointError, match="gradient norm inf"):
        train_step(model, next_token, [batch(0)], optimizer, scaler, CPU)
    hook.remove()


def test_the_micro_batch_of_a_gradient_that_is_not_finite_is_named():
    """All losses are finite: the gradients are taken again, one by one."""
    model, calls = toy(), iter(range(99))
    model.norm.weight.register_hook(lambda g: g * math.nan if next(calls) % 3 == 1 else g)
    optimizer = make_optimizer(model.parameters(), OptimConfig())
    x, y = batch(0)
    batches = [(x, torch.full_like(y, -1)), batch(1), batch(2)]  # the first has no target
    with pytest.raises(FloatingPointError, match=r"batch 2 of 3: loss .*, gradient norm nan"):
        train_step(model, next_token, batches, optimizer, CPU.scaler(), CPU)
    assert all(p.grad is None for p in model.parameters())


def test_what_the_ranks_exchange_is_one_message_a_step(monkeypatch):
    """Counts, losses, a signal and the time went in four blocking collectives; one suffices.

    Two ranks of three micro-batches, the second rank's told by hand: 64 targets there, 96 here.
    """
    told = []

    class Two(Distributed):
        def all_gather(self, values):
            told.append(list(values))
            return [list(values), [1.0, 2.0, 3.0, 32, 0, 32, 96, 15, 7.5]]

    model = toy()
    sgd, batches = torch.optim.SGD(model.parameters(), lr=1.0), [batch(i) for i in range(3)]
    kwargs = {"dist": Two(0, 2), "message": lambda: [0, 2.5]}
    loss, _, messages = train_step(model, next_token, batches, sgd, CPU.scaler(), CPU, **kwargs)
    assert len(told) == 1
    assert messages == [[0, 2.5], [15, 7.5]]
    own = told[0][:3]
    assert loss == pytest.approx((sum(own) * 32 + (1.0 + 3.0) * 32) / 160)


def test_gradients_are_the_mean_over_all_ranks_targets():
    """The other rank's targets are masked but for one: what DDP would average is scaled up.

    Two ranks of 32 positions, 33 targets in all: each rank's mean gradient counts 64/33 times.
    """

    class Two(Distributed):
        def all_gather(self, values):
            return [list(values), [1.0, 1, 32]]

    grads, (x, y) = [], batch(0)
    for dist in (SINGLE, Two(0, 2)):
        model = toy()
        before = model.norm.weight.detach().clone()
        sgd = torch.optim.SGD(model.parameters(), lr=1.0)
        parts = sgd, CPU.scaler(), CPU
        _, norm, _ = train_step(model, next_token, [(x, y)], *parts, grad_clip=0, dist=dist)
        grads.append((before - model.norm.weight.detach(), norm))
    (one, norm1), (two, norm2) = grads
    torch.testing.assert_close(two, one * 64 / 33)
    assert norm2 == pytest.approx(norm1 * 64 / 33)


def test_batches_of_unequal_size_on_the_ranks_are_refused():
    """Each rank divided by its own positions: the weights drifted apart, in silence."""

    class Two(Distributed):
        def all_gather(self, values):
            return [list(values), [1.0, 64, 64]]

    model = toy()
    parts = make_optimizer(model.parameters(), OptimConfig()), CPU.scaler(), CPU
    with pytest.raises(ValueError, match="the ranks' batches differ in size"):
        train_step(model, next_token, [batch(0)], *parts, dist=Two(0, 2))


def test_mean_loss_by_hand():
    assert mean_loss([[2.0, 6.0]], [[1, 3]]) == (5.0, 4)
    assert mean_loss([[2.0], [math.nan]], [[3], [0]]) == (2.0, 3)  # nothing counted there


def test_blame_names_the_first_batch():
    """The ranks' micro-batches alternate: the second is rank 1's first."""
    assert blame([[2.0, math.nan, math.inf]]) == "batch 2 of 3: "
    assert blame([[2.0, math.inf], [math.nan, 1.0]]) == "batch 2 of 4: "
    assert blame([[2.0, 3.0]]) == ""


def test_gradient_is_clipped():
    model = toy()
    sgd = torch.optim.SGD(model.parameters(), lr=1.0)
    before = torch.cat([p.detach().flatten().clone() for p in model.parameters()])
    _, norm, _ = train_step(model, next_token, [batch(0)], sgd, CPU.scaler(), CPU, grad_clip=0.01)
    after = torch.cat([p.detach().flatten() for p in model.parameters()])
    assert norm > 0.1  # what is reported is the norm before clipping
    assert (after - before).norm().item() == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_non_finite_stops_before_the_update(where):
    model = toy()
    optimizer = make_optimizer(model.parameters(), OptimConfig())
    if where == "loss":
        model.norm.weight.data[0] = math.inf
    else:
        model.norm.weight.register_hook(lambda g: g * math.nan)
    before = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(FloatingPointError):
        train_step(model, next_token, [batch(0)], optimizer, CPU.scaler(), CPU)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert all(p.grad is None for p in model.parameters())


def test_one_batch_is_learnt_by_heart():
    model = toy()
    optimizer = make_optimizer(model.parameters(), OptimConfig(lr=1e-2))
    for _ in range(120):
        loss, _, _ = train_step(model, next_token, [batch(0)], optimizer, CPU.scaler(), CPU)
    assert loss < 0.1


def test_bfloat16_on_the_cpu():
    model, device = toy(), pick_device("cpu", "bfloat16")
    optimizer = make_optimizer(model.parameters(), OptimConfig(lr=1e-2))
    parts = [batch(0)], optimizer, device.scaler(), device
    losses = [train_step(model, next_token, *parts)[0] for _ in range(9)]
    assert losses[-1] < losses[0]
    assert all(p.dtype == torch.float32 for p in model.parameters())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_mixed_precision_on_cuda(dtype):
    device = pick_device("cuda", dtype)
    model = toy().to(device.device)
    optimizer, scaler = make_optimizer(model.parameters(), OptimConfig(lr=1e-2)), device.scaler()
    parts = [batch(0)], optimizer, scaler, device
    losses = [train_step(model, next_token, *parts)[0] for _ in range(30)]
    assert all(map(math.isfinite, losses))
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    ("device", "dtype", "said"),
    [
        ("gpu", "auto", "device='gpu' is unknown"),
        ("cuda:99", "auto", "cuda:99 is not on this machine"),
        ("cpu", "float16", "needs CUDA"),
    ],
)
def test_devices_that_are_not_there(device, dtype, said):
    with pytest.raises(ValueError, match=said):
        pick_device(device, dtype)


MACHINES = [  # what the machine has, what is asked for, what is taken
    ({"cuda": 1, "bfloat16": 1}, ("auto", "auto"), ("cuda", torch.bfloat16)),
    ({"cuda": 2, "bfloat16": 1}, ("cuda:1", "float16"), ("cuda:1", torch.float16)),
    ({"cuda": 1}, ("auto", "auto"), ("cuda", torch.float16)),
    ({"cuda": 1, "mps": 1, "bfloat16": 1}, ("mps", "auto"), ("mps", torch.float32)),
    ({"cuda": 1, "bfloat16": 1}, ("cpu", "auto"), ("cpu", torch.float32)),
    ({"mps": 1}, ("auto", "auto"), ("mps", torch.float32)),
    ({}, ("auto", "auto"), ("cpu", torch.float32)),
    ({}, ("auto", "bfloat16"), ("cpu", torch.bfloat16)),
]


@pytest.mark.parametrize(("has", "asked", "expected"), MACHINES)
def test_the_table_decides_without_hardware(has, asked, expected):
    precision = torch.get_float32_matmul_precision()
    found = pick_device(*asked, {"cuda": 0, "bfloat16": 0, "mps": 0, "cpu": 1, **has})
    torch.set_float32_matmul_precision(precision)
    assert (str(found.device), found.dtype) == expected
    assert [row[0] for row in TABLE] == ["cuda", "cuda", "mps", "cpu"]


@pytest.mark.parametrize(
    ("cuda", "bf16", "mps", "expected"),
    [
        (True, True, False, ("cuda", torch.bfloat16)),
        (True, False, False, ("cuda", torch.float16)),
        (False, False, True, ("mps", torch.float32)),
        (False, False, False, ("cpu", torch.float32)),
    ],
)
def test_device_is_chosen_by_a_table(monkeypatch, cuda, bf16, mps, expected):
    monkeypatch.setattr("torch.cuda.is_available", lambda: cuda)
    monkeypatch.setattr("torch.cuda.device_count", lambda: int(cuda))
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda emulated: bf16)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: mps)
    precision = torch.get_float32_matmul_precision()
    found = pick_device()
    torch.set_float32_matmul_precision(precision)
    assert (found.device.type, found.dtype) == expected


def test_without_a_compiler_the_model_runs_eager_and_says_so(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda _: None)
    said, model = [], toy()
    assert compiled(model, torch.device("cpu"), said.append) is model
    assert "no C++ compiler" in said[0]


def test_windows_with_cuda_but_without_triton_runs_eager(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: name if name == "cl" else None)
    monkeypatch.setattr("utils.device.find_spec", lambda _: None)
    said, model = [], toy()
    assert compiled(model, torch.device("cuda"), said.append) is model
    assert "no triton" in said[0]
    monkeypatch.setattr("torch.compile", lambda model: "compiled")
    assert compiled(model, torch.device("cpu"), said.append) == "compiled"
    assert "compile on" in said[1]


def test_freed_memory_is_kept(monkeypatch):
    """A small step waited a tenth of its time for pages that the step before had given back."""
    calls = []
    libc = SimpleNamespace(mallopt=lambda *args: calls.append(args))
    monkeypatch.setattr("ctypes.CDLL", lambda name: libc)
    monkeypatch.setattr("sys.platform", "linux")
    keep_freed_memory()
    assert calls == [(-3, 33_554_432), (-1, 1_073_741_824)]
    monkeypatch.setattr("ctypes.CDLL", lambda name: SimpleNamespace())  # musl
    keep_freed_memory()
    monkeypatch.setattr("sys.platform", "darwin")
    monkeypatch.setattr("ctypes.CDLL", lambda name: libc)
    keep_freed_memory()
    assert len(calls) == 2
