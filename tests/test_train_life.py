"""The life of a run: what ends it, what it keeps, what it says when something goes wrong."""

import csv
import json
import math
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from conftest import TOY

import sweep
import train
from data.sampler import BatchSampler
from model import GPTConfig
from utils import session
from utils.config import OptimConfig, TrainConfig, settings_from
from utils.device import memory_advice, out_of_memory, pick_device
from utils.distributed import SINGLE, Distributed
from utils.reporting.console import Console, headlines
from utils.reporting.csv import MetricsCSV
from utils.reporting.summary import commit
from utils.reporting.tracker import Spikes, Tracker
from utils.runs import latest_run, run_dir
from utils.session import Session
from utils.sweep.one_run import same
from utils.training import evaluate as metrics
from utils.training.budget import Clock, ended_by, steps_in_all
from utils.training.checkpoint import TrainState, load_checkpoint
from utils.training.memory import step_memory
from utils.training.optim import lr_at
from utils.training.step import TrainStep

ROOT = Path(__file__).parent.parent


def rows(run):
    with open(Path("runs") / run / "metrics.csv", encoding="utf-8", newline="") as f:
        return list(csv.DictReader(f))


def summary(run):
    return json.loads(Path("runs", run, "summary.json").read_text(encoding="utf-8"))


def flags_for(text_file, *more):
    return ["--data", str(text_file), *TOY, "--sample", "0", *more]


def toy_session(text_file, **values):
    """A session on the CPU, of which nothing is written."""
    shape = {"n_layer": 1, "n_head": 1, "d_model": 8, "block_size": 8, "vocab": 280}
    settings = settings_from({"data": str(text_file), **shape, **values})
    return Session(settings, pick_device("cpu"), SINGLE)


def test_steps_of_a_budget_by_hand():
    steps, minute = TrainConfig(steps=500), TrainConfig(steps=500, minutes=1)
    assert steps_in_all(100, 1e9, steps) == 500
    assert steps_in_all(0, 0.0, minute) == 500  # nothing is known yet
    assert steps_in_all(100, 30.0, minute) == 200
    assert steps_in_all(100, 59.99, minute) == 101  # at least the one that is next
    assert steps_in_all(100, 60.0, minute) == 100
    assert ended_by(499, 500, 0, steps) == ""
    assert ended_by(500, 500, 0, steps) == "steps"
    assert ended_by(100, 100, 0, minute) == "minutes"
    patient = TrainConfig(patience=2, eval_every=10)
    assert [ended_by(step, 500, 40, patient) for step in (40, 50, 59, 60)] == [
        "",
        "",
        "",
        "patience",
    ]


def test_the_schedule_ends_where_the_minutes_end():
    """At an uneven pace, 0.25 s a step and later 0.5 s, the last rate of a minute is min_lr."""
    train_config, step, seconds, rate = TrainConfig(minutes=1), 0, 0.0, math.nan
    while not ended_by(step, steps := steps_in_all(step, seconds, train_config), 0, train_config):
        rate = lr_at(step, steps, OptimConfig(lr=1.0, min_lr=0.01, warmup=10))
        step, seconds = step + 1, seconds + (0.25 if step < 100 else 0.5)
    assert step == 100 + 70
    assert rate == pytest.approx(0.01, abs=0.001)


def test_minutes_end_a_run(text_file, monkeypatch):
    """Wall time counts, evaluation included, and goes on where a stopped run left it."""
    now = iter(range(10**9))  # a second passes whenever the clock is asked
    monkeypatch.setattr(session, "Clock", partial(Clock, now=lambda: float(next(now))))
    flags = flags_for(text_file, "--minutes", "1", "--eval_every", "4", "--log_every", "1")
    assert train.main([*flags, "--warmup", "0", "--lr", "1e-3", "--min_lr", "1e-4"]) == 0
    found = summary("my")
    assert found["stopped_by"] == "minutes"
    assert 2 < found["steps"] < 60
    assert found["settings"]["minutes"] == 1
    kept = load_checkpoint(Path("runs/my/last.pt"))["log"]["spent"]
    assert 60 <= kept < 90
    assert train.main(["--run", "my", "--resume"]) == 0
    assert summary("my")["steps"] == found["steps"]
    rates = [float(row["lr"]) for row in rows("my") if row["lr"]]
    assert rates[0] == 1e-3
    assert rates[-1] < 2e-4  # down to min_lr, though 1,000 steps were far away


