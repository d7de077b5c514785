"""utils.ablate: what is tried, equal time by hand, differences, resume, the whole end to end."""

import csv
import json
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import TOY
from sweep_tools import trains

from utils.ablate import __main__ as ablate
from utils.ablate import pace, tuning
from utils.ablate.loop import Notes, train_all
from utils.ablate.plan import TIME, TOKENS, Plan, settings_of, slug, texts_of
from utils.ablate.results import Results
from utils.ablate.variants import ABLATIONS, BASELINE, chosen
from utils.config import flat, read_yaml, settings_from
from utils.spread import difference, t_bound
from utils.sweep.workers import Pool

BASE = settings_from({**read_yaml(ablate.CONFIG), "run": "runs/ablate"})
QUICK = [*TOY, "--jobs", "0", "--steps", "4", "--seeds", "2"]


def plan_of(only=(), ratios=None, seeds=(1, 2), texts=("a", "b"), **changes):
    """A plan of texts that need not be there, every step as long as the baseline's."""
    variants = chosen(only, flat(BASE))
    even = {v.name: 1.0 for v in variants} | (ratios or {})
    baseline = replace(BASE, train=replace(BASE.train, **changes))
    paths = {name: f"{name}.txt" for name in texts}
    return Plan(baseline, paths, variants, seeds, dict.fromkeys(texts, even))


def rows_of(plan, bits, equal=TOKENS, text="a"):
    """Rows as of trained runs: {variant: bits per byte of each seed}."""
    return [
        {"text": text, "variant": name, "equal": equal, "seed": i, "params": 7, "bits_per_byte": x}
        for name, xs in bits.items()
        for i, x in enumerate(xs, 1)
    ]


def table_of(path):
    """The rows of a results.csv."""
    with path.open(encoding="utf-8", newline="") as f:
        return list(csv.DictReader(f))


# the table of what is tried


def test_every_variant_is_a_setting_that_can_be_trained():
    """Each differs from the baseline, in what it says; no two are the same."""
    plan = plan_of()
    assert [a.name for a in ABLATIONS] == list(dict.fromkeys(v.ablation for v in plan.variants[1:]))
    assert {a.question for a in ABLATIONS if a.question.endswith("?")} == {
        a.question for a in ABLATIONS
    }
    found = [flat(settings_of(v, BASE)) for v in plan.variants]
    assert len({json.dumps(f, sort_keys=True) for f in found}) == len(plan.variants) == 23
    for variant, values in zip(plan.variants, found, strict=True):
        changed = {k for k, x in values.items() if x != found[0][k]}
        asked = {k for k, x in variant.settings.items() if x != found[0][k]}
        assert changed == asked | ({"lr"} if variant.lr_factor != 1 else set())


def test_what_the_issue_asks_for_is_in_the_table():
    """By settings: positions, norms, activations, heads, dropout, optimizers, vocabularies."""
    wanted = [("pos", x) for x in ("learned", "sinusoidal", "rope", "none")]
    wanted += [("norm", "layernorm"), ("norm", "rmsnorm"), ("norm_at", "pre"), ("norm_at", "post")]
    wanted += [("mlp", x) for x in ("gelu", "relu2", "swiglu")]
    wanted += [("tie_weights", True), ("tie_weights", False), ("qk_norm", True)]
    wanted += [("dropout", x) for x in (0.0, 0.1, 0.2)]
    wanted += [("optimizer", "adamw"), ("optimizer", "muon"), ("tokenizer", "char")]
    wanted += [("vocab", x) for x in (300, 600, 1200, 2400)] + [("n_kv_head", x) for x in (1, 2)]
    found = [flat(settings_of(v, BASE)) for v in plan_of().variants]
    for name, value in wanted:
        assert any(f[name] == value for f in found), (name, value)
    assert min(f["window"] for f in found if f["window"]) > 0


def test_a_gated_mlp_has_as_many_weights():
    """At the baseline's width 3 x 256 = 2 x 384: the question is of the shape, not of the size."""
    sizes = {}
    for variant in plan_of(["mlp"]).variants:
        model = settings_of(variant, BASE).model
        sizes[variant.name] = model.hidden * (3 if model.gated else 2)
    assert sizes == {BASELINE: 768, "ReLU²": 768, "SwiGLU": 768}


def test_what_the_baseline_has_is_no_variant():
    muon = replace(BASE, optim=replace(BASE.optim, optimizer="muon"))
    names = [v.name for v in chosen(["optimizer", "norm"], flat(muon))]
    assert names == [BASELINE, "LayerNorm", "AdamW"]
    with pytest.raises(ValueError, match=r"ablation position; did you mean positions\?"):
        chosen(["position"], flat(BASE))


