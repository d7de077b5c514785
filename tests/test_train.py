"""train.py: what a run promises."""

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import TOY, make_text

import tok
import train
from utils.chaos import equal
from utils.reporting.console import Console, time_line
from utils.reporting.csv import COLUMNS, MetricsCSV
from utils.reporting.events import Evaluation, Finished, Interval, Step
from utils.reporting.tracker import Tracker
from utils.runs import latest_run
from utils.training import evaluate as metrics
from utils.training.budget import PARTS, Clock
from utils.training.checkpoint import load_checkpoint
from utils.training.interrupt import Interrupt
from utils.training.models import load_model
from utils.training.step import TrainStep

ROOT = Path(__file__).parent.parent


def rows(run):
    with open(run / "metrics.csv", encoding="utf-8", newline="") as f:
        return list(csv.DictReader(f))


def losses(run):
    """Every number of metrics.csv that must not depend on the clock."""
    names = [c for c in COLUMNS if c not in ("seconds", "tokens_per_s")]
    return [[row[name] for name in names] for row in rows(run)]


def test_a_run_leaves_what_it_promises(toy_run, capfd):
    names = {p.name for p in toy_run.iterdir()}
    assert names == {
        "config.yaml", "tokenizer.json", "metrics.csv", "best.pt", "last.pt", "summary.json"
    }  # fmt: skip
    summary = json.loads((toy_run / "summary.json").read_text(encoding="utf-8"))
    assert summary["steps"] == 6
    assert summary["tokens"] == 6 * 4 * 16
    epochs = 6 * 4 * 16 / summary["data"]["train_tokens"]
    assert summary["epochs"] == pytest.approx(epochs, abs=1e-3)
    assert summary["settings"]["n_layer"] == 1
    val = [float(r["val_loss"]) for r in rows(toy_run) if r["val_loss"]]
    assert summary["best_val_loss"] == min(val)
    assert len(val) == 2
    model, tokenizer, checkpoint = load_model(toy_run)
    assert summary["params"] == model.n_params()
    assert tokenizer.vocab_size == model.config.vocab_size
    assert not any("_orig_mod" in key for key in checkpoint["model"])
    assert latest_run() == Path("runs/my")


STOP = [
    "--steps",
    "12",
    "--accum",
    "3",
    "--dropout",
    "0.2",
    "--log_every",
    "1",
    "--eval_every",
    "4",
]


@pytest.mark.parametrize(
    ("at", "optimizer"), [(4, "adamw"), (5, "adamw"), (7, "adamw"), (5, "muon")]
)
def test_resume_is_exact_to_the_bit(text_file, monkeypatch, at, optimizer):
    """Stopped after step `at`, at an evaluation or between two, and resumed: the same run.

    A run with Muon could not be resumed at all: its matrices have no betas to take over.
    """
    flags = ["--data", str(text_file), *TOY, *STOP, "--optimizer", optimizer]
    assert train.main([*flags, "--run", "whole"]) == 0

    taken = TrainStep.__call__
    count = iter(range(100))

    def step_then_signal(*args, **kwargs):
        result = taken(*args, **kwargs)
        if next(count) == at - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return result

    monkeypatch.setattr(TrainStep, "__call__", step_then_signal)
    assert train.main([*flags, "--run", "cut"]) == 128 + signal.SIGTERM
    assert load_checkpoint(Path("runs/cut/last.pt"))["step"] == at
    monkeypatch.undo()
    torch.manual_seed(99)  # whatever the new process has drawn before
    monkeypatch.setattr("data.hashes.CACHE", Path("cache"))
    monkeypatch.chdir(text_file.parent)
    assert train.main(["--run", "cut", "--resume"]) == 0

    assert losses(Path("runs/cut")) == losses(Path("runs/whole"))
    whole, cut = (load_checkpoint(Path(f"runs/{name}/last.pt")) for name in ("whole", "cut"))
    for key in ("model", "optimizer", "rng", "step", "best_val_loss", "best_step"):
        assert equal(whole[key], cut[key]), key


