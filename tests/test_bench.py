"""bench.py and what it stands on: turns, limits, races, traces."""

import json
import math
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

import bench
import train
from utils.bench import limits, profile, races
from utils.bench.limits import Limits, best_of, card_peak, copy_peak, free_memory, matmul_peak
from utils.bench.profile import trace
from utils.bench.races import Race, effort, reading
from utils.bench.timing import peak_apart, summary, take_turns
from utils.bench.workloads import TOY, two_steps
from utils.device import pick_device

CPU = pick_device("cpu", "float32")
BF16, FP16, FP32 = torch.bfloat16, torch.float16, torch.float32


def ticks(*lengths):
    """A clock whose every second call is so many seconds after the one before."""
    now = 0.0
    for length in lengths:
        yield now
        now += length
        yield now


def test_contenders_take_turns():
    order = []
    seconds = take_turns({n: lambda n=n: order.append(n) for n in "ab"}, runs=3, warmup=1)
    assert "".join(order) == "abababab"
    assert len(seconds["a"]) == len(seconds["b"]) == 3


@pytest.mark.parametrize(("limit", "rounds"), [(1, 3), (6, 3), (7, 4), (9.5, 5), (99, 8)])
def test_turns_end_when_the_time_is_up(limit, rounds):
    """2 seconds a round, one of them a contender's; at least 3 rounds, at most 8."""
    clock = ticks(*[1] * 99)
    seconds = take_turns({"a": int, "b": int}, 8, 2, limit, lambda: next(clock))
    assert seconds == {"a": [1.0] * rounds, "b": [1.0] * rounds}


def test_summary_is_median_and_spread():
    assert summary([1.0, 2.0, 3.0, 4.0, 100.0])[0] == 3.0
    assert summary([2.0])[1] == 0


@pytest.mark.parametrize(
    ("name", "dtype", "teraflops"),
    [
        ("NVIDIA H200", BF16, 989),
        ("NVIDIA H100 80GB HBM3", BF16, 989),
        ("NVIDIA H100 PCIe", FP16, 756),
        ("NVIDIA A100-SXM4-80GB", BF16, 312),
        ("A100-SXM4-40GB", BF16, 312),
        ("NVIDIA A100 80GB PCIe", BF16, 312),
        ("NVIDIA A100-PCIE-40GB", FP16, 312),
        ("NVIDIA A10", BF16, 125),
        ("NVIDIA L4", BF16, 121),
        ("NVIDIA L40S", BF16, 362),
        ("NVIDIA GeForce RTX 4090", BF16, 165),
        ("GeForce RTX 3090", FP16, 71),
        ("Tesla T4", FP16, 65),
        ("Tesla V100-SXM2-16GB", FP16, 125),
        ("Tesla V100-PCIE-32GB", FP16, 112),
        ("Tesla V100S-PCIE-32GB", FP16, 130),
    ],
)
def test_cards_by_name(name, dtype, teraflops):
    assert card_peak(name, dtype) == teraflops * 1e12


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("NVIDIA H200", FP32),  # in TF32 or less: another peak
        ("Tesla T4", BF16),  # which it emulates
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", BF16),  # a seventh of the card
        ("NVIDIA A100-SXM-64GB", BF16),
        ("NVIDIA A10G", BF16),
        ("NVIDIA L40", BF16),
        ("NVIDIA H100 NVL", BF16),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", BF16),
        ("NVIDIA GeForce RTX 4090 D", BF16),
        ("NVIDIA GeForce RTX 3090 Ti", BF16),
        ("Quadro T4000", FP16),
        ("AMD Instinct MI300X", BF16),
        ("", BF16),
    ],
)
def test_other_cards_are_not_recognised(name, dtype):
    assert card_peak(name, dtype) is None


def test_limits_by_hand():
    """The best of 3 calls: 4, 2, 5 s. 8 x 8: 2 * 8^3 = 1,024 operations; 64 bytes go two ways."""
    for call, expected in [
        (lambda clock: best_of(int, 3, clock), 2),
        (lambda clock: matmul_peak(CPU, 8, 3, clock), 512),
        (lambda clock: copy_peak(CPU, 64, 3, clock), 64),
    ]:
        clock = ticks(4, 2, 5)
        assert call(lambda clock=clock: next(clock)) == expected


def test_a_peak_is_named_only_where_the_card_is_known(monkeypatch):
    """A card stands in for one that this machine may lack; the rest is measured."""
    monkeypatch.setattr(limits, "matmul_peak", lambda device, n: float(n))
    monkeypatch.setattr(limits, "copy_peak", lambda device, n: 5.0)
    card = SimpleNamespace(device=torch.device("cuda"), dtype=BF16)
    for name, expected in ("NVIDIA H200", (989e12, True)), ("Some card", (8192.0, False)):
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device, name=name: name)
        assert limits.limits_of(card) == Limits(*expected, 5.0)
    assert limits.limits_of(CPU) == Limits(2048.0, False, 5.0)


