"""What clients may send: OpenAI's requests as pydantic models. What is not here is refused by name.

null means that a parameter is not given, as in OpenAI's clients. Of a list the first fault is
enough (fail_fast), and the first unknown name: a body of 4 MB could have a million.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

MOST_STOPS, MOST_TOP, MOST_N = 16, 20, 128

Id = Annotated[int, Field(ge=0, le=2**31)]
Ids = Annotated[list[Id], Field(min_length=1, fail_fast=True)]
Texts = Annotated[list[str], Field(min_length=1, max_length=MOST_N, fail_fast=True)]
Rows = Annotated[list[Ids], Field(min_length=1, max_length=MOST_N, fail_fast=True)]
Stop = Annotated[str, Field(min_length=1)]


class Body(BaseModel):
    """A JSON object without unknown names; neither NaN nor infinity is a number."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _without_null(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        given = {name: value for name, value in values.items() if value is not None}
        unknown = next((name for name in given if name not in cls.model_fields), None)
        return {n: value for n, value in given.items() if n in cls.model_fields or n == unknown}


class StreamOptions(Body):
    """What a stream has beside text."""

    include_usage: bool = Field(False, description="end with a chunk that has the usage")


class Writing(Body):
    """What completions and chats share."""

    model: str = Field(description="a name that /v1/models lists")
    temperature: float = Field(1.0, ge=0, le=100, description="0 = the most likely token")
    top_p: float = Field(1.0, gt=0, le=1, description="the likeliest tokens up to this probability")
    top_k: int | None = Field(None, ge=1, description="the k likeliest tokens")
    min_p: float | None = Field(None, ge=0, le=1, description="this share of the likeliest")
    repetition_penalty: float = Field(1.0, ge=1e-9, le=100, description="> 1 repeats less (CTRL)")
    presence_penalty: float = Field(0.0, ge=-2, le=2, description="off logits of what was written")
    frequency_penalty: float = Field(0.0, ge=-2, le=2, description="the same, for each time")
    seed: int | None = Field(None, ge=0, lt=2**63, description="the same seed, the same text")
    n: int = Field(1, ge=1, le=MOST_N, description="texts for each prompt; text i has seed + i")
    stop: Stop | Annotated[list[Stop], Field(max_length=MOST_STOPS)] = Field(
        default=[], description="strings to end before"
    )
    stream: bool = Field(False, description="send tokens as they are drawn, as server-sent events")
    stream_options: StreamOptions | None = None
    return_token_ids: bool = Field(False, description="ids and bytes of tokens, too")
    user: str | None = Field(None, description="taken, and not used")

    @property
    def stops(self) -> list[str]:
        """The stop strings."""
        return [self.stop] if isinstance(self.stop, str) else self.stop


class CompletionBody(Writing):
    """POST /v1/completions."""

    prompt: str | Ids | Texts | Rows = Field(description="a text, ids, or a list of either")
    max_tokens: int = Field(16, ge=0, description="the most tokens to write")
    logprobs: int | None = Field(None, ge=0, le=MOST_TOP, description="with so many alternatives")
    echo: bool = Field(False, description="begin with the prompt, scored if logprobs are asked for")

    @property
    def prompts(self) -> list[str | list[int]]:
        """Texts or ids."""
        if isinstance(self.prompt, str) or isinstance(self.prompt[0], int):
            return [self.prompt]
        return self.prompt  # type: ignore[return-value]


class TextPart(Body):
    """A part of a message: text, nothing else."""

    type: Literal["text"]
    text: str


class Message(Body):
    """One message of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str | Annotated[list[TextPart], Field(fail_fast=True)]
    name: str | None = Field(None, description="taken, and not used")

    @property
    def text(self) -> str:
        """What it says."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content)


class ChatBody(Writing):
    """POST /v1/chat/completions."""

    messages: list[Message] = Field(min_length=1, max_length=1000, fail_fast=True)
    max_tokens: int | None = Field(None, ge=0, description="the most tokens to write")
    max_completion_tokens: int | None = Field(None, ge=0, description="the same, newer name")
    logprobs: bool = False
    top_logprobs: int = Field(0, ge=0, le=MOST_TOP, description="alternatives of each token")


class TokenizeBody(Body):
    """POST /tokenize."""

    prompt: str
    model: str | None = None
    add_special_tokens: bool = Field(
        True, description="begin as a text to write on from does; false: <|...|> in it count"
    )


class DetokenizeBody(Body):
    """POST /detokenize."""

    tokens: Annotated[list[Id], Field(fail_fast=True)]
    model: str | None = None


class ErrorFields(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """The body of every answer that is an error."""

    error: ErrorFields
