"""TensorBoard's event file, and modules with wandb's init, log and finish: what they are told."""

import csv
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import TOY

import train
from utils import plot
from utils.config import flat, settings_from, write_yaml
from utils.reporting import sinks
from utils.reporting.events import Interval
from utils.reporting.tensorboard import TensorBoard
from utils.reporting.trackers import Tracked


def metrics(run):
    with open(Path(run) / "metrics.csv", encoding="utf-8") as f:
        return list(csv.DictReader(f))


@pytest.fixture
def settings(text_file):
    """5 steps with two evaluations; each step is a row."""
    flags = ["--data", str(text_file), "--steps", "5", "--eval_every", "3", "--log_every", "1"]
    return train.parse([*flags, "--run", "t", *TOY])[1]


def told_to(settings, **options):
    """What a module with wandb's three functions is told by a run: [(function, values, step)]."""
    told = []
    module = SimpleNamespace(
        init=lambda config, **options: told.append(("init", config, options)),
        log=lambda values, step: told.append(("log", values, step)),
        finish=lambda: told.append(("finish",)),
    )
    train.run(settings, callbacks=[Tracked(module, settings, **options)])
    return told


def test_a_tracker_is_told_what_metrics_csv_holds(settings):
    told = told_to(settings, project="p", mode="offline")
    assert told[0] == ("init", flat(settings), {"name": "t", "project": "p", "mode": "offline"})
    assert told[-1] == ("finish",)
    logged = told[1:-1]
    steps = [step for _, _, step in logged]
    assert steps == sorted(steps)  # wandb drops what comes late
    losses = {step: v["train/loss"] for _, v, step in logged if "train/loss" in v}
    assert losses == {int(r["step"]): float(r["train_loss"]) for r in metrics("runs/t") if r["lr"]}
    scores = {step: v["val/bits_per_byte"] for _, v, step in logged if "val/loss" in v}
    assert list(scores) == [3, 5]
    assert [step for _, v, step in logged if "sample" in v] == [3, 5]
    assert isinstance(logged[-1][1]["sample"], str)


def test_what_is_watched_goes_to_trackers_and_tensorboard(settings):
    """It did not: only watch.csv had it."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    watched = replace(settings.train, watch=True, tensorboard=True)
    told = told_to(replace(settings, train=watched))
    logged = {(e[2], name): v for e in told if e[0] == "log" for name, v in e[1].items()}
    events = accumulator.EventAccumulator("runs/t")
    events.Reload()
    with open("runs/t/watch.csv", encoding="utf-8") as f:
        rows = list(csv.DictReader(f))
    assert {row["layer"] for row in rows} == {"embedding", "block 1", "head"}
    for row in rows:
        step, layer = int(row["step"]), row["layer"]
        figures = {k: v for k, v in row.items() if v and k not in ("step", "layer")}
        assert "grad_norm" in figures
        for name, value in figures.items():
            shown = {e.step: e.value for e in events.Scalars(f"{name}/{layer}")}
            assert shown[step] == pytest.approx(float(value), rel=1e-4)
            assert logged[step, f"{name}/{layer}"] == pytest.approx(float(value), rel=1e-4)


def test_a_tracker_is_told_that_a_run_diverged(settings):
    optim = replace(settings.optim, lr=1e30, warmup=0, grad_clip=0.0)
    assert told_to(replace(settings, optim=optim))[-1] == ("finish",)


def test_tensorboard_reads_a_run_back(settings):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    train.run(replace(settings, train=replace(settings.train, tensorboard=True)))
    train.main(["--run", "t", "--resume", "--steps", "6"])
    assert not [p for p in Path("runs/t").iterdir() if p.is_dir()]  # all in the run's own files
    events = accumulator.EventAccumulator("runs/t")
    events.Reload()
    rows = metrics("runs/t")
    for name, column in (("train/loss", "train_loss"), ("val/loss", "val_loss")):
        found = [(e.step, pytest.approx(e.value, rel=1e-5)) for e in events.Scalars(name)]
        assert found == [(int(r["step"]), float(r[column])) for r in rows if r[column]]
    assert [e.step for e in events.Tensors("sample/text_summary")] == [3, 5, 6]
    text = events.Tensors("settings/text_summary")[0].tensor_proto.string_val[0]
    assert b"    d_model: 16" in text
    hparams = events.SummaryMetadata("_hparams_/session_start_info").plugin_data
    assert hparams.plugin_name == "hparams"
    assert b"d_model" in hparams.content


def test_tensorboard_shows_a_step_once_that_was_taken_twice(settings, tmp_path):
    """A run that was killed after step 5 and goes on from step 3 writes steps 4 and 5 again."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for first, step in ((1.0, 0), (10.0, 3)):
        writer = TensorBoard(tmp_path, settings, step)
        for i in range(step + 1, 6):
            writer(Interval(i, 0, 0.0, 0.1, first + i, 0.0, 0.0, 0))
        writer.close()
    events = accumulator.EventAccumulator(str(tmp_path))
    events.Reload()
    found = [(e.step, e.value) for e in events.Scalars("train/loss")]
    assert found == [(1, 2), (2, 3), (3, 4), (4, 14), (5, 15)]


def test_tensorboard_without_its_extra_is_refused_before_a_run_begins(settings, monkeypatch):
    monkeypatch.setattr(sinks, "find_spec", lambda name: None)
    wanted = replace(settings, train=replace(settings.train, tensorboard=True))
    with pytest.raises(ValueError, match=r"pip install 'llm-tiny\[tensorboard\]'"):
        train.run(wanted)
    assert not Path("runs").exists()


def test_labels_of_a_plot_name_the_settings_that_differ(settings, tmp_path):
    for name, values in {"a": {"lr": 0.01}, "b": {"n_layer": 2, "lr": 0.001}}.items():
        (tmp_path / name).mkdir()
        own = settings_from({**flat(settings), "run": name, **values})
        write_yaml(own, tmp_path / name / "config.yaml")
    (tmp_path / "c").mkdir()
    runs = [tmp_path / name for name in "abc"]
    assert plot.labels(runs[:2]) == ["a: n_layer=1, lr=0.01", "b: n_layer=2, lr=0.001"]
    assert plot.labels(runs[:1]) == ["a"]
    assert plot.labels(runs)[2] == "c"  # nothing is known of it