# which runs there are


def test_equal_time_by_hand():
    """300 steps at 1.5 times the baseline's time are 200 steps; within 5 % nothing is run again."""
    ratios = {"Muon": 1.5, "LayerNorm": 0.8, "QK-norm": 1.04, "SwiGLU": 0.94}
    plan = plan_of(["optimizer", "norm", "qk_norm", "mlp"], ratios, steps=300)
    by_time = [r for r in plan.runs() if r.equal == TIME]
    found = {r.variant.name: r.settings.train.steps for r in by_time}
    assert found == {"Muon": 200, "LayerNorm": 375, "SwiGLU": 319}
    assert len(by_time) == 3 * 2 * 2
    assert {r.settings.train.eval_every for r in by_time} == {200, 375, 319}  # once, at the end
    by_tokens = [r for r in plan.runs() if r.equal == TOKENS]
    assert {r.settings.train.steps for r in by_tokens} == {300}
    assert len(by_tokens) == 6 * 2 * 2


def test_the_first_text_is_done_first_and_seed_by_seed():
    plan = plan_of(["optimizer"], {"Muon": 2.0})
    order = [(r.equal, r.text, r.seed) for r in plan.runs()]
    assert order == sorted(order, key=lambda o: (o[0] == TIME, o[1:]))
    assert [r.variant.name for r in plan.runs()][:2] == [BASELINE, "Muon"]


def test_runs_lie_apart_and_have_their_learning_rate():
    plan = plan_of(ratios=dict.fromkeys(("Muon", "LayerNorm"), 1.5))
    runs = [*plan.runs(), *tuning.runs_of(plan, [0.5, 2.0])]
    paths = [r.settings.train.run for r in runs]
    assert len(set(paths)) == len(paths)
    by = dict(zip(paths, runs, strict=True))
    assert by["runs/ablate/a/Muon-lr2-seed1"].settings.optim.lr == pytest.approx(4 * BASE.optim.lr)
    assert by["runs/ablate/b/Muon-time-seed2"].settings.data.data == "b.txt"
    assert by["runs/ablate/b/Muon-time-seed2"].settings.train.seed == 2
    assert slug("vocabulary 1,200") == "vocabulary-1200"


