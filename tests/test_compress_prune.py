"""`python -m utils.compress RUN --prune`: runs that every script takes, and a loss that is said."""

import json
import math

import pytest
import torch
from hub_models import make_run

import eval as eval_script
import sample
import train
from model.adapt.prune import zeros_of
from utils.compress import table
from utils.compress.__main__ import main
from utils.compress.pruned import Pruning, loss_on, pruned
from utils.hub.__main__ import main as hub
from utils.training.models import load_model
from utils.training.zeros import keep_zeros

IDS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6], [2, 7, 1, 8, 2, 8, 1, 8]])
WAYS = {
    "magnitude": ["magnitude", "--sparsity", "0.5"],
    "wanda": ["wanda", "--sparsity", "2:4"],
    "heads": ["heads", "--sparsity", "0.5"],
    "channels": ["channels", "--sparsity", "0.25"],
    "layers": ["layers", "--drop", "1"],
}


@pytest.fixture
def float_run(tmp_path):
    """The run `runs/whole`, a small LLaMA."""
    make_run(tmp_path / "runs" / "whole", "llama", d_ff=128, tie_weights=True)
    return tmp_path / "runs" / "whole"


def logits(model):
    with torch.no_grad():
        return model.eval()(IDS)[0]


def prune(run, out, way, text, *more):
    main([run, "--prune", *WAYS[way], "--calibrate", str(text), "--out", out, *more])


QUICK = ["--sample", "0", "--batch_size", "2", "--block_size", "16", "--device", "cpu"]
QUICK += ["--dtype", "float32"]


@pytest.mark.parametrize("way", WAYS)
def test_a_pruned_run_is_one_that_every_script_takes(float_run, text_file, way, tmp_path, capsys):
    prune("whole", "small", way, text_file)
    said = capsys.readouterr().out
    small, whole = (load_model(float_run.with_name(n))[0] for n in ("small", "whole"))
    assert f"{small.n_params():,}" in said
    assert "nats a token" in said
    sparse = way in ("magnitude", "wanda")
    assert ("no smaller, no faster" in said) == sparse
    assert (small.n_params() == whole.n_params()) == sparse
    size = (float_run.with_name("small") / "best.pt").stat().st_size
    assert (size < 0.97 * (float_run / "best.pt").stat().st_size) != sparse
    sample.main(["--run", "small", "--prompt", "the dog", "--steps", "8", "--temp", "0"])
    eval_script.main(["--run", "small", "--data", str(text_file)])
    scores = json.loads((float_run.with_name("small") / "eval-other.json").read_text("utf-8"))
    assert scores["model"] != scores["base"]  # beside the run that it was made from
    hub(["export", "small", "--to", "hf", str(tmp_path / "exported")])
    hub(["import", str(tmp_path / "exported"), "--run", "back"])
    assert torch.equal(logits(load_model(float_run.with_name("back"))[0]), logits(small))
    main(["small", "--int8", "--out", "smaller"])
    flags = ["--init", "small", "--data", str(text_file), "--steps", "2", "--eval_every", "2"]
    assert train.main([*flags, *QUICK, "--run", "healed"]) == 0
    healed, _, checkpoint = load_model(float_run.with_name("healed"))
    assert checkpoint["settings"]["keep_zeros"] == sparse
    assert zeros_of(healed) == pytest.approx(zeros_of(small), abs=1e-3)
    assert not torch.equal(logits(healed), logits(small))


def test_the_run_is_the_pruned_model(float_run, text_file):
    prune("whole", "small", "channels", text_file)
    small, tokenizer, checkpoint = load_model(float_run.with_name("small"))
    assert checkpoint["pruned"] == {"method": "channels", "sparsity": "0.25", "drop": 0}
    assert (checkpoint["step"], checkpoint["best_val_loss"]) == (0, math.inf)
    whole = load_model(float_run)[0]
    ids = torch.tensor(tokenizer.encode(text_file.read_text("utf-8"))[:480]).view(-1, 48)
    again = pruned(whole, ids, Pruning("channels", "0.25"))
    assert again.config == small.config
    with torch.no_grad():
        exact = sum(float(whole(row[None, :-1], row[None, 1:])[1]) for row in ids) / len(ids)
    assert loss_on(whole, ids) == pytest.approx(exact, rel=1e-4)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_zeros_stay_zeros(toy_run, text_file, optimizer):
    """In a training and after --resume; with --keep_zeros false they are filled."""
    prune("my", "small", "wanda", text_file)
    small = load_model(toy_run.with_name("small"))[0]
    flags = ["--init", "small", "--data", str(text_file), "--steps", "3", "--eval_every", "3"]
    flags += [*QUICK, "--optimizer", optimizer, "--weight_decay", "0.1", "--lr", "0.01"]
    assert train.main([*flags, "--run", "healed"]) == 0
    assert train.main(["--run", "healed", "--resume", "--steps", "6"]) == 0
    healed = load_model(toy_run.with_name("healed"), "last")[0]
    for (name, p), q in zip(small.named_parameters(), healed.parameters(), strict=True):
        if name.startswith("blocks.") and p.ndim == 2:
            assert torch.equal(p == 0, q == 0), name
            assert not torch.equal(p, q)
    assert train.main([*flags, "--run", "freed", "--keep_zeros", "false"]) == 0
    assert zeros_of(load_model(toy_run.with_name("freed"))[0]) < 0.01


