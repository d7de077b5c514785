"""TinyBERT: what transformers' BertForPreTraining computes, its weights there and back."""

import math
import re
from dataclasses import replace

import pytest
import torch

from model import MODELS, BertConfig, GPTConfig, TinyBERT
from model.convert import bert_from_hf, bert_to_hf, config_from_hf, config_to_hf
from model.convert.bert import with_heads

SHAPES = {  # odd sizes throughout; eps is BERT's own, and a large one that would be seen
    "three heads": BertConfig(31, 13, 3, 3, 27, token_types=3),
    "wide MLP, relu": BertConfig(37, 16, 1, 2, 20, d_ff=51, mlp="relu", norm_eps=0.02),
    "untied": BertConfig(29, 11, 2, 4, 32, mlp="gelu_tanh", tie_weights=False),
}
BERT = SHAPES["three heads"]
MODERN = BertConfig(
    31, 13, 2, 2, 28, norm_at="pre", pos="rope", norm="rmsnorm", mlp="geglu", bias=False,
    norm_eps=1e-5, token_types=0,
)  # fmt: skip
EVERY = pytest.mark.parametrize("shape", SHAPES)


def model_of(config, seed=0, dtype=torch.float32):
    """A model whose every number is its own: norms and biases, too."""
    torch.manual_seed(seed)
    model = TinyBERT(config).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.2 * torch.randn_like(p))
    return model.to(dtype)


def batch(config, T=9, seed=1):
    """Three rows of different length, in two segments, some tokens masked; who follows whom."""
    g = torch.Generator().manual_seed(seed)
    idx = torch.randint(config.vocab_size, (3, T), generator=g)
    types = torch.randint(max(config.token_types, 1), (3, T), generator=g)
    padding = torch.arange(T) < torch.tensor([[T], [T - 4], [1]])
    chosen = (torch.rand(3, T, generator=g) < 0.4) & padding
    chosen[:, 0] = True
    return idx, idx.where(chosen, -1), types, padding, torch.tensor([0, 1, 1])


@pytest.fixture(scope="module")
def transformers():
    """The peer; its own warnings are its own affair."""
    with pytest.MonkeyPatch.context() as m:
        m.setenv("TRANSFORMERS_VERBOSITY", "error")
        yield pytest.importorskip("transformers")


def peer_of(transformers, config, kind="BertForPreTraining", dtype=torch.float32, attn="eager"):
    """transformers' model with the config that ours becomes, and random weights."""
    known = transformers.BertConfig(**config_to_hf(config), attn_implementation=attn)
    known.hidden_dropout_prob = known.attention_probs_dropout_prob = 0.0
    torch.manual_seed(7)
    peer = getattr(transformers, kind)(known).eval()
    with torch.no_grad():
        for p in peer.parameters():
            p.add_(0.1 * torch.randn_like(p))
    if hasattr(peer, "cls"):  # untied, a bias of two names is two there, one of which does nothing
        peer.cls.predictions.bias = peer.cls.predictions.decoder.bias
    return peer.to(dtype)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("attn", "theirs"), [("sdpa", "sdpa"), ("naive", "eager")])