def test_going_on_for_longer(toy_run):
    assert train.main(["--run", "my", "--resume", "--steps", "9"]) == 0
    assert load_checkpoint(toy_run / "last.pt")["step"] == 9
    assert load_checkpoint(toy_run / "last.pt")["settings"]["d_model"] == 16


def test_a_finished_run_resumed_stays_as_it_is(toy_run):
    before = load_checkpoint(toy_run / "last.pt")
    assert train.main(["--run", "my", "--resume"]) == 0
    assert equal(before["model"], load_checkpoint(toy_run / "last.pt")["model"])
    assert [r["step"] for r in rows(toy_run)] == ["3", "6", "6"]


def test_an_older_run_steps_aside(toy_run, text_file):
    kept = (toy_run / "last.pt").read_bytes()
    for _ in range(2):
        assert train.main(["--data", str(text_file), "--steps", "1", *TOY]) == 0
    assert (toy_run.parent / "my-1" / "last.pt").read_bytes() == kept
    assert (toy_run.parent / "my-2").is_dir()


def test_best_changes_only_on_strict_improvement(text_file, monkeypatch):
    real, values = metrics.evaluate, iter([3.0, 2.0, 2.0, 4.0])

    def scripted(*args):
        score = real(*args)
        return type(score)(next(values) * score.tokens, score.tokens, score.bytes)

    monkeypatch.setattr(metrics, "evaluate", scripted)
    train.main(["--data", str(text_file), "--steps", "4", "--eval_every", "1", *TOY])
    assert load_checkpoint(Path("runs/my/best.pt"))["step"] == 2
    assert load_checkpoint(Path("runs/my/best.pt"))["best_val_loss"] == 2.0
    assert load_checkpoint(Path("runs/my/last.pt"))["step"] == 4


def test_overfit_drives_the_loss_to_nothing(text_file):
    flags = ["--data", str(text_file), *TOY, "--overfit", "--steps", "200", "--lr", "1e-2"]
    flags += ["--dropout", "0"]
    assert train.main(flags) == 0
    assert float(rows(Path("runs/my-overfit"))[-2]["train_loss"]) < 0.1


def test_same_seed_same_run_other_seed_other_run(text_file):
    flags = ["--data", str(text_file), "--steps", "4", "--log_every", "1", "--dropout", "0.1", *TOY]
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        train.main([*flags, "--run", name, "--seed", seed])
    a, b, c = (losses(Path("runs") / name) for name in "abc")
    assert a == b
    assert a != c


def test_sampling_on_the_way_changes_nothing(text_file):
    """The text shown at each evaluation draws from its own generator."""
    flags = [
        "--data",
        str(text_file),
        "--steps",
        "6",
        "--eval_every",
        "2",
        "--dropout",
        "0.1",
        *TOY,
    ]
    train.main([*flags, "--run", "a"])
    train.main([*flags, "--run", "b", "--sample", "0"])
    assert losses(Path("runs/a")) == losses(Path("runs/b"))


def test_non_finite_loss_exits_3_and_keeps_the_last_checkpoint(text_file, monkeypatch, capfd):
    taken, count = TrainStep.__call__, iter(range(100))

    def poisoned(self, *args):
        if next(count) == 5:
            with torch.no_grad():
                self.model.norm.weight[0] = float("nan")
        return taken(self, *args)

    monkeypatch.setattr(TrainStep, "__call__", poisoned)
    flags = ["--data", str(text_file), "--steps", "9", "--eval_every", "3", *TOY]
    assert train.main(flags) == 3
    assert "error: step 5: batch 1 of 1: loss nan" in capfd.readouterr().err
    checkpoint = load_checkpoint(Path("runs/my/last.pt"))
    assert checkpoint["step"] == 3
    assert all(p.isfinite().all() for p in checkpoint["model"].values())


