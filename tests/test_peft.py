"""LoRA's adapters beside peft's: the same files, the same logits, both ways."""

import json
import os
from pathlib import Path

import pytest
import torch
from hub_models import TEXT, make_run

import sample
import train
from model.adapt.lora import add_lora, lora_state
from model.adapt.lora_config import LoRAConfig
from model.convert.peft import from_peft, to_peft
from utils.hub.__main__ import main
from utils.hub.pretrained import Pretrained, write_pretrained
from utils.training.checkpoint import load_checkpoint
from utils.training.models import load_model

os.environ["HF_HUB_OFFLINE"] = "1"
peft = pytest.importorskip("peft", reason="pip install peft")
safetensors = pytest.importorskip("safetensors.torch", reason="pip install 'llm-tiny[hub]'")
transformers = pytest.importorskip("transformers", reason="pip install transformers")
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # peft, of transformers
KINDS = ["gpt2", "llama"]
FLAGS = ["--device", "cpu", "--dtype", "float32", "--sample", "0", "--batch_size", "2"]


def random_adapters(model, config, seed=3):
    torch.manual_seed(seed)
    add_lora(model, config)
    return {name: 0.3 * torch.randn_like(t) for name, t in lora_state(model).items()}


@pytest.fixture
def adapted(text_file):
    """A base that is exported, and a run with adapters on it, trained for two steps."""

    def make(kind, *flags, **change):
        make_run("runs/base", kind, **change)
        main(["export", "base", "--to", "hf", "hf"])
        Path("a.txt").write_text(TEXT * 20)
        own = ["--data", "a.txt", "--init", "base", "--run", "my", "--steps", "3", "--lr", "0.01"]
        assert train.main([*own, *FLAGS, "--warmup", "0", "--lora", "3", *flags]) == 0
        return load_model(Path("runs/my"))[0].eval()

    return make


def close(found, expected, bound=1e-6):
    """Equal to a millionth of the largest logit."""
    assert (found - expected).abs().max() <= bound * expected.abs().max().clamp(min=1)


def inputs():
    torch.manual_seed(5)
    return torch.randint(300, (2, 30))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("flags", [[], ["--lora_rs"], ["--lora_targets", "qkv down"]])
def test_peft_and_transformers_read_what_we_trained(kind, flags, adapted):
    ours, x = adapted(kind, *flags), inputs()
    main(["export", "my", "--to", "peft", "out"])
    said = json.loads(Path("out/adapter_config.json").read_text())
    assert not Path(said["base_model_name_or_path"]).is_absolute()
    with torch.no_grad():
        base = transformers.AutoModelForCausalLM.from_pretrained("hf").eval()
        plain = base(x).logits
        theirs = peft.PeftModel.from_pretrained(base, "out").eval()
        assert (ours(x)[0] - plain).abs().max() > 1e-3  # it has learnt something
        close(theirs(x).logits, ours(x)[0])
        again = transformers.AutoModelForCausalLM.from_pretrained("hf").eval()
        again.load_adapter("out")
        close(again(x).logits, ours(x)[0])


@pytest.mark.parametrize("kind", KINDS)
def test_adapters_come_back_equal_to_the_bit(kind, adapted):
    ours = adapted(kind)
    main(["export", "my", "--to", "peft", "out"])
    main(["import", "out", "--base", "base", "--run", "back"])
    back = load_model(Path("runs/back"))[0]
    for name, tensor in lora_state(ours).items():
        assert torch.equal(tensor, lora_state(back)[name]), name
    assert torch.equal(back.eval()(inputs())[0], ours(inputs())[0])


TARGETS = {
    "gpt2": [["c_attn"], ["c_attn", "c_fc", "attn.c_proj", "mlp.c_proj"]],
    "llama": [["q_proj", "v_proj"], ["k_proj", "o_proj"], ["q_proj", "k_proj", "v_proj"]],
}
TARGETS["llama"].append(["q_proj", "v_proj", "gate_proj", "up_proj", "down_proj"])


MORE = {"r": 2, "lora_alpha": 3}
FIRST_Q = {"rank_pattern": {"model.layers.0.self_attn.q_proj": 4}}
FIRST_Q["alpha_pattern"] = {"layers.0.self_attn.q_proj": 6}
MADE = [(kind, names, MORE) for kind in KINDS for names in TARGETS[kind]]
MADE += [(kind, TARGETS[kind][-1], {"r": 1, "lora_alpha": 1.5}) for kind in KINDS]
MADE += [(kind, TARGETS[kind][0], {**MORE, "r": 7, "use_rslora": True}) for kind in KINDS]
MADE += [("llama", ["q_proj", "v_proj"], {**MORE, **FIRST_Q})]
MADE += [
    ("gpt2", ["c_attn"], {**MORE, "rank_pattern": {"c_attn": 6}, "alpha_pattern": {"c_attn": 9}})
]


