"""The Optuna study of sweep.py: sampling, pruning, going on, several processes."""

import os
import socket
import sys
from pathlib import Path

import pytest
from sweep_tools import breaks, trains
from test_sweep import rows_of, sweep_of

import sweep as script
import train
from utils.sweep.space import Range
from utils.sweep.study import alive, open_study, search, suggest
from utils.sweep.table import Board, best_of
from utils.sweep.workers import Pool

optuna = pytest.importorskip("optuna", reason="needs optuna: pip install -e '.[sweep]'")
SPACE = {"lr": Range(1e-3, 1e-1), "n_layer": [1, 2]}


def searched(sweep, n, train_run=trains, jobs=0, storage="", **kwargs):
    """(study, board) after a search for n trials."""
    study = open_study(sweep, storage, **kwargs)
    board = Board(sweep.path, sweep.varied)
    with Pool(train_run, jobs) as pool:
        search(study, sweep, pool, board, n)
    return study, board


def states(study):
    return [t.state.name for t in study.trials]


def test_a_study_prunes_and_finds_what_is_best():
    sweep = sweep_of(SPACE, seeds=[1])
    study, board = searched(sweep, 25)
    assert len(study.trials) == 25
    assert states(study).count("PRUNED") > 3
    assert states(study)[:5] == ["COMPLETE"] * 5
    best = best_of(board.points)
    assert best.values["n_layer"] == 1
    assert 0.005 < best.values["lr"] < 0.02
    assert study.best_value == pytest.approx(best.score)
    pruned = [p for p in board.points if p.status == "pruned"]
    assert all(not p.runs and p.note for p in pruned)
    unpruned, _ = searched(sweep_of(SPACE, seeds=[2]), 8, storage="other/x.journal", prune=False)
    assert states(unpruned) == ["COMPLETE"] * 8


def test_a_study_goes_on_to_its_number_and_knows_its_settings():
    sweep = sweep_of(SPACE, seeds=[1, 2])
    first, _ = searched(sweep, 3)
    before = [t.params for t in first.trials]
    second, board = searched(sweep, 5)
    assert len(second.trials) == 5
    assert [t.params for t in second.trials[:3]] == before
    assert len(board.points[0].runs) == 2  # both seeds, from the storage
    assert len({str(t.params) for t in second.trials}) == 5
    third, board = searched(sweep, 5)  # all there
    assert len(third.trials) == 5
    assert len(board.points) == 5
    other = sweep_of({**SPACE, "n_layer": [1, 3]}, seeds=[1, 2])
    with pytest.raises(ValueError, match="study sweep-t tries other settings; choose another"):
        open_study(other, "")


def test_a_crashed_trial_counts_and_the_study_goes_on():
    sweep = sweep_of({"lr": [0.1, 0.01, 0.02], "n_layer": [1]})
    study, board = searched(sweep, 3, breaks, sampler="grid")
    assert sorted(states(study)) == ["COMPLETE", "COMPLETE", "FAIL"]
    assert {p.note for p in board.points if p.status == "crashed"} == {"out of memory"}
    assert len(rows_of("runs/sweep-t/results.csv")) == 3


def test_samplers_and_what_they_are_not_for():
    grid, _ = searched(sweep_of({"lr": [0.1, 0.01], "n_layer": [1, 2]}), 9, sampler="grid")
    assert len({str(t.params) for t in grid.trials}) == len(grid.trials) == 4  # and ends there
    qmc, _ = searched(sweep_of(SPACE), 4, sampler="qmc", storage="q.journal")
    assert len(qmc.trials) == 4
    with pytest.raises(ValueError, match="sampler=grid needs values, not a range of lr"):
        open_study(sweep_of(SPACE), "g.journal", "grid")
    with pytest.raises(ValueError, match="sampler=qmc spreads over ranges"):
        open_study(sweep_of({"lr": [0.1, 0.2]}), "h.journal", "qmc")


def test_what_is_cut_short_is_tried_again_first():
    """By Ctrl-C, or with a process that was killed: the same values, so its run goes on."""
    sweep = sweep_of(SPACE, seeds=[1])

    def interrupted(settings, **_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        searched(sweep, 3, interrupted)
    study = open_study(sweep, "")
    killed = study.ask()  # by a process that is no more
    for name, choices in SPACE.items():
        suggest(killed, name, choices)
    killed.set_user_attr("worker", f"{socket.gethostname()}:{2**22 + 1}")
    elsewhere = study.ask()  # on another machine: perhaps it is at work
    elsewhere.set_user_attr("worker", "elsewhere:1")
    again, board = searched(sweep, 3)
    assert states(again)[:3] == ["FAIL", "FAIL", "RUNNING"]
    assert [t.params for t in again.trials[3:5]] == [t.params for t in again.trials[:2]]
    assert states(again)[3:] == ["COMPLETE"] * 3
    assert [p.status for p in board.points] == ["done"] * 3
    assert alive(f"{socket.gethostname()}:{os.getppid()}")
    assert not alive(f"{socket.gethostname()}:{os.getpid()}")  # this one has only just begun


def test_processes_share_a_journal():
    """Two workers here; then another process's study on the same file knows all of it."""
    sweep = sweep_of({"lr": Range(1e-3, 1e-1)}, seeds=[1])
    study, _ = searched(sweep, 4, jobs=2, storage="s.journal")
    assert 4 <= len(study.trials) <= 5
    _, board = searched(sweep, 4, storage="s.journal")
    assert len(board.points) == len(study.trials)


def test_without_optuna_the_extra_is_named(monkeypatch, error_of):
    monkeypatch.setitem(sys.modules, "optuna", None)
    said = error_of(script.main, "--optuna", "2", "--lr", "1e-3", "1e-2")
    assert said == "error: optuna is not installed; pip install -e '.[sweep]'"


def test_a_storage_that_does_not_answer_is_one_line(error_of):
    flags = ["--lr", "1e-3", "1e-2", "--storage", "nosuch://x"]
    assert "storage=nosuch://x: " in error_of(script.main, "--optuna", "2", *flags)


def test_sweep_searches_by_optuna(monkeypatch, capfd):
    monkeypatch.setattr(train, "run", trains)
    flags = ["--optuna", "6", "--lr", "1e-3..1e-1", "--jobs", "0", "--name", "t", "--steps", "4"]
    script.main(flags)
    out = capfd.readouterr().out
    assert "best by validation loss: lr=" in out
    assert "python train.py --lr" in out
    assert Path("runs/sweep-t/study.journal").exists()
    assert Path("runs/sweep-t/results.png").exists()