@pytest.mark.skipif(sys.platform == "win32", reason="signals differ")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_finish_the_step_and_say_how_to_go_on(text_file, number, status):
    command = [sys.executable, ROOT / "train.py", "--data", text_file, "--steps", "1000000", *TOY]
    process = subprocess.Popen(
        command, cwd=text_file.parent, stdout=subprocess.PIPE, encoding="utf-8"
    )
    for line in process.stdout:
        if line.startswith("step 1/"):
            break
    process.send_signal(number)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == status
    assert "go on: python train.py --run runs/my --resume" in out
    assert load_checkpoint(text_file.parent / "runs/my/last.pt")["step"] > 0


def test_a_second_signal_acts_at_once():
    old = signal.getsignal(signal.SIGINT)
    with Interrupt() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.signal == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is old


def test_bad_input(text_file, error_of, toy_run):
    """Each is refused in one line that names the value and the cure, and nothing is written."""
    before = sorted(Path("runs").rglob("*"))
    (Path("short.txt")).write_text("far too short", encoding="utf-8")
    Path("empty.txt").touch()
    Path("binary").write_bytes(bytes(range(256)))
    Path("latin1.txt").write_bytes("Märchen ".encode("latin1") * 99)
    Path("bad.yaml").write_text("n_layr: 2\n", encoding="utf-8")
    Path("runs/hollow").mkdir()
    before = sorted(Path("runs").rglob("*"))
    for args, said in [
        (["--data", "none.txt"], "none.txt: no such text; give a file, or make it with"),
        (["--data", "empty.txt"], "empty.txt is empty"),
        (["--data", "binary"], "not UTF-8"),
        (["--data", "latin1.txt"], "not UTF-8 at byte 1"),
        (["--data", "short.txt", "--vocab", "257"], "too short for block_size=192"),
        (["--data", "runs"], "no meta.json"),
        (["--config", "bad.yaml"], "did you mean n_layer?"),
        (["--config", "none.yaml"], "no config file none.yaml"),
        (["--stepz", "3"], "did you mean --steps?"),
        (["--steps", "many"], "steps='many' is not a whole number"),
        (["--d_model", "100", "--n_head", "3"], "try d_model=99"),
        (["--data", str(text_file), "--vocab", "100"], "256"),
        (["--run", "nowhere", "--resume"], "no checkpoint runs/nowhere/last.pt"),
        (["--run", "hollow", "--resume"], "no checkpoint runs/hollow/last.pt"),
        (["--run", "my", "--resume", "--n_layer", "2"], "another model: n_layer 1 there, 2 here"),
        (["--device", "cuda:77"], "cuda:77 is not on this machine"),
        (["--data", str(text_file), "--tokenizer", "bytes"], "neither char nor bpe"),
    ]:
        assert said in error_of(train.main, *args), args
    assert sorted(Path("runs").rglob("*")) == before


def test_other_text_under_a_resumed_run_is_refused(toy_run, text_file, error_of):
    text_file.write_text(make_text(5000), encoding="utf-8")
    assert "the text of my.txt has changed" in error_of(train.main, "--run", "my", "--resume")


def test_another_tokenizer_under_a_resumed_run_is_refused(toy_run, error_of):
    """Of the same size: the model would take its ids and never notice."""
    other = tok.BPETokenizer.train([make_text()[::-1]], 280, special_tokens=("<|endoftext|>",))
    other.save("other.json")
    said = error_of(train.main, "--run", "my", "--resume", "--tokenizer", "other.json")
    assert "the tokenizer of my.txt has changed" in said


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda raw: raw[: len(raw) // 2], "is not a whole checkpoint"),
        (lambda raw: b"", "is not a whole checkpoint"),
        (lambda raw: b"not a checkpoint at all", "is not a whole checkpoint"),
    ],
)
def test_damaged_checkpoints(toy_run, error_of, damage, said):
    path = toy_run / "last.pt"
    path.write_bytes(damage(path.read_bytes()))
    assert said in error_of(train.main, "--run", "my", "--resume")