def test_patience_ends_a_run(text_file, monkeypatch):
    """The same whether it was stopped between: evaluations without a better one are counted on."""
    real, values = metrics.evaluate, iter([3.0, 2.0, 2.5, 2.0, 9.0])

    def scripted(*args):
        score = real(*args)
        return type(score)(next(values) * score.tokens, score.tokens, score.bytes)

    monkeypatch.setattr(metrics, "evaluate", scripted)
    flags = flags_for(text_file, "--eval_every", "2", "--patience", "2")
    assert train.main([*flags, "--steps", "50"]) == 0
    found = summary("my")
    assert (found["stopped_by"], found["steps"], found["best_step"]) == ("patience", 8, 4)
    values = iter([3.0, 2.0, 2.5, 2.0, 9.0])
    assert train.main([*flags, "--steps", "6", "--run", "two"]) == 0
    assert train.main(["--run", "two", "--resume", "--steps", "50"]) == 0
    found = summary("two")
    assert (found["stopped_by"], found["steps"], found["best_step"]) == ("patience", 8, 4)


def test_keep_holds_the_newest_snapshots(text_file):
    flags = flags_for(text_file, "--steps", "10", "--eval_every", "2", "--keep", "2")
    assert train.main(flags) == 0
    kept = sorted(p.name for p in Path("runs/my").glob("step*.pt"))
    assert kept == ["step10.pt", "step8.pt"]
    assert load_checkpoint(Path("runs/my/step8.pt"))["step"] == 8
    assert load_checkpoint(Path("runs/my/last.pt"))["step"] == 10


def test_spikes_by_hand():
    """50 losses of 2 +- 0.1: mean 2, deviation 0.1; 2.59 is within 6 of them, 2.62 is not."""
    spikes = Spikes()
    assert not any(spikes.add(2 + 0.1 * (-1) ** i) for i in range(50))
    assert spikes.mean == pytest.approx(2)
    assert spikes.variance == pytest.approx(0.01)
    again = Spikes(*spikes.state())
    assert not again.add(2.59)
    assert spikes.add(2.62)
    assert (spikes.since, spikes.total) == (1, 1)
    assert not Spikes().add(1e9)  # nothing to compare with


def test_spikes_and_overflows_are_told(tmp_path, capsys):
    table = MetricsCSV(tmp_path)
    tracker = Tracker(Clock(), 100, 10, 80, [table, Console(0, 80)])
    for step in range(1, 81):
        spike, overflow = step == 64, step in (3, 4)
        tracker.step(step, 9.0 if spike else 2 + step % 2 / 10, 0.1, math.inf if overflow else 1.0)
    table.close()
    again = Tracker(Clock(), 100, 10, 80, state=tracker.state())
    assert again.overflows == 2
    assert (again.spikes.n, again.spikes.total) == (80, 1)
    assert "step 64/80  loss spike: 9.0000 after 2.0" in capsys.readouterr().out
    with open(tmp_path / "metrics.csv", encoding="utf-8", newline="") as f:
        assert [row["spikes"] for row in csv.DictReader(f)] == ["0"] * 6 + ["1", "0"]


def test_the_batch_that_is_not_finite_is_named(text_file, monkeypatch, capfd):
    """The second of three micro-batches; what stays is the checkpoint of step 3, and a summary."""
    count = iter(range(100))
    real = BatchSampler.batch

    def drawn(self, number):
        x, y = real(self, number)
        return (x * 0 + 279, y) if next(count) == 4 * 3 + 1 else (x.clamp(max=278), y)

    monkeypatch.setattr(BatchSampler, "batch", drawn)
    begin = Session.begin

    def poisoned(self):
        state = begin(self)
        state.model.tok_emb.weight.data[279] = math.nan
        return state

    monkeypatch.setattr(Session, "begin", poisoned)
    monkeypatch.setattr(metrics, "evaluate", lambda *_: metrics.Score(2.0, 1, 1))
    flags = flags_for(text_file, "--steps", "9", "--eval_every", "3", "--accum", "3")
    assert train.main([*flags, "--tie_weights", "false"]) == 3
    said = capfd.readouterr()
    assert "error: step 4: batch 2 of 3: loss nan" in said.err
    assert "done" not in said.out
    assert load_checkpoint(Path("runs/my/last.pt"))["step"] == 3
    assert summary("my")["stopped_by"] == "diverged"