def test_texts_by_path_and_by_name(tmp_path, monkeypatch):
    Path("my.txt").write_text("x")
    Path("other").mkdir()
    Path("other/my.txt").write_text("x")
    monkeypatch.setattr("data.download.DOWNLOADS", tmp_path)
    (tmp_path / "shakespeare").write_text("x")
    here = str(tmp_path / "shakespeare")
    assert texts_of(["my.txt", "shakespeare"]) == {"my": "my.txt", "shakespeare": here}
    with pytest.raises(ValueError, match="two texts are called my; rename a file"):
        texts_of(["my.txt", "other/my.txt"])
    with pytest.raises(ValueError, match=r"no text your.txt; name a file, or one of shakespeare"):
        texts_of(["your.txt"])
    (tmp_path / "shakespeare").unlink()

    def refused(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr("urllib.request.urlopen", refused)
    with pytest.raises(ValueError, match=r"name the file: --texts shakespeare.txt$"):
        texts_of(["shakespeare"])


# paces


def test_paces_are_measured_once_on_each_text(monkeypatch):
    asked = []

    def ratio(variant, baseline):
        asked.append((baseline.data.data, variant.optim.optimizer, variant.model.norm))
        return 1.0 + len(asked)

    monkeypatch.setattr(pace, "ratio", ratio)
    first = pace.paces(plan_of(["optimizer"]))
    assert first == {"a": {BASELINE: 1.0, "Muon": 2.0}, "b": {BASELINE: 1.0, "Muon": 3.0}}
    assert pace.paces(plan_of(["optimizer"])) == first  # read
    assert asked == [("a.txt", "muon", "rmsnorm"), ("b.txt", "muon", "rmsnorm")]
    pace.paces(plan_of(["optimizer", "norm"]))
    assert asked[2:] == [("a.txt", "adamw", "layernorm"), ("b.txt", "adamw", "layernorm")]
    pace.paces(plan_of(["optimizer"], batch_size=4))  # another baseline: all anew
    assert asked[4:] == asked[:2]


def test_a_ratio_is_the_median_of_rounds(monkeypatch):
    """The machine is slower from round 4 on, and round 3 falls out: three times the step in most.

    The ratio of the medians would be 6.
    """
    seconds = {"baseline": [1, 1, 1, 2, 2], "variant": [3, 3, 9, 6, 6]}
    monkeypatch.setattr(pace, "stepper", lambda settings: None)
    monkeypatch.setattr("utils.bench.timing.take_turns", lambda *args, **kwargs: seconds)
    assert pace.ratio(BASE, BASE) == 3


# results


def test_differences_by_hand():
    """Baseline 1, 2, 3 and Muon 3, 5, 7: +3, standard error sqrt(5/3), df 2.94; t 3.22 at 95 %."""
    plan = plan_of(["optimizer", "norm"], seeds=(1, 2, 3))
    rows = rows_of(plan, {BASELINE: [1, 2, 3], "Muon": [3, 5, 7], "LayerNorm": [1.5, 1.5, 1.5]})
    results = Results(plan, rows)
    muon = plan.variants[2]
    d = results.difference("a", muon, TOKENS)
    assert d.margin == pytest.approx(3.21876 * math.sqrt(5 / 3), rel=1e-4)
    assert results.mark(d) == ""
    table = results.table("a").splitlines()
    assert table[2].split(" | ")[:4] == ["| baseline", "7", "1.00 x", "2.000 ± 1.000"]
    assert "| Muon | 7 | 1.00 x | 5.000 ± 2.000 | +3.000 ± 4.155 |  |  |  |" in table
    assert any("\N{MINUS SIGN}0.500" in line for line in table)
    assert len({line.count("|") for line in table}) == 1


def test_t_bound_is_the_tables_of_student():
    assert t_bound(1) == pytest.approx(12.7062, rel=1e-4)
    assert t_bound(4) == pytest.approx(2.776445, rel=1e-5)
    assert t_bound(60) == pytest.approx(2.000298, rel=1e-5)
    assert t_bound(4, 0.01) == pytest.approx(4.604095, rel=1e-4)
    assert math.isnan(difference([1.0], [2.0]).margin)
    assert math.isnan(difference([1.0, 2.0], []).p)
    assert difference([1.0, 1.0], [2.0, 2.0]).margin == 0


def test_marks_are_two_thresholds():
    """* at 0.05; ** at 0.05 over the number of variants, which is what luck must not reach."""
    plan = plan_of(seeds=(1, 2, 3))
    close = {BASELINE: [1.0, 1.01, 0.99], "Muon": [1.03, 1.04, 1.05], "QK-norm": [2, 2.01, 1.99]}
    results = Results(plan, rows_of(plan, close))
    marks = {v.name: results.mark(results.difference("a", v, TOKENS)) for v in plan.variants}
    assert (marks["Muon"], marks["QK-norm"], marks["LayerNorm"]) == ("*", "**", "")
    assert "luck alone marks 2 of 44 comparisons" in results.note()
    assert "0.05 / 22" in results.note()


def test_equal_time_takes_the_runs_by_tokens_where_steps_take_as_long():
    plan = plan_of(["optimizer", "norm"], {"Muon": 1.5}, steps=300)
    rows = rows_of(plan, {BASELINE: [1, 1.1], "Muon": [2, 2.1], "LayerNorm": [3, 3.1]})
    results = Results(plan, rows + rows_of(plan, {"Muon": [4, 4.1]}, TIME))
    norm, muon = plan.variants[1:]
    assert results.of("a", norm, TIME) == [3, 3.1]
    assert results.of("a", muon, TIME) == [4, 4.1]
    assert "| 200 | 4.050" in results.table("a")


def test_what_diverged_or_was_not_trained_is_said():
    plan = plan_of(["optimizer", "norm"])
    rows = rows_of(plan, {BASELINE: [1, 1.1], "Muon": [math.inf, 2.0]})
    table = Results(plan, rows).table("a")
    assert "| Muon | 7 | 1.00 x | diverged |" in table
    assert "| LayerNorm |  | 1.00 x | not trained |" in table


def test_of_one_seed_nobody_knows_the_spread():
    plan = plan_of(["optimizer"], seeds=(1,))
    results = Results(plan, rows_of(plan, {BASELINE: [2.0], "Muon": [1.5]}))
    assert "| 1.500 | \N{MINUS SIGN}0.500 |" in results.table("a")


# training


def test_a_crash_is_noted_and_what_is_done_is_not_trained_again(capsys):
    """Once with a fault in one variant; then again without it: only that one is trained."""
    trained = []

    def faulty(settings, **kwargs):
        if settings.optim.optimizer == "muon":
            raise RuntimeError("out of memory")
        trained.append(settings.train.run)
        return trains(settings, **kwargs)

    def sound(settings, **kwargs):
        trained.append(settings.train.run)
        return trains(settings, **kwargs)

    plan = plan_of(["optimizer", "norm"], seeds=(1,), texts=("a",))
    file = plan.path / "results.csv"
    with Pool(faulty, 0) as pool:
        notes = train_all(pool, plan.runs(), file)
    assert list(notes.crashed.values()) == ["out of memory"]
    assert len(trained) == len(table_of(file)) == 2
    with Pool(sound, 0) as pool:
        notes = train_all(pool, plan.runs(), file)
    assert not notes.crashed
    assert trained[2:] == ["runs/ablate/a/Muon-seed1"]
    assert [r["variant"] for r in table_of(file)] == [BASELINE, "LayerNorm", "Muon"]
    assert "crashed: out of memory" in capsys.readouterr().out


def test_runs_that_end_at_once_are_all_written():
    """Threads wrote results.csv over each other's temporary file: now one after the other."""
    run = next(plan_of(["optimizer"]).runs())
    notes = Notes(Path("results.csv"), 200)
    row = {"bits_per_byte": 1.0, "seconds": 2.0}
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda i: notes.add(run, {**row, "seed": i}), range(200)))
    assert sorted(int(r["seed"]) for r in table_of(Path("results.csv"))) == list(range(200))