@EVERY
def test_logits_losses_and_all_gradients_are_those_of_transformers(
    shape, attn, theirs, transformers
):
    """Padded rows, segments, both losses; every parameter's gradient, in float64 to 1e-9."""
    for dtype, atol in ((torch.float32, 1e-5), (torch.float64, 1e-9)):
        peer = peer_of(transformers, SHAPES[shape], dtype=dtype, attn=theirs)
        config = replace(config_from_hf(peer.config.to_dict()), attn=attn)
        ours = TinyBERT(config).to(dtype)
        ours.load_state_dict(bert_from_hf(peer.state_dict()))
        idx, targets, types, padding, is_next = batch(config)
        known = {"token_type_ids": types, "attention_mask": padding.long()}
        labels = targets.where(targets != -1, -100)
        want = peer(idx, **known, labels=labels, next_sentence_label=is_next)
        logits, loss = ours(idx, targets, token_types=types, padding=padding, is_next=is_next)
        x = ours.hidden_states(idx, types, padding)
        pairs = ours.next_sentence(ours.pooler(x))
        assert want.prediction_logits[padding].std() > 0.2
        close = {"rtol": 0, "atol": atol}
        torch.testing.assert_close(logits[padding], want.prediction_logits[padding], **close)
        torch.testing.assert_close(pairs, want.seq_relationship_logits, **close)
        torch.testing.assert_close(loss, want.loss, **close)
        want.loss.backward()
        loss.backward()
        grads = {name: p.grad for name, p in peer.named_parameters()}
        if config.tie_weights:
            grads = {k: g for k, g in grads.items() if "decoder.weight" not in k}
        grads = bert_from_hf(grads)
        for name, p in ours.named_parameters():
            torch.testing.assert_close(p.grad, grads[name], **close, msg=name)


@pytest.mark.filterwarnings("ignore")
def test_each_loss_by_itself(transformers):
    """The masked tokens alone as BertForMaskedLM has it, and the pairs alone by hand."""
    peer = peer_of(transformers, BERT, "BertForMaskedLM")
    state, drawn = with_heads(bert_from_hf(peer.state_dict()), BERT)
    assert drawn == ["pooler", "next-sentence head"]
    ours = TinyBERT(BERT).eval()
    ours.load_state_dict(state)
    idx, targets, types, padding, is_next = batch(BERT)
    known = {"token_type_ids": types, "attention_mask": padding.long()}
    want = peer(idx, **known, labels=targets.where(targets != -1, -100))
    given = {"token_types": types, "padding": padding}
    loss = ours(idx, targets, **given)[1]
    torch.testing.assert_close(loss, want.loss, rtol=0, atol=1e-5)
    nothing, alone = ours(idx, targets, **given, loss_only=True)
    assert nothing is None
    torch.testing.assert_close(alone, loss, rtol=0, atol=1e-6)
    total = ours(idx, targets, **given, loss_only=True, reduction="sum")[1]
    torch.testing.assert_close(total / (targets != -1).sum(), loss)
    chance = ours.next_sentence(ours.pooler(ours.hidden_states(idx, types, padding))).log_softmax(1)
    by_hand = -(chance[0, 0] + chance[1, 1] + chance[2, 1]) / 3
    torch.testing.assert_close(ours(idx, **given, is_next=is_next)[1], by_hand)


@pytest.mark.parametrize("attn", ["sdpa", "naive"])
@pytest.mark.parametrize("config", [BERT, MODERN], ids=["bert", "modern"])
def test_padding_changes_nothing_and_both_sides_count(config, attn):
    """A row alone and the same row padded agree; a later token is seen, a padded one is not."""
    model = model_of(replace(config, attn=attn))
    idx = batch(config)[0]
    padding = torch.arange(9) < torch.tensor([[9], [5], [7]])
    with torch.no_grad():
        whole = model.hidden_states(idx, padding=padding)
        alone = model.hidden_states(idx[1:2, :5])
        torch.testing.assert_close(whole[1:2, :5], alone, rtol=0, atol=1e-5)
        other = idx.clone()
        other[1, 6] = (other[1, 6] + 1) % 31  # padding
        other[2, 6] = (other[2, 6] + 1) % 31  # the last token
        changed = model.hidden_states(other, padding=padding) - whole
    assert changed[1, :5].abs().max() == 0
    assert changed[2, :6].abs().amax(-1).min() > 1e-4


@pytest.mark.parametrize("attn", ["sdpa", "naive"])
def test_a_row_of_padding_only_is_finite(attn):
    """Of it softmax has no key: NaN, which one row's backward would carry into every weight."""
    model = model_of(replace(BERT, attn=attn)).train()
    idx, targets, types, padding, _ = batch(BERT)
    padding[2], targets[2] = False, -1
    logits, loss = model(idx, targets, token_types=types, padding=padding)
    loss.backward()
    assert logits.isfinite().all()
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    assert all(g.isfinite().all() for g in grads)
    same = model(idx[:2], targets[:2], token_types=types[:2], padding=padding[:2])[1]
    torch.testing.assert_close(loss, same)


