"""train.py --teacher: a student learns a run's predictions; and starts from some of its layers."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import TOY, make_text
from torch.nn import functional as F

import train
from model import GPTConfig, TinyGPT
from utils.compress.__main__ import main as compress
from utils.config import OptimConfig
from utils.device import pick_device
from utils.distill_config import DistillConfig
from utils.training.checkpoint import load_checkpoint
from utils.training.distill import Distillation, soft_divergence
from utils.training.memory import step_memory
from utils.training.models import load_model, spread, weights_sha256
from utils.training.objective import next_token

SMALL = GPTConfig(vocab_size=11, block_size=8, n_layer=1, n_head=2, d_model=16)
X = torch.tensor([[1, 2, 3, 4, 5], [5, 4, 0, 2, 1]])
Y = torch.tensor([[2, 3, 4, 5, -1], [-1, -1, 2, 1, 9]])


def models():
    torch.manual_seed(1)
    return TinyGPT(SMALL), TinyGPT(replace(SMALL, n_layer=2)).eval().requires_grad_(False)


def sharper(model):
    """Predictions that are not all alike, as they are before any training."""
    with torch.no_grad():
        model.tok_emb.weight.mul_(30)
    return model


def test_divergence_by_hand():
    """p = (3/4, 1/4) beside q = (1/2, 1/2); at T = 2 p is (sqrt 3, 1) / (1 + sqrt 3)."""
    student, teacher = torch.zeros(1, 2), torch.tensor([[math.log(3), 0.0]])
    cold = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert soft_divergence(student, teacher, 1.0).item() == pytest.approx(cold, abs=1e-6)
    p = math.sqrt(3) / (1 + math.sqrt(3))
    warm = 4 * (p * math.log(2 * p) + (1 - p) * math.log(2 * (1 - p)))
    assert soft_divergence(student, teacher, 2.0).item() == pytest.approx(warm, abs=1e-6)


def test_gradient_by_its_formula():
    """d/dz T^2 KL = T (q - p), for each row."""
    torch.manual_seed(0)
    z, taught, T = torch.randn(3, 7, requires_grad=True), torch.randn(3, 7), 3.0
    soft_divergence(z, taught, T).sum().backward()
    expected = T * (F.softmax(z.detach() / T, -1) - F.softmax(taught / T, -1))
    torch.testing.assert_close(z.grad, expected, atol=1e-6, rtol=1e-5)


def test_a_student_that_is_its_teacher_has_nothing_to_learn():
    _, teacher = models()
    student = TinyGPT(teacher.config)
    student.load_state_dict(sharper(teacher).state_dict())
    nats, count = Distillation(teacher, 1.0, 2.0)(student, (X, Y))
    nats.backward()
    assert int(count) == 7
    assert abs(nats.item()) < 1e-5
    assert max(float(p.grad.abs().max()) for p in student.parameters()) < 1e-4


def test_the_parts_are_mixed_over_the_targets():
    """A second reckoning, position by position; -1 counts nowhere."""
    student, teacher = map(sharper, models())
    alpha, T = 0.3, 2.0
    total = 0.0
    for row, targets in zip(X, Y, strict=True):
        z, taught = (model(row[None])[0][0].detach() for model in (student, teacher))
        for t, y in enumerate(targets.tolist()):
            if y >= 0:
                q, p = F.softmax(z[t] / T, 0), F.softmax(taught[t] / T, 0)
                kl = sum(float(a * math.log(a / b)) for a, b in zip(p, q, strict=True))
                total += alpha * T**2 * kl - (1 - alpha) * float(F.log_softmax(z[t], 0)[y])
    nats, _ = Distillation(teacher, alpha, T)(student, (X, Y))
    assert nats.item() == pytest.approx(total, rel=1e-4)
    plain, _ = Distillation(teacher, 0.0, T)(student, (X, Y))
    assert plain.item() == pytest.approx(next_token(student, (X, Y))[0].item(), rel=1e-6)


def test_ids_that_one_of_them_lacks_are_not_compared():
    """Imported models have rows that no token has."""
    student, teacher = map(sharper, models())
    wide = TinyGPT(replace(teacher.config, vocab_size=13)).eval()
    state = {**wide.state_dict(), **teacher.state_dict()}
    for name in ("tok_emb.weight", "head.weight"):
        state[name] = torch.cat((teacher.state_dict()[name], torch.full((2, 16), 9.0)))
    wide.load_state_dict(state)
    both = [Distillation(t, 0.5, 2.0)(student, (X, Y))[0].item() for t in (teacher, wide)]
    assert both[0] == pytest.approx(both[1], rel=1e-6)


def flags(text_file, *more, run="student", steps=6):
    own = ["--data", str(text_file), "--run", run, "--teacher", "my", "--steps", str(steps)]
    return [*own, *TOY, "--eval_every", "3", "--lr", "3e-3", "--sample", "0", *more]


def test_a_student_learns_and_its_file_holds_no_teacher(toy_run, text_file, capsys):
    before = weights_sha256(toy_run / "best.pt")
    assert train.main(flags(text_file, "--d_model", "8", "--distill_alpha", "0.9")) == 0
    checkpoint = load_checkpoint(Path("runs/student/last.pt"))
    model, _, _ = load_model(Path("runs/student"))
    assert "teacher my, 0.9 of the loss at temperature 2" in capsys.readouterr().out
    assert checkpoint["model"].keys() == model.state_dict().keys()
    assert checkpoint["teacher"] == {"run": "runs/my", "ckpt": "best", "sha256": before}
    assert weights_sha256(toy_run / "best.pt") == before
    train.main(flags(text_file, "--d_model", "8", "--teacher", "", run="alone"))
    alone = load_checkpoint(Path("runs/alone/last.pt"))["model"]
    assert not torch.equal(alone["head.weight"], checkpoint["model"]["head.weight"])


def test_a_resumed_student_is_equal_to_the_bit(toy_run, text_file):
    """Also with dropout, which a teacher in eval mode does not draw."""
    same = ["--dropout", "0.1", "--schedule", "trapezoid", "--cooldown", "0"]
    train.main(flags(text_file, *same, run="whole"))
    train.main(flags(text_file, *same, run="halves", steps=3))
    assert train.main(["--run", "halves", "--resume", "--steps", "6"]) == 0
    whole, halves = (load_checkpoint(Path(f"runs/{n}/last.pt")) for n in ("whole", "halves"))
    for name, tensor in whole["model"].items():
        assert torch.equal(tensor, halves["model"][name]), name
    assert halves["teacher"] == whole["teacher"]


def test_runs_in_integers_teach(toy_run, text_file):
    compress(["my", "--int8", "--out", "small"])
    assert train.main(flags(text_file, "--teacher", "small", steps=2)) == 0


def test_a_teacher_that_does_not_fit_is_refused(toy_run, text_file, error_of, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text(make_text(9000)[3000:].replace("cat", "quince"), encoding="utf-8")
    own = flags(text_file)
    assert "no run runs/none" in error_of(train.main, *own, "--teacher", "none")
    foreign = ["--data", other, "--tokenizer", "bpe"]
    assert "has another tokenizer than the student" in error_of(train.main, *own, *foreign)
    assert "the teacher runs/my reads 16" in error_of(train.main, *own, "--block_size", "32")
    assert "must name another run than runs/my" in error_of(train.main, *own, "--run", "my")
    said = error_of(train.main, *own, "--teacher", "", "--distill_alpha", "0.2")
    assert "distill_alpha is of distillation; name a run by --teacher" in said
    for name, value in (("alpha", "1.5"), ("temperature", "0")):
        assert f"distill_{name}={float(value)}" in error_of(
            train.main, *own, f"--distill_{name}", value
        )
    assert not Path("runs/student").exists()


def test_the_tokenizer_is_the_teachers_unless_another_is_asked_for(toy_run, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text(make_text(9000)[3000:].replace("cat", "quince"), encoding="utf-8")
    assert train.main(flags(other, steps=1)) == 0
    own = Path("runs/student/tokenizer.json").read_text(encoding="utf-8")
    assert own == (toy_run / "tokenizer.json").read_text(encoding="utf-8")


def test_a_run_goes_on_with_the_teacher_it_began_with(toy_run, text_file, error_of):
    train.main(flags(text_file, steps=3))
    resume = ["--run", "student", "--resume", "--steps", "6"]
    assert "teacher='student2'" in error_of(train.main, *resume, "--teacher", "student2")
    checkpoint = torch.load(toy_run / "best.pt", weights_only=True)
    checkpoint["model"]["norm.weight"] += 1
    torch.save(checkpoint, toy_run / "best.pt")
    assert "other weights than this run began with" in error_of(train.main, *resume)


def test_a_dry_run_counts_the_teacher(toy_run, text_file, capfd):
    assert train.main(flags(text_file, "--dry-run")) == 0
    assert "teacher     7,600 parameters, which are only read" in capfd.readouterr().out
    assert not Path("runs/student").exists()
    how = SMALL, OptimConfig(), pick_device("cpu"), 2, False, None
    teacher = replace(SMALL, d_model=256)
    weights = 4 * TinyGPT(teacher).n_params()
    alone = step_memory(*how)
    assert step_memory(*how, DistillConfig("t"), teacher) > alone + weights


def test_layers_are_spread():
    assert spread(12, 6) == [0, 2, 4, 7, 9, 11]  # as DistilBERT's published start
    assert spread(6, 3) == [0, 2, 5]
    assert spread(4, 1) == [0]
    assert spread(5, 5) == [0, 1, 2, 3, 4]


def test_a_student_starts_from_some_layers_of_a_run(toy_run, text_file, error_of):
    deep = [*flags(text_file, "--teacher", "", run="deep", steps=2), "--n_layer", "4"]
    assert train.main(deep) == 0
    own = ["--init", "deep", "--data", str(text_file), "--device", "cpu", "--sample", "0"]
    half = [*own, "--n_layer", "2", "--steps", "1", "--lr", "1e-30", "--run", "half"]
    assert train.main([*half, "--teacher", "deep", "--dtype", "float32"]) == 0
    whole, kept = (load_checkpoint(Path(f"runs/{n}/best.pt"))["model"] for n in ("deep", "half"))
    for ours, theirs in ((0, 0), (1, 3)):
        name = "blocks.{}.attn.qkv.weight"
        torch.testing.assert_close(kept[name.format(ours)], whole[name.format(theirs)])
    assert load_model(Path("runs/half"))[0].config.n_layer == 2
    said = error_of(train.main, *own, "--n_layer", "5", "--run", "more")
    assert "n_layer=5, but runs/deep has n_layer=4" in said
    said = error_of(train.main, *own, "--n_layer", "2", "--lora", "2", "--run", "lora")
    assert "adapters stand on all layers of runs/deep" in said
