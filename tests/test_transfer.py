"""python -m utils.transfer: walks, optima and drift by hand; the whole at toy size."""

import json
import math

import numpy as np
import pytest

from utils.transfer import __main__ as command
from utils.transfer.picture import means
from utils.transfer.search import Found, Panel, best_step, cost, drift, settings, walk


def test_a_walk_ends_where_both_sides_are_worse():
    asked = []

    def loss(k):
        asked.append(k)
        return (k - 5) ** 2

    losses = walk(loss, 2, 1)
    assert losses == {k: (k - 5) ** 2 for k in range(1, 7)}
    assert len(asked) == len(set(asked))  # none twice
    assert set(walk(lambda k: abs(k), 0, 2)) == {-2, -1, 0, 1, 2}
    diverged = walk(lambda k: math.inf if k > 3 else -k, 2, 1)
    assert set(diverged) == {1, 2, 3, 4}
    with pytest.raises(ValueError, match=r"falls on at a learning rate of 1\.02"):
        walk(lambda k: -k, 2, 1)


def test_the_best_step_by_hand():
    """Through (2, 2), (3, 1), (4, 1.5): 3 + (2 - 1.5) / (2 (2 - 2 + 1.5)) = 3 + 1/6."""
    assert best_step({2: 2.0, 3: 1.0, 4: 1.5, 5: 9.0}) == pytest.approx(3 + 1 / 6)
    assert math.isnan(best_step({2: 2.0, 3: 1.0, 4: math.inf}))


def test_drift_by_hand():
    """Half the learning rate at each doubling is -1; seeds that scatter give an error."""
    found = [Found(64, [], [5.0, 5.0]), Found(128, [], [4.0, 4.0]), Found(256, [], [3.0, math.nan])]
    assert drift(found) == pytest.approx((-1, 0), abs=1e-9)
    apart = [Found(64, [], [5.5, 4.5]), Found(128, [], [5.5, 4.5])]
    slope, error = drift(apart)
    assert slope == pytest.approx(0)
    assert error == pytest.approx(np.sqrt(1 / 2 / 1))  # s^2 = 4 x 0.25 / 2, over sum (x - .5)^2 = 1


def test_the_cost_of_the_narrow_ones_learning_rate():
    """At the narrow one's 3 the wide one loses 0.5 and 0.3."""
    wide = Found(512, [{2: 1.0, 3: 1.5}, {2: 1.0, 3: 1.3}], [2.1, 1.9])
    assert cost([Found(64, [], [3.2, 2.9]), wide]) == pytest.approx((0.4, -1.05))
    assert math.isnan(cost([Found(64, [], [6.0, 6.0]), wide])[0])


def test_means_leave_out_what_diverged():
    assert means([{2: 1.0, 3: 2.0}, {2: 3.0, 4: math.inf}]) == ([0.004, 0.008], [2.0, 2.0])


def test_settings_of_a_width(text_file, tmp_path):
    """Heads keep their size, the base width is one run for both."""
    how = {"data": str(text_file), "steps": 20, "root": tmp_path}
    wide = settings(Panel(True, "muon", 0.1), 256, 4, 2, **how)
    assert (wide.model.head_size, wide.model.n_head, wide.model.hidden) == (32, 8, 512)
    assert (wide.optim.mup_width, wide.optim.lr, wide.optim.weight_decay) == (64, 0.016, 0.1)
    assert (wide.train.seed, wide.train.steps, wide.model.tie_weights) == (2, 20, False)
    base = [settings(Panel(mup, "adamw"), 64, 3, 1, **how) for mup in (True, False)]
    assert base[0] == base[1]
    assert settings(Panel(False, "adamw"), 128, 3, 1, **how).optim.mup_width == 0


def test_widths_that_cannot_be(error_of):
    assert "widths=[48] must be multiples of 32" in error_of(command.main, "--widths", "48")


@pytest.mark.slow
def test_the_whole_at_toy_size(tmp_path, capfd):
    flags = ["--widths", "64", "96", "--seeds", "2", "--steps", "6", "--only", "adamw"]
    command.main([*flags, "--out", "out"])
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [r["panel"] for r in results] == ["standard, AdamW", "muP, AdamW"]
    assert all(len(r["widths"]) == 2 and len(r["widths"][0]["best"]) == 2 for r in results)
    assert results[0]["widths"][0] == results[1]["widths"][0]  # the base
    assert "standard, AdamW: drift" in capfd.readouterr().out
    assert (tmp_path / "out" / "transfer.png").stat().st_size > 10_000
    assert not list((tmp_path / "out").rglob("*.pt"))
    made = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("summary.json")}
    command.main([*flags, "--out", "out"])
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("summary.json")} == made
