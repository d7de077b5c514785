"""docs/models.md: its parameter counts, by hand, by our models and by transformers."""

import re
from pathlib import Path

import pytest
import torch

from model import BertConfig, GPTConfig, TinyBERT, TinyGPT

PAGE = (Path(__file__).parent.parent / "docs" / "models.md").read_text(encoding="utf-8")
GPT2 = GPTConfig(mlp="gelu_tanh")
LLAMA = GPTConfig(
    vocab_size=32000, block_size=2048, n_layer=32, n_head=32, d_model=4096, d_ff=11008, bias=False,
    pos="rope", norm="rmsnorm", norm_eps=1e-6, mlp="swiglu", tie_weights=False,
)  # fmt: skip
BERT = BertConfig()
TOTALS = {"GPT-2": 124_439_808, "LLaMA": 6_738_415_616, "BERT": 110_106_428}


HEADS = (768**2 + 768) + (2 * 768 + 2)  # BERT's pooler, and its next-sentence head


def gpt2_block(C):
    return 12 * C**2 + 13 * C


def by_hand():
    """The page's formulas with its sizes."""
    C, F = 4096, 11008
    return {
        "GPT-2": 50257 * 768 + 1024 * 768 + 12 * gpt2_block(768) + 2 * 768,
        "LLaMA": 2 * 32000 * C + 32 * (4 * C**2 + 3 * C * F + 2 * C) + C,
        "BERT": (30522 + 512 + 4) * 768 + 12 * gpt2_block(768) + 768**2 + 3 * 768 + 30522 + HEADS,
    }


def test_the_page_adds_up():
    """Each column of the table of parameters gives its last row, and the formulas do, too."""
    assert by_hand() == TOTALS
    table = PAGE[PAGE.index("| token embedding, V C") : PAGE.index("| **together** | **")]
    for column, total in enumerate(TOTALS.values(), 2):
        cells = [row.split("|")[column] for row in table.strip().splitlines()]
        numbers = [re.findall(r"[\d,]{4,}", cell)[-1:] for cell in cells]
        assert sum(int(n[0].replace(",", "")) for n in numbers if n) == total
        assert f"**{total:,}**" in PAGE
    assert f"{gpt2_block(768):,}" in PAGE


@pytest.mark.parametrize(("name", "config"), [("GPT-2", GPT2), ("LLaMA", LLAMA), ("BERT", BERT)])
def test_ours_have_as_many(name, config, monkeypatch):
    """On the meta device, which has shapes and no memory; nothing is drawn."""
    for kind in (TinyGPT, TinyBERT):
        monkeypatch.setattr(kind, "init_weights", lambda self: None)
    with torch.device("meta"):
        model = TinyBERT(config) if name == "BERT" else TinyGPT(config)
    assert model.n_params() == TOTALS[name]
    if name == "BERT":
        assert model.n_params() - HEADS - 622_650 + 768**2 + 768 == 109_482_240  # BertModel


def test_the_settings_are_those_of_the_page():
    for config, column in ((GPT2, 2), (LLAMA, 3), (BERT, 4)):
        rows = [line.split("|") for line in PAGE.splitlines() if line.startswith("| `")]
        rows = {row[1].strip(): row[column] for row in rows if row[1].strip() != "`attn.qkv`"}
        for names, value in rows.items():
            for name, said in zip(
                re.findall(r"`(\w+)`", names), value.replace("`", "").split(","), strict=False
            ):
                if hasattr(config, name):
                    ours = str(getattr(config, name)).lower().replace("e-05", "e-5")
                    if said.strip():
                        assert said.split()[0] == ours.replace("e-06", "e-6"), name


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("name", TOTALS)
def test_transformers_have_as_many(name):
    transformers = pytest.importorskip("transformers", reason="pip install transformers")
    models = {
        "GPT-2": (transformers.GPT2LMHeadModel, transformers.GPT2Config),
        "LLaMA": (transformers.LlamaForCausalLM, transformers.LlamaConfig),
        "BERT": (transformers.BertForPreTraining, transformers.BertConfig),
    }
    model, config = models[name]
    with torch.device("meta"):
        assert sum(p.numel() for p in model(config()).parameters()) == TOTALS[name]
        if name == "BERT":
            assert (
                sum(p.numel() for p in transformers.BertModel(config()).parameters()) == 109_482_240
            )