def test_zeros_and_adapters(toy_run, text_file, error_of):
    """Adapters would fill zeros: they leave keep_zeros out, unless it is asked for."""
    prune("my", "small", "magnitude", text_file)
    flags = ["--init", "small", "--data", str(text_file), "--steps", "1", "--lora", "2", *QUICK]
    said = error_of(train.main, *flags, "--keep_zeros", "--optimizer", "adamw")
    assert "fills zeros when it is merged" in said
    assert train.main([*flags, "--run", "tuned"]) == 0


def test_a_matrix_of_zeros_is_not_kept():
    model = torch.nn.ModuleDict({"blocks": torch.nn.Linear(2, 2)})
    torch.nn.init.zeros_(model.blocks.weight)
    with pytest.raises(ValueError, match="weight is 0 everywhere"):
        keep_zeros(model, torch.optim.SGD(model.parameters()))


def test_a_loss_that_blows_up_is_refused(float_run, text_file, error_of, monkeypatch, capfd):
    """And with --force it is said."""
    monkeypatch.setattr("utils.compress.pruned.BLOW_UP", -1.0)
    flags = ["--prune", *WAYS["layers"], "--calibrate", text_file, "--out", "small"]
    said = error_of(main, "whole", *flags)
    assert "layers 1 makes perplexity" in said
    assert "--force" in said
    assert [p.name for p in float_run.parent.iterdir()] == ["whole"]
    prune("whole", "small", "layers", text_file, "--force")
    assert "warning layers 1 makes perplexity" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["wanda", "--sparsity", "0"], "--sparsity 0 must be above 0 and below 1, or 2:4"),
        (["wanda", "--sparsity", "1"], "--sparsity 1 must be above 0 and below 1, or 2:4"),
        (["wanda", "--sparsity", "nan"], "--sparsity nan must be"),
        (["wanda", "--sparsity", "half"], "--sparsity half must be"),
        (["wanda"], "goes with --sparsity S"),
        (["heads", "--sparsity", "2:4"], "2:4 is for magnitude and wanda"),
        (["heads", "--sparsity", "0.1"], "of 2 groups of heads is 0"),
        (["layers", "--drop", "2"], "drop=2 of 2 blocks; give 1 to 1"),
        (["layers", "--drop", "0"], "goes with --drop N"),
        (["layers", "--drop", "-1"], "--drop -1 must be 1 or more"),
        (["layers", "--sparsity", "0.5"], "goes with --drop N"),
        (["everything"], "invalid choice"),
        (["wanda", "--sparsity", "0.5", "--gptq"], "--gptq is for rounding"),
        (["wanda", "--sparsity", "0.5", "--group", "64"], "--group is for rounding"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(float_run, text_file, flags, says, error_of):
    flags = ["whole", "--prune", *flags, "--calibrate", text_file, "--out", "small"]
    assert says in error_of(main, *flags)
    assert [p.name for p in float_run.parent.iterdir()] == ["whole"]


def test_other_bad_input(float_run, text_file, error_of):
    wanda = ["--prune", *WAYS["wanda"]]
    assert "--prune goes with --calibrate" in error_of(main, "whole", *wanda, "--out", "small")
    assert "--drop is for pruning" in error_of(main, "whole", "--int8", "--drop", "1", "--out", "x")
    whole = ["whole", *wanda, "--calibrate", text_file, "--out", "whole"]
    assert "must name another run" in error_of(main, *whole)
    main(["whole", "--int8", "--out", "round"])
    said = error_of(main, "round", *wanda, "--calibrate", text_file, "--out", "small")
    assert "round is quantized; prune the run that it was made from" in said
    text_file.write_text("too short", encoding="utf-8")
    said = error_of(main, "whole", *wanda, "--calibrate", text_file, "--out", "small")
    assert "calibration needs at least 128" in said
    assert sorted(p.name for p in float_run.parent.iterdir()) == ["round", "whole"]


def test_the_table_says_what_is_smaller_and_what_is_zero(float_run, text_file, capsys, monkeypatch):
    prune("whole", "sparse", "wanda", text_file)
    prune("whole", "short", "layers", text_file)
    monkeypatch.setattr(table, "RUNS", 1)
    monkeypatch.setattr(table, "peak_of", lambda run: 5_000_000)
    capsys.readouterr()
    main(["whole", "sparse", "short", "--table", "--data", str(text_file)])
    head, *rows = [line.split() for line in capsys.readouterr().out.splitlines()[:4]]
    assert head[:2] == ["params", "zeros"]
    assert [row[2] for row in rows] == ["0%", "50%", "0%"]
    assert rows[0][1] == rows[1][1] != rows[2][1]
    assert rows[0][3] == rows[1][3] != rows[2][3]  # MB
