"""`python -m utils.compress`: runs in 8 and 4 bits, which every script takes."""

import json
import math
import sys
from pathlib import Path

import pytest
import torch
from hub_models import make_run

import eval as eval_script
import sample
from model import generate
from model.adapt.quant import dequantize, quantize, quantized_layers
from utils.compress import table
from utils.compress.__main__ import main
from utils.hub.__main__ import main as hub
from utils.training.models import load_model
from utils.writing.text import start_ids

IDS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6], [2, 7, 1, 8, 2, 8, 1, 8]])


@pytest.fixture
def float_run(tmp_path):
    """The run `runs/whole`, a small LLaMA with a chat template."""
    make_run(tmp_path / "runs" / "whole", "llama", d_ff=128, tie_weights=True)
    return tmp_path / "runs" / "whole"


def logits(model):
    with torch.no_grad():
        return model.eval()(IDS)[0]


@pytest.mark.parametrize(
    ("flags", "how"),
    [
        (["--int8"], (8, 32, 8)),
        (["--int4"], (4, 32, 8)),
        (["--int4", "--group", "64", "--embedding-bits", "4"], (4, 64, 4)),
        (["--int4", "--embedding-bits", "32"], (4, 32, 32)),
    ],
)
def test_the_run_is_the_quantized_model(float_run, flags, how, capsys):
    main(["whole", *flags, "--out", "small"])
    said = capsys.readouterr().out
    whole, tokenizer, _ = load_model(float_run)
    model, kept, checkpoint = load_model(float_run.with_name("small"))
    assert torch.equal(logits(model), logits(quantize(whole, *how)))
    assert kept.vocab_size == tokenizer.vocab_size
    keys = "bits", "group", "embedding_bits", "method"
    assert checkpoint["quantized"] == dict(zip(keys, (*how, ""), strict=True))
    assert f"{how[0]} bits" in said
    assert (float_run.with_name("small") / "pretrained.json").exists()


def test_the_file_is_as_small_as_it_says(float_run, capsys):
    """Two integers of 4 bits a byte, and of a tied head one matrix."""
    make_run(float_run.with_name("wide"), "llama", d_model=256, tie_weights=True, d_ff=512)
    main(["wide", "--int4", "--out", "small"])
    model, _, _ = load_model(float_run.with_name("small"))
    n = (
        sum(m.weight.numel() for m in quantized_layers(model).values())
        - model.tok_emb.weight.numel()
    )
    exact = (n - 300 * 256) * (4 + 32 / 32) / 8 + 300 * (256 + 4)  # fp16 scale and zero for 32
    size = (float_run.with_name("small") / "best.pt").stat().st_size
    assert exact < size < exact + 5 * 256 * 4 + 40_000  # norms, names, settings
    assert size < 0.2 * (float_run.with_name("wide") / "best.pt").stat().st_size
    assert "bits each" in capsys.readouterr().out


def test_sample_and_eval_take_it(float_run, capsys, text_file):
    main(["whole", "--int4", "--out", "small"])
    model, tokenizer, _ = load_model(float_run.with_name("small"))
    model.eval()
    end = tokenizer.special_tokens["<|endoftext|>"]
    sample.main(["--run", "small", "--prompt", "the dog", "--steps", "8", "--temp", "0"])
    known = generate(model, [start_ids(tokenizer, "the dog", end)], 8, temperature=0)
    assert tokenizer.decode([int(i) for i in known]) in capsys.readouterr().out
    text = ["--data", str(text_file)]
    eval_script.main(["--run", "small", *text])
    scores = json.loads((float_run.with_name("small") / "eval-other.json").read_text("utf-8"))
    eval_script.main(["--run", "whole", *text])
    whole = json.loads((float_run / "eval-other.json").read_text("utf-8"))
    assert scores["base"] == whole["model"]  # the floats, for comparison
    assert scores["model"]["val_loss"] == pytest.approx(whole["model"]["val_loss"], rel=0.05)
    assert scores["model"] != whole["model"]


