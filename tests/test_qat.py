"""train.py --quantize: weights rounded in the forward pass, and compressed to what was trained."""

from pathlib import Path

import pytest
import torch
from conftest import TOY

import sample
import train
from model import GPTConfig, TinyGPT
from model.adapt.qat import RoundedLinear, round_layers, straight_through
from model.adapt.quant import quantize, quantized_layers
from model.adapt.rounding import codes_of, rounded, values
from utils.compress.__main__ import main as compress
from utils.config import OptimConfig
from utils.device import pick_device
from utils.hub.__main__ import main as hub
from utils.training.checkpoint import load_checkpoint
from utils.training.memory import step_memory
from utils.training.models import load_model

CONFIG = GPTConfig(vocab_size=48, block_size=16, n_layer=2, n_head=2, d_model=64)
X = torch.tensor([[1, 2, 3, 4, 5], [5, 4, 0, 2, 1]])
WIDE = ["--d_model", "64", "--d_ff", "128"]


def model_of():
    torch.manual_seed(3)
    return TinyGPT(CONFIG)


@pytest.mark.parametrize(("bits", "group"), [(8, 32), (4, 32), (4, 64), (4, 128)])
def test_it_rounds_as_the_codes_do_to_the_bit(bits, group):
    torch.manual_seed(0)
    w = torch.randn(7, 256) * torch.tensor([1e-6, 1, 3, 1e3, 0.1, 0, 1])[:, None]
    w[6] = 2.5  # all alike: a scale of 0
    assert torch.equal(rounded(w, bits, group), values(codes_of(w, bits, group)))


def test_the_gradient_goes_straight_through_by_hand():
    """y = 2 * Q(0.30) + 3 * Q(-1) with Q of 8 bits a row, s = 1/127: 38/127 and -1."""
    w = torch.tensor([[0.30, -1.0]], requires_grad=True)
    y = (straight_through(w, 8, 32) * torch.tensor([2.0, 3.0])).sum()
    y.backward()
    assert y.item() == pytest.approx(2 * 38 / 127 - 3)
    assert w.grad.tolist() == [[2.0, 3.0]]


