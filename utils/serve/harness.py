"""A run as a model of EleutherAI's lm-evaluation-harness: `TinyLM("tiny")`, there by the name
llm_tiny. The engine scores and writes; texts are cut into tokens as the harness's `hf` does it, so
that both get the same numbers. It knows neither tasks nor files of results.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.models.utils import normalize_gen_kwargs
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from tqdm import tqdm

from model.generation.engine import Engine
from model.generation.requests import Event, Request, Token
from utils.device import pick_device
from utils.serve.choices import Choice
from utils.serve.served import BASE, Served, load_served
from utils.writing.stops import check_stops

SAMPLING = "temperature", "top_k", "top_p", "min_p", "repetition_penalty"
Pair = tuple[Any, list[int], list[int]]  # a key of the harness's, context, continuation


def pick(name: str, device: str) -> Served:
    """A run by its name; NAME:base is one without its adapters. ValueError if it has none."""
    run = name.removesuffix(BASE)
    served = load_served(run, pick_device(device).device)
    if name == run:
        return served[0]
    if len(served) == 1:
        raise ValueError(f"{run} has no adapters to leave out; evaluate it as {run}")
    return served[1]


def is_greedy(token: Token) -> bool:
    """Whether no id was likelier: the same number, as both come from one computation."""
    return token.logprob == max(token.top.values())


@register_model("llm_tiny")
class TinyLM(TemplateLM):
    """A run as the harness asks models: loglikelihood, loglikelihood_rolling, generate_until.

    `batch_size` texts are under way at once. Windows have `max_length` tokens (default block_size),
    and contexts that do not fit lose their beginning. A context is what the task says, without bos;
    an empty one is bos, or eos where there is none.
    """

    def __init__(
        self,
        run: str,
        *,
        device: str = "auto",
        batch_size: int | str = 8,
        max_batch_size: int | None = None,  # the harness may give it; there is nothing to find out
        max_length: int | None = None,
        max_gen_toks: int = 256,
    ) -> None:
        super().__init__()
        self.served = pick(run, device)
        self.engine = Engine(self.served.model, rows=int(batch_size), queue=0, prefix_bytes=0)
        self.max_length = max_length or self.served.context
        self.max_gen_toks = max_gen_toks
        self.special = self.served.tokenizer.special_tokens

    @property
    def eot_token_id(self) -> int | None:
        """The id that ends a text, if there is one."""
        return self.special.get(self.served.special("eos") or "")

    @property
    def prefix_token_id(self) -> int:
        """What a text without context begins with: bos, eos, or else as sample.py begins one."""
        bos = self.special.get(self.served.special("bos") or "", self.eot_token_id)
        return self.served.start("")[0] if bos is None else bos

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **kwargs: Any
    ) -> list[int]:
        """Text -> ids; special tokens in it count, and none is added."""
        return self.served.encode(string)

    def carry_out(
        self, requests: Sequence[Request], what: str, quiet: bool
    ) -> Iterator[tuple[int, Event]]:
        """Have the engine carry out requests, as many at once as it takes: (which, what is new)."""
        which: dict[int, int] = {}
        for i, request in enumerate(tqdm(requests, desc=what, disable=quiet or None)):
            which[self.engine.submit(request)] = i
            while not self.engine.room:
                yield from ((which[event.number], event) for event in self.engine.step())
        for event in self.engine.run():
            yield which[event.number], event

    def _loglikelihood_tokens(
        self, requests: Sequence[Pair], disable_tqdm: bool = False, **kwargs: Any
    ) -> list[tuple[float, bool]]:
        """Of each continuation the sum of its tokens' log-probabilities; whether all are greedy."""
        longest = self.max_length + 1  # the last token is scored, and not read
        windows = [(context + continuation)[-longest:] for _, context, continuation in requests]
        known = self.served.known
        asked = [Request(ids, 0, score=True, top=1, vocab_size=known) for ids in windows]
        answers: dict[int, tuple[float, bool]] = {}
        for i, event in self.carry_out(asked, "scoring", disable_tqdm):
            n = len(event.scored) - len(requests[i][2])
            if n < 1:
                raise ValueError(
                    f"a continuation of {len(requests[i][2])} tokens is longer than the "
                    f"{self.max_length} that {self.served.name} reads"
                )
            tokens = event.scored[n:]
            logprob = sum(token.logprob or 0.0 for token in tokens)
            answers[i] = logprob, all(map(is_greedy, tokens))
        return [answers[i] for i in range(len(requests))]

    def loglikelihood_rolling(
        self, requests: Sequence[Instance], disable_tqdm: bool = False
    ) -> list[float]:
        """The log-probability of whole texts, each token scored once, in windows one after another.

        The first token follows bos; the last window is a full one, and scores what is left.
        """
        windows: list[Pair] = []
        for i, request in enumerate(requests):
            ids = self.tok_encode(*request.args)
            pairs = get_rolling_token_windows(ids, self.prefix_token_id, self.max_length, 1)
            windows += [(i, *make_disjoint_window(pair)) for pair in pairs]
        scores = self._loglikelihood_tokens(windows, disable_tqdm)
        totals = [0.0] * len(requests)
        for (i, *_), (logprob, _) in zip(windows, scores, strict=True):
            totals[i] += logprob
        return totals

    def generate_until(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[str]:
        """Texts that go on from contexts, up to a stop string, eos, or max_gen_toks tokens.

        Greedy unless the task says do_sample; request i then draws with the seed i. Special tokens
        are left out of them.
        """
        plans = [self.plan(i, *request.args) for i, request in enumerate(requests)]
        texts = [""] * len(plans)
        for i, event in self.carry_out([r for r, _ in plans], "writing", disable_tqdm):
            choice = plans[i][1]
            texts[i] += choice.add(event).text
            if choice.finish:
                self.engine.cancel(event.number)
        return texts

    def plan(self, seed: int, context: str, how: Mapping[str, Any]) -> tuple[Request, Choice]:
        """A request by a task's generation_kwargs, and the text that it becomes. Raises ValueError
        for what is not supported, or leaves no room for a context.
        """
        kwargs: dict[str, Any] = {"temperature": 0.0}
        kwargs |= normalize_gen_kwargs(dict(how), self.max_gen_toks)
        until, steps, _ = (kwargs.pop(name) for name in ("until", "max_gen_toks", "do_sample"))
        if unknown := sorted(set(kwargs) - set(SAMPLING)):
            there = ", ".join(("until", "max_gen_toks", "do_sample", *SAMPLING))
            raise ValueError(f"generation_kwargs: {unknown[0]} is none of {there}")
        check_stops(until)
        if steps >= self.max_length:
            raise ValueError(
                f"max_gen_toks={steps} leaves no room for a context in the {self.max_length} "
                f"tokens that {self.served.name} reads; lower it in the task's generation_kwargs"
            )
        ids = self.tok_encode(context)[steps - self.max_length :] or [self.prefix_token_id]
        ends = self.eot_token_id, *map(self.special.get, until)
        stop = frozenset(i for i in ends if i is not None)
        request = Request(ids, steps, seed=seed, stop=stop, vocab_size=self.served.known, **kwargs)
        unseen = frozenset(self.special.values())
        return request, Choice(self.served.tokenizer, until, unseen)

    @property
    def tokenizer_name(self) -> str:
        """What distinguishes the tokenizer in the harness's caches."""
        return self.served.name

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """The run's chat template, if it is asked for one and has it."""
        pretrained = self.served.pretrained
        return pretrained.chat_template if chat_template and pretrained else None

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """A conversation as text; without add_generation_prompt its last message goes on.

        ValueError for a run without a chat template, or one that refuses.
        """
        if self.served.template is None:
            raise ValueError(f"{self.served.name} has no chat template; evaluate it without")
        text = self.served.template(chat_history, add_generation_prompt=add_generation_prompt)
        if add_generation_prompt:
            return text
        last = chat_history[-1]["content"]
        last = last if last in text else last.strip()
        return text[: text.rindex(last) + len(last)]

    def get_model_info(self) -> dict[str, Any]:
        """What the harness's results say of the model."""
        return {
            "model": "llm_tiny",
            "run": self.served.name,
            "model_num_parameters": self.served.model.n_params(),
        }
