"""Weights and configs of Hugging Face: there and back, and the same logits as transformers."""

import re
from dataclasses import replace

import pytest
import torch

from model import GPTConfig, TinyGPT
from model.convert import (
    config_from_hf,
    config_to_hf,
    gpt2_from_hf,
    gpt2_to_hf,
    llama_from_hf,
    llama_to_hf,
)

GPT2 = GPTConfig(31, 13, 3, 3, 27, mlp="gelu_tanh", norm_eps=0.02)  # odd sizes throughout
LLAMA = GPTConfig(
    vocab_size=31,
    block_size=13,
    n_layer=3,
    n_head=6,
    d_model=36,
    n_kv_head=2,
    d_ff=53,
    bias=False,
    pos="rope",
    rope_theta=500.0,
    norm="rmsnorm",
    norm_eps=0.02,
    mlp="swiglu",
    tie_weights=False,
)
KINDS = {
    "gpt2": (GPT2, gpt2_from_hf, gpt2_to_hf),
    "gpt2 untied": (replace(GPT2, tie_weights=False, mlp="relu"), gpt2_from_hf, gpt2_to_hf),
    "llama": (LLAMA, llama_from_hf, llama_to_hf),
    "llama tied": (replace(LLAMA, tie_weights=True, n_kv_head=1), llama_from_hf, llama_to_hf),
    "llama with wide heads": (replace(LLAMA, head_dim=10), llama_from_hf, llama_to_hf),
    "llama with biases": (replace(LLAMA, bias=True, n_kv_head=0), llama_from_hf, llama_to_hf),
}
EVERY = pytest.mark.parametrize("kind", KINDS)


def model_of(config, seed=0):
    """A model whose every number is its own: norms and biases, too."""
    torch.manual_seed(seed)
    model = TinyGPT(config).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.2 * torch.randn_like(p))
    return model


def ids(B=3, T=9):
    return torch.randint(31, (B, T), generator=torch.Generator().manual_seed(1))


@EVERY
def test_there_and_back_is_the_same(kind):
    config, from_hf, to_hf = KINDS[kind]
    state = model_of(config).state_dict()
    theirs = to_hf(state)
    back = from_hf(theirs)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[key], state[key]) for key in state)
    again = to_hf(back)
    assert again.keys() == theirs.keys()
    assert all(torch.equal(again[key], theirs[key]) for key in theirs)
    assert sum(t.numel() for t in theirs.values()) == sum(t.numel() for t in state.values())


@EVERY
def test_what_is_given_stays_as_it_is(kind):
    config, from_hf, to_hf = KINDS[kind]
    state = model_of(config).state_dict()
    theirs = to_hf(state)
    for convert, given in ((to_hf, state), (from_hf, theirs)):
        before = {key: t.clone() for key, t in given.items()}
        convert(given)
        assert list(given) == list(before)
        assert all(torch.equal(given[key], before[key]) for key in before)


def test_gpt2s_names_and_shapes():
    theirs = gpt2_to_hf(model_of(GPT2).state_dict())
    assert theirs["transformer.h.2.attn.c_attn.weight"].shape == (27, 81)  # (in, out)
    assert theirs["transformer.h.0.mlp.c_fc.weight"].shape == (27, 108)
    assert theirs["transformer.h.0.mlp.c_proj.weight"].shape == (108, 27)
    assert theirs["transformer.wpe.weight"].shape == (13, 27)
    assert len(theirs) == 2 + 3 * 12 + 3


def test_llamas_names_and_shapes():
    theirs = llama_to_hf(model_of(LLAMA).state_dict())
    shapes = {"q": (36, 36), "k": (12, 36), "v": (12, 36), "o": (36, 36)}
    for x, shape in shapes.items():
        assert theirs[f"model.layers.1.self_attn.{x}_proj.weight"].shape == shape
    assert theirs["model.layers.0.mlp.gate_proj.weight"].shape == (53, 36)
    assert theirs["lm_head.weight"].shape == (31, 36)
    assert len(theirs) == 1 + 3 * 9 + 2
    storages = {t.untyped_storage().data_ptr() for t in theirs.values()}
    assert len(storages) == len(theirs)  # safetensors refuses tensors that share