def test_a_trained_run_keeps_its_text(toy_run, capsys):
    """And its step, so that eval.py scores what it was trained on."""
    main(["my", "--int8", "--out", "small"])
    eval_script.main(["--run", "small"])
    assert "step 6" in capsys.readouterr().out
    scores = json.loads((toy_run.with_name("small") / "eval.json").read_text("utf-8"))
    assert scores["model"]["val_loss"] == pytest.approx(scores["base"]["val_loss"], rel=1e-3)


def test_what_is_made_of_it_has_its_values(float_run, tmp_path):
    """Exports, and trainings that begin with it, have the floats that it computes with."""
    main(["whole", "--int4", "--out", "small"])
    floats = dequantize(load_model(float_run.with_name("small"))[0])
    hub(["export", "small", "--to", "hf", str(tmp_path / "exported")])
    hub(["import", str(tmp_path / "exported"), "--run", "back"])
    back, _, _ = load_model(float_run.with_name("back"))
    assert torch.equal(logits(back), logits(floats))


@pytest.mark.parametrize("lora", [[], ["--lora", "2"]])
def test_a_training_begins_with_its_values(float_run, text_file, lora):
    """With adapters they are what adapters learn beside, and are merged into."""
    import train

    main(["whole", "--int4", "--out", "small"])
    floats = dequantize(load_model(float_run.with_name("small"))[0])
    flags = ["--init", "small", "--data", str(text_file), "--steps", "1", "--eval_every", "1"]
    quick = [
        "--lr",
        "1e-30",
        "--sample",
        "0",
        "--batch_size",
        "2",
        "--block_size",
        "16",
        "--device",
        "cpu",
    ]
    assert train.main([*flags, *quick, *lora, "--run", "tuned", "--dtype", "float32"]) == 0
    tuned, _, checkpoint = load_model(float_run.with_name("tuned"))
    assert bool(checkpoint["base"]) == bool(lora)
    torch.testing.assert_close(logits(tuned), logits(floats))