def test_free_memory(monkeypatch):
    card = SimpleNamespace(device=torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (7, 9))
    assert free_memory(card) == 7
    info = "MemFree:  1 kB\nMemAvailable:     3 kB\n"
    monkeypatch.setattr(Path, "exists", lambda self: True)
    monkeypatch.setattr(Path, "read_text", lambda self: info)
    assert free_memory(CPU) == 3 * 1024
    monkeypatch.setattr(Path, "exists", lambda self: False)
    assert free_memory(CPU) == math.inf


def test_figures_of_a_row_by_hand():
    """300 GFLOP in 2 s of 600 a second; 6 GB read in 2 s beside 12 a second."""
    for named, share in (False, "of_matmul"), (True, "mfu"):
        most = Limits(600e9, named, 12e9)
        found = effort(300e9, most, {"us": 5})("us", 2.0)
        assert found == {"gflops": 150.0, share: 0.25, "peak_memory": 5}
        assert "peak_memory" not in effort(1.0, most, {})("them", 2.0)
    assert reading(6e9, most)("us", 2.0) == {"gb_per_s": 3.0, "of_copy": 0.25}


def test_rows_of_a_race(monkeypatch):
    turns, asked = {"us": [2.0], "them": [3.0]}, []
    monkeypatch.setattr(races, "take_turns", lambda *args: asked.append(args) or turns)
    us, them = Race("w", {}, 10, lambda who, s: {"x": s}).rows(1)
    Race("w", {}, 10, warmup=1).rows(None)
    assert asked == [({}, 1, 2, math.inf), ({}, 15, 1, races.SECONDS)]
    expected = {"work": "w", "who": "us", "runs": 1, "ms": 2000, "spread": 0, "rate": 5, "ratio": 1}
    assert us == {**expected, "x": 2.0}
    assert (them["who"], them["rate"], them["ratio"]) == ("them", pytest.approx(10 / 3), 1.5)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="others count pages less exactly")
def test_peak_of_a_process_of_its_own():
    """What the first call held does not count; a step of the second holds 8 x 4 MB of logits."""
    shape, rest = (1, 1, 8, 16, 16, 4096), ("sdpa", "cpu", "float32")
    logits = 16 * 16 * 4096 * 4
    assert logits < peak_apart(two_steps, (shape, *rest), first=(TOY, *rest)) < 20 * logits
    assert peak_apart(two_steps, (TOY, *rest), first=(shape, *rest)) < logits / 2


NANO = """
import torch
from dataclasses import dataclass

@dataclass
class GPTConfig:
    block_size: int
    vocab_size: int
    n_layer: int
    n_head: int
    n_embd: int
    dropout: float = 0.0
    bias: bool = True

class GPT(torch.nn.Module):
    def __init__(self, config):
        super().__init__()
        self.head = torch.nn.Embedding(config.vocab_size, config.vocab_size)
    def configure_optimizers(self, decay, lr, betas, device):
        return torch.optim.AdamW(self.parameters(), lr=lr)
    def forward(self, idx, targets):
        logits = self.head(idx)
        return logits, torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
    def generate(self, idx, steps):
        return idx
"""


def fake_transformers():
    """What we ask of transformers: its generate must be told to draw from all tokens."""

    class Model(torch.nn.Module):
        def __init__(self, config):
            super().__init__()
            assert config["n_positions"] == 8

        def generate(self, idx, attention_mask, max_new_tokens, do_sample, top_k, pad_token_id):
            assert (idx.shape, max_new_tokens, do_sample, top_k) == ((1, 1), 4, True, 0)

    hf = ModuleType("transformers")
    hf.__spec__ = ModuleSpec("transformers", None, origin="fake")
    hf.GPT2Config, hf.GPT2LMHeadModel = dict, Model
    return hf


TOYS = (1, 2, 16, 8, 2, 65)


@pytest.fixture
def toys(monkeypatch):
    """The same races in toy shapes."""
    written = {"4x128": (TOYS, (3, 4)), "12x768": (TOYS, (2, 4))}
    for module in (races, profile):
        monkeypatch.setattr(module, "SHAPES", {"4x128": TOYS, "12x768": TOYS})
        monkeypatch.setattr(module, "WRITE", written)
    monkeypatch.setattr(races, "BLOCKS", {"8": TOYS})
    monkeypatch.setattr(races, "free_memory", lambda device: 9e9)
    monkeypatch.setattr(races, "peak_of_steps", lambda *_, **__: 5_000_000)
    monkeypatch.setattr(limits, "matmul_peak", lambda *_: 2e9)
    monkeypatch.setattr(limits, "copy_peak", lambda *_: 3e9)


