"""Write on from a prompt with a trained model.

python sample.py --prompt "Once upon a time"
python sample.py --run tiny --steps 300 --temp 0.7 --top_k 40 --seed 1
python sample.py --prompt "A fox" "A hen" --num 3
python sample.py --grid --temp 0.5 0.8 1.0 --top_k 10 50
python sample.py --interactive
python sample.py --run smollm2 --chat       # a model that came with a chat template
"""

from argparse import Namespace
from collections.abc import Sequence
from contextlib import nullcontext

from model.generation.limits import check_sampling
from tok.cli import Parser, run
from utils.runs import latest_run, run_dir
from utils.writing.defaults import SAMPLING
from utils.writing.stops import check_stops
from utils.writing.template import read_template
from utils.writing.terminal import bold, note, read_prompts


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
    p.add_argument("--steps", type=int, help="most tokens to write (default 200; --chat 1000)")
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
    ways.add_argument("--chat", action="store_true", help="answer each line you type, as trained")
    ways.add_argument("--grid", action="store_true", help="a table over --temp and --top_k")
    ways.add_argument("--show-probs", action="store_true", help="each token beside the 5 likeliest")
    p.add_argument("--system", metavar="TEXT", help="what a chat is told first, of its role")
    p.add_argument(
        "--lora", nargs="+", choices=("on", "off"), help="write with adapters, without, or both"
    )
    a = p.parse_args(argv)
    a.steps = a.steps if a.steps is not None else 1000 if a.chat else 200
    return a


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
    typed = a.interactive or a.chat
    if typed and (a.prompt or a.prompt_file or a.num > 1):
        way = "--chat answers" if a.chat else "--interactive continues"
        raise ValueError(f"{way} what you type; leave out prompts and --num")
    if a.system is not None and not a.chat:
        raise ValueError("--system begins a chat; add --chat")
    if typed and len(a.lora or ()) > 1:
        raise ValueError(f"lora={a.lora}: a conversation has one model; give on or off")
    if a.novelty and (typed or a.grid or a.show_probs):
        raise ValueError("--novelty judges whole texts; leave out the other way to write")
    if a.compile and a.no_cache:
        raise ValueError("--compile compiles a step with the cache; leave out --no-cache")


def main(argv: Sequence[str] | None = None) -> None:
    """Print each prompt and its continuation as it is made."""
    a = parse(argv)
    check(a)
    path = run_dir(a.run) if a.run else latest_run()
    prompts = [""] if a.interactive or a.chat else read_prompts(a.prompt, a.prompt_file)
    prompts = [prompt for prompt in prompts for _ in range(a.num)]
    template = read_template(path) if a.chat and path.is_dir() else None

    from data.store import end_id  # here, not above: flags are checked before torch is imported
    from model import few_rows
    from model.adapt.lora import lora_state, without_lora
    from utils.device import pick_device
    from utils.training.models import load_model
    from utils.writing.novelty import novelty, training_text, training_words
    from utils.writing.text import start_ids
    from utils.writing.ways import write

    device = pick_device(a.device).device
    model, tokenizer, checkpoint = load_model(path, a.ckpt)
    if a.lora and not lora_state(model):
        raise ValueError(f"{path} has no adapters; leave out --lora")
    training = training_text(checkpoint) if a.novelty else None
    end, T, V = end_id(checkpoint["data"], tokenizer), model.config.block_size, tokenizer.vocab_size
    n = max(len(start_ids(tokenizer, prompt, end)) for prompt in prompts)
    note(f"{path}/{a.ckpt}.pt, step {checkpoint['step']}, {model.n_params():,} parameters")
    if n > T:
        note(f"the prompt has {n} tokens; the model sees the last {T}")
    if max(a.top_k) > V:
        note(f"top_k={max(a.top_k)} is more than the vocabulary: all {V} tokens stay")
    few_rows(model.to(device).eval(), 1 if a.show_probs else len(prompts))
    written = []
    for adapters in a.lora or ["on"]:
        if len(a.lora or ()) > 1:
            print(bold(f"=== adapters {adapters}"))
        with without_lora(model) if adapters == "off" else nullcontext():
            written += write(a, model, tokenizer, prompts, end, template)
    if training:
        note(str(novelty(written, training_words(training.datasets.values()))))


if __name__ == "__main__":
    run(main)
