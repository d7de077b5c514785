"""python -m utils.scaling: the fit finds what is known, minima by hand, the whole at toy size."""

import json

import numpy as np
import pytest
from conftest import make_text

from utils.parabola import minimum
from utils.scaling import __main__ as command
from utils.scaling.fit import Fit, chinchilla, fit, huber, isoflop_minimum, kaplan, line
from utils.scaling.plan import Plan, count, plans, settings, with_seeds
from utils.scaling.report import of_law

TRUE = np.array([[np.log(1.2), np.log(8.0), np.log(60.0), 0.3, 0.4]])  # E, A, B, alpha, beta
N = np.tile([5e3, 1e4, 2e4, 4e4, 8e4], 4)
D = np.repeat([1e5, 3e5, 1e6, 3e6], 5)


def test_the_minimum_of_a_parabola_by_hand():
    assert minimum([0, 1, 3], [9, 6, 6]) == pytest.approx((2, 5))  # (x - 2)^2 + 5
    at = [1e6, 1e6 + 1, 1e6 + 3]  # far from 0
    assert minimum(at, [9, 6, 6]) == pytest.approx((1e6 + 2, 5))
    N, L = isoflop_minimum([np.e, np.e**2, np.e**4], [9, 6, 6])  # the same over log N
    assert pytest.approx((np.e**3, 5)) == (N, L)
    with pytest.raises(ValueError, match="no minimum between 0 and 2; widen the range"):
        minimum([0, 1, 2], [3, 2, 1.5])
    with pytest.raises(ValueError, match="no minimum"):
        minimum([0, 1, 2], [1, 2, 1])  # it has a maximum
    with pytest.raises(ValueError, match="three points, not 2"):
        minimum([0, 1, 1], [1, 2, 3])


def test_laws_by_hand():
    """2 + 3 / 100^0.5 + 4 / 10,000^0.25 = 2 + 0.3 + 0.4; Kaplan's (0.1 + 0.01)^0.5."""
    theta = np.array([[np.log(2), np.log(3), np.log(4), 0.5, 0.25]] * 2)
    found = np.exp(chinchilla(theta, np.array([100.0, 400.0]), np.array([1e4, 1e4])))
    assert found == pytest.approx(np.array([[2.7, 2.55]] * 2))
    theta = np.array([[np.log(10.0), np.log(20.0), 0.25, 0.5]])
    found = np.exp(kaplan(theta, np.array([1000.0]), np.array([2000.0])))
    assert found[0, 0] == pytest.approx((0.01**0.5 + 0.01) ** 0.5)


def test_huber_by_hand():
    assert huber(np.array([0.5, -3.0]), 1.0) == pytest.approx([0.125, 2.5])


def test_the_fit_finds_what_is_known():
    """Without noise to four digits; with noise of 0.1 % what is true lies in its interval."""
    exact = fit(chinchilla, N, D, np.exp(chinchilla(TRUE, N, D)[0]), resamples=2)
    assert exact.theta == pytest.approx(TRUE[0], rel=1e-3)
    noise = np.random.default_rng(0).normal(0, 1e-3, len(N))
    found = fit(chinchilla, N, D, np.exp(chinchilla(TRUE, N, D)[0] + noise), resamples=40)
    figures = of_law(found)
    for name, true in {"E": 1.2, "alpha": 0.3, "beta": 0.4, "a": 4 / 7}.items():
        value, low, high = figures[name]
        assert low < value < high
        assert low - (high - low) / 2 < true < high + (high - low) / 2, name
    truth = float(np.exp(chinchilla(TRUE, np.array([2e5]), np.array([1e7])))[0, 0])
    low, high = found.interval(2e5, 1e7)
    assert low < truth < high
    assert high - low < 0.05
    k = np.array([[np.log(1e8), np.log(1e9), 0.1, 0.15]])
    assert fit(kaplan, N, D, np.exp(kaplan(k, N, D)[0]), resamples=2).theta == pytest.approx(
        k[0], rel=1e-3
    )
    with pytest.raises(ValueError, match="6 runs are too few for a law with 5 parameters"):
        fit(chinchilla, N[:6], D[:6], N[:6])


def test_one_run_that_went_wrong_moves_little():
    """Least squares would follow it: Huber's loss does not."""
    L = np.exp(chinchilla(TRUE, N, D)[0])
    L[7] *= 1.2
    found = fit(chinchilla, N, D, L, resamples=2)
    assert found.theta[3:] == pytest.approx(TRUE[0, 3:], abs=0.01)


def test_an_interval_has_the_noise_of_a_run():
    """Fits that agree, residuals of 1 %: what a new run gives lies within 1 %."""
    sure = Fit(chinchilla, TRUE[0], np.repeat(TRUE, 9, 0), np.array([-0.01, 0.01] * 5))
    low, high = sure.interval(1e4, 1e6)
    assert low == pytest.approx(sure.loss(1e4, 1e6) * np.exp(-0.01))
    assert high == pytest.approx(sure.loss(1e4, 1e6) * np.exp(0.01))