@pytest.mark.parametrize(("kind", "targets", "more"), MADE)
def test_adapters_that_peft_made_compute_the_same_here(kind, targets, more):
    make_run("runs/base", kind)
    main(["export", "base", "--to", "hf", "hf"])
    base = transformers.AutoModelForCausalLM.from_pretrained("hf").eval()
    config = peft.LoraConfig(
        target_modules=targets, fan_in_fan_out=kind == "gpt2", task_type="CAUSAL_LM", **more
    )
    theirs = peft.get_peft_model(base, config).eval()
    torch.manual_seed(2)
    with torch.no_grad():
        for name, p in theirs.named_parameters():
            if "lora_" in name:
                p.copy_(0.1 * torch.randn_like(p))
        theirs.save_pretrained("out")
        main(["import", "out", "--base", "base", "--run", "mine"])
        ours = load_model(Path("runs/mine"))[0].eval()
        expected = theirs(inputs()).logits
        close(ours(inputs())[0], expected)
        main(["import", "out", "--base", "base", "--run", "whole", "--merge"])
        whole = load_model(Path("runs/whole"))[0].eval()
        assert not lora_state(whole)
        close(whole(inputs())[0], expected)
        main(["export", "mine", "--to", "peft", "again"])  # as they came
        one = safetensors.load_file("out/adapter_model.safetensors")
        other = safetensors.load_file("again/adapter_model.safetensors")
        assert one.keys() == other.keys()
        assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())
        base = transformers.AutoModelForCausalLM.from_pretrained("hf").eval()
        close(peft.PeftModel.from_pretrained(base, "again").eval()(inputs()).logits, expected)


def test_merging_a_run_of_ours(adapted):
    ours = adapted("llama")
    main(["import", "my", "--merge", "--run", "whole"])
    whole = load_model(Path("runs/whole"))[0].eval()
    close(whole(inputs())[0], ours(inputs())[0])
    assert load_checkpoint(Path("runs/whole/best.pt"))["base"] is None
    main(["export", "my", "--to", "hf", "merged"])  # what leaves whole is merged, too
    theirs = transformers.AutoModelForCausalLM.from_pretrained("merged").eval()
    with torch.no_grad():
        torch.testing.assert_close(theirs(inputs()).logits, ours(inputs())[0], atol=1e-5, rtol=1e-5)


def test_imported_adapters_write_and_train_on(adapted, capsys):
    adapted("llama")
    main(["export", "my", "--to", "peft", "out"])
    main(["import", "out", "--base", "base", "--run", "back"])
    sample.main(["--run", "back", "--prompt", "The", "--steps", "4", "--device", "cpu"])
    assert "The" in capsys.readouterr().out


@pytest.fixture
def files(adapted):
    """A peft directory to spoil: its table of weights and its config, and a way to import it."""
    adapted("llama")
    main(["export", "my", "--to", "peft", "out"])
    said = json.loads(Path("out/adapter_config.json").read_text())
    return safetensors.load_file("out/adapter_model.safetensors"), said


LAYER = "base_model.model.model.layers.0."
FIRST = LAYER + "mlp.up_proj.lora_A.weight"
Q, V = (f"{LAYER}self_attn.{x}_proj.lora_" for x in "qv")


def without(w, module):
    """Leave out both halves of one adapter."""
    for half in "AB":
        w.pop(f"{module}{half}.weight")


