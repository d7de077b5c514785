"""Errors as clients get them: an HTTP status and OpenAI's body."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from model.generation.requests import QueueFull

RETRY_AFTER = "1"  # seconds: a row is soon free


class Stopping(RuntimeError):
    """The server is about to end."""


class Refused(Exception):
    """An error with its HTTP status."""

    def __init__(
        self, status: int, message: str, param: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        kind = "invalid_request_error" if status < 500 else "server_error"
        self.status = status
        error = {"message": message, "type": kind, "param": param, "code": code}
        self.body: dict[str, Any] = {"error": error}
        self.headers: dict[str, str] = {"Retry-After": RETRY_AFTER} if status in (429, 503) else {}


@contextmanager
def blaming(param: str) -> Iterator[None]:
    """Say of which parameter a ValueError within is."""
    try:
        yield
    except ValueError as e:
        raise Refused(400, f"{param}: {e}", param, "invalid_value") from None


def refusal(e: Exception) -> Refused:
    """What a client is told of an exception."""
    if isinstance(e, Refused):
        return e
    if isinstance(e, RequestValidationError):
        return invalid(e)
    if isinstance(e, HTTPException):
        refused = Refused(e.status_code, f"{e.detail}; /openapi.json describes what there is")
        refused.headers |= e.headers or {}  # Allow, say
        return refused
    if isinstance(e, QueueFull):
        return Refused(429, str(e), code="queue_full")
    if isinstance(e, Stopping):
        return Refused(503, str(e), code="stopping")
    if isinstance(e, ValueError):
        return Refused(400, str(e))
    return Refused(500, f"{type(e).__name__}: the server's log says more")


def items(loc: Sequence[str | int]) -> list[int]:
    """Which items of lists: ("body", "messages", 2, "content") -> [2]."""
    return [part for part in loc if isinstance(part, int)]


def invalid(e: RequestValidationError) -> Refused:
    """What is wrong with a body, by the name of the parameter; of a list, which item.

    A prompt may be several things; [5, -1] comes furthest as ids, so it is told that -1 is no id.
    """
    first = max(e.errors(), key=lambda error: items(error["loc"]))
    where = [str(part) for part in first["loc"][1:]]
    if first["type"] == "json_invalid":
        return Refused(400, f"the body is no JSON: {first.get('ctx', {}).get('error', '')}")
    if not where:
        return Refused(400, "the body has to be a JSON object, sent as application/json")
    if first["type"] == "extra_forbidden":
        name = ".".join(where)
        message = f"the parameter {name} is not supported"
        return Refused(400, message, where[0], "unsupported_parameter")
    if first["type"] == "missing":
        return Refused(400, f"the parameter {'.'.join(where)} is missing", where[0])
    at = ".".join([where[0], *map(str, items(first["loc"]))])
    return Refused(400, f"{at}: {first['msg']}", where[0], "invalid_value")