def test_foreign_checkpoints(toy_run, error_of):
    torch.save({"weights": torch.zeros(2)}, toy_run / "last.pt")
    assert "not a checkpoint of llm-tiny" in error_of(train.main, "--run", "my", "--resume")
    torch.save([1, 2], toy_run / "last.pt")
    assert "not a checkpoint of llm-tiny" in error_of(train.main, "--run", "my", "--resume")
    checkpoint = load_checkpoint(toy_run / "best.pt")
    torch.save({**checkpoint, "version": 99}, toy_run / "last.pt")
    assert "has version 99" in error_of(train.main, "--run", "my", "--resume")
    newer = {**checkpoint["model_config"], "memory_tokens": 8}
    torch.save({**checkpoint, "model_config": newer}, toy_run / "last.pt")
    assert "does not fit this program" in error_of(train.main, "--run", "my", "--resume")
    half = {k: v for k, v in checkpoint["model"].items() if k != "norm.weight"}
    torch.save({**checkpoint, "model": half}, toy_run / "last.pt")
    assert 'Missing key(s) in state_dict: "norm.weight"' in error_of(
        train.main, "--run", "my", "--resume"
    )
    odd = {**checkpoint["model"], "odd": torch.zeros(1)}
    torch.save({**checkpoint, "model": odd}, toy_run / "last.pt")
    assert "does not fit this program" in error_of(train.main, "--run", "my", "--resume")
    torch.save({k: v for k, v in checkpoint.items() if k != "log"}, toy_run / "last.pt")
    assert "it has no 'log'" in error_of(train.main, "--run", "my", "--resume")


class Trap:
    """Unpickled, it calls what it likes."""

    def __reduce__(self):
        return Path.touch, (Path("sprung"),)


def test_a_checkpoint_from_a_stranger_runs_no_code(toy_run, error_of):
    torch.save({**load_checkpoint(toy_run / "last.pt"), "log": Trap()}, toy_run / "last.pt")
    assert "is not a whole checkpoint" in error_of(train.main, "--run", "my", "--resume")
    assert not Path("sprung").exists()


def test_another_optimizer_under_a_resumed_run_is_refused(toy_run, error_of):
    """It was a traceback, or a word about parameter groups."""
    said = error_of(train.main, "--run", "my", "--resume", "--optimizer", "muon")
    assert "state of optimizer=adamw; resume with --optimizer adamw" in said


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_no_permission(text_file, error_of):
    Path("runs").mkdir(mode=0o500)
    assert "Permission denied" in error_of(train.main, "--data", text_file, *TOY)


def test_a_directory_that_is_no_run_is_left_alone(text_file, error_of):
    Path("mine").mkdir()
    Path("mine/keep").write_text("mine", encoding="utf-8")
    flags = ["--data", text_file, "--steps", "1", *TOY]
    assert "mine holds other files" in error_of(train.main, *flags, "--run", "./mine/../mine")
    assert "keep is a file" in error_of(train.main, *flags, "--run", "mine/keep")
    assert Path("mine/keep").read_text(encoding="utf-8") == "mine"
    assert not Path("mine-1").exists()


