"""The config of the model that settings and text ask for, of whatever kind; a new classifier."""

from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor

from data.store import TokenDataset
from model import MODELS, BertConfig, GPTConfig
from utils.config import Settings
from utils.training.checkpoint import model_config


def shape_of(settings: Settings, data: TokenDataset) -> GPTConfig:
    """The config of a new model; of a BERT that learns classes each source of the text is one."""
    values = {**asdict(settings.model), "vocab_size": data.tokenizer.vocab_size}
    if settings.objective.objective == "classify":
        values["classes"] = len(data.meta["sources"])
    return MODELS[settings.objective.kind][0](**values)


def as_found(config: GPTConfig, checkpoint: dict[str, Any]) -> GPTConfig:
    """The config with what no setting says of a checkpoint's model: ids that no token has, types.

    Raises ValueError if that is of another kind.
    """
    found = model_config(checkpoint)
    config = replace(config, vocab_size=found.vocab_size)
    if isinstance(config, BertConfig) != isinstance(found, BertConfig):
        have, want = ("BERT", "next") if isinstance(found, BertConfig) else ("GPT", "masked")
        cure = f"--objective {want} cannot go on from it"
        raise ValueError(f"what --init names is a {have}; {cure}")
    if isinstance(config, BertConfig) and isinstance(found, BertConfig):
        config = replace(config, token_types=found.token_types)
    return config


def with_classifier(state: dict[str, Tensor], config: GPTConfig) -> dict[str, Tensor]:
    """A BERT's weights with a new classifier, N(0, 0.02), if the config has classes.

    One that they have already, for other classes, is left out.
    """
    others = {name: t for name, t in state.items() if not name.startswith("classifier.")}
    if not isinstance(config, BertConfig) or not config.classes:
        return others
    weight = torch.empty(config.classes, config.d_model).normal_(0, 0.02)
    bias = {"classifier.bias": torch.zeros(config.classes)} if config.bias else {}
    return others | {"classifier.weight": weight} | bias
