"""Write on from a prompt with a trained model.

python sample.py --prompt "Once upon a time"
python sample.py --run tiny --steps 300 --temp 0.7 --top_k 40 --seed 1
"""

import sys

from tok.cli import Parser, run
from utils.checkpoint import latest_run, load_model
from utils.config import run_dir
from utils.device import pick_device
from utils.write import start_ids, stream_text


def parse(argv):
    """Read the flags."""
    p = Parser(prog="sample.py", description=__doc__)
    p.add_argument("--run", help="a name under runs/, or a path (default: the newest)")
    p.add_argument("--ckpt", choices=("best", "last"), default="best", help="which (default best)")
    p.add_argument("--prompt", default="", help="text to go on from; empty = start a new one")
    p.add_argument("--steps", type=int, default=200, help="most tokens to write (default 200)")
    p.add_argument("--temp", type=float, default=0.8, help="0 = always the likeliest (default 0.8)")
    p.add_argument("--top_k", type=int, default=50, help="of the k likeliest; 0 = all (default 50)")
    p.add_argument("--top_p", type=float, help="draw from the likeliest that make up this share")
    p.add_argument("--seed", type=int, help="the same seed writes the same text")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda, mps")
    return p.parse_args(argv)


def note(text):
    """Tell people something without touching stdout."""
    print(f"note: {text}", file=sys.stderr)


def main(argv=None):
    """Print the prompt and its continuation as it is made."""
    a = parse(argv)
    if a.top_k < 0:
        raise ValueError(f"top_k={a.top_k} must be 0 (every token) or more")
    path = run_dir(a.run) if a.run else latest_run()
    device = pick_device(a.device).device
    model, tokenizer, checkpoint = load_model(path, a.ckpt)
    model.to(device).eval()
    documents, T, V = checkpoint["data"]["documents"], model.config.block_size, tokenizer.vocab_size
    sampling = {"temperature": a.temp, "top_k": a.top_k or None, "top_p": a.top_p, "seed": a.seed}
    pieces = stream_text(model, tokenizer, a.prompt, a.steps, documents=documents, **sampling)
    note(f"{path}/{a.ckpt}.pt, step {checkpoint['step']}, {model.n_params():,} parameters")
    n = len(start_ids(tokenizer, a.prompt, documents))
    if n > T:
        note(f"the prompt has {n} tokens; the model sees the last {T}")
    if a.top_k > V:
        note(f"top_k={a.top_k} is more than the vocabulary: all {V} tokens stay")
    print(a.prompt, end="", flush=True)
    for piece in pieces:
        print(piece, end="", flush=True)
    print()


if __name__ == "__main__":
    run(main)