def test_tune_says_which_learning_rate_does_best(capsys):
    """`trains` is best at lr 0.01: the baseline, 0.006, wants twice as much; Muon, 0.012, none."""

    def with_bits(settings, **kwargs):
        found = trains(settings, **kwargs)
        bits = f"step,val_bits_per_byte\n4,{found['best_val_loss']}\n"
        Path(settings.train.run, "metrics.csv").write_text(bits)
        return found

    plan = plan_of(["optimizer"], seeds=(1,), texts=("a",))
    with Pool(with_bits, 0) as pool:
        lines = tuning.tune(pool, plan, [0.5, 2.0]).splitlines()
        with pytest.raises(ValueError, match="tune=-1 must be above 0"):
            tuning.tune(pool, plan, [-1.0])
    starred = {line.split("  ")[0]: line.split("*")[0].split()[-2] for line in lines[1:]}
    assert starred == {BASELINE: "0.012:", "Muon": "0.012:"}
    assert [line.count("*") for line in lines[1:]] == [1, 1]


def test_end_to_end_and_again(text_file, capfd, monkeypatch):
    """Two seeds of real trainings; called again, nothing is trained, and the table is the same."""
    flags = [*QUICK, "--texts", str(text_file), "--only", "norm", "--norm", "layernorm"]
    monkeypatch.setattr(pace, "ROUNDS", 3)
    ablate.main(flags)
    out = Path("runs/ablate")
    first, said = (out / "table.md").read_text(encoding="utf-8"), capfd.readouterr().out
    rows = table_of(out / "results.csv")
    assert {r["variant"] for r in rows} == {BASELINE, "RMSNorm"}
    assert [r["seed"] for r in rows if r["equal"] == TOKENS] == ["1", "1", "2", "2"]
    ratio = json.loads((out / "pace.json").read_text())["ratios"]["my"]["RMSNorm"]
    for r in rows:
        n = 4 if r["equal"] == TOKENS else max(1, round(4 / ratio))
        assert (int(r["steps"]), int(r["tokens"])) == (n, n * 4 * 16)
    assert (out / "picture.png").read_bytes().startswith(b"\x89PNG")
    assert not list(out.rglob("*.pt"))
    assert first.strip() in said
    before = {p: p.stat().st_mtime_ns for p in out.rglob("summary.json")}
    ablate.main(flags)
    assert (out / "table.md").read_text(encoding="utf-8") == first
    assert {p: p.stat().st_mtime_ns for p in out.rglob("summary.json")} == before


def test_what_cannot_be_trained_is_refused_before_anything_is(error_of, text_file):
    assert "window 32: window=32 must be from 2 to 15" in error_of(
        ablate.main, "--texts", str(text_file), *QUICK
    )
    assert "minutes=2: runs are as long" in error_of(
        ablate.main, "--texts", str(text_file), "--minutes", "2"
    )
    assert "seeds=0 must be 1 or more" in error_of(ablate.main, "--seeds", "0")
    assert not Path("runs").exists()
