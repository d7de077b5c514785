"""The GPT in NumPy: logits and gradients are torch's, and each layer's those of differences."""

import signal
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from data.sampler import BatchSampler, Phase
from model import GPTConfig, TinyGPT
from model.adapt.lora import add_lora
from model.adapt.lora_config import LoRAConfig
from model.numpy_gpt import attention as att
from model.numpy_gpt import layers as nn
from model.numpy_gpt.__main__ import main
from model.numpy_gpt.decoder import forward, loss_and_gradients
from model.numpy_gpt.optim import adamw, clip
from model.numpy_gpt.params import from_torch, shapes
from utils.config import OptimConfig
from utils.device import pick_device
from utils.training.objective import next_token
from utils.training.optim import lr_at, make_optimizer
from utils.training.step import TrainStep

ROOT = Path(__file__).parent.parent
SHAPE = {"vocab_size": 23, "block_size": 16, "n_layer": 2, "n_head": 4, "d_model": 32}
CONFIGS = [
    {},
    {"pos": "rope", "norm": "rmsnorm", "mlp": "swiglu", "bias": False, "n_kv_head": 2},
    {"pos": "rope", "qk_norm": True, "mlp": "relu2", "emb_conv": 3, "tie_weights": False},
    {"pos": "sinusoidal", "norm_at": "post", "mlp": "relu"},
    {"pos": "none", "window": 3, "mlp": "gelu_tanh", "n_kv_head": 1, "qk_norm": True},
    {"pos": "learned", "mlp": "geglu", "norm_eps": 0.1, "tie_weights": False, "rope_theta": 99.0},
    {"pos": "rope", "rope_theta": 99.0, "norm_at": "post", "norm": "rmsnorm", "d_ff": 7},
    {"pos": "rope", "n_head": 2, "n_kv_head": 1, "head_dim": 6, "qk_norm": True},
]


def torch_model(**kwargs):
    """A TinyGPT in float64 whose gains and biases are not all ones and zeros."""
    torch.manual_seed(0)
    c = GPTConfig(**{**SHAPE, **kwargs})
    m = TinyGPT(c).double()
    with torch.no_grad():
        for p in m.parameters():
            p.add_(0.1 * torch.randn_like(p))
    if c.pos == "rope":  # its tables are of float32 precision
        cos, sin = att.angles(c.block_size, c.head_size, c.rope_theta)
        m.cos, m.sin = torch.from_numpy(cos), torch.from_numpy(sin)
    if c.pos == "sinusoidal":
        m.wave = torch.from_numpy(att.sinusoid(c.block_size, c.d_model))
    return m


def close(got, want):
    """Equal to 1e-9 of the largest."""
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= 1e-9 * np.abs(want).max()


@pytest.mark.parametrize("kwargs", CONFIGS)
def test_logits_and_every_gradient_are_those_of_autograd(kwargs):
    m = torch_model(**kwargs)
    g = torch.Generator().manual_seed(1)
    x, y = (torch.randint(23, (3, 13), generator=g) for _ in range(2))
    y[0, :4] = -1
    P = from_torch(m.state_dict(), m.config)
    logits, loss = m(x, y)
    loss.backward()
    got, G = loss_and_gradients(P, m.config, x.numpy(), y.numpy())
    close(forward(P, m.config, x.numpy())[0], logits.detach().numpy())
    assert got == pytest.approx(float(loss.detach()), rel=1e-9)
    assert G.keys() == {name for name, _ in m.named_parameters()}
    for name, p in m.named_parameters():
        close(G[name], p.grad.numpy())


def test_positions_are_those_of_tiny_gpt():
    """The models above have them from here, in float64, so that they could not differ."""
    m = TinyGPT(GPTConfig(**SHAPE, pos="rope", rope_theta=99.0))
    for got, want in zip(att.angles(16, 8, 99.0), (m.cos, m.sin), strict=True):
        assert got == pytest.approx(want.numpy(), abs=1e-6)
    m = TinyGPT(GPTConfig(**SHAPE, pos="sinusoidal"))
    assert att.sinusoid(16, 32) == pytest.approx(m.wave.numpy(), abs=1e-6)


@pytest.mark.parametrize("kwargs", CONFIGS)
def test_float32_stays_float32(kwargs):
    """A table or a count in float64 made all that came after it float64, and half as fast."""
    m = torch_model(**kwargs)
    P = from_torch(m.state_dict(), m.config, np.float32)
    x = np.random.default_rng(0).integers(23, size=(2, 13))
    _, G = loss_and_gradients(P, m.config, x, x)
    assert forward(P, m.config, x)[0].dtype == np.float32
    assert {name for name, g in G.items() if g.dtype != np.float32} == set()


