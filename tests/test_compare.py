"""utils.compare and utils.spread: is a difference more than the seeds' spread?"""

import math

import pytest
from sweep_tools import write_run

from utils import compare
from utils.spread import difference, mean, sd, two_sided


def test_means_and_spreads_by_hand():
    assert mean([1, 2, 6]) == 3
    assert sd([1, 3]) == pytest.approx(math.sqrt(2))
    assert math.isnan(mean([]))
    assert math.isnan(sd([1]))
    assert math.isnan(sd([1, math.inf]))


def test_welch_by_hand():
    """a: mean 2, var 1, n 3; b: mean 5, var 4, n 3: t = 3 / sqrt(5/3), df = (5/3)^2 / (17/18)."""
    d = difference([1, 2, 3], [3, 5, 7])
    assert d.delta == 3
    assert d.t == pytest.approx(3 / math.sqrt(5 / 3))
    assert d.df == pytest.approx((5 / 3) ** 2 / (17 / 18))
    assert d.spread == pytest.approx(math.sqrt(2.5))
    assert difference([3, 5, 7], [1, 2, 3]).t == -d.t
    assert two_sided(2.776445, 4) == pytest.approx(0.05, abs=1e-6)  # the tables of Student's t
    assert two_sided(12.7062, 1) == pytest.approx(0.05, abs=1e-6)
    assert two_sided(0, 3) == pytest.approx(1)


def test_welch_is_scipys():
    stats = pytest.importorskip("scipy.stats")
    for a, b in ([1.0, 2.5, 2.0], [1.1, 3.0, 2.2, 4.0]), ([0.3, 0.31], [0.2, 0.9, 0.5]):
        ours, theirs = difference(a, b), stats.ttest_ind(b, a, equal_var=False)
        assert ours.t == pytest.approx(theirs.statistic)
        assert ours.df == pytest.approx(theirs.df)
        assert ours.p == pytest.approx(theirs.pvalue, abs=1e-7)


def test_one_seed_against_several_and_none():
    d = difference([1.0, 2.0, 3.0], [5.0])  # sd 1 for both: t = 3 / sqrt(1/3 + 1)
    assert d.t == pytest.approx(3 / math.sqrt(4 / 3))
    assert d.df == 2
    assert math.isnan(difference([1.0], [2.0]).p)
    assert difference([1.0, 1.0], [2.0, 2.0]).p == 0
    assert difference([1.0, 1.0], [1.0, 1.0]).p == 1


def test_seeds_that_it_takes():
    """For a difference of one sd the tables of power say 17 a side (80 %, 5 %)."""
    d = difference([-1.0, 0.0, 1.0], [0.0, 1.0, 2.0])
    assert d.seeds == 17
    assert difference([0.0, 1.0], [9.0, 10.0]).seeds == 2
    assert difference([0.0, 1.0], [0.0, 1.0]).seeds == math.inf


def test_compare_says_what_differs_and_whether_it_matters(capsys):
    write_run("a", [2.0, 2.02, 1.98], lr=0.01)
    write_run("b", [1.5, 1.52, 1.48], lr=0.02, n_layer=2)
    write_run("c", [2.01, 1.99, 2.03], lr=0.01)
    compare.main(["a-seed*", "b-seed*", "runs/c-seed*"])
    out = capsys.readouterr().out
    lines = {line.split("  ")[0]: line.split() for line in out.splitlines()}
    assert lines["lr"][1:] == ["0.01", "0.02", "0.01"]
    assert lines["seeds"][1:] == ["3", "3", "3"]
    assert "2.0000 ± 0.0200" in out
    assert "B - A, validation loss: -0.5000; t = -30.62, df = 4.0" in out
    assert "more than the seeds' spread" in out
    assert "C - A, validation loss: +0.0100; t = 0.61" in out
    assert "within the seeds' spread (0.0200); seen with 64 seeds each, if it is real" in out
    assert "dropout" not in out  # the same everywhere


def test_compare_with_one_seed_says_so(capsys):
    write_run("a", [2.0], lr=0.01)
    write_run("b", [1.5], lr=0.01)
    compare.main(["a-seed1", "b-seed1"])
    out = capsys.readouterr().out
    assert "-0.5000; with one seed each nobody knows: train more, --seed 1 2 3" in out
    assert "their settings are the same" in out


def test_compare_refuses_what_does_not_compare(error_of, monkeypatch):
    write_run("a", [2.0, 2.1])
    write_run("b", [1.5], n_layer=2)
    assert "a-seed1 with; name a second run" in error_of(compare.main, "a-seed1")
    assert "no finished run none" in error_of(compare.main, "a-seed1", "none")
    said = error_of(compare.main, "*-seed1", "a-seed1")
    assert "means runs that differ in n_layer; narrow it to the seeds" in said
    group = compare.read("a-seed*")
    other = compare.Group(
        "x", group.settings, [{"text_sha256": "u", "val_bytes": 9}], group.figures
    )
    with pytest.raises(ValueError, match="their texts differ"):
        compare.measure([group, other])
    by_bytes = [{"text_sha256": "t", "val_bytes": 9, "tokenizer_sha256": "k"}]
    other = compare.Group("x", group.settings, by_bytes, group.figures)
    assert compare.measure([group, other])[0] == "bits_per_byte"
