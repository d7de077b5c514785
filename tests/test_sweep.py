"""sweep.py: what is tried, in which processes, how it is ranked; the Optuna study."""

import csv
import math
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import TOY, make_text
from sweep_tools import breaks, trains

import sweep as script
import train
from utils.sweep.loop import train_all
from utils.sweep.one_run import GO_ON, PRUNE, STOP, Pruned, train_one
from utils.sweep.picture import draw
from utils.sweep.space import Range, Sweep, choices_of
from utils.sweep.table import Board, Point, best_of, remarks, row, table
from utils.sweep.workers import Pool

ROOT = Path(__file__).parent.parent
CONFIG = str(ROOT / "configs" / "tiny.yaml")


def sweep_of(space, **kwargs):
    return Sweep(CONFIG, Path("runs/sweep-t"), space, **kwargs)


def trained(sweep, points, train_run=trains, jobs=0):
    """The board after all points."""
    board = Board(sweep.path, sweep.varied)
    with Pool(train_run, jobs) as pool:
        train_all(sweep, pool, board, [Point(values) for values in points])
    return board


def rows_of(path):
    with open(path, encoding="utf-8") as f:
        return list(csv.DictReader(f))


def test_values_lists_and_ranges():
    assert choices_of("lr", ["1e-3", "1e-2"]) == [0.001, 0.01]
    assert choices_of("lr", ["1e-3..1e-2"]) == Range(0.001, 0.01)
    assert choices_of("n_layer", ["1..4"]) == Range(1, 4, whole=True)
    assert choices_of("data", ["../my.txt"]) == ["../my.txt"]  # no number, so no range
    assert [Range(1, 10).log, Range(1, 9).log, Range(0, 1).log] == [True, False, False]
    with pytest.raises(ValueError, match=r"lr=2..1 is empty; write the smaller number first"):
        choices_of("lr", ["2..1"])


def test_points_of_a_grid_and_at_random():
    space = {"lr": [0.1, 0.2], "n_layer": [1, 2], "steps": [5]}
    grid = list(sweep_of(space).grid())
    assert len(grid) == 4
    assert grid[1] == {"lr": 0.1, "n_layer": 2, "steps": 5}
    assert sorted(map(str, sweep_of(space).draw(9))) == sorted(map(str, grid))  # each once
    ranges = sweep_of({"lr": Range(1e-4, 1e-1), "n_layer": Range(1, 3, True), "steps": [5]})
    points = ranges.draw(200)
    assert points == ranges.draw(200)
    assert points != ranges.draw(200, seed=1)
    assert {p["n_layer"] for p in points} == {1, 2, 3}
    below = sum(p["lr"] < 10**-2.5 for p in points)  # half of them, on the log scale
    assert 70 < below < 130
    assert all(p["lr"] == float(f"{p['lr']:.4g}") for p in points)
    with pytest.raises(ValueError, match=r"lr=0.0001..0.1 is a range; add --random 20"):
        ranges.grid().__next__()
    assert isinstance(Range(1, 3, True).draw(random.Random(0)), int)


def test_equal_tokens_are_as_many_steps_as_they_make():
    """With B and T doubled a quarter of the steps, and ten evaluations of each."""
    sweep = sweep_of({"batch_size": [4, 8], "block_size": [16, 32]}, tokens=64_000)
    found = {}
    for values in sweep.grid():
        s = sweep.settings(values, None)
        found[s.train.batch_size, s.model.block_size] = s.train.steps, s.train.eval_every
        assert s.tokens_per_step * s.train.steps == 64_000
    assert found == {
        (4, 16): (1000, 100),
        (4, 32): (500, 50),
        (8, 16): (500, 50),
        (8, 32): (250, 25),
    }


def test_the_winners_command_trains_the_same_settings():
    """Typed again, it is the run of the sweep, but for name, seed and sample."""
    space = {"lr": [0.02], "bias": [True, False], "doc_sep": ["\n\n"]}
    sweep = sweep_of(space, seeds=[7], tokens=50_000)
    values = next(sweep.grid())
    words = shlex.split(sweep.command(values))
    assert words[:2] == ["python", "train.py"]
    _, again = train.parse([*words[2:], "--seed", "7", "--sample", "0", "--run", "x"])
    own = sweep.settings(values, 7)
    assert again.model == own.model
    assert again.optim == own.optim
    assert again.data == own.data
    assert (again.train.steps, again.train.eval_every) == (own.train.steps, own.train.eval_every)