def told(capfd, *args):
    """What bench.py prints: lines for people, and the figures."""
    capfd.readouterr()
    assert bench.main(["--device", "cpu", *args]) == 0
    *people, last = capfd.readouterr().out.splitlines()
    return people, json.loads(last)


def test_bench_beside_a_peer(toys, capfd, monkeypatch, error_of, tmp_path):
    monkeypatch.setitem(sys.modules, "transformers", fake_transformers())
    (tmp_path / "model.py").write_text(NANO, encoding="utf-8")
    flags = ["--runs", "2", "--peers", "--nanogpt", str(tmp_path), "--only"]
    people, found = told(capfd, *flags, "train", "write", "attention")
    by = {(r["bench"], r["work"], r["who"]): r for r in found["results"]}
    assert {("train", "4x128", "llm-tiny"), ("train", "12x768", "nanoGPT")} <= set(by)
    assert {("write", "4x128, 4 tokens", w) for w in ("nanoGPT", "transformers")} <= set(by)
    assert {("attention", "block 8", w) for w in ("naive", "sdpa")} <= set(by)
    assert ("write", "4x128, 32 x 32 tokens", "one by one") in by
    assert all(r["ms"] > 0 and r["runs"] == 2 for r in found["results"])
    row = by["train", "12x768", "llm-tiny"]
    assert row["peak_memory"] == 5_000_000
    assert row["of_matmul"] == pytest.approx(row["gflops"] / 2)
    row = by["write", "12x768, 4 tokens", "llm-tiny"]
    assert row["of_copy"] == pytest.approx(row["gb_per_s"] / 3)
    assert not any("mfu" in r for r in found["results"])
    assert found["command"].endswith("--only train write attention")
    assert {"date", "commit", "dirty", "machine", "runs"} <= set(found)
    assert found["runs"] == 2
    assert found["peak_memory"] > 1e6
    text = "\n".join(people)
    assert "matmul 2 GFLOP/s, measured; a copy 3.0 GB/s" in text
    assert "attn=auto is sdpa with this torch" in text
    assert "MFU" not in text
    assert "no nowhere/model.py" in error_of(
        bench.main, "--nanogpt", "nowhere", "--only", "train", "--runs", "1"
    )
    assert "runs=0" in error_of(bench.main, "--runs", "0")


def test_bench_by_itself(toys, capfd, monkeypatch, tmp_path):
    """Fewer tokens of GPT-2 small; none of its steps where memory is short; aligned columns."""
    monkeypatch.setattr(races, "free_memory", lambda device: 3.9e9)
    monkeypatch.setattr(races, "SECONDS", 0.01)
    people, found = told(capfd, "--only", "train", "write")
    assert f"{'12x768':30}left out: it wants 4 GB of free memory" in people
    assert [r["work"] for r in found["results"] if r["bench"] == "train"] == ["4x128"]
    assert "12x768, 2 tokens" in [r["work"] for r in found["results"]]
    assert all(3 <= r["runs"] <= 15 for r in found["results"])
    assert found["runs"] is None
    (head,) = (line for line in people if line.startswith("train "))
    (row,) = (line for line in people if line.startswith("4x128  "))
    ends = [head.index(word) + len(word) for word in ("spread", "tok/s", "x time", "memory")]
    assert all(row[end - 1] != " " and row[end : end + 1].strip() == "" for end in ends)


def test_bench_of_what_is_compiled(toys, capfd, monkeypatch):
    """Without the compiler: who takes part."""
    calls = []
    monkeypatch.setattr(torch, "compile", lambda f, **options: calls.append(options) or f)
    _, found = told(capfd, "--only", "train", "write", "--compile", "--runs", "1")
    who = {(r["bench"], r["who"]) for r in found["results"]}
    assert {("train", "compiled"), ("write", "compiled")} <= who
    assert {} in calls  # a training step
    assert any(options.get("fullgraph") for options in calls)  # CompiledStep


def test_bench_of_the_tokenizer(toys, capfd, text_file):
    """Ours and the peers, MB of text a second, on a text and a vocabulary of the caller's."""
    pytest.importorskip("tokenizers")
    pytest.importorskip("tiktoken")
    flags = ["--peers", "--runs", "1", "--text", str(text_file), "--vocab", "280"]
    _, found = told(capfd, "--only", "tokenizer", *flags)
    rows = {(r["work"], r["who"]): r for r in found["results"]}
    train, encode = "BPE train, 280 tokens", "BPE encode"
    newer, peer = ("WordPiece", "unigram"), "tokenizers"
    assert set(rows) == {
        *((train, who) for who in ("llm-tiny", "tokenizers")),
        *((encode, who) for who in ("llm-tiny", "first call", "tiktoken")),
        *((f"{kind} train, 280 tokens", who) for kind in newer for who in ("llm-tiny", peer)),
        *((f"{kind} encode", who) for kind in newer for who in ("llm-tiny", "first call", peer)),
    }
    megabytes = text_file.stat().st_size / 1e6
    for row in rows.values():
        assert row["rate"] == pytest.approx(megabytes / (row["ms"] / 1e3))