def test_a_run_that_diverges_at_once_has_a_summary(text_file, monkeypatch):
    def diverge(*_, **__):
        raise FloatingPointError("loss nan")

    monkeypatch.setattr(TrainStep, "__call__", diverge)
    assert train.main(flags_for(text_file)) == 3
    assert summary("my")["best_val_loss"] is None


def test_summary_says_where_it_comes_from(toy_run, tmp_path):
    found = summary("my")
    assert found["stopped_by"] == "steps"
    assert (found["seed"], found["ranks"], found["spikes"], found["overflows"]) == (1337, 1, 0, 0)
    assert found["peak_memory"] > 1e7
    assert {"commit", "dirty"} <= found.keys()
    assert commit(tmp_path) == {"commit": None, "dirty": None}
    (tmp_path / ".git").write_text("not one", encoding="utf-8")
    assert commit(tmp_path) == {"commit": None, "dirty": None}


def test_commit_of_a_checkout(tmp_path):
    def git(*args):
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        command = ["git", "-C", str(tmp_path), *who, *args]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init")
    (tmp_path / "f").write_text("1", encoding="utf-8")
    git("add", "f")
    git("commit", "-m", "one")
    head = git("rev-parse", "HEAD")
    assert commit(tmp_path) == {"commit": head, "dirty": False}
    (tmp_path / "new").touch()  # not tracked, so no part of what ran
    assert commit(tmp_path) == {"commit": head, "dirty": False}
    (tmp_path / "f").write_text("2", encoding="utf-8")
    assert commit(tmp_path) == {"commit": head, "dirty": True}


def test_fp16_scaler_is_resumed(text_file):
    """The scale and its growth tracker go through the checkpoint."""
    states = []
    for init in (2.0**10, 2.0**16):
        state = toy_session(text_file).state
        state.scaler = torch.amp.GradScaler("cpu", init_scale=init, growth_interval=7)
        state.scaler.scale(torch.ones(1))  # makes the scale, which is lazy
        states.append(state)
    one, other = states
    one.scaler._growth_tracker.fill_(5)
    one.save(Path("a.pt"), {})
    other.load(load_checkpoint(Path("a.pt")))
    assert other.scaler.state_dict() == one.scaler.state_dict()
    assert other.scaler.state_dict()["scale"] == 2.0**10
    assert other.scaler.state_dict()["_growth_tracker"] == 5


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
        MemoryError("Unable to allocate 8 TiB"),
    ],
)
def test_out_of_memory_names_the_cure(text_file, monkeypatch, error_of, error):
    def full(*_, **__):
        raise error

    monkeypatch.setattr(TrainStep, "__call__", full)
    said = error_of(train.main, *flags_for(text_file, "--accum", "3"))
    assert (
        "out of memory at batch_size=4; try --batch_size 2 with --accum 6, or --recompute" in said
    )


def test_out_of_memory_for_real(text_file, error_of):
    flags = flags_for(text_file, "--batch_size", str(10**13))
    assert "out of memory at batch_size=10000000000000" in error_of(train.main, *flags)


def test_other_errors_are_not_taken_for_it():
    assert not out_of_memory(RuntimeError("shapes differ"))
    with pytest.raises(RuntimeError, match="shapes differ"), memory_advice(16, 1):
        raise RuntimeError("shapes differ")
    with pytest.raises(ValueError, match="batch_size=1; try --recompute"), memory_advice(1, 1):
        raise MemoryError


def test_dry_run_writes_nothing(text_file, capfd):
    before = sorted(Path().rglob("*"))
    assert train.main(flags_for(text_file, "--accum", "3", "--steps", "7", "--dry-run")) == 0
    said = capfd.readouterr().out
    assert sorted(Path().rglob("*")) == before
    for words in (
        "parameters  7,600",
        "tokens      192 a step, 1,344 in 7 steps",
        "MB",
        "ms a step",
    ):
        assert words in said
    train.main(flags_for(text_file, "--minutes", "2", "--dry-run"))
    assert "steps in --minutes 2, " in capfd.readouterr().out


