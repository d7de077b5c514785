"""Write on from a prompt with a trained model.

python sample.py --prompt "Once upon a time"
python sample.py --run tiny --steps 300 --temp 0.7 --top_k 40 --seed 1
python sample.py --prompt "A fox" "A hen" --num 3
python sample.py --grid --temp 0.5 0.8 1.0 --top_k 10 50
python sample.py --interactive
"""

from argparse import Namespace
from collections.abc import Sequence

from model.generation.limits import check_sampling
from tok.cli import Parser, run
from utils.runs import latest_run, run_dir
from utils.writing.defaults import SAMPLING
from utils.writing.stops import check_stops
from utils.writing.terminal import converse, heading, note, read_prompts, show


def parse(argv: Sequence[str] | None) -> Namespace:
    """Read the flags."""
    p = Parser(prog="sample.py", description=__doc__)
    p.add_argument("--run", help="a name under runs/, or a path (default: the newest)")
    p.add_argument(
        "--ckpt", choices=("best", "last"), default="best", help="checkpoint (default best)"
    )
    p.add_argument("--prompt", nargs="+", help="texts to go on from, or - for stdin (default none)")
    p.add_argument("--prompt-file", metavar="FILE", help="a file that holds the prompt")
    p.add_argument("--num", type=int, default=1, help="continuations of each prompt (default 1)")
    p.add_argument("--steps", type=int, default=200, help="most tokens to write (default 200)")
    p.add_argument("--stop", nargs="+", default=[], help="strings to end before")
    for flag, name, what in (
        ("--temp", "temperature", "0 = most likely"),
        ("--top_k", "top_k", "keep the k likeliest tokens, 0 = all"),
    ):
        value = SAMPLING[name] or 0
        p.add_argument(
            flag, type=type(value), nargs="+", default=[value], help=f"{what} (default {value})"
        )
    p.add_argument("--top_p", type=float, help="keep the likeliest tokens up to this probability")
    p.add_argument("--min_p", type=float, help="drop tokens below this share of the likeliest")
    p.set_defaults(top_p=SAMPLING["top_p"], min_p=SAMPLING["min_p"])
    p.add_argument("--repetition_penalty", type=float, default=1.0, help="> 1: repeats less (CTRL)")
    p.add_argument("--seed", type=int, help="the same seed writes the same text")
    p.add_argument(
        "--novelty", action="store_true", help="say what of it stands in the training text"
    )
    p.add_argument("--no-cache", action="store_true", help="the same text, without the KV cache")
    p.add_argument("--compile", action="store_true", help="torch.compile, if it is faster")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda, mps")
    ways = p.add_mutually_exclusive_group()
    ways.add_argument("--interactive", action="store_true", help="continue each line you type")
    ways.add_argument("--grid", action="store_true", help="a table over --temp and --top_k")
    ways.add_argument("--show-probs", action="store_true", help="each token beside the 5 likeliest")
    return p.parse_args(argv)


def check(a: Namespace) -> None:
    """Raise ValueError for flags that make no sense, or not together."""
    for name in ("num", "steps"):
        if getattr(a, name) < 1:
            raise ValueError(f"{name}={getattr(a, name)} must be at least 1")
    if min(a.top_k) < 0:
        raise ValueError(f"top_k={min(a.top_k)} must be 0 (every token) or more")
    if a.seed is not None and not 0 <= a.seed < 2**63:
        raise ValueError(f"seed={a.seed} must be in [0, 2**63)")
    for temp in a.temp:
        check_sampling(temp, None, a.top_p, a.min_p, a.repetition_penalty)
    for name in ("temp", "top_k"):
        if len(getattr(a, name)) > 1 and not a.grid:
            raise ValueError(f"{name}={getattr(a, name)}: several values need --grid")
    check_stops(a.stop)
    if a.interactive and (a.prompt or a.prompt_file or a.num > 1):
        raise ValueError("--interactive continues what you type; leave out prompts and --num")
    if a.novelty and (a.interactive or a.grid or a.show_probs):
        raise ValueError("--novelty judges whole texts; leave out the other way to write")
    if a.compile and a.no_cache:
        raise ValueError("--compile compiles a step with the cache; leave out --no-cache")


def main(argv: Sequence[str] | None = None) -> None:
    """Print each prompt and its continuation as it is made."""
    a = parse(argv)
    check(a)
    path = run_dir(a.run) if a.run else latest_run()
    prompts = [""] if a.interactive else read_prompts(a.prompt, a.prompt_file)
    prompts = [prompt for prompt in prompts for _ in range(a.num)]

    from data.store import end_id  # here, not above: flags are checked before torch is imported
    from model import few_rows
    from utils.device import pick_device
    from utils.training.models import load_model
    from utils.writing.compile import compiled_step
    from utils.writing.novelty import novelty, training_text, training_words
    from utils.writing.tables import alternatives, grid
    from utils.writing.text import start_ids, stream_batch, stream_text

    device = pick_device(a.device).device
    model, tokenizer, checkpoint = load_model(path, a.ckpt)
    training = training_text(checkpoint) if a.novelty else None
    end, T, V = end_id(checkpoint["data"], tokenizer), model.config.block_size, tokenizer.vocab_size
    n = max(len(start_ids(tokenizer, prompt, end)) for prompt in prompts)
    note(f"{path}/{a.ckpt}.pt, step {checkpoint['step']}, {model.n_params():,} parameters")
    if n > T:
        note(f"the prompt has {n} tokens; the model sees the last {T}")
    if max(a.top_k) > V:
        note(f"top_k={max(a.top_k)} is more than the vocabulary: all {V} tokens stay")
    rows = 1 if a.show_probs else len(prompts)
    few_rows(model.to(device).eval(), rows)
    step = compiled_step(model, rows, note) if a.compile else None
    settings = {"end": end, "stops": a.stop, "seed": a.seed, "cache": not a.no_cache}
    settings |= {"top_p": a.top_p, "min_p": a.min_p, "repetition_penalty": a.repetition_penalty}
    settings["decode_step"] = step
    one = {**settings, "temperature": a.temp[0], "top_k": a.top_k[0] or None}
    if a.interactive:
        converse(lambda p, pace: stream_text(model, tokenizer, p, a.steps, callback=pace, **one))
    elif a.grid:
        for line in grid(model, tokenizer, prompts, a.steps, a.temp, a.top_k, **settings):
            print(line, flush=True)
    elif a.show_probs:
        for i, prompt in enumerate(prompts):
            heading(i + 1, len(prompts))
            own = {**one, "seed": None if a.seed is None else a.seed + i}
            for line in alternatives(model, tokenizer, prompt, a.steps, **own):
                print(line, flush=True)
    else:
        texts = stream_batch(model, tokenizer, prompts, a.steps, **one)
        written = []
        for i, (prompt, pieces) in enumerate(zip(prompts, texts, strict=True), 1):
            heading(i, len(prompts))
            written.append(show(prompt, pieces))
        if training:
            note(str(novelty(written, training_words(training.datasets.values()))))


if __name__ == "__main__":
    run(main)
