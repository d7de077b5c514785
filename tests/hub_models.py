"""What the tests of utils/hub share: small models with trained tokenizers, ours and the peers'."""

from pathlib import Path

import torch

from model import GPTConfig, TinyGPT
from tok import BPETokenizer
from utils.hub.importer import write_run
from utils.hub.pretrained import Pretrained
from utils.hub.sources import Found

TEXT = "The quick brown fox jumps over the lazy dog, 12345 times. It's what foxes do; isn't it? "
TEMPLATE = "{% for m in messages %}<|start|>{{ m['role'] }}: {{ m['content'] }}<|end|>{% endfor %}"
TEMPLATE += "{% if add_generation_prompt %}<|start|>assistant: {% endif %}"
SHAPE = {"n_layer": 2, "n_head": 4, "d_model": 64, "block_size": 48}
GPT2 = {**SHAPE, "mlp": "gelu_tanh"}
LLAMA = {**SHAPE, "n_kv_head": 2, "d_ff": 96, "bias": False, "mlp": "swiglu", "norm": "rmsnorm"}
LLAMA |= {"pos": "rope", "tie_weights": False, "rope_theta": 5e4, "norm_eps": 1e-6}
FAMILIES = {"gpt2": GPT2, "llama": LLAMA}


def tokenizer(pattern="gpt2"):
    """A trained BPE with special tokens."""
    special = ["<|endoftext|>", "<|start|>", "<|end|>"]
    texts = [TEXT * 3, "the dog and the fox, the fox and the dog " * 5]
    return BPETokenizer.train(texts, 300, special_tokens=special, pattern=pattern)


def model(kind, seed=0, **change):
    """A model with random weights that are far from their start."""
    torch.manual_seed(seed)
    built = TinyGPT(GPTConfig(vocab_size=300, **{**FAMILIES[kind], **change})).eval()
    with torch.no_grad():
        for p in built.parameters():
            p.add_(0.05 * torch.randn_like(p))
    return built


def make_run(path, kind, pattern="gpt2", **change):
    """A run of such a model with a chat template."""
    built, tok = model(kind, **change), tokenizer(pattern)
    origin = Pretrained("made here", "mit", kind, "<|start|>", "<|end|>", TEMPLATE)
    write_run(Path(path), Found(built.config, built.state_dict(), tok, origin))
    return built, tok
