"""From a prompt to text: the start of a document, the model's continuation, decoded as it comes."""

from collections.abc import Iterator

import torch

from data.prepare import END
from model import TinyGPT, generate


def start_ids(tokenizer, prompt: str, documents: int) -> list[int]:
    """Ids to go on from: <|endoftext|> first if the model learnt documents; never empty."""
    start = [tokenizer.special_tokens[END]] if documents > 1 else []
    if ids := start + tokenizer.encode(prompt):
        return ids
    try:
        return tokenizer.encode("\n")
    except ValueError:  # a text of one line, by characters: any token will do
        return [0]


def stream_text(
    model: TinyGPT, tokenizer, prompt: str, steps: int, *, documents: int = 1, **sampling
) -> Iterator[str]:
    """Yield a prompt's continuation piece by piece: at most `steps` tokens, to the document's end.

    `documents` is how many the training text had; `sampling` goes to model.generate. Raises
    ValueError for a prompt that the tokenizer cannot spell.
    """
    device = next(model.parameters()).device
    idx = torch.tensor([start_ids(tokenizer, prompt, documents)], device=device)
    stop = tokenizer.special_tokens[END] if documents > 1 else None
    drawn = (int(token) for token in generate(model, idx, steps, stop=stop, **sampling))
    return tokenizer.decode_stream(token for token in drawn if token != stop)


def write_text(*args, **kwargs) -> str:
    """The whole continuation of `stream_text` as one string."""
    return "".join(stream_text(*args, **kwargs))


def story(state, data, n: int) -> str:
    """Text of at most n tokens that a run's model makes up; its random state is left alone."""
    sampling = {"temperature": 0.6, "top_k": 50, "seed": state.settings["seed"] + state.step}
    documents = data.meta["documents"]
    return write_text(state.model, data.tokenizer, "", n, documents=documents, **sampling).strip()
