"""utils/chaos.py: kill a run, resume it, compare; and that the comparison sees a difference."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import TOY

from utils import chaos
from utils.training.checkpoint import load_checkpoint

STEPS = ["--sample", "8", "--dropout", "0.1", "--accum", "3", "--log_every", "3"]


def said_of(capfd, *args):
    status = chaos.main([str(a) for a in args])
    return status, capfd.readouterr().out


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_killed_in_a_save_and_resumed(text_file, capfd):
    """A real process dies while it writes a checkpoint; the run ends as one that was left alone."""
    flags = ["--data", text_file, *TOY, *STEPS, "--steps", "30", "--eval_every", "2"]
    status, said = said_of(capfd, "--kills", "1", "c", *flags)
    assert status == 0
    assert "killed while it saved" in said
    assert "equal to the bit" in said


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_killed_again_and_again(text_file, capfd):
    flags = ["--data", text_file, *TOY, *STEPS, "--steps", "300", "--eval_every", "10"]
    status, said = said_of(capfd, "--kills", "6", "--moments", "1", "c", *flags)
    assert status == 0
    assert said.count("killed while it saved") >= 2


def test_differences_are_seen(toy_run):
    other = toy_run.with_name("other")
    shutil.copytree(toy_run, other)
    assert chaos.differences(toy_run, other) == []
    checkpoint = load_checkpoint(other / "last.pt")
    checkpoint["model"]["norm.weight"][0] += 1e-6
    checkpoint["optimizer"]["state"][0]["step"] += 1
    torch.save(checkpoint, other / "last.pt")
    text = (other / "metrics.csv").read_text(encoding="utf-8").splitlines()
    (other / "metrics.csv").write_text("\n".join(text[:-1]) + "\n", encoding="utf-8")
    found = chaos.differences(toy_run, other)
    assert found == ["last.pt: model", "last.pt: optimizer", "metrics.csv"]


def test_it_tells_of_a_difference_and_of_a_run_that_fails(toy_run, capfd, monkeypatch, error_of):
    """Without trainings: what is started copies a run, and once changes a byte of the log."""
    left = iter([0, 1])

    def start(path, flags):
        shutil.copytree(toy_run, path)
        if next(left):
            rows = (path / "metrics.csv").read_text(encoding="utf-8")
            (path / "metrics.csv").write_text(rows.replace("\n6,", "\n7,", 1), encoding="utf-8")
        return subprocess.Popen([sys.executable, "-c", ""])

    monkeypatch.setattr(chaos, "start", start)
    status, said = said_of(capfd, "--kills", "0", "d")
    assert status == 1
    assert "not equal: metrics.csv" in said
    assert "runs/d-whole is there already" in error_of(chaos.main, "d")
    monkeypatch.undo()
    monkeypatch.chdir(toy_run.parent.parent)
    assert "ended with status 2" in str(failure("--lr", "no"))


def failure(*flags):
    with pytest.raises(ValueError, match=r"train\.py ended") as e:
        chaos.finish(chaos.start(Path("runs/e"), flags))
    return e.value