def numerical(f, x, dy):
    """The gradient of sum(f() * dy) by x, by central differences."""
    grad = np.zeros_like(x)
    for i in np.ndindex(*x.shape):
        at, sums = x[i], []
        for way in 1e-5, -1e-5:
            x[i] = at + way
            sums.append((f() * dy).sum())
        x[i] = at
        grad[i] = (sums[0] - sums[1]) / 2e-5
    return grad


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def check(f, backward, *args):
    """Each gradient that backward(dy, cache) gives, against differences in that argument."""
    y, cache = f(*args)
    dy = normal(*y.shape, seed=9)
    grads = backward(dy, cache)
    for x, grad in zip(args, grads if isinstance(grads, tuple) else (grads,), strict=True):
        want = numerical(lambda: f(*args)[0], x, dy)
        assert np.abs(grad - want).max() < 1e-7 * max(1, np.abs(want).max())


MASK = att.causal_mask(4)
x234, g4, b4 = normal(2, 3, 4), normal(4, seed=1), normal(4, seed=2)
qkv = [normal(2, 3, 4, 2, seed=s) for s in (1, 2, 3)]


@pytest.mark.parametrize(("f", "backward", "args"), [
    (nn.linear, nn.linear_backward, (x234, normal(5, 4), normal(5))),
    (lambda x: (nn.softmax(x),) * 2, nn.softmax_backward, (x234,)),
    *((f, b, (x234,)) for f, b in nn.ACT.values()),
    (partial(nn.layer_norm, eps=1e-2), nn.layer_norm_backward, (x234, g4, b4)),
    (partial(nn.rms_norm, eps=1e-2), nn.rms_norm_backward, (x234, g4)),
    (partial(att.attention, mask=MASK), att.attention_backward, qkv),
    (lambda x: (att.repeat_heads(x, 3),) * 2, lambda dy, _: att.repeat_heads_backward(dy, 3),
     (qkv[0],)),
    (lambda x: (att.rotate(x, *att.angles(3, 4)),) * 2,
     lambda dy, _: att.rotate_backward(dy, *att.angles(3, 4)), (x234,)),
    (lambda e, w: (nn.convolve(e, w), (e, w)), lambda dy, c: nn.convolve_backward(dy, *c),
     (normal(2, 5, 3), normal(3, 3, seed=1))),
])  # fmt: skip
def test_each_backward_is_the_slope(f, backward, args):
    check(f, backward, *args)


def test_the_embedding_and_the_loss_by_differences():
    ids, W, dy = np.array([[1, 1, 0], [3, 1, 3]]), normal(4, 2), normal(2, 3, 2, seed=1)
    want = numerical(lambda: nn.embedding(ids, W)[0], W, dy)
    assert nn.embedding_backward(dy, nn.embedding(ids, W)[1]) == pytest.approx(want, abs=1e-8)
    z, y = normal(2, 3, 5), np.array([[1, -1, 4], [0, 0, -1]])
    want = numerical(lambda: np.array(nn.cross_entropy(z, y)[0]), z, np.array(1.0))
    got = nn.cross_entropy_backward(nn.cross_entropy(z, y)[1])
    assert got == pytest.approx(want, abs=1e-9)
    assert not got[0, 1].any()


def test_by_hand():
    p = nn.softmax(np.array([[1000.0, 1000.0, -1000.0], [0.0, 0.0, 0.0]]))
    assert p == pytest.approx(np.array([[0.5, 0.5, 0.0], [1 / 3] * 3]))
    loss, _ = nn.cross_entropy(np.zeros((2, 4)), np.array([1, -1]))
    assert loss == pytest.approx(np.log(4))
    large = np.array([[1000.0, -1000.0]])
    assert nn.cross_entropy(large, np.array([0]))[0] == 0
    assert nn.cross_entropy(large, np.array([1]))[0] == 2000
    with pytest.raises(ValueError, match="no target counts"):
        nn.cross_entropy(np.zeros((2, 4)), np.array([-1, -1]))
    assert att.causal_mask(3, 2).tolist() == [[1, 0, 0], [1, 1, 0], [0, 1, 1]]
    q = np.zeros((1, 3, 2))  # all alike: each position is the mean of those before it
    y, _ = att.attention(q, q, np.array([[[3.0], [5.0], [10.0]]]), att.causal_mask(3))
    assert y[0, :, 0].tolist() == pytest.approx([3, 4, 6])
    assert att.sinusoid(2, 4)[0].tolist() == [0, 1, 0, 1]
    assert nn.relu(np.array([-1.0, 0.0, 2.0]))[0].tolist() == [0, 0, 2]