SPOILED = [
    (lambda w, c: w.pop(FIRST), "layers.0.mlp.up_proj.lora_A.weight is missing"),
    (lambda w, c: w.pop(Q + "B.weight"), "layers.0.self_attn.q_proj.lora_B.weight is missing"),
    (lambda w, c: without(w, V), "layers.0.self_attn.v_proj.lora_A.weight is missing"),
    (lambda w, c: [w.pop(k) for k in list(w) if "k_proj" in k], "target_modules has 'self_attn.k"),
    (lambda w, c: w.update({FIRST.replace("lora_A", "lora_C"): w[FIRST] + 1}), "is no adapter of"),
    (lambda w, c: w.update({FIRST[:-7]: w[FIRST] + 1}), "is no adapter of"),
    (lambda w, c: w.update({FIRST.replace("s.0", "s.2"): w[FIRST] + 1}), "is no adapter of"),
    (lambda w, c: w.update({FIRST.replace("up_proj", "odd_proj"): w[FIRST] + 1}), "is no adapter"),
    (
        lambda w, c: w.update({FIRST: w[FIRST][:, :9]}),
        "up_proj.lora_A.weight is (3, 9), not (3, 64)",
    ),
    (lambda w, c: w.update({V + "A.weight": w[V + "A.weight"][:, :9]}), "is (3, 9), not (3, 64)"),
    (lambda w, c: w.update({V + "A.weight": w[V + "A.weight"][:2]}), "is (2, 64), not (3, 64)"),
    (lambda w, c: w.update({Q + "B.weight": w[Q + "B.weight"][:9]}), "is (9, 3), not (64, 3)"),
    (lambda w, c: c.update(r=2), "is (3, 64), not (2, 64)"),
    (lambda w, c: c.update(r="3"), "r='3'"),
    (lambda w, c: c.update(r=2.5), "r=2.5"),
    (lambda w, c: c.update(lora_alpha=0), "lora_alpha=0"),
    (lambda w, c: c.update(lora_alpha=float("nan")), "lora_alpha=nan"),
    (lambda w, c: c.update(lora_alpha=None), "lora_alpha=None"),
    (lambda w, c: c.pop("r"), "r=None"),
    (lambda w, c: c.update(peft_type="IA3"), "peft_type='IA3'"),
    (lambda w, c: c.update(task_type="SEQ_CLS"), "task_type='SEQ_CLS'"),
    (lambda w, c: c.update(use_dora=True), "use_dora=True"),
    (lambda w, c: c.update(bias="all"), "bias='all'"),
    (lambda w, c: c.update(modules_to_save=["lm_head"]), "modules_to_save"),
    (lambda w, c: c.update(layers_to_transform=[0]), "layers_to_transform"),
    (lambda w, c: c.update(init_lora_weights="pissa"), "init_lora_weights='pissa'"),
    (lambda w, c: c.update(alora_invocation_tokens=[1]), "alora_invocation_tokens"),
    (lambda w, c: c.update(something_new={"a": 1}), "something_new"),
    (lambda w, c: c.update(alpha_pattern={"up_proj": 1}), "up_proj counts"),
    (
        lambda w, c: c.update(rank_pattern={"up_proj": 3}, alpha_pattern={"up_proj": 1}),
        "up_proj co",
    ),
    (lambda w, c: c.update(rank_pattern={"(a+)+b": 2}), "rank_pattern has '(a+)+b'"),
    (lambda w, c: c.update(rank_pattern=[1]), "is no object"),
]


@pytest.mark.parametrize(("spoil", "says"), SPOILED)
def test_what_does_not_fit_is_refused_by_name(spoil, says, files, error_of):
    weights, said = files
    spoil(weights, said)
    safetensors.save_file(
        {k: t.contiguous() for k, t in weights.items()}, "out/adapter_model.safetensors"
    )
    Path("out/adapter_config.json").write_text(json.dumps(said))
    assert says in error_of(main, "import", "out", "--base", "base", "--run", "back")
    assert not Path("runs/back").exists()


def test_another_base_and_none_are_refused(files, error_of):
    make_run("runs/wide", "llama", d_model=32, n_head=2, n_kv_head=1)
    assert "is (3, 64), not (3, 32)" in error_of(
        main, "import", "out", "--base", "wide", "--run", "b"
    )
    assert "name the run that they stand on" in error_of(main, "import", "out", "--run", "b")
    assert "than the base" in error_of(main, "import", "out", "--base", "base", "--run", "base")
    merged = "import", "my", "--merge", "--run", "base"
    assert "which the adapters need" in error_of(main, *merged)
    Path("out/adapter_model.safetensors").unlink()
    assert "has no adapter_model" in error_of(main, "import", "out", "--base", "base")


def test_a_rank_above_a_side_of_a_matrix_is_refused(error_of):
    """It became a run that could not be opened."""
    model, _ = make_run("runs/base", "llama")
    state = random_adapters(model, LoRAConfig(lora=64, lora_targets="up"))
    state = {k: torch.cat((t, t), 1 if k.endswith("B") else 0) for k, t in state.items()}
    weights, said = to_peft(state, LoRAConfig(lora=128, lora_targets="up"), model.config)
    Path("out").mkdir()
    safetensors.save_file(dict(weights), "out/adapter_model.safetensors")
    Path("out/adapter_config.json").write_text(json.dumps(said))
    error = error_of(main, "import", "out", "--base", "base", "--run", "back")
    assert "lora=128 is more than 64" in error
    assert not Path("runs/back").exists()