def test_memory_by_hand():
    """More of everything is more; recomputing and a smaller batch are less."""
    config = GPTConfig(vocab_size=64, block_size=64, n_layer=4, n_head=2, d_model=64)
    cpu, optim = pick_device("cpu"), OptimConfig()

    def bytes_of(B=8, recompute=False, **changes):
        return step_memory(replace(config, **changes), optim, cpu, B, recompute)

    base = bytes_of()
    params = 4 * (12 * 64 * 64 + 13 * 64) + 2 * 64 * 64 + 2 * 64  # weights and biases, tied head
    assert base > 16 * params  # weight, gradient and two moments, 4 bytes each
    assert bytes_of(B=16) > base > bytes_of(B=4)
    assert bytes_of(recompute=True) < base
    assert bytes_of(attn="naive") > base
    muon = step_memory(config, replace(optim, optimizer="muon"), cpu, 1, False)
    assert muon > 12 * params  # weight, gradient and one moment, and the products of a step


MEASURE = """
import sys, json, torch
from utils.bench.workloads import two_steps
from utils.device import peak_memory
from utils.training.memory import resident
torch.set_num_threads(1)
shape = json.loads(sys.argv[1])
two_steps((1, 1, 8, 8, 1, min(shape[-1], 2048)), "sdpa", "cpu", "float32")  # what torch loads
before = resident()
two_steps(shape, sys.argv[2], "cpu", "float32")
print(before, peak_memory())
"""
SHAPES = [
    ((4, 4, 128, 192, 12, 1000), "sdpa"),
    ((6, 6, 384, 256, 8, 65), "sdpa"),
    ((2, 4, 256, 256, 16, 8000), "sdpa"),
    ((2, 4, 128, 512, 16, 200), "naive"),
]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("shape", "attn"), SHAPES)
def test_memory_is_what_is_measured(shape, attn):
    """Tensors to 5 %, where the allocator gives all back; the whole process to 20 % as it comes.

    For a large vocabulary torch's fused loss imports torch._dynamo, some 75 MB.
    """
    n_layer, n_head, d_model, T, B, V = shape
    config = GPTConfig(V, T, n_layer, n_head, d_model, bias=False, attn=attn)
    expected = step_memory(config, OptimConfig(), pick_device("cpu"), B, False)
    command = [sys.executable, "-c", MEASURE, json.dumps(shape), attn]
    for exact in (False, True):
        env = {**os.environ, **({"MALLOC_MMAP_THRESHOLD_": "65536"} if exact else {})}
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, cwd=ROOT, env=env
        )
        before, peak = map(int, done.stdout.split())
        if exact:
            assert expected == pytest.approx(peak - before, rel=0.05)
        else:
            assert before + expected == pytest.approx(peak, rel=0.2)


@pytest.mark.skipif(sys.platform == "win32", reason="signals differ")
def test_a_second_ctrl_c_stops_at_once(toy_run):
    """In the midst of a step of 100,000 micro-batches; the checkpoint stays, and loads."""
    kept = (toy_run / "last.pt").read_bytes()
    command = [sys.executable, ROOT / "train.py", "--run", "my", "--resume", "--steps", "9"]
    process = subprocess.Popen(
        [*command, "--accum", "100000"], stdout=subprocess.PIPE, encoding="utf-8"
    )
    for line in process.stdout:
        if line.startswith("note"):
            break
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    assert process.poll() is None  # the step is not done
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert (toy_run / "last.pt").read_bytes() == kept
    assert train.main(["--run", "my", "--resume", "--steps", "9", "--accum", "1"]) == 0


def test_a_start_that_was_killed_leaves_nothing_in_the_way(text_file, monkeypatch):
    """Killed between two files of a new run, its directory was refused as one of other files."""
    real = session.open_run

    def killed(*args, **kwargs):
        monkeypatch.setattr("shutil.copyfile", lambda *_: 1 / 0)
        return real(*args, **kwargs)

    monkeypatch.setattr(session, "open_run", killed)
    with pytest.raises(ZeroDivisionError):
        train.main(flags_for(text_file, "--steps", "1"))
    monkeypatch.undo()
    monkeypatch.chdir(text_file.parent)
    monkeypatch.setattr("data.hashes.CACHE", Path("cache"))
    assert not Path("runs/my").exists()
    assert train.main(flags_for(text_file, "--steps", "1")) == 0
    Path("runs/my/last.pt.77.tmp").write_bytes(b"torn")
    assert train.main(["--run", "my", "--resume", "--steps", "2"]) == 0
    assert not list(Path("runs/my").glob("*.tmp"))