@pytest.mark.parametrize("name", nn.ACT)
def test_activations_stand_large_numbers(name):
    """silu took e^-x, which overflowed for x below -88 in float32, with a warning."""
    f, backward = nn.ACT[name]
    y, cache = f(np.array([-1000, -100, 0, 100], np.float32))
    slope = backward(np.ones_like(y), cache)
    r = np.array([0, 0, 0, 100], np.float32)
    want = (r * r, 2 * r) if name == "relu2" else (r, [0, 0, slope[2], 1])
    assert y.tolist() == pytest.approx(want[0].tolist())
    assert slope.tolist() == pytest.approx(list(want[1]))
    assert slope[2] == {"relu": 0, "relu2": 0}.get(name, 0.5)  # ReLU's corner counts as flat


def test_one_token_and_what_is_refused():
    m = torch_model()
    P = from_torch(m.state_dict(), m.config)
    close(forward(P, m.config, np.array([[5]]))[0], m(torch.tensor([[5]]))[0].detach().numpy())
    with pytest.raises(ValueError, match="17 tokens exceed block_size=16"):
        forward(P, m.config, np.zeros((1, 17), int))
    with pytest.raises(ValueError, match="id -1 is below 0"):  # was the last row of the embedding
        forward(P, m.config, np.array([[3, -1]]))
    with pytest.raises(ValueError, match="0 tokens; give one or more"):
        forward(P, m.config, np.zeros((2, 0), int))
    with pytest.raises(ValueError, match="target -100 is below -1"):  # did not count, silently
        loss_and_gradients(P, m.config, np.array([[3, 4]]), np.array([[5, -100]]))
    scaled = GPTConfig(**SHAPE, pos="rope", rope_scaling="linear factor=2")
    with pytest.raises(ValueError, match="rope_scaling='linear factor=2'"):
        from_torch({}, scaled)


@pytest.mark.parametrize("kwargs", CONFIGS)
def test_the_parameters_are_those_of_tiny_gpt(kwargs):
    m = torch_model(**kwargs)
    assert shapes(m.config) == {name: tuple(p.shape) for name, p in m.named_parameters()}


def test_weights_of_another_config_are_refused():
    """Those of three blocks were read as a model of two, and those with adapters without these."""
    m = torch_model(n_layer=3, tie_weights=False)
    c = replace(m.config, n_layer=2)
    with pytest.raises(ValueError, match=r"blocks\.2\.attn\.proj\.bias is \(32,\), not none; give"):
        from_torch(m.state_dict(), c)
    with pytest.raises(ValueError, match=r"blocks\.3.* is none, not \(32,\)"):
        from_torch(m.state_dict(), replace(c, n_layer=4))
    with pytest.raises(ValueError, match=r"pos_emb\.weight is \(16, 32\), not \(12, 32\)"):
        from_torch(m.state_dict(), replace(m.config, block_size=12))
    add_lora(m, LoRAConfig(lora=2))
    with pytest.raises(ValueError, match=r"blocks\.0\.attn\.proj\.lora_A is .*no adapters"):
        from_torch(m.state_dict(), m.config)


def test_weights_in_bfloat16_are_read():
    """NumPy has no such type, and torch refused to hand it over."""
    m = torch_model().bfloat16()
    P = from_torch(m.state_dict(), m.config, np.float32)
    assert torch.equal(torch.from_numpy(P["tok_emb.weight"]), m.tok_emb.weight.detach().float())


def test_adamw_and_clipping_are_torchs():
    g = torch.Generator().manual_seed(0)
    params = [torch.randn(3, 4, generator=g).double(), torch.randn(5, generator=g).double()]
    P = {str(i): p.numpy().copy() for i, p in enumerate(params)}
    params = [torch.nn.Parameter(p) for p in params]
    config = OptimConfig(lr=0.01, weight_decay=0.3, beta1=0.8, beta2=0.9)
    optimizer, state = make_optimizer(params, config), {}
    for step in range(1, 8):
        G = {str(i): normal(*p.shape, seed=10 * step + i) for i, p in enumerate(params)}
        for i, p in enumerate(params):
            p.grad = torch.from_numpy(G[str(i)].copy())
        want = torch.nn.utils.clip_grad_norm_(params, 2.0)
        assert clip(G, 2.0) == pytest.approx(float(want), rel=1e-12)
        optimizer.step()
        adamw(P, G, state, step, lr=0.01, betas=(0.8, 0.9), weight_decay=0.3)
    for i, p in enumerate(params):
        assert np.abs(P[str(i)] - p.detach().numpy()).max() < 1e-12


