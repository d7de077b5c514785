"""Beside other programs: how threads wait, who sets it when, and the benchmark of it."""

import os
import subprocess
import sys
import threading
from contextlib import ExitStack, contextmanager
from multiprocessing import get_context
from pathlib import Path

import pytest

from tok.cli import spin_briefly
from utils.bench import busy, races
from utils.bench.limits import Limits
from utils.device import pick_device

ROOT = Path(__file__).parent.parent
TOYS = (1, 2, 16, 8, 2, 65)
SPY = """
import os, runpy, sys
class Spy:
    def find_spec(self, name, path, target=None):
        if name == "torch":
            print(os.environ.get("GOMP_SPINCOUNT"), os.environ.get("OMP_WAIT_POLICY"), flush=True)
            os._exit(0)
sys.meta_path.insert(0, Spy())
sys.path[0] = {root!r}
"""
RUN = """
sys.argv = {argv!r}
runpy.run_path({name!r}, run_name="__main__")
"""


def waiting(code, **variables):
    """How threads shall wait when Python code has come to the import of torch."""
    env = {k: v for k, v in os.environ.items() if k not in busy.WAITING} | variables
    code = SPY.format(root=str(ROOT)) + code
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=True)
    return done.stdout.decode().splitlines()[-1]


def test_an_explicit_choice_wins():
    for given in ({}, {"GOMP_SPINCOUNT": "7"}, {"OMP_WAIT_POLICY": "ACTIVE"}):
        found = dict(given)
        spin_briefly(found)
        assert found == (given or {"GOMP_SPINCOUNT": "5000"})


@pytest.mark.parametrize("name", ["train.py", "sample.py", "eval.py", "sweep.py", "bench.py"])
def test_commands_set_it_before_torch_loads_openmp(toy_run, name):
    """libgomp reads it once, when it is loaded: a training beside two programs ran at a tenth."""
    more = {"sweep.py": ["--lr", "1e-3", "2e-3", "--jobs", "0"], "sample.py": ["--prompt", "a"]}
    code = RUN.format(argv=[name, *more.get(name, [])], name=str(ROOT / name))
    assert waiting(code) == "5000 None"
    assert waiting(code, OMP_WAIT_POLICY="ACTIVE") == "None ACTIVE"


def test_imports_change_no_environment():
    """In a notebook it is the user who decides."""
    assert waiting("import tok.cli, model, utils.runs, train; model.TinyGPT") == "None None"


def test_busy_loops_end(monkeypatch):
    started, begin = [], subprocess.Popen
    monkeypatch.setattr(
        subprocess, "Popen", lambda *args: started.append(begin(*args)) or started[-1]
    )
    with busy.busy_loops(2):
        assert [loop.poll() for loop in started] == [None, None]
    assert all(loop.returncode for loop in started)


def test_environment_hides_what_the_user_has_set(monkeypatch):
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    with busy.environment({"GOMP_SPINCOUNT": "3"}):
        assert "OMP_WAIT_POLICY" not in os.environ
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"


def test_a_process_steps_when_it_is_asked():
    ours, theirs = get_context("spawn").Pipe()
    thread = threading.Thread(target=busy.serve, args=(theirs, TOYS, "cpu", "float32", None))
    thread.start()
    for _ in range(2):
        ours.send(True)
        assert ours.recv() is True
    ours.close()
    thread.join(10)
    assert not thread.is_alive()


def test_a_stepper_is_a_process_with_its_own_environment():
    with ExitStack() as stack:
        stepper = busy.Stepper(stack, {"GOMP_SPINCOUNT": "3"}, TOYS, "cpu", "float32", None)
        environ = Path(f"/proc/{stepper.pid}/environ")
        stepper()
        if environ.exists():
            assert b"GOMP_SPINCOUNT=3\0" in environ.read_bytes()
        stepper()


def test_the_race_is_run_beside_zero_one_and_two(monkeypatch):
    loops, closed = [], []

    @contextmanager
    def loop(n):
        loops.append(n)
        yield
        closed.append(n)

    def contenders(stack, shape, device, dtype, nanogpt):
        ways = [busy.as_started(), shape, device, dtype, nanogpt]
        assert ways == [{"GOMP_SPINCOUNT": "5000"}, races.SHAPES["4x128"], "cpu", "auto", "x"]
        return {"us": lambda: None}

    monkeypatch.setattr(races, "busy_loops", loop)
    monkeypatch.setattr(races, "contenders", contenders)
    a = type("Flags", (), {"device": "cpu", "dtype": "auto", "nanogpt": "x"})
    found = []
    for race in races.bench_busy(a, pick_device("cpu"), Limits(1, False, 1), print):
        found.append((race.work, race.rows(1)[0]["who"]))
        assert len(loops) == len(closed) + 1
    assert found == [(f"4x128, {n} busy beside", "us") for n in (0, 1, 2)]
    assert loops == closed == [0, 1, 2]
    assert race.amount == busy.STEPS * 64 * 12


@pytest.mark.skipif(sys.platform == "win32", reason="a command does not begin again there")
@pytest.mark.parametrize("given", ["", "3"])
def test_threads_are_set_before_numpy_is_loaded(given):
    """Its BLAS reads their number once; at small sizes a second one trebled the CPU time."""
    code = (
        "import os, sys; first = os.environ.get('OMP_NUM_THREADS'); import numpy\n"
        "from tok.cli import run\n"
        "run(lambda a: print(first, os.environ['OMP_NUM_THREADS'], *a), threads=1)"
    )
    environ = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    environ |= {"OMP_NUM_THREADS": given} if given else {}
    done = subprocess.run(
        [sys.executable, "-c", code, "--text", "a b"],
        cwd=ROOT, env=environ, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == f"{given or 1} {given or 1} --text a b\n"
