"""Write on from a prompt with a trained model.

python sample.py --prompt "Once upon a time"
python sample.py --run tiny --steps 300 --temp 0.7 --top_k 40 --seed 1
python sample.py --prompt "A fox" "A hen" --num 3
python sample.py --grid --temp 0.5 0.8 1.0 --top_k 10 50
python sample.py --interactive
python sample.py --run smollm2 --chat       # a model that came with a chat template
python sample.py --run bert_tiny --fill "The [MASK] ran home"
"""

from argparse import Namespace
from collections.abc import Sequence

from tok.cli import Parser, run
from utils.hub.pretrained import read_template
from utils.runs import latest_run, run_dir
from utils.writing.checks import check
from utils.writing.defaults import SAMPLING
from utils.writing.terminal import note, read_prompts


def parse(argv: Sequence[str] | None) -> Namespace:
    """Read the flags."""
    p = Parser(prog="sample.py", description=__doc__)
    p.add_argument("--run", help="a name under runs/, or a path (default: the newest)")
    p.add_argument("--ckpt", choices=("best", "last"), default="best", help="default best")
    p.add_argument("--prompt", nargs="+", help="texts to go on from, or - for stdin (default none)")
    p.add_argument("--prompt-file", metavar="FILE", help="a file that holds the prompt")
    p.add_argument(
        "--fill", nargs="+", metavar="TEXT", help="texts with [MASK]s for a BERT to fill"
    )
    p.add_argument("--top", type=int, default=5, help="fills to show for a [MASK] (default 5)")
    p.add_argument("--num", type=int, default=1, help="continuations of each prompt (default 1)")
    p.add_argument("--steps", type=int, help="most tokens to write (default 200; --chat 500)")
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
    about = "keys and values in int8: about a quarter of their memory"
    p.add_argument("--cache", choices=("float", "int8"), default="float", help=about)
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
    a.steps = a.steps if a.steps is not None else 500 if a.chat else 200
    return a


def main(argv: Sequence[str] | None = None) -> None:
    """Print each prompt and its continuation as it is made."""
    a = parse(argv)
    check(a)
    path = run_dir(a.run) if a.run else latest_run()
    if a.fill:
        from utils.writing.fill import show_fills

        return show_fills(path, a.ckpt, a.fill, a.top, a.device)
    prompts = [""] if a.interactive or a.chat else read_prompts(a.prompt, a.prompt_file)
    prompts = [prompt for prompt in prompts for _ in range(a.num)]
    template = read_template(path) if a.chat and path.is_dir() else None

    from data.store import end_id  # here, not above: flags are checked before torch is imported
    from model import few_rows
    from model.adapt.quant import count
    from utils.device import pick_device
    from utils.native import with_native
    from utils.training.models import load_model
    from utils.writing.novelty import novelty, training_text, training_words
    from utils.writing.ways import adapters_on_and_off, check_adapters, tell_limits, write

    device = pick_device(a.device).device
    model, tokenizer, checkpoint = load_model(path, a.ckpt)
    check_adapters(a, model)
    training = training_text(path, checkpoint) if a.novelty else None
    end = end_id(checkpoint["data"], tokenizer)
    tell_limits(a, model, tokenizer, prompts, end)
    note(f"{path}/{a.ckpt}.pt, step {checkpoint['step']}, {count(model):,} parameters")
    few_rows(with_native(model.to(device).eval()), 1 if a.show_probs else len(prompts))
    for _ in adapters_on_and_off(a, model):
        written = write(a, model, tokenizer, prompts, end, template)
    if training:
        note(str(novelty(written, training_words(training.datasets.values()))))


if __name__ == "__main__":
    run(main)