def test_fifty_losses_are_those_of_our_training_step():
    """The batches of the sampler, the learning rate, clipping and optimizer of train.py."""
    text = (ROOT / "data" / "tiny.txt").read_bytes()[:5000]
    tokens = np.frombuffer(text, np.uint8).astype(np.uint16)
    torch.manual_seed(0)
    c = GPTConfig(256, 16, 2, 2, 16)
    m, config = TinyGPT(c).double(), OptimConfig(lr=3e-3, warmup=5)
    P, state, losses = from_torch(m.state_dict(), c), {}, []
    sampler = BatchSampler(
        [tokens], [Phase(np.inf, 16, (1,))], block_size=16, batch_size=4, accum=1, seed=3
    )

    def objective(model, batch):
        nats, count = next_token(model, batch)
        losses.append(float(nats.detach() / count))
        return nats, count

    optimizer, device = make_optimizer(m.parameters(), config), pick_device("cpu", "float32")
    step = TrainStep(m, objective, optimizer, device.scaler(), device, grad_clip=1.0)
    for i in range(50):
        lr = lr_at(i, 50, config)
        for group in optimizer.param_groups:
            group["lr"] = lr
        ((x, y),) = batches = sampler.batches(i)
        step(batches)
        loss, G = loss_and_gradients(P, c, x.numpy(), y.numpy())
        clip(G, 1.0)
        betas = config.beta1, config.beta2
        adamw(P, G, state, i + 1, lr=lr, betas=betas, weight_decay=config.weight_decay)
        assert loss == pytest.approx(losses[-1], rel=1e-9)
    assert losses[-1] < losses[0] - 1


def test_the_command_trains_and_writes_without_torch(tmp_path):
    code = (
        "import sys; from model.numpy_gpt.__main__ import main; print('numpy' in sys.modules); "
        "main(sys.argv[1:]); print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "--steps", "40"],
        capture_output=True, cwd=ROOT, check=True, text=True,
    )  # fmt: skip
    losses = [float(s.split()[3]) for s in done.stdout.splitlines() if s.startswith("step")]
    assert losses[-1] < losses[0] - 1
    assert done.stdout.startswith("False\n")  # so it can still be told how many threads to use
    assert done.stdout.endswith("False\n")
    (tmp_path / "short.txt").write_text("too short", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "model.numpy_gpt", "--text", str(tmp_path / "short.txt")],
        capture_output=True, cwd=ROOT, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "9 characters; give 66 or more" in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="signals and pipes of POSIX")
@pytest.mark.parametrize(("how", "status"), [("ctrl-c", 130), ("head", 141)])
def test_what_ends_the_command_early_is_no_traceback(how, status):
    """`... | head -3` was the traceback of BrokenPipeError, Ctrl-C was one, too."""
    command = [sys.executable, "-u", "-m", "model.numpy_gpt", "--steps", "100000"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=ROOT, text=True, **pipes) as process:
        process.stdout.readline()
        if how == "head":
            process.stdout.close()
        else:
            process.send_signal(signal.SIGINT)
        assert process.stderr.read() == ""
    assert process.returncode == status


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--steps", "-3"], "--steps -3 must be 0 or more"),
        (["--seed", "-1"], "--seed -1 must be 0 or more"),
        (["--lr", "nan"], "--lr nan must be a positive number"),
        (["--lr", "inf"], "--lr inf must be a positive number"),
        (["--lr", "-1"], "--lr -1 must be a positive number"),
        (["--step", "1"], "unrecognized arguments: --step 1"),
        (["--text", "none.txt"], "cannot read none.txt"),
    ],
)
def test_wrong_flags_are_one_line(capsys, flags, says):
    """A negative seed and a rate of inf were tracebacks; -3 steps wrote noise."""
    with pytest.raises(SystemExit, match="2"):
        main(flags)
    assert f"python -m model.numpy_gpt: error: {says}" in capsys.readouterr().err.splitlines()[-1]


def test_a_model_that_diverges_says_so(capsys):
    """Its loss is nan, and the draw of a character was a traceback."""
    with pytest.raises(SystemExit, match="2"), np.errstate(all="ignore"):
        main(["--steps", "3", "--lr", "1e30"])
    assert "the loss is nan at step" in capsys.readouterr().err