def test_checkpointing_gives_the_same_gradients():
    idx, targets, types, padding, is_next = batch(BERT)
    grads = []
    for again in (False, True):
        model = model_of(BERT).train()
        model.activation_checkpointing = again
        model(idx, targets, token_types=types, padding=padding, is_next=is_next)[1].backward()
        grads.append([p.grad for p in model.parameters()])
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


@pytest.mark.parametrize("pos", ["learned", "sinusoidal", "rope", "none"])
def test_order_counts_unless_there_are_no_positions(pos):
    model = model_of(replace(BERT, pos=pos, d_model=24))
    idx = batch(BERT)[0]
    with torch.no_grad():
        a, b = model.hidden_states(idx), model.hidden_states(idx.flip(1)).flip(1)
    assert ((a - b).abs().max() < 1e-4) == (pos == "none")


def test_the_start():
    """N(0, 0.02) everywhere; pre-norm, what is added to the stream is smaller; or nothing."""
    config = BertConfig(500, 64, 8, 4, 128)
    for change, std in (({}, 0.02), ({"norm_at": "pre"}, 0.02 / 4), ({"zero_init": True}, 0.0)):
        torch.manual_seed(0)
        model = TinyBERT(replace(config, **change))
        for weight in (model.blocks[3].attn.proj.weight, model.blocks[7].mlp.down.weight):
            assert weight.std().item() == pytest.approx(std, rel=0.05)
        for m in (model.tok_emb, model.type_emb, model.head.dense, model.pooler.dense):
            assert m.weight.std().item() == pytest.approx(0.02, rel=0.1)
        assert model.head.weight is model.tok_emb.weight
        assert not model.head.bias.any()
        loss = model(*batch(config)[:2])[1]
        assert loss.item() == pytest.approx(math.log(500), rel=0.05)


def test_parameters_and_flops_by_hand():
    C, V, T, L = 27, 31, 13, 3
    model = TinyBERT(BERT)
    block = 12 * C**2 + 13 * C
    heads = (C**2 + 3 * C + V) + (C**2 + C) + (2 * C + 2)
    assert model.n_params() == (V + T + 3 + 2) * C + L * block + heads
    body = 6 * L * 12 * C**2 + 12 * L * C * T
    assert model.flops_per_token() == body + 6 * (C**2 + C * V)
    assert model.flops_per_token(0.0) == body


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: BertConfig(emb_conv=2), "emb_conv=2 looks back only"),
        (lambda m: BertConfig(classes=1), "classes=1: give 0 or more token_types, 0 or at least 2"),
        (lambda m: BertConfig(token_types=-1), "token_types=-1"),
        (lambda m: BertConfig(norm_at="both"), "norm_at='both' is not one of pre, post"),
        (lambda m: m(torch.zeros(2, 14).long()), "14 tokens exceed block_size=13; crop them"),
        (
            lambda m: m(torch.zeros(2, 3).long(), padding=torch.ones(2, 3).long()),
            "padding is torch.int64; give bool, True for a token",
        ),
        (
            lambda m: TinyBERT(MODERN)(torch.ones(2, 3).long(), token_types=torch.ones(2, 3)),
            "token_types=0 in the config",
        ),
    ],
)
def test_what_cannot_be_is_refused(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call(TinyBERT(BERT))


@EVERY
def test_weights_there_and_back(shape):
    config = replace(SHAPES[shape], classes=5)
    state = model_of(config).state_dict()
    theirs = bert_to_hf(state)
    back = bert_from_hf(theirs)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[key], state[key]) for key in state)
    assert config_from_hf(config_to_hf(config)) == replace(config, d_ff=config.hidden)
    assert MODELS["bert"][0] is BertConfig


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("kind", "drawn"),
    [
        ("BertModel", ["masked-token head", "next-sentence head"]),
        ("BertForMaskedLM", ["pooler", "next-sentence head"]),
        ("BertForPreTraining", []),
        ("BertForSequenceClassification", ["masked-token head", "next-sentence head"]),
    ],
)
def test_every_key_is_used(kind, drawn, transformers):
    """Change any one tensor of a file, and the model's weights change; heads left out are named."""
    classes = 4 if kind == "BertForSequenceClassification" else 0
    config = replace(BERT, classes=classes)
    peer = peer_of(transformers, config, kind)
    hf = {**peer.config.to_dict(), "architectures": [kind]}
    assert config_from_hf(hf) == replace(config, d_ff=config.hidden)
    theirs = {k: t.clone() for k, t in peer.state_dict().items() if "decoder" not in k}
    ours = bert_from_hf(theirs)
    for key in theirs:
        if key.endswith("position_ids"):
            continue
        changed = bert_from_hf({**theirs, key: theirs[key] + 1})
        assert any(not torch.equal(changed[name], ours[name]) for name in ours), key
    full, missing = with_heads(ours, config)
    assert missing == drawn
    TinyBERT(config).load_state_dict(full)  # strict