def test_rows_by_hand(capsys):
    runs = [{"val_loss": x, "bits_per_byte": 2 * x, "accuracy": x / 2, "seconds": 3.0, "tokens": 9,
             "params": 5, "dtype": "float32"} for x in (1.0, 1.2)]  # fmt: skip
    point = Point({"lr": 0.1}, runs=runs)
    assert point.finish() == pytest.approx(1.1)
    assert row(point) == {
        "lr": 0.1, "val_loss": 1.1, "val_loss_sd": 0.1414, "val_ppl": 3.0, "bits_per_byte": 2.2,
        "bits_per_byte_sd": 0.2828, "accuracy": 0.55, "accuracy_sd": 0.0707, "next_accuracy": "",
        "next_accuracy_sd": "", "seconds": 3.0, "seconds_sd": 0.0, "tokens": 9, "params": 5,
        "seeds": 2, "status": "done", "note": "",
    }  # fmt: skip
    bad = Point({"lr": 0.3}, runs=[{**runs[0], "val_loss": math.inf, "dtype": "bfloat16"}])
    assert bad.finish() == math.inf
    assert bad.status == "diverged"
    crashed = Point({"lr": 0.2}, "crashed", "why")
    points = [crashed, bad, point]
    assert [line.split()[0] for line in table(points, ["lr"]).splitlines()] == [
        "lr",
        "0.1",
        "0.3",
        "0.2",
    ]
    assert "... and 1 more" in table(points, ["lr"], most=2)
    assert best_of(points) is point
    assert "(bfloat16, float32)" in remarks(points)[0]
    with pytest.raises(ValueError, match="no point was trained to its end: why"):
        best_of([crashed])


def test_a_point_that_crashes_is_reported_and_the_others_go_on(capsys):
    """By an error, by the end of its process, by settings that do not go together."""
    sweep = sweep_of({"lr": [0.1, 0.2, 0.01], "d_model": [16], "n_head": [2, 3]}, seeds=[1, 2])
    points = trained(sweep, sweep.grid(), breaks, jobs=2).points
    by = {(p.values["lr"], p.values["n_head"]): p for p in points}
    assert (by[0.1, 2].status, by[0.1, 2].note) == ("crashed", "out of memory")
    assert (by[0.2, 2].status, by[0.2, 2].note) == ("crashed", "its process ended with exit code 9")
    assert by[0.01, 2].score == pytest.approx(1.05 + 0.1 * 2)  # three layers
    assert by[0.01, 3].status == "crashed"
    assert "try d_model" in by[0.01, 3].note
    out = capsys.readouterr().out
    assert "lr=0.1,n_head=2  crashed: out of memory" in out
    assert "[6/6]" in out
    rows = rows_of("runs/sweep-t/results.csv")
    assert [r["status"] for r in rows] == ["done"] + ["crashed"] * 5
    assert "RuntimeError" in Path("runs/sweep-t/lr=0.1,n_head=2,seed=1.log").read_text()


def test_across_tokenizers_bits_per_byte_decide():
    """A smaller vocabulary has the smaller loss per token, whatever the model has learnt."""
    sweep = sweep_of({"vocab": [300, 600]})
    assert sweep.measure == "bits_per_byte"
    assert sweep_of({"vocab": [300], "lr": [1, 2]}).measure == "val_loss"
    runs = [{"val_loss": x, "bits_per_byte": 3 - x, "dtype": ""} for x in (1.0, 2.0)]
    points = [Point({"vocab": 300}, runs=[r], measure=sweep.measure) for r in runs]
    assert [p.finish() for p in points] == [2.0, 1.0]
    assert best_of(points) is points[1]