def test_rows_after_the_checkpoint_are_cut(toy_run):
    """A killed run had written rows of steps that it will take again."""
    whole = (toy_run / "metrics.csv").read_text(encoding="utf-8")
    row = whole.splitlines()[-1].replace("6,", "8,", 1)
    (toy_run / "metrics.csv").write_text(whole + row + "\n", encoding="utf-8")
    assert train.main(["--run", "my", "--resume", "--steps", "7", "--log_every", "9"]) == 0
    assert [r["step"] for r in rows("my")] == ["3", "6", "6", "7", "7"]


def test_what_fsdp_cannot_do_is_refused(text_file, error_of):
    flags = [*flags_for(text_file)[:-2], "--parallel", "fsdp", "--sample", "5"]
    assert "parallel=fsdp cannot write sample=5; use --sample 0" in error_of(train.main, *flags)
    flags = [*flags_for(text_file), "--parallel", "fsdp", "--optimizer", "muon"]
    assert "optimizer=muon needs full matrices" in error_of(train.main, *flags)
    for name in ("minutes", "patience", "keep", "save_minutes"):
        said = error_of(train.main, f"--{name}", "-1")
        assert f"{name}=-1" in said
        assert "must be 0 or more" in said


def test_sweep_keeps_what_diverged_and_resumes_what_stopped(text_file, monkeypatch, capfd):
    """A diverged run was trained again each time, an interrupted one from its start."""
    flags = ["--data", str(text_file), "--steps", "6", "--eval_every", "2", "--name", "t"]
    flags += [*TOY[:-4], "--vocab", "280", "--n_layer", "1", "--lr", "1e-3", "1e-2", "--jobs", "0"]
    real, calls = TrainStep.__call__, iter(range(10**6))

    def dies(*args, **kwargs):
        if next(calls) == 4:
            raise FloatingPointError("loss nan")
        return real(*args, **kwargs)

    monkeypatch.setattr(TrainStep, "__call__", dies)
    sweep.main(flags)
    assert "inf" in capfd.readouterr().out
    taken = []
    monkeypatch.setattr(TrainStep, "__call__", lambda *args, **_: taken.append(1) or real(*args))
    sweep.main(flags)
    assert not taken
    assert "inf" in capfd.readouterr().out
    run = Path("runs/sweep-t/lr=0.01")
    (run / "summary.json").unlink()  # as if it had been killed just before
    state = load_checkpoint(run / "last.pt")
    assert state["step"] == 6
    sweep.main(flags)
    assert not taken  # all six steps were there: it went on from last.pt, and was done
    assert not Path("runs/sweep-t/lr=0.01-1").exists()
    assert (run / "summary.json").exists()


def test_patience_ends_a_run_only_where_it_is_scored(text_file):
    """Resumed with another eval_every or patience, it ended between two, unsaved."""
    flags = flags_for(text_file, "--eval_every", "4", "--steps")
    assert train.main([*flags, "6"]) == 0
    more = ["--steps", "40", "--patience", "1", "--lr", "0.5", "--min_lr", "0.5"]
    assert train.main(["--run", "my", "--resume", *more]) == 0
    found = summary("my")
    assert found["stopped_by"] == "patience"
    assert load_checkpoint(Path("runs/my/last.pt"))["step"] == found["steps"]
    assert found["steps"] % 4 == 0


def test_tokens_are_counted_not_computed(text_file):
    """A resume with another batch size told the new one's for all steps before."""
    assert train.main(flags_for(text_file, "--steps", "6", "--eval_every", "6")) == 0
    more = ["--steps", "9", "--batch_size", "8", "--log_every", "3"]
    assert train.main(["--run", "my", "--resume", *more]) == 0
    assert summary("my")["tokens"] == 6 * 4 * 16 + 3 * 8 * 16 == int(rows("my")[-1]["tokens"])