def test_older_files():
    """Buffers of positions beside the weights, gamma and beta, a decoder that is said twice."""
    state = model_of(BERT).state_dict()
    theirs = bert_to_hf(state)
    old = {
        re.sub("(LayerNorm).weight", r"\1.gamma", re.sub("(LayerNorm).bias", r"\1.beta", key)): t
        for key, t in theirs.items()
    }
    assert "bert.encoder.layer.2.output.LayerNorm.gamma" in old
    old["bert.embeddings.position_ids"] = torch.arange(13)[None]
    back = bert_from_hf(old)
    assert all(torch.equal(back[key], state[key]) for key in state)
    plain = {k.removeprefix("bert."): t for k, t in theirs.items() if not k.startswith("cls.")}
    assert bert_from_hf({**plain, "embeddings.position_ids": torch.arange(13)[None]})
    one = {k: t for k, t in theirs.items() if "decoder" not in k}
    assert all(torch.equal(bert_from_hf(one)[key], state[key]) for key in state)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cls.predictions.decoder.bias": torch.ones(31)}, "are both there and differ"),
        ({"bert.encoder.layer.1.attention.self.key.bias": None}, "is there without"),
        ({"bert.embeddings.word_embeddings.weight": None}, "token embedding is missing"),
        ({"qa_outputs.weight": torch.ones(2, 27)}, "qa_outputs.weight has no counterpart"),
    ],
)
def test_damaged_weights_are_refused(change, message):
    theirs = {**bert_to_hf(model_of(BERT).state_dict()), **change}
    if "word_embeddings" in next(iter(change)):
        del theirs["cls.predictions.decoder.weight"]
    with pytest.raises(ValueError, match=message):
        bert_from_hf({key: t for key, t in theirs.items() if t is not None})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architectures": ["BertForTokenClassification"]}, "architectures='BertForTokenClass"),
        ({"is_decoder": True}, "is_decoder=True has no counterpart"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type='relative_key'"),
        ({"hidden_act": "silu"}, "hidden_act='silu' has no counterpart"),
        ({"model_type": "roberta"}, "it is bert with positions that begin at 2"),
    ],
)
def test_other_berts_are_refused(change, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        config_from_hf({**config_to_hf(BERT), **change})


@pytest.mark.parametrize(
    "change",
    [{"pos": "rope", "d_model": 24}, {"token_types": 0}, {"window": 4}, {"norm_at": "pre"}],
)
def test_what_bert_is_not_is_refused(change):
    with pytest.raises(ValueError, match="has no counterpart"):
        config_to_hf(replace(BERT, **change))


def test_a_gpt_is_none():
    assert not isinstance(GPTConfig(), BertConfig)
    assert config_to_hf(GPTConfig(mlp="gelu_tanh"))["model_type"] == "gpt2"