def test_a_run_under_way_is_not_taken_over(toy_run, text_file, error_of):
    """Two trainings of one name would write into each other's directory."""
    code = "import sys; from utils.runs import lock; f = open(sys.argv[1], 'a')\n"
    code += "print(lock(f), flush=True); sys.stdin.read()"
    held = subprocess.Popen(
        [sys.executable, "-c", code, toy_run / "metrics.csv"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
    )
    assert held.stdout.readline().strip() == b"True"
    flags = ["--data", text_file, "--steps", "1", *TOY]
    assert "is being trained by another process" in error_of(train.main, *flags)
    assert "is being trained by another process" in error_of(
        train.main, "--run", "my", "--resume", "--steps", "9"
    )
    held.communicate()
    assert train.main([str(flag) for flag in flags]) == 0


def test_a_full_disk_is_one_line(toy_run, text_file, error_of, monkeypatch):
    def full(*_):
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos")

    kept = (toy_run / "last.pt").read_bytes()
    monkeypatch.setattr(torch, "save", full)
    said = error_of(train.main, "--run", "my", "--resume", "--steps", "9")
    assert "cannot write runs/my/best.pt; is the disk full?" in said
    assert (toy_run / "last.pt").read_bytes() == kept


def test_a_reader_that_leaves_keeps_what_was_learnt(text_file, monkeypatch):
    """`train.py | head -1`: the run stops, but last.pt is there to go on from."""

    def gone(*_, **__):
        raise BrokenPipeError

    monkeypatch.setattr(train, "loop", gone)
    with pytest.raises(BrokenPipeError):
        train.main(["--data", str(text_file), *TOY])
    assert load_checkpoint(Path("runs/my/last.pt"))["step"] == 0


def test_runs_is_a_file(text_file, error_of):
    Path("runs").write_text("in the way", encoding="utf-8")
    assert "runs" in error_of(train.main, "--data", text_file, "--steps", "1", *TOY)
    assert Path("runs").read_text(encoding="utf-8") == "in the way"


class Now:
    """A clock's hand, moved by hand."""

    seconds = 0.0

    def __call__(self):
        return self.seconds


def test_speed_counts_training_only(tmp_path):
    """10 steps of 100 tokens in 2 s each and an evaluation of 50 s: 50 tokens a second, not 14."""
    now, table = Now(), MetricsCSV(tmp_path)
    tracker = Tracker(Clock(now=now), 100, 5, 10, [table])
    for step in range(1, 11):
        with tracker.clock("steps"):
            now.seconds += 2
        tracker.step(step, loss=1.0 * step, lr=0.1, grad_norm=1.0)
        now.seconds += 5  # evaluation
    table.close()
    first, second = rows(tmp_path)
    assert (first["tokens_per_s"], second["tokens_per_s"]) == ("50", "50")
    assert (first["seconds"], second["seconds"]) == ("10.0", "20.0")
    assert (first["train_loss"], second["train_loss"]) == ("3.0", "8.0")  # means of 1..5, 6..10


def test_the_clock_tells_where_the_time_goes():
    """Parts by hand, also across a resume, with what lies between them, and the line of it."""
    now = Now()
    clock = Clock(now=now)
    for part, seconds in (("steps", 40), ("data", 1), ("evaluation", 4), ("steps", 10)):
        with clock(part):
            now.seconds += seconds
    now.seconds += 2.5
    kept = clock.state()
    now.seconds += 1000  # between two starts
    clock = Clock(**kept, now=now)
    with clock("saving"):
        now.seconds += 2
    assert clock.training == 51
    found = clock.seconds_in()
    times = dict(zip(PARTS, (50, 1, 0, 4, 2, 0), strict=True))
    assert found == {**times, "other": 2.5}
    assert time_line(found) == (
        "time    50.0 s in steps; on top of that: data 2.0%, logging 0.0%, evaluation 8.0%, "
        "saving 4.0%, samples 0.0%, other 5.0%"
    )


def test_a_clock_counts_what_ends_in_an_error_too():
    now = Now()
    clock = Clock({"b": 100.0}, now=now)
    for part, seconds in (("a", 2), ("b", 3)):
        with clock(part):
            now.seconds += seconds
    now.seconds += 5
    with pytest.raises(KeyError), clock("b"):
        raise KeyError
    assert clock.parts == {"a": 2, "b": 103}


def test_a_bar_on_a_terminal_and_lines_elsewhere(capfd):
    now = Now()
    console = Console(0, 3, now)
    for step in (1, 2, 3):
        console(Step(step, 3, 2.0, 100.0, 7.0))
        now.seconds += 4
    console.close()
    assert capfd.readouterr().out.splitlines() == [
        "step 1/3  loss 2.0000  ppl 7.39  100 tok/s  7 s left",
        "step 3/3  loss 2.0000  ppl 7.39  100 tok/s  7 s left",
    ]


def test_callbacks_hear_every_event(text_file):
    """A search, a notebook or a test calls train.run with settings, and listens."""
    flags = ["--data", str(text_file), "--steps", "6", "--eval_every", "3", "--log_every", "2"]
    _, settings = train.parse([*flags, *TOY])
    heard = []
    summary = train.run(settings, callbacks=[heard.append])
    kinds = [type(event) for event in heard]
    assert [kinds.count(kind) for kind in (Step, Interval, Evaluation, Finished)] == [6, 3, 2, 1]
    assert summary == json.loads(Path("runs/my/summary.json").read_text(encoding="utf-8"))
    losses = [event.score.loss for event in heard if isinstance(event, Evaluation)]
    assert summary["best_val_loss"] == min(losses)


def test_a_callback_may_end_a_run(text_file):
    """As a search that prunes does, by an error of its own: the files are closed and whole."""

    class Pruned(Exception):
        pass

    def prune(event):
        if isinstance(event, Evaluation):
            raise Pruned

    flags = ["--data", str(text_file), "--steps", "6", "--eval_every", "3", *TOY]
    with pytest.raises(Pruned):
        train.run(train.parse(flags)[1], callbacks=[prune])
    assert [row["step"] for row in rows(Path("runs/my"))] == ["3"]
    assert train.main(flags) == 0  # nothing is locked


def test_killed_before_the_first_evaluation_a_run_goes_on(text_file, monkeypatch):
    """All was lost but what an evaluation had saved; now it is saved by time, too.

    The run that was stopped in the middle of an interval is still the run that never stopped.
    """
    flags = ["--data", str(text_file), "--steps", "9", "--eval_every", "9", "--log_every", "4"]
    flags += [*TOY, "--dropout", "0.1"]
    assert train.main([*flags, "--run", "whole"]) == 0
    taken, count = TrainStep.__call__, iter(range(99))

    def dies(*args, **kwargs):
        if next(count) == 6:
            raise SystemExit("killed")
        return taken(*args, **kwargs)

    monkeypatch.setattr(TrainStep, "__call__", dies)
    with pytest.raises(SystemExit):
        train.main([*flags, "--run", "cut", "--save_minutes", "1e-9"])
    assert load_checkpoint(Path("runs/cut/last.pt"))["step"] == 6
    monkeypatch.setattr(TrainStep, "__call__", taken)
    assert train.main(["--run", "cut", "--resume"]) == 0
    assert losses(Path("runs/cut")) == losses(Path("runs/whole"))
    whole, cut = (load_checkpoint(Path(f"runs/{name}/last.pt")) for name in ("whole", "cut"))
    assert equal(whole["model"], cut["model"])
    assert train.main([*flags, "--run", "never", "--save_minutes", "0"]) == 0


def test_a_run_accounts_for_its_time(text_file, capfd):
    """Every part takes some time, and together they are the run's; older checkpoints go on."""
    flags = ["--data", str(text_file), "--steps", "6", "--eval_every", "3", *TOY]
    assert train.main(flags) == 0
    assert "in steps; on top of that: data " in capfd.readouterr().out
    found = json.loads(Path("runs/my/summary.json").read_text(encoding="utf-8"))
    parts = found["seconds_in"]
    assert all(parts[name] >= 0 for name in parts)
    assert parts["steps"] > 0 < parts["evaluation"]
    assert parts["saving"] > 0 < parts["samples"]
    assert found["seconds"] == pytest.approx(parts["steps"] + parts["data"], abs=0.002)
    checkpoint = load_checkpoint(Path("runs/my/last.pt"))
    assert set(checkpoint["log"]["parts"]) == set(PARTS)
    del checkpoint["log"]["parts"]  # as 0.1.0 wrote it
    torch.save(checkpoint, "runs/my/last.pt")
    before = checkpoint["log"]["seconds"]
    assert train.main(["--run", "my", "--resume", "--steps", "9"]) == 0
    found = json.loads(Path("runs/my/summary.json").read_text(encoding="utf-8"))
    assert found["seconds_in"]["steps"] > before


def test_metrics_torn_by_a_kill_are_mended_on_resume(toy_run):
    path = toy_run / "metrics.csv"
    whole = path.read_text(encoding="utf-8")
    path.write_text(whole + "7,448,0.1,0.00", encoding="utf-8")
    assert train.main(["--run", "my", "--resume", "--steps", "9", "--log_every", "9"]) == 0
    assert [r["step"] for r in rows(toy_run)] == ["3", "6", "6", "9", "9"]