def test_adapters_are_merged_first(toy_run, text_file):
    """What is rounded is the sum."""
    import train

    flags = [
        "--init",
        "my",
        "--data",
        str(text_file),
        "--lora",
        "2",
        "--steps",
        "2",
        "--device",
        "cpu",
    ]
    assert train.main([*flags, "--run", "tuned", "--sample", "0", "--eval_every", "2"]) == 0
    main(["tuned", "--int8", "--out", "small"])
    hub(["import", "tuned", "--merge", "--run", "sum"])
    whole, _, _ = load_model(toy_run.with_name("sum"))
    model, _, checkpoint = load_model(toy_run.with_name("small"))
    assert checkpoint["base"] is None
    assert torch.equal(logits(model), logits(quantize(whole, 8)))


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--int4", "--group", "128"], "a row of 64 weights is less than a group of 128"),
        (["--int8", "--group", "32"], "--group is for --int4"),
        (["--int8", "--embedding-bits", "4"], "--embedding-bits 4 is for --int4"),
        (["--int4", "--group", "48"], "invalid choice: 48"),
        ([], "one of the arguments --int8 --int4 --prune --table is required"),
        (["--table", "--data", "x.txt"], "--table makes none"),
        (["--int8", "--data", "x.txt"], "--table goes with --data"),
        (["--int4", "--int8"], "not allowed with"),
        (["--int4", "--ckpt", "last"], "no checkpoint"),
        (["--int4", "--gptq"], "goes with --calibrate FILE"),
        (["--int4", "--calibrate", "x.txt"], "goes with --calibrate FILE"),
        (["--int8", "--gptq", "--calibrate", "x.txt"], "are for --int4"),
        (["--int4", "--gptq", "--calibrate", "x.txt"], "x.txt"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(float_run, flags, says, error_of):
    assert says in error_of(main, "whole", *flags, "--out", "small")
    assert [p.name for p in float_run.parent.iterdir()] == ["whole"]


def test_other_bad_input(float_run, toy_run, error_of):
    assert "no run" in error_of(main, "nothing", "--int8", "--out", "small")
    assert "must name another run" in error_of(main, "whole", "--int8", "--out", "runs/whole")
    narrow = error_of(main, "my", "--int4", "--out", "small")
    assert "a row of 16 weights is less than a group of 32; take --int8" in narrow
    assert not (toy_run.parent / "small").exists()
    main(["whole", "--int8", "--out", "small"])
    assert "quantized already" in error_of(main, "small", "--int4", "--out", "smaller")


def test_a_full_disk_leaves_nothing(float_run, error_of, monkeypatch):
    def full(*a, **k):
        raise RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed")

    monkeypatch.setattr("torch.save", full)
    assert "is the disk full?" in error_of(main, "whole", "--int8", "--out", "small")
    assert [p.name for p in float_run.parent.iterdir()] == ["whole"]


def test_damaged_codes_are_named(float_run, error_of):
    main(["whole", "--int4", "--out", "small"])
    file = float_run.with_name("small") / "best.pt"
    checkpoint = torch.load(file, weights_only=True)
    checkpoint["model"]["blocks.1.mlp.up.q"] = checkpoint["model"]["blocks.1.mlp.up.q"][:-1]
    torch.save(checkpoint, file)
    said = error_of(sample.main, "--run", "small", "--prompt", "the")
    assert "blocks.1.mlp.up has codes (127, 32)" in said


def test_layers_without_a_kernel_are_said(float_run, capsys):
    """300 rows are no multiple of 16: the head is multiplied in float32."""
    main(["whole", "--int4", "--embedding-bits", "4", "--out", "small"])
    assert "no kernel for 1 of its layers (head): smaller, not faster" in capsys.readouterr().out


@pytest.mark.parametrize("flags", [["--gptq"], ["--awq"], ["--gptq", "--awq"]])
def test_calibrated_rounding_is_nearer_to_the_floats(float_run, text_file, flags, capsys):
    more = [*flags, "--calibrate", str(text_file)]
    main(["whole", "--int4", "--group", "64", *more, "--out", "read"])
    assert "by " + "+".join(sorted(f[2:] for f in flags)) in capsys.readouterr().out
    main(["whole", "--int4", "--group", "64", "--out", "plain"])
    whole, tokenizer, _ = load_model(float_run)
    ids = torch.tensor([tokenizer.encode(text_file.read_text("utf-8"))[:1440]]).view(-1, 48)
    with torch.no_grad():
        exact = whole.eval()(ids)[0]
        off = [
            (load_model(float_run.with_name(name))[0].eval()(ids)[0] - exact).norm()
            for name in ("read", "plain")
        ]
    assert off[0] < off[1]


def test_a_short_calibration_text_is_refused(float_run, text_file, error_of):
    text_file.write_text("too short", encoding="utf-8")
    said = error_of(main, "whole", "--int4", "--gptq", "--calibrate", text_file, "--out", "small")
    assert "tokens; calibration needs at least 128" in said
    assert not float_run.with_name("small").exists()


def test_nearness_by_hand():
    p = torch.tensor([[0.5, 0.25, 0.25], [0.25, 0.25, 0.5]]).log()
    q = torch.tensor([[0.25, 0.5, 0.25], [0.25, 0.25, 0.5]]).log()
    near = table.nearness(p, q, torch.tensor([1, 2]))
    assert near.ppl == pytest.approx(2.0)
    assert near.kl == pytest.approx(0.25 * math.log(2) / 2)
    assert near.top1 == 0.5
    assert table.nearness(p, p, torch.tensor([0, 0])).kl == 0


def test_equal_share():
    assert table.equal_share([[1, 2, 3, 4], [5, 6, 7, 8]], [[1, 2, 9, 4], [5, 6, 7, 8]]) == 0.75


def test_the_table_compares_a_run_with_what_it_becomes(float_run, text_file, capsys, monkeypatch):
    monkeypatch.setattr(table, "RUNS", 1)
    monkeypatch.setattr(table, "peak_of", lambda run: 5_000_000)
    main(["whole", "--table", "--data", str(text_file)])
    head, *rows = [line.split() for line in capsys.readouterr().out.splitlines()[:5]]
    assert head[2:4] == ["MB", "peak"]
    assert [row[0] for row in rows] == ["whole", "int8", "int4-32", "int4-64"]
    assert rows[0][9:12] == ["0.0000", "100.0%", "100%"]
    sizes = [float(row[3]) for row in rows]
    assert sizes == sorted(sizes, reverse=True)
    kls = [float(row[9]) for row in rows]
    assert kls == sorted(kls)
    assert [p.name for p in float_run.parent.iterdir()] == ["whole"]  # the others are gone


def test_the_table_of_runs(float_run, text_file, capsys, monkeypatch):
    main(["whole", "--int8", "--out", "small"])
    monkeypatch.setattr(table, "RUNS", 1)
    monkeypatch.setattr(table, "peak_of", lambda run: 5_000_000)
    capsys.readouterr()
    main(["whole", "small", "--table", "--data", str(text_file)])
    rows = capsys.readouterr().out.splitlines()[1:3]
    assert [row.split()[0] for row in rows] == ["whole", "small"]


def test_bad_input_of_a_table(float_run, text_file, error_of):
    assert "one run at a time" in error_of(main, "whole", "whole", "--int8", "--out", "x")
    text_file.write_text("short", encoding="utf-8")
    assert "a table needs more than 48" in error_of(main, "whole", "--table", "--data", text_file)


def test_memory_is_measured_in_a_process_of_its_own(float_run):
    assert table.peak_of(float_run) > 0


FAKE = '''#!{python}
"""What llama-cpp-python is asked for, without it: a fake of the worker's answers."""
import json, sys
import numpy as np
for line in sys.stdin:
    job = json.loads(line)
    if job["do"] == "quantize":
        open(job["out"], "wb").write(b"GGUF" * {{"Q8_0": 4, "Q4_1": 3, "Q4_0": 2}}[job["type"]])
    if job["do"] == "score":
        np.save(job["out"], np.zeros((len(job["ids"]), 300), np.float32))
    answers = {{"write": [7] * job.get("n", 0), "peak": 3_000_000}}
    print(json.dumps(answers.get(job["do"])), flush=True)
'''


def test_llama_cpp_gets_rows_in_the_same_table(float_run, text_file, capsys, monkeypatch, tmp_path):
    """By a fake, since few machines have llama.cpp: what it is asked for, and where answers go."""
    fake = tmp_path / "python"
    fake.write_text(FAKE.format(python=sys.executable), encoding="utf-8")
    fake.chmod(0o755)
    monkeypatch.setattr(table, "RUNS", 1)
    monkeypatch.setattr(table, "peak_of", lambda run: 5_000_000)
    main(["whole", "--int8", "--out", "small"])
    capsys.readouterr()
    flags = ["--llama", str(fake), "--plot", "table.png"]
    main(["whole", "small", "--table", "--data", str(text_file), *flags])
    assert Path("table.png").read_bytes().startswith(b"\x89PNG")
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:6]]
    assert [row[:2] for row in rows[2:]] == [["llama.cpp", k] for k in ("Q8_0", "Q4_1", "Q4_0")]
    assert rows[2][2:4] == ["-", "-"]
    assert rows[2][5] == "3"
    assert rows[2][7] == "-"
    assert rows[2][9] == "300.00"  # equal logits of 300 tokens


def test_a_python_without_llama_cpp(float_run, text_file, error_of):
    flags = "whole", "--table", "--data", text_file, "--llama"
    assert "No such file" in error_of(main, *flags, "no-such-python")
    assert "is llama-cpp-python there?" in error_of(main, *flags, sys.executable)
    assert "--plot p.png goes with --table" in error_of(
        main, "whole", "--int8", "--plot", "p.png", "--out", "y"
    )
    assert "--llama goes with --table" in error_of(
        main, "whole", "--int8", "--llama", "x", "--out", "y"
    )