def test_a_line_by_hand():
    """y = 2 x + 1 with residuals 1, -2, 1 over 6: s^2 = 1/6, over sum (x - 1)^2 = 2."""
    slope, error, intercept = line(np.array([0.0, 1.0, 2.0]), np.array([7 / 6, 16 / 6, 31 / 6]))
    assert (slope, intercept) == pytest.approx((2, 1))
    assert error == pytest.approx((1 / 6 / 2) ** 0.5)


def test_a_plan_counts_what_is_built():
    """Two layers of 16 by hand: 12 x 16^2 matrices each; V x 16 twice; gains; a convolution."""
    plan = Plan(1e10, (2, 16), 1, 65)
    assert plan.matrices == 2 * 12 * 16**2
    assert plan.matrices + 2 * 65 * 16 + 5 * 16 + 2 * 2 * 8 + 2 * 16 == plan.N
    flops = 6 * (plan.matrices + 65 * 16) + 12 * 2 * 16 * 64
    assert count((2, 16), 65)[2] == flops
    assert 512 * round(1e10 / flops / 512) == plan.D
    some = plans([1e10, 1e11], [(2, 16), (2, 24)], 65)
    assert all(0.7 <= p.D / p.N <= 300 for p in some)
    seeds = [(p.budget, p.seed) for p in with_seeds(some, 3)]
    assert seeds.count((1e10, 3)) == sum(p.budget == 1e10 for p in some)
    assert (1e11, 2) not in seeds


def test_a_schedule_ends_with_the_tokens(text_file, tmp_path):
    plan = Plan(2e10, (2, 24), 5, 30)
    s = settings(plan, str(text_file), tmp_path)
    assert s.train.steps * s.tokens_per_step == plan.D
    assert s.train.eval_every == s.train.steps
    assert (s.model.n_layer, s.model.d_model, s.model.n_head, s.train.seed) == (2, 24, 3, 5)
    assert s.optim.last_lr == 0
    assert s.data.tokenizer == "char"


def test_a_prediction_is_stated_once(tmp_path):
    """It stands when the fit has changed, and none is made of a run that is there."""
    law = Fit(chinchilla, TRUE[0], TRUE, np.zeros(3))
    plan, path = Plan(1e10, (2, 16), 1, 65), tmp_path / "prediction.json"
    first = command.state(path, plan, {"chinchilla": law}, 9)
    assert first["chinchilla"]["loss"] == pytest.approx(law.loss(plan.N, plan.D))
    other = Fit(chinchilla, TRUE[0] + 0.1, TRUE, np.zeros(3))
    assert command.state(path, plan, {"chinchilla": other}, 9) == first
    with pytest.raises(ValueError, match="not C=1e"):
        command.state(path, Plan(1e10, (2, 24), 1, 65), {"chinchilla": law}, 9)
    path.unlink()
    (tmp_path / plan.name).mkdir()
    with pytest.raises(ValueError, match="was trained before a prediction"):
        command.state(path, plan, {"chinchilla": law}, 9)


def test_flags_that_cannot_be(error_of):
    assert "two --budgets or more" in error_of(command.main, "--budgets", "1e9")
    assert "--held-out above them" in error_of(
        command.main, "--budgets", "1e9", "2e9", "--held-out", "1e9"
    )


@pytest.mark.slow
def test_the_whole_at_toy_size(tmp_path, monkeypatch, capfd):
    """A table, a prediction before its run, a picture; called again, nothing is trained."""
    (tmp_path / "my.txt").write_text(make_text(20_000), encoding="utf-8")
    monkeypatch.setattr(command, "SIZES", ((1, 16), (2, 16), (2, 24)))
    flags = ["--from", "my.txt", "--out", "out", "--budgets", "2e8", "4e8", "8e8"]
    flags += ["--held-out", "1.2e9", "--seeds", "2"]
    monkeypatch.setattr("utils.scaling.plan.PER_PARAMETER", (0.1, 1e3))
    command.main(flags)
    said = capfd.readouterr().out
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    stated = json.loads((tmp_path / "out" / "prediction.json").read_text())
    assert results["prediction"] == stated
    assert stated["run"] not in {f"{r}" for r in results["runs"]}
    assert len(results["runs"]) == 12
    assert stated["D"] * stated["N"] > max(r["D"] * r["N"] for r in results["runs"])
    assert f"{results['found']:.4f}" in said
    assert (tmp_path / "out" / "scaling.png").stat().st_size > 10_000
    run = tmp_path / "out" / stated["run"] / "summary.json"
    assert (tmp_path / "out" / "prediction.json").stat().st_mtime < run.stat().st_mtime
    before = run.stat().st_mtime_ns
    command.main(flags)
    assert run.stat().st_mtime_ns == before