@pytest.mark.parametrize("how", [(8, 32, 8), (4, 32, 8), (4, 64, 4), (4, 32, 32)])
def test_it_computes_what_quantize_makes_of_it(how):
    """The same logits, and gradients for every weight: those of a model with Q(W) for its W."""
    model, plain = round_layers(model_of(), *how), model_of()
    small = quantize(model_of(), *how).requires_grad_(False)
    with torch.no_grad():
        for name, layer in quantized_layers(small).items():
            plain.get_submodule(name).weight.copy_(layer.weight)
    logits, loss = model(X, X)
    logits2, loss2 = plain(X, X)
    assert torch.equal(logits, logits2)
    loss.backward()
    loss2.backward()
    for (name, p), other in zip(model.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(p.grad, other.grad, msg=name)
    assert model.state_dict().keys() == plain.state_dict().keys()


def quantized_run(text_file, *more, run="qat", steps=6):
    own = ["--data", str(text_file), "--run", run, "--steps", str(steps), *TOY, *WIDE]
    more = ["--quantize", "int4", "--quantize_group", "64", *more]
    assert train.main([*own, "--eval_every", "3", "--lr", "3e-3", *more]) == 0
    return Path("runs") / run


def test_the_run_is_what_was_trained_and_compresses_to_it(text_file, capsys):
    """Scored as trained by every script, and the same integers in a smaller file."""
    run = quantized_run(text_file)
    assert "rounded to 4 bits in groups of 64, embeddings 8 bits" in capsys.readouterr().out
    state = load_checkpoint(run / "best.pt")["model"]
    assert not any(name.endswith(".q") for name in state)  # floats, to go on from
    model, _, _ = load_model(run)
    trained = TinyGPT(model.config)
    trained.load_state_dict(state)
    round_layers(trained, 4, 64)
    compress(["qat", "--int4", "--group", "64", "--out", "small"])
    small, _, checkpoint = load_model(Path("runs/small"))
    assert checkpoint["quantized"]["bits"] == 4
    for a, b in zip(
        quantized_layers(model).values(), quantized_layers(small).values(), strict=True
    ):
        assert torch.equal(a.q, b.q)
    long = torch.arange(48).view(3, 16)  # more rows than a kernel takes
    with torch.no_grad():
        assert torch.equal(small(long)[0], trained(long)[0])


def test_a_resumed_run_is_equal_to_the_bit(text_file, error_of):
    same = ["--schedule", "trapezoid", "--cooldown", "0", "--sample", "0"]
    whole = load_checkpoint(quantized_run(text_file, *same, run="whole") / "last.pt")
    quantized_run(text_file, *same, run="halves", steps=3)
    resume = ["--run", "halves", "--resume", "--steps", "6"]
    assert "quantize='none', but the run has 'int4'" in error_of(
        train.main, *resume, "--quantize", "none", "--quantize_group", "32"
    )
    assert train.main(resume) == 0
    halves = load_checkpoint(Path("runs/halves/last.pt"))
    for name, tensor in whole["model"].items():
        assert torch.equal(tensor, halves["model"][name]), name


def test_trainings_begin_with_what_was_trained(text_file):
    """A float run from one of 4 bits has its values; so has a student its teacher."""
    quantized_run(text_file, steps=2)
    own = ["--init", "qat", "--data", str(text_file), "--steps", "1", "--lr", "1e-30"]
    rest = ["--device", "cpu", "--sample", "0", "--dtype", "float32", "--block_size", "16"]
    assert train.main([*own, *rest, "--run", "floats", "--teacher", "qat"]) == 0
    state = load_checkpoint(Path("runs/floats/best.pt"))["model"]
    model, _, _ = load_model(Path("runs/qat"))
    layer = model.blocks[0].mlp.up
    torch.testing.assert_close(state["blocks.0.mlp.up.weight"], layer.weight)


def test_what_does_not_go_together_is_refused(text_file, error_of):
    own = ["--data", text_file, *TOY, "--run", "no"]
    wide = [*own, *WIDE, "--quantize", "int4"]
    for flags, said in (
        ([*own, "--quantize", "int4"], "a row of 16 weights is less than a group of 32"),
        ([*wide, "--quantize_group", "96"], "group=96 must be one of 32, 64, 128"),
        ([*own, "--quantize", "int5"], "quantize='int5' is not one of none, int8, int4"),
        ([*own, "--quantize_group", "64"], "quantize_group=64 goes with --quantize int4"),
        ([*own, "--quantize", "int8", "--quantize_embedding", "4"], "is for quantize=int4"),
        ([*wide, "--quantize_embedding", "5"], "quantize_embedding=5 must be 4, 8 or 32"),
        ([*wide, "--lora", "2", "--init", "no"], "lora=2 trains no weight to be rounded"),
        ([*wide, "--parallel", "fsdp", "--sample", "0"], "quantize rounds whole rows"),
    ):
        assert said in error_of(train.main, *flags)
    assert not Path("runs").exists()


def test_a_run_is_compressed_as_it_was_trained_or_not_at_all(text_file, error_of):
    quantized_run(text_file, steps=1)
    said = error_of(compress, "qat", "--int8", "--out", "small")
    assert "runs/qat was trained for 4 bits in groups of 64, embeddings 8 bits" in said
    assert said.endswith("make that of it: --int4 --group 64 --embedding-bits 8")
    assert not Path("runs/small").exists()


def test_a_dry_run_counts_the_rounded_weights(text_file, capfd):
    own = ["--data", str(text_file), *TOY, *WIDE, "--quantize", "int4", "--dry-run"]
    assert train.main(own) == 0
    assert "ms a step" in capfd.readouterr().out
    assert not Path("runs").exists()


def test_dropping_the_rounding_leaves_the_weights():
    model = round_layers(model_of(), 4)
    assert isinstance(model.head, RoundedLinear)
    assert model.head.weight is model.tok_emb.weight
    assert sum(p.numel() for p in model.parameters()) == model_of().n_params()


def test_memory_has_rounded_weights_beside_the_others():
    from model.adapt.quant_config import QuantizeConfig

    how = CONFIG, OptimConfig(), pick_device("cpu"), 2, False, None, None, None
    assert step_memory(*how, QuantizeConfig("int4")) > step_memory(*how)


def test_adapters_on_4_bits_are_merged_into_what_they_learnt_beside(text_file, capsys):
    """QLoRA's order: W' = Q(W) + s B A to the bit, and the merged run writes the same text."""
    own = ["--data", str(text_file), *TOY, *WIDE, "--run", "my", "--steps", "4"]
    assert train.main(own) == 0
    compress(["my", "--int4", "--out", "small"])
    rest = ["--device", "cpu", "--sample", "0", "--dtype", "float32", "--lr", "1e-2"]
    flags = ["--init", "small", "--lora", "3", "--lora_alpha", "4", "--run", "tuned", *rest]
    assert train.main(["--data", str(text_file), *flags, "--steps", "4"]) == 0
    hub(["import", "tuned", "--merge", "--run", "whole"])
    base, _, _ = load_model(Path("runs/small"))
    adapters = load_checkpoint(Path("runs/tuned/best.pt"))["model"]
    whole = load_checkpoint(Path("runs/whole/best.pt"))["model"]
    for name, layer in quantized_layers(base).items():
        A, B = (adapters.get(f"{name}.lora_{x}") for x in "AB")
        assert (A is None) == (name in ("tok_emb", "head"))
        expected = layer.weight if A is None else layer.weight + 4 / 3 * (B @ A)
        assert torch.equal(whole[f"{name}.weight"], expected), name
    said = []
    for run in ("tuned", "whole"):
        capsys.readouterr()
        sample.main(["--run", run, "--prompt", "the", "--steps", "12", "--temp", "0"])
        said.append(capsys.readouterr().out)
    assert said[0] == said[1]
