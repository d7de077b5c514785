"""BERT's weights and config.json in our names, and back."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from model.bert import BertConfig, TinyBERT
from model.convert.names import (
    PLAIN,
    State,
    from_hf,
    join_qkv,
    part_qkv,
    refuse_others,
    rename,
    renamed_values,
)

LAYER = "encoder.layer.{}"
NAMES = {  # Hugging Face's name without "bert." -> ours; q, k and v are one matrix here
    "embeddings.word_embeddings": "tok_emb",
    "embeddings.position_embeddings": "pos_emb",
    "embeddings.token_type_embeddings": "type_emb",
    "embeddings.LayerNorm": "emb_norm",
    f"{LAYER}.attention.self.qkv": "blocks.{}.attn.qkv",
    f"{LAYER}.attention.output.dense": "blocks.{}.attn.proj",
    f"{LAYER}.attention.output.LayerNorm": "blocks.{}.norm1",
    f"{LAYER}.intermediate.dense": "blocks.{}.mlp.up",
    f"{LAYER}.output.dense": "blocks.{}.mlp.down",
    f"{LAYER}.output.LayerNorm": "blocks.{}.norm2",
    "pooler.dense": "pooler.dense",
    "cls.predictions.transform.dense": "head.dense",
    "cls.predictions.transform.LayerNorm": "head.norm",
    "cls.predictions.decoder": "head",
    "cls.seq_relationship": "next_sentence",
    "classifier": "classifier",
}
PARTS = ("query", "key", "value")
BIAS, DECODER = "cls.predictions.bias", "cls.predictions.decoder"  # one vector, by two names
OLDEST = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
KEYS = {  # key of config.json -> ours
    "vocab_size": "vocab_size",
    "max_position_embeddings": "block_size",
    "num_hidden_layers": "n_layer",
    "num_attention_heads": "n_head",
    "hidden_size": "d_model",
    "intermediate_size": "d_ff",
    "layer_norm_eps": "norm_eps",
    "type_vocab_size": "token_types",
    "tie_word_embeddings": "tie_weights",
}
ACT: dict[str, Any] = {"gelu_pytorch_tanh": "gelu_tanh", "gelu_new": "gelu_tanh"}
ACT |= {"gelu": "gelu", "relu": "relu"}  # of two names for one, the last is written
FIXED: dict[str, Any] = {**PLAIN, "norm_at": "post", "pos": "learned", "norm": "layernorm"}
FIXED |= {"bias": True}
CLASSIFIER = "BertForSequenceClassification"
BUILT = ("BertModel", "BertForMaskedLM", "BertForPreTraining", CLASSIFIER)
HEADS = {"pooler": "pooler", "head": "masked-token head"}
HEADS |= {"next_sentence": "next-sentence head", "classifier": "classifier"}


def newest(key: str) -> str:
    """A key as files have it today: the oldest say gamma and beta, as TensorFlow does."""
    for old, new in OLDEST.items():
        key = key.replace(old, new)
    return key


def bert_from_hf(state: State) -> dict[str, Tensor]:
    """Weights of BertModel, BertForMaskedLM, -PreTraining or -SequenceClassification -> TinyBERT's.

    Heads that a file lacks are left out (`with_heads`). Raises ValueError for a key without
    counterpart, if q, k or v is missing, or if the two biases of the masked head differ.
    """
    kept = {newest(key): tensor for key, tensor in state.items()}
    bias = kept.pop(BIAS, None)
    if bias is not None and not torch.equal(kept.setdefault(f"{DECODER}.bias", bias), bias):
        raise ValueError(f"{BIAS} and {DECODER}.bias are both there and differ; keep one")
    return from_hf(join_qkv(kept, PARTS, "qkv"), NAMES, "bert.")


def bert_to_hf(state: State) -> dict[str, Tensor]:
    """TinyBERT's weights -> BertForPreTraining's, and the classifier's if there is one.

    Needs BERT's own shape: `config_to_bert` refuses another.
    """
    theirs = rename(state, {ours: name for name, ours in NAMES.items()})
    theirs[BIAS] = theirs[f"{DECODER}.bias"].clone()
    heads = ("cls.", "classifier.")
    named = {k if k.startswith(heads) else f"bert.{k}": t for k, t in theirs.items()}
    return part_qkv(named, PARTS, "qkv", state["blocks.0.attn.proj.weight"].size(1))


def with_heads(
    state: State, config: BertConfig, seed: int = 0
) -> tuple[dict[str, Tensor], list[str]]:
    """Fill up heads that a file lacks with a model's initial weights; and which they are.

    One that is there in part stays so: `load_state_dict` says what is missing.
    """
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        fresh = TinyBERT(replace(config, n_layer=1)).state_dict()
    full, drawn = dict(state), []
    for head, said in HEADS.items():
        names = [name for name in fresh if name.startswith(f"{head}.") and name != "head.weight"]
        if names and not any(name in state for name in names):
            full |= {name: fresh[name] for name in names}
            drawn.append(said)
    return full, drawn


def config_from_bert(hf: Mapping[str, Any]) -> BertConfig:
    """Read BERT's config.json. ValueError for what TinyBERT has no flag for."""
    hf = {"hidden_act": "gelu", "architectures": None, **hf}
    built = hf["architectures"] or ["BertModel"]
    refuse_others(hf, hidden_act=ACT, is_decoder=[False], add_cross_attention=[False])
    refuse_others(hf, position_embedding_type=["absolute"])
    refuse_others({"architectures": built[0]}, architectures=BUILT)
    labels = hf.get("id2label") or range(hf.get("num_labels", 2))
    classes = len(labels) if built[0] == CLASSIFIER else 0
    act = ACT[hf["hidden_act"]]
    return BertConfig(**renamed_values(hf, KEYS), **FIXED, mlp=act, classes=classes)


def config_to_bert(config: BertConfig) -> dict[str, Any]:
    """Write BERT's config.json. ValueError if BERT is not built so."""
    act = {ours: theirs for theirs, ours in ACT.items()}
    refuse_others(vars(config), mlp=act, **{name: [value] for name, value in FIXED.items()})
    refuse_others({"n_kv_head": config.kv_heads}, n_kv_head=[config.n_head])
    refuse_others({"head_dim": config.head_size}, head_dim=[config.d_model / config.n_head])
    if not config.token_types:
        raise ValueError("token_types=0 has no counterpart: BERT has a table of segments")
    full = replace(config, d_ff=config.hidden)
    hf = {key: getattr(full, ours) for key, ours in KEYS.items()}
    built = CLASSIFIER if config.classes else "BertForPreTraining"
    classes = {"num_labels": config.classes} if config.classes else {}
    more = {"architectures": [built], "hidden_act": act[config.mlp], **classes}
    return {"model_type": "bert", **hf, **more}