def test_adapters_of_a_model_that_peft_cannot_have_are_refused():
    model, _ = make_run("runs/base", "llama", mlp="relu2")
    state = random_adapters(model, LoRAConfig(lora=2))
    with pytest.raises(ValueError, match="mlp='relu2' has no counterpart"):
        to_peft(state, LoRAConfig(lora=2), model.config)


def test_a_base_is_named_without_the_path_that_it_has_here(adapted):
    adapted("llama")
    Path("runs/base/pretrained.json").unlink()
    Path("runs/my/pretrained.json").unlink()
    main(["export", "my", "--to", "peft", "plain"])
    origin = Pretrained(str(Path("runs/base").absolute()), "", "llama", None, None, None)
    write_pretrained(Path("runs/my"), origin)
    main(["export", "my", "--to", "peft", "named"])
    for path in ("plain", "named"):
        said = json.loads(Path(path, "adapter_config.json").read_text())
        assert said["base_model_name_or_path"] == "base"


def test_blocks_that_differ_in_which_of_q_k_v_learnt_go_out_alike():
    """By chance each column of the first block's B is of one; the second block's are not."""
    model, _ = make_run("runs/base", "llama")
    lora = LoRAConfig(lora=3, lora_targets="qkv")
    state = random_adapters(model, lora)
    state["blocks.0.attn.qkv.lora_B"] *= 0
    for x, rows in enumerate([slice(64), slice(64, 96), slice(96, 128)]):
        state["blocks.0.attn.qkv.lora_B"][rows, x] = 1.0  # a column each
    weights, said = to_peft(state, lora, model.config)
    assert len(weights) == 2 * 3 * 2
    assert {len(t) for key, t in weights.items() if "lora_A" in key} == {3}
    assert said["rank_pattern"] == {}
    back, _ = from_peft(weights, said, model.config)
    assert all(torch.equal(back[key], tensor) for key, tensor in state.items())


@pytest.mark.parametrize("kind", KINDS)
def test_dictionaries_there_and_back(kind):
    """Also where the three adapters of q, k and v differ in rank, and B is 0 as at the start."""
    model, _ = make_run("runs/base", kind)
    for lora in (LoRAConfig(lora=1), LoRAConfig(lora=5, lora_alpha=7, lora_rs=True)):
        plain = load_model(Path("runs/base"))[0]
        state = random_adapters(plain, lora)
        zero = {k: t * 0 if k.endswith("B") else t for k, t in state.items()}
        for each in (state, zero):
            weights, said = to_peft(each, lora, model.config)
            back, config = from_peft(weights, said, model.config)
            assert back.keys() == each.keys()
            assert all(torch.equal(back[k], t) for k, t in each.items())
            assert (config.lora, config.scale) == (lora.lora, pytest.approx(lora.scale))


ZEROS = ["all", "one column", "the last block", "q"]


@pytest.mark.parametrize("zero", ZEROS)
@pytest.mark.parametrize("names", ["qkv", "qv"])
def test_adapters_of_which_some_are_0_leave_as_they_came(zero, names):
    """B is 0 where peft begins: no column told whose it was, and all left with the summed rank."""
    model, _ = make_run("runs/base", "llama")
    r, rows = 3, {"q": 64, "k": 32, "v": 32}
    torch.manual_seed(7)
    weights = {}
    for i in (0, 1):
        for x in names:
            name = f"base_model.model.model.layers.{i}.self_attn.{x}_proj.lora_"
            A, B = torch.randn(r, 64), torch.randn(rows[x], r)
            if zero == "all" or (zero == "the last block" and i) or (zero == "q" and x == "q"):
                B *= 0
            if zero == "one column":
                B[:, 1] = 0
            weights |= {name + "A.weight": A, name + "B.weight": B}
    said = {"peft_type": "LORA", "r": r, "lora_alpha": 6, "bias": "none"}
    state, lora = from_peft(weights, said, model.config)
    again, other = to_peft(state, lora, model.config)
    assert again.keys() == weights.keys()
    assert all(torch.equal(t, weights[name]) for name, t in again.items())
    assert (other["r"], other["rank_pattern"]) == (r, {})


def test_columns_of_others_are_not_taken_for_side_by_side():
    """A rank of 9 that happens to be 3 times 3, all columns reaching all rows, stays shared."""
    model, _ = make_run("runs/base", "llama")
    lora = LoRAConfig(lora=9, lora_targets="qkv")
    state = random_adapters(model, lora)
    weights, said = to_peft(state, LoRAConfig(lora=3, lora_targets="qkv"), model.config)
    assert said["rank_pattern"] == {f"self_attn.{x}_proj": 9 for x in "qkv"}
    back, _ = from_peft(weights, said, model.config)
    assert all(torch.equal(back[name], t) for name, t in state.items())
