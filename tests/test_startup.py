"""What a command waits for before it does something: the modules that it imports."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import model
from utils.training.lean import AdamW

ROOT = Path(__file__).parent.parent
COMMANDS = ["train.py", "sample.py", "eval.py", "sweep.py", "bench.py"]
MODULES = ["data.prepare", "data.stories", "tok.bpe", "utils.chaos", "utils.plot"]
MODULES += ["utils.tokenizer_report", "utils.serve", "utils.doctor"]
AT_EXIT = """
import atexit, runpy, sys
atexit.register(lambda: print(sorted(sys.modules.keys() & set({heavy!r})), file=sys.stderr))
sys.argv = {argv!r}
sys.path[0] = {root!r}
runpy.{call}({name!r}, run_name="__main__")
"""


def imported(command, *args, heavy=("torch",), status=0):
    """Which of `heavy` a command has imported when it ends."""
    script = command.endswith(".py")
    name = str(ROOT / command) if script else command
    values = {"argv": [command, *map(str, args)], "root": str(ROOT), "name": name, "heavy": heavy}
    code = AT_EXIT.format(**values, call="run_path" if script else "run_module")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8")
    assert done.returncode == status, done.stderr
    return done.stderr.splitlines()[-1]


@pytest.mark.parametrize("command", COMMANDS + MODULES)
def test_help_comes_before_torch(command):
    """torch takes two seconds to import, and --help took three."""
    assert imported(command, "--help") == "[]"


@pytest.mark.parametrize(
    "args",
    [
        ("train.py", "--stpes", "3"),
        ("train.py", "--lr", "-1"),
        ("train.py", "--d_model", "100", "--n_head", "8"),
        ("sample.py", "--top_p", "2"),
        ("sample.py", "--stop", ""),
        ("sample.py", "--run", "x", "--prompt-file", "no.txt"),
        ("sample.py",),  # no run to write with
        ("eval.py", "--batch_size", "0"),
        ("sweep.py", "--lr", "1"),
        ("bench.py", "--runs", "0"),
    ],
    ids=" ".join,
)
def test_a_wrong_flag_is_refused_before_torch(args):
    assert imported(*args, status=2) == "[]"


def test_a_run_needs_no_dynamo(toy_run):
    """torch's optimizers import torch._dynamo, 1 to 2 s of work, to tell it to leave them alone."""
    heavy = "torch", "torch._dynamo", "matplotlib", "transformers"
    args = "--config", toy_run / "config.yaml", "--run", "new", "--steps", "2", "--eval_every", "2"
    assert imported("train.py", *args, "--optimizer", "muon", heavy=heavy) == "['torch']"
    more = "--run", "new", "--resume", "--steps", "3"
    assert imported("train.py", *more, heavy=heavy) == "['torch']"
    assert imported("sample.py", "--run", "new", "--steps", "3", heavy=heavy) == "['torch']"
    assert imported("eval.py", "--run", "new", heavy=heavy) == "['torch']"


def test_the_end_searches_no_garbage():
    """Python's last collection went through all that torch had made: half a second."""
    code = "import atexit, gc; atexit.register(lambda: print(gc.get_freeze_count() > 0));"
    code += "from tok.cli import run; run(lambda args: 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == b"True"


def test_model_offers_its_names_when_they_are_asked_for():
    assert all(getattr(model, name) for name in model.__all__)
    with pytest.raises(AttributeError, match="'model' has no attribute 'TinyGTP'"):
        _ = model.TinyGTP
    code = "import sys, model.config; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == b"False"


def trained(make, state=None, steps=4):
    """Parameters and state after steps with gradients drawn from a seed, one of them None."""
    draw = torch.Generator().manual_seed(0)
    params = [torch.randn(5, 3, generator=draw), torch.randn(4, generator=draw), torch.ones(2)]
    params = [torch.nn.Parameter(p) for p in params]
    groups = [{"params": params[:1], "weight_decay": 0.1}, {"params": params[1:]}]
    optimizer = make(groups)
    if state is not None:
        optimizer.load_state_dict(state)
    for _ in range(steps):
        for p in params[:2]:
            p.grad = torch.randn(p.shape, generator=draw)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return params, optimizer.state_dict()


@pytest.mark.parametrize("fused", [True, False])
def test_adamw_is_torchs_to_the_bit(fused):
    """State dicts too, so that a checkpoint of either is the other's."""
    kwargs = {"lr": 1e-2, "betas": (0.8, 0.95), "fused": fused}
    ours, state = trained(lambda groups: AdamW(groups, **kwargs))
    theirs, their_state = trained(lambda groups: torch.optim.AdamW(groups, **kwargs))
    assert all(map(torch.equal, ours, theirs))
    assert ours[2].tolist() == [1, 1]
    assert state.keys() == their_state.keys()
    assert state["param_groups"] == their_state["param_groups"]
    for i in (0, 1):
        assert state["state"][i].keys() == their_state["state"][i].keys()
        assert all(torch.equal(v, their_state["state"][i][k]) for k, v in state["state"][i].items())
    crossed, _ = trained(lambda groups: AdamW(groups, **kwargs), their_state)
    back, _ = trained(lambda groups: torch.optim.AdamW(groups, **kwargs), state)
    assert all(map(torch.equal, crossed, back))