def test_files_as_published():
    """The hub's gpt2 has no prefix, its masks among the weights, and no head, since it is tied."""
    state = model_of(GPT2).state_dict()
    published = {
        key.removeprefix("transformer."): t
        for key, t in gpt2_to_hf(state).items()
        if key != "lm_head.weight"
    }
    published["h.0.attn.bias"] = torch.ones(1, 1, 13, 13)
    published["h.0.attn.masked_bias"] = torch.tensor(-1e4)
    back = gpt2_from_hf(published)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[key], state[key]) for key in state)
    llama = llama_to_hf(model_of(LLAMA).state_dict())
    llama["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(3)
    assert llama_from_hf(llama).keys() == model_of(LLAMA).state_dict().keys()


@EVERY
def test_a_key_left_over_is_refused(kind):
    config, from_hf, to_hf = KINDS[kind]
    state = model_of(config).state_dict()
    with pytest.raises(ValueError, match=r"blocks\.0\.attn\.lora\.weight has no counterpart"):
        to_hf({**state, "blocks.0.attn.lora.weight": torch.ones(2)})
    theirs = to_hf(state)
    with pytest.raises(ValueError, match=r"h\.0\.extra\.bias has no counterpart"):
        from_hf({**theirs, "transformer.h.0.extra.bias": torch.ones(2)})


def test_a_key_that_is_missing_is_refused():
    theirs = llama_to_hf(model_of(LLAMA).state_dict())
    lost = {k: t for k, t in theirs.items() if k != "model.layers.1.self_attn.k_proj.weight"}
    with pytest.raises(ValueError, match=r"q_proj.weight is there without .*1.*k_proj"):
        llama_from_hf(lost)
    with pytest.raises(ValueError, match="token embedding is missing among 1 weights"):
        llama_from_hf({"model.norm.weight": torch.ones(36)})


def test_the_other_kind_is_refused():
    with pytest.raises(ValueError, match="has no counterpart; the model is of another kind"):
        gpt2_from_hf(llama_to_hf(model_of(LLAMA).state_dict()))
    with pytest.raises(ValueError, match="has no counterpart"):
        llama_from_hf(gpt2_to_hf(model_of(GPT2).state_dict()))
    with pytest.raises(ValueError, match="has no counterpart"):
        gpt2_to_hf(model_of(LLAMA).state_dict())


@EVERY
def test_configs_there_and_back(kind):
    config = KINDS[kind][0]
    theirs = config_to_hf(config)
    assert config_from_hf(theirs) == replace(
        config, d_ff=config.hidden, n_kv_head=config.kv_heads if config.pos == "rope" else 0
    )


@pytest.mark.parametrize(
    ("base", "kwargs", "message"),
    [
        (GPT2, {"pos": "sinusoidal", "d_model": 24}, "pos='sinusoidal' has no counterpart"),
        (GPT2, {"norm": "rmsnorm"}, "norm='rmsnorm' has no counterpart"),
        (GPT2, {"bias": False}, "bias=False has no counterpart"),
        (GPT2, {"head_dim": 2}, "head_dim=2 has no counterpart"),
        (GPT2, {"n_kv_head": 1}, "n_kv_head=1 has no counterpart"),
        (GPT2, {"mlp": "relu2"}, "mlp='relu2' has no counterpart"),
        (GPT2, {"window": 4}, "window=4 has no counterpart"),
        (LLAMA, {"qk_norm": True}, "qk_norm=True has no counterpart"),
        (LLAMA, {"emb_conv": 2}, "emb_conv=2 has no counterpart"),
        (LLAMA, {"norm_at": "post"}, "norm_at='post' has no counterpart"),
        (LLAMA, {"norm": "layernorm"}, "norm='layernorm' has no counterpart"),
        (LLAMA, {"mlp": "gelu"}, "mlp='gelu' has no counterpart"),
    ],
)
def test_what_hugging_face_lacks_is_refused(base, kwargs, message):
    with pytest.raises(ValueError, match=message):
        config_to_hf(replace(base, **kwargs))


@pytest.mark.parametrize(
    ("base", "change", "message"),
    [
        (GPT2, {"model_type": "t5"}, "model_type='t5' is not gpt2 or llama or bert"),
        (GPT2, {"activation_function": "silu"}, "activation_function='silu' has no counterpart"),
        (GPT2, {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx=True"),
        (LLAMA, {"hidden_act": "relu"}, "hidden_act='relu' has no counterpart"),
        (LLAMA, {"mlp_bias": True}, "mlp_bias=True has no counterpart"),
        (LLAMA, {"rope_parameters": {"rope_type": "longrope"}}, "rope_type='longrope'"),
        (LLAMA, {"rope_parameters": None, "rope_scaling": {"type": "su"}}, "rope_type='su'"),
    ],
)
def test_what_tinygpt_lacks_is_refused(base, change, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        config_from_hf({**config_to_hf(base), **change})


def test_older_configs():
    """Before transformers 5, rope_theta stood by itself; much may be left out."""
    theirs = {k: v for k, v in config_to_hf(LLAMA).items() if k != "rope_parameters"}
    assert config_from_hf({**theirs, "rope_theta": 500.0, "rope_scaling": None}) == LLAMA
    for key in ("tie_word_embeddings", "attention_bias", "mlp_bias"):
        del theirs[key]
    assert config_from_hf(theirs) == replace(LLAMA, rope_theta=10000.0)
    gpt2 = config_to_hf(GPT2)
    assert config_from_hf({**gpt2, "n_inner": None}) == GPT2
    del gpt2["n_inner"], gpt2["tie_word_embeddings"]
    assert config_from_hf(gpt2) == GPT2


@pytest.fixture(scope="module")
def transformers():
    """The peer; its own warnings are its own affair."""
    with pytest.MonkeyPatch.context() as m:
        m.setenv("TRANSFORMERS_VERBOSITY", "error")
        yield pytest.importorskip("transformers")


def peer_of(transformers, config):
    """transformers' model with the config that ours becomes, and random weights."""
    theirs = config_to_hf(config)
    llama = theirs["model_type"] == "llama"
    Config = transformers.LlamaConfig if llama else transformers.GPT2Config
    Model = transformers.LlamaForCausalLM if llama else transformers.GPT2LMHeadModel
    known = Config(**theirs, bos_token_id=0, eos_token_id=0)
    torch.manual_seed(7)
    peer = Model(known).eval()
    with torch.no_grad():
        for p in peer.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return peer


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("attn", ["sdpa", "naive"])
@EVERY
def test_the_same_logits_as_transformers(kind, attn, transformers):
    config, from_hf, _ = KINDS[kind]
    peer = peer_of(transformers, config)
    ours = TinyGPT(replace(config_from_hf(peer.config.to_dict()), attn=attn)).eval()
    ours.load_state_dict(from_hf(peer.state_dict()))
    with torch.no_grad():
        got, want = ours(ids())[0], peer(ids()).logits
    assert want.std() > 0.2
    torch.testing.assert_close(got, want, rtol=0, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
@EVERY
def test_transformers_loads_ours_strictly(kind, transformers):
    config, _, to_hf = KINDS[kind]
    ours, peer = model_of(config), peer_of(transformers, config)
    peer.load_state_dict(to_hf(ours.state_dict()), strict=True)
    with torch.no_grad():
        got, want = ours(ids())[0], peer(ids()).logits
    torch.testing.assert_close(got, want, rtol=0, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
@EVERY
def test_the_same_gradients_as_transformers(kind, transformers):
    """Through the loss: targets here are shifted there."""
    config, from_hf, _ = KINDS[kind]
    peer, x = peer_of(transformers, config), ids(3, 10)
    ours = TinyGPT(config)
    ours.load_state_dict(from_hf(peer.state_dict()))
    peer(x, labels=x).loss.backward()
    ours(x[:, :-1], x[:, 1:])[1].backward()
    theirs = from_hf({name: p.grad for name, p in peer.named_parameters()})
    for name, p in ours.named_parameters():
        torch.testing.assert_close(p.grad, theirs[name], rtol=1e-4, atol=1e-5)