def test_runs_prune_and_stop_as_they_are_told():
    settings = sweep_of({"lr": [0.01]}).settings({"lr": 0.01}, None)
    heard = []

    def answer(percent, loss, bits):
        heard.append((percent, bits is not None))
        return {50: PRUNE, 75: STOP}.get(percent, GO_ON)

    with pytest.raises(Pruned):
        train_one(trains, settings, answer)
    assert heard == [(25, True), (50, True)]  # bits per byte come with scores of validation
    with pytest.raises(KeyboardInterrupt):
        train_one(trains, settings, lambda percent, *_: STOP if percent == 75 else GO_ON)
    assert train_one(trains, settings)["val_loss"] == pytest.approx(1.2 + 0.1 * 1336)
    assert math.isnan(train_one(breaks, settings)["bits_per_byte"])  # found; it has no metrics.csv


def test_threads_are_shared_among_jobs(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr("utils.sweep.workers.cores", lambda: 8)
    Pool(trains, 1)
    assert "OMP_NUM_THREADS" not in os.environ
    Pool(trains, 3)
    assert os.environ.pop("OMP_NUM_THREADS") == "2"


@pytest.mark.parametrize("space", [
    {"lr": [0.01, 0.1]},
    {"lr": Range(1e-3, 1e-1)},
    {"lr": [0.01, 0.1], "n_layer": [1, 2]},
    {"lr": Range(1e-3, 1e-1), "n_layer": [1, 2]},
    {"lr": Range(1e-3, 1e-1), "n_layer": [1, 2], "dropout": Range(0, 0.5)},
])  # fmt: skip
def test_a_picture_for_any_number_of_settings(space):
    sweep = sweep_of(space, seeds=[1, 2])
    points = trained(sweep, sweep.draw(4)).points
    points[0].runs[0]["val_loss"] = math.inf  # one that diverged is left out
    assert Path(draw(sweep, points)).read_bytes().startswith(b"\x89PNG")
    assert draw(sweep, []) == ""


def test_a_terminal_sees_one_table_that_changes(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    clock = iter(range(99))
    board = Board(Path("runs/sweep-t"), ["lr"], now=lambda: next(clock))
    board.points = [Point({"lr": 0.1}), Point({"lr": 0.2})]
    board.draw()
    board.points[0].note = "50 %"
    board.draw()
    first, second = capsys.readouterr().out.split("\x1b[3F")
    assert "waiting" in first
    assert "50 %" in second
    assert second.startswith("\x1b[J")


def test_flags_that_do_not_go_together(error_of):
    two = ["--lr", "1e-3", "1e-2"]
    for flags, said in (
        (["--random", "3", "--optuna", "3", *two], "--random and --optuna exclude each other"),
        (["--storage", "x", *two], "--storage is a study's; add --optuna 20"),
        (["--tokens", "9", "--steps", "3", *two], "leave out --steps and --minutes"),
        (["--jobs", "-1", *two], "jobs=-1 must not be negative"),
        (["--seed", "1..3", *two], "seed=1..3 is a range; name each seed"),
        (["--lr", "1e-3..1e-2"], "lr=0.001..0.01 is a range; add --random 20 or --optuna 20"),
    ):
        assert said in error_of(script.main, *flags)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_sweep_that_is_killed_goes_on_where_it_was(tmp_path):
    """kill -9: its workers save and end; called again, no step is taken twice."""
    (tmp_path / "my.txt").write_text(make_text(), encoding="utf-8")
    flags = ["--data", "my.txt", "--steps", "800", "--eval_every", "800", "--name", "t", *TOY]
    flags += ["--lr", "1e-3", "1e-2", "--jobs", "2", "--log_every", "5"]
    command = [sys.executable, str(ROOT / "sweep.py"), *flags]
    first = subprocess.Popen(command, cwd=tmp_path)
    runs = [tmp_path / "runs" / "sweep-t" / f"lr={lr}" for lr in (0.001, 0.01)]
    while not all((r / "metrics.csv").exists() and len(rows_of(r / "metrics.csv")) for r in runs):
        time.sleep(0.1)
    first.send_signal(signal.SIGKILL)
    first.wait()
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "best by validation loss" in done.stdout
    for r in runs:
        steps = [int(line["step"]) for line in rows_of(r / "metrics.csv") if line["train_loss"]]
        assert steps == list(range(5, 801, 5))
        assert "from step" in Path(f"{r}.log").read_text()
