"""A chat template at work: messages -> text, by jinja2 in a sandbox, as transformers does it."""

import json
import re
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from tok.cli import one_line

Message = Mapping[str, str]  # role: system, user or assistant; content
MOST = 1 << 28  # bytes that rendering may take
SECONDS = 2
GENERATION = re.compile(r"{%(-?)\s*(end)?generation\s*(-?)%}")  # marks answers for training


def to_json(value: Any, ensure_ascii: bool = False, **how: Any) -> str:
    """JSON, for the filter tojson: jinja's own writes it for HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, **how)


def blocks(found: "re.Match[str]") -> str:
    """{% generation %} as a block that jinja2 knows, and that shows what is in it."""
    return f"{{%{found[1]} {'endif' if found[2] else 'if true'} {found[3]}%}}"


@contextmanager
def little_memory() -> Iterator[None]:
    """Within it the process gets MOST bytes more, then MemoryError; on Linux, which counts them."""
    statm = Path("/proc/self/statm")
    if not statm.exists():
        yield
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    held = int(statm.read_text().split()[0]) * resource.getpagesize()
    limits = [held + MOST, *(n for n in (soft, hard) if n != resource.RLIM_INFINITY)]
    resource.setrlimit(resource.RLIMIT_AS, (min(limits), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@contextmanager
def little_time() -> Iterator[None]:
    """Within it TimeoutError is raised after SECONDS, at the next line of Python that runs."""
    end = time.monotonic() + SECONDS

    def look(frame: Any, event: str, arg: Any) -> Any:
        if time.monotonic() > end:
            raise TimeoutError(f"it takes more than {SECONDS} s")
        return look

    before = sys.gettrace()
    sys.settrace(look)
    try:
        yield
    finally:
        sys.settrace(before)


class ChatTemplate:
    """A template, and the special tokens that it may write: `template(messages)` -> text.

    It may come from a stranger: it runs in jinja2's sandbox, sees plain text only, and no name in
    it begins with two underscores. ValueError for one that does not compile, or without jinja2;
    whatever else it does wrong, loops, recursion or texts without end, is one, too.
    """

    def __init__(self, template: str, bos: str | None = None, eos: str | None = None) -> None:
        try:
            import jinja2
            from jinja2.sandbox import ImmutableSandboxedEnvironment as Sandbox
        except ImportError:
            cure = "pip install 'llm-tiny[hub]'"
            raise ValueError(f"a chat template needs the package jinja2: {cure}") from None

        def refuse(message: str) -> None:
            raise jinja2.TemplateError(message)

        loops = ["jinja2.ext.loopcontrols"]
        env = Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=loops)
        env.filters["tojson"] = to_json
        env.globals["dict"] = lambda *args, **values: dict(*args, **values)  # not the type itself
        env.globals["raise_exception"] = refuse
        env.intercepted_binops = frozenset({"**"})  # 9 ** 9 ** 9 is one long line
        env.binop_table["**"] = lambda a, b: refuse("it uses **, which may take for ever")
        env.globals["strftime_now"] = lambda how: datetime.now().strftime(how)
        tokens = {"bos_token": bos, "eos_token": eos}
        self.tokens = {name: token for name, token in tokens.items() if token is not None}
        try:
            names = [value for _, kind, value in env.lex(template) if kind == "name"]
            if any(name.startswith("__") for name in names):
                raise ValueError("a name begins with '__'")
            with little_memory():  # constants are computed here
                self.template = env.from_string(GENERATION.sub(blocks, template))
        except Exception as e:  # of a stranger's program: any
            raise ValueError(f"the chat template cannot be used: {one_line(e)}") from None

    def __call__(self, messages: Iterable[Message], *, add_generation_prompt: bool = True) -> str:
        """The text of messages; with add_generation_prompt, up to where the answer begins.

        Raises ValueError where the template refuses them, or fails.
        """
        values = {"messages": list(messages), "add_generation_prompt": add_generation_prompt}
        try:
            with little_memory(), little_time():
                return self.template.render(**values, **self.tokens)
        except Exception as e:  # of a stranger's program: any
            raise ValueError(f"the chat template refuses: {one_line(e)}") from None