def test_a_resume_that_ends_at_once_is_scored(text_file):
    """Stopped before its first evaluation and resumed for no more steps, it had no best.pt."""
    s = toy_session(text_file, run="my", steps=9, sample=0)
    with s:
        s.open(())
        s.state.step = 5
        s.save("last.pt")
    assert train.main(["--run", "my", "--resume", "--steps", "5"]) == 0
    assert summary("my")["best_step"] == 5
    assert Path("runs/my/best.pt").exists()


def test_a_run_from_a_program_is_named_after_its_text(text_file):
    """Without a name, runs/ itself became the run, and was moved aside by the next one."""
    shape = {"n_layer": 1, "n_head": 1, "d_model": 8, "block_size": 8, "vocab": 280, "sample": 0}
    settings = settings_from({"data": str(text_file), "steps": 1, **shape})
    for _ in range(2):
        assert train.run(settings)["stopped_by"] == "steps"
    assert sorted(p.name for p in Path("runs").iterdir()) == ["my", "my-1"]
    with pytest.raises(ValueError, match="a run needs a name"):
        run_dir("")


def test_a_run_in_a_thread(text_file):
    """A search with threads: there signals cannot be caught, which was an error."""
    shape = {"n_layer": 1, "n_head": 1, "d_model": 8, "block_size": 8, "vocab": 280, "sample": 0}
    settings = settings_from({"data": str(text_file), "steps": 1, **shape})
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(train.run, settings).result()["steps"] == 1


def test_a_sweep_knows_its_runs_by_whatever_dtype_auto_was():
    """A summary says what auto was: each finished combination was gone through again."""
    settings = settings_from({"lr": 0.01})
    assert same({"lr": 0.01, "sampling": "shuffle", "dtype": "bfloat16"}, settings)
    float32 = settings_from({"lr": 0.01, "dtype": "float32"})
    assert not same({"lr": 0.01, "sampling": "shuffle", "dtype": "bfloat16"}, float32)


def test_a_sweep_that_0_1_0_began_knows_its_runs():
    """A run's settings without `sampling` are those of random windows, in a sweep, too."""
    settings = settings_from({"sampling": "random", "lr": 0.01})
    assert same({"lr": 0.01}, settings)
    assert not same({"lr": 0.01}, settings_from({"lr": 0.01}))


def test_the_newest_run_is_not_one_of_a_single_batch():
    for name in ("my", "my-overfit", "my-overfit-1"):
        Path("runs", name).mkdir(parents=True)
        Path("runs", name, "best.pt").touch()
    assert latest_run() == Path("runs/my")


def test_a_run_from_before_sampling_goes_on_at_random(text_file):
    """0.1.0 drew with replacement and had no such setting: its runs must not begin to shuffle."""
    flags = flags_for(text_file, "--sampling", "random", "--eval_every", "3", "--steps")
    assert train.main([*flags, "8", "--run", "whole"]) == 0
    real = TrainState.save

    def stop_at_6(state, path, *rest):
        real(state, path, *rest)
        if state.step == 6 and path.name == "last.pt":
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainState, "save", stop_at_6)
        with pytest.raises(KeyboardInterrupt):
            train.main([*flags, "8", "--run", "old"])
    config = Path("runs/old/config.yaml")
    lines = config.read_text(encoding="utf-8").splitlines()
    config.write_text("\n".join(x for x in lines if "sampling" not in x), encoding="utf-8")
    assert train.main(["--run", "old", "--resume"]) == 0
    assert "sampling: random" in config.read_text(encoding="utf-8")
    one, other = (load_checkpoint(Path(f"runs/{run}/last.pt"))["model"] for run in ("whole", "old"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_headlines_name_budget_and_ranks(text_file):
    s = toy_session(text_file, minutes=2)
    rest = s.settings, s.data, s.state, s.device, Distributed(0, 2), 2 * s.task.tokens
    lines = list(headlines(Path("x"), *rest))
    assert "ranks   2, by ddp" in lines
    assert "steps   2 minutes of 256 tokens" in lines
    s = toy_session(text_file, steps=100)
    rest = s.settings, s.data, s.state, s.device, Distributed(0, 2), 2 * s.task.tokens
    lines = list(headlines(Path("x"), *rest))
    times = 100 * 256 / len(s.data.train)
    assert f"steps   100 of 256 tokens: the text {times:.1f} times" in lines