@pytest.mark.parametrize("pos", ["rope", "learned"])
def test_bench_of_a_run_beside_transformers(toys, toy_run, capfd, monkeypatch, error_of, pos):
    """LLaMA or GPT-2 with the run's own weights: both write the same tokens."""
    pytest.importorskip("transformers", reason="needs transformers: pip install -e '.[peers]'")
    shape = ["--pos", pos, "--norm", "rmsnorm", "--mlp", "swiglu", "--bias", "false"]
    shape = shape if pos == "rope" else ["--pos", pos, "--mlp", "gelu_tanh", "--bias", "true"]
    path = toy_run / "config.yaml"
    again = ["--config", str(path), "--run", "own", "--steps", "1", "--block_size", "24", *shape]
    assert train.main(again) == 0
    monkeypatch.setattr(races, "PROMPTS", (3, 12, 40))
    monkeypatch.setattr(races, "ANSWER", 6)
    people, found = told(capfd, "--run", "own", "--runs", "2")
    rows = [(r["bench"], r["work"], r["who"]) for r in found["results"]]
    who = ("llm-tiny", "transformers")
    assert rows == [("run", f"6 tokens after {T}", name) for T in (3, 12) for name in who]
    assert people.count("  both write the same tokens after 12") == 1
    assert all(r["rate"] == pytest.approx(6e3 / r["ms"]) for r in found["results"])
    said = error_of(bench.main, "--run", "own", "--only", "write")
    assert "--run goes with --only run or serve" in said


def test_an_mfu_is_told_of_a_named_peak(toys, capfd, monkeypatch):
    monkeypatch.setattr(limits, "limits_of", lambda device: Limits(1e12, True, 1e9))
    people, found = told(capfd, "--only", "train", "--runs", "1")
    assert "matmul 1,000 GFLOP/s, by its datasheet" in people[1]
    assert all(r["mfu"] > 0 and "of_matmul" not in r for r in found["results"])
    assert "MFU" in people[3]
    assert "of matmul" not in people[3]
    assert "%" not in people[4].split("llm-tiny")[1].split("ms")[1][:10]  # one run has no spread


def test_profile_writes_traces_that_viewers_open(toys, capfd, tmp_path):
    assert bench.main(["--device", "cpu", "--profile", str(tmp_path / "new" / "trace")]) == 0
    out = capfd.readouterr().out
    for name in ("train", "write"):
        path = tmp_path / "new" / "trace" / f"{name}.pt.trace.json"
        assert str(path) in out
        events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
        assert {"aten::mm", "aten::add"} <= {e["name"] for e in events if e.get("ph") == "X"}
    assert out.count("aten::") >= 20 - 4  # ten each, but for autograd's own


def test_a_trace_gives_what_was_dearest(tmp_path):
    a = torch.ones(200, 200)
    first, *others = trace(lambda: [a @ a for _ in range(9)], tmp_path / "t.json", CPU)
    assert (first.name, first.calls) == ("aten::mm", 9)
    assert all(first.ms >= cost.ms >= 0 for cost in others)


def test_every_race_has_a_table():
    assert list(bench.BENCHES) == list(races.RACES)
    assert "busy" not in bench.parse([]).only


@pytest.mark.slow
def test_bench_of_a_server_beside_another(tmp_path, capfd, monkeypatch):
    """Ours in a process of its own, and by --peer any other; here a second one of ours."""
    import hub_models
    from serve_tools import running

    hub_models.make_run(tmp_path / "toy", "llama", block_size=400)
    (tmp_path / "my.txt").write_text("The fox jumps. " * 99, encoding="utf-8")
    monkeypatch.setattr("utils.bench.races.LOADS", (1, 2))
    flags = ["--run", f"{tmp_path}/toy", "--only", "serve", "--runs", "1", "--device", "cpu"]
    with running(tmp_path / "toy") as server:
        flags += ["--peer", server.url, "--text", f"{tmp_path}/my.txt", "--dtype", "float32"]
        assert bench.main(flags) == 0
    out = capfd.readouterr().out
    rows = json.loads(out.splitlines()[-1])["results"]
    who = [row["who"] for row in rows]
    assert {"at once", "in turn", "peer, at once", "peer, in turn", "generate"} <= set(who)
    assert len([line for line in out.splitlines() if " clients " in line]) == 4
