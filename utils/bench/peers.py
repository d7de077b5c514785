"""Other programs, loaded from where the user keeps them, to be measured beside ours."""

import contextlib
import importlib.util
import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model import TinyGPT
from model.convert.gpt2 import config_to_gpt2, gpt2_to_hf
from model.convert.llama import config_to_llama, llama_to_hf
from tok import END_OF_TEXT
from utils.device import Device


class NanoGPT:
    """nanoGPT from a checkout, in a shape (layers, heads, d_model, block, batch, vocab).

    Raises ValueError if the directory has no model.py.
    """

    def __init__(self, directory: str, shape: tuple[int, ...], device: Device):
        path = Path(directory) / "model.py"
        if not path.is_file():
            raise ValueError(f"no {path}; --nanogpt names a checkout of nanoGPT")
        spec = importlib.util.spec_from_file_location("nanogpt_model", path)
        assert spec is not None
        assert spec.loader is not None
        nano = importlib.util.module_from_spec(spec)
        sys.modules["nanogpt_model"] = nano  # its dataclass looks itself up there
        spec.loader.exec_module(nano)
        n_layer, n_head, n_embd, block_size, batch_size, V = shape
        config = nano.GPTConfig(block_size, V, n_layer, n_head, n_embd, dropout=0.0, bias=False)
        with contextlib.redirect_stdout(io.StringIO()):  # it prints its size, into our table
            self.device, self.model = device, nano.GPT(config).to(device.device)
            where = device.device.type
            self.optimizer = self.model.configure_optimizers(0.1, 1e-3, (0.9, 0.99), where)
        idx = torch.randint(V, (batch_size, block_size + 1), device=device.device)
        self.x, self.y = idx[:, :-1].contiguous(), idx[:, 1:].contiguous()

    def step(self) -> None:
        """One training step, with the calls that nanoGPT's own loop makes: float32 on a CPU."""
        with self.device.autocast() if self.x.device.type != "cpu" else contextlib.nullcontext():
            _, loss = self.model(self.x, self.y)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        loss.item()

    def write(self, tokens: int = 64) -> None:
        """Generate after a prompt of one token."""
        self.model.eval()
        self.model.generate(torch.zeros_like(self.x[:1, :1]), tokens)


def transformers_installed() -> bool:
    """Whether Hugging Face's transformers can be imported."""
    return importlib.util.find_spec("transformers") is not None


class Transformers:
    """GPT-2 of Hugging Face's transformers with random weights, in a shape as NanoGPT's."""

    def __init__(self, shape: tuple[int, ...], device: Device):
        hf = importlib.import_module("transformers")
        n_layer, n_head, n_embd, block_size, _, V = shape
        size = {"n_layer": n_layer, "n_head": n_head, "n_embd": n_embd, "n_positions": block_size}
        config = hf.GPT2Config(vocab_size=V, bos_token_id=0, eos_token_id=None, **size)
        self.model = hf.GPT2LMHeadModel(config).to(device.device).eval()
        self.prompt = torch.zeros((1, 1), dtype=torch.long, device=device.device)

    def write(self, tokens: int = 64) -> None:
        """Generate after a prompt of one token, with its cache, from the whole distribution."""
        mask = torch.ones_like(self.prompt)
        how = {"do_sample": True, "top_k": 0, "pad_token_id": 0}
        self.model.generate(self.prompt, attention_mask=mask, max_new_tokens=tokens, **how)


class SameInTransformers:
    """LLaMA or GPT-2 of transformers with the weights of a model of ours, float32."""

    def __init__(self, model: TinyGPT) -> None:
        hf = importlib.import_module("transformers")
        if model.config.pos == "rope":
            peer = hf.LlamaForCausalLM(hf.LlamaConfig(**config_to_llama(model.config)))
            peer.load_state_dict(llama_to_hf(model.state_dict()))
        else:
            peer = hf.GPT2LMHeadModel(hf.GPT2Config(**config_to_gpt2(model.config)))
            peer.load_state_dict(gpt2_to_hf(model.state_dict()))
        self.model = peer.to(next(model.parameters()).device).eval()

    def write(self, prompt: Tensor, n: int) -> list[int]:
        """The n most likely ids, one after the other, after a prompt (1,T), with its cache."""
        mask, length = torch.ones_like(prompt), {"max_new_tokens": n, "min_new_tokens": n}
        how = {"do_sample": False, "pad_token_id": 0, "eos_token_id": None}
        with torch.inference_mode():
            ids = self.model.generate(prompt, attention_mask=mask, **length, **how)
        return list(ids[0, prompt.size(1) :].tolist())


def same_in_transformers(model: TinyGPT, say: Callable[[str], object]) -> SameInTransformers | None:
    """The same model in transformers; None, and why, where it cannot be had."""
    if not transformers_installed():
        return None
    try:
        return SameInTransformers(model)
    except ValueError as e:
        say(f"  without transformers: {e}")
        return None


def learn_with_tokenizers(text: str, vocab: int) -> Any:
    """Learn a byte-level BPE with Hugging Face's tokenizers. ValueError if it is not installed."""
    try:
        import tokenizers as hf
    except ImportError:
        raise ValueError("tokenizers is not installed; pip install -e '.[peers]'") from None
    learnt = hf.Tokenizer(hf.models.BPE())
    learnt.pre_tokenizer = hf.pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = hf.trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=hf.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    learnt.train_from_iterator([text], trainer)
    return learnt
