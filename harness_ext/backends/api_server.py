"""An OpenAI-compatible server as `mmla-api` asks it: paced, retried, and every failure told for what it is.

The `openai` client sends; its own retries are off. They would neither keep to the requests per minute nor ask again
after a reply that is cut short or empty.
"""

from __future__ import annotations

import asyncio
import base64
import os
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing, contextmanager, nullcontext
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any, Final, TypeVar
from urllib.parse import unquote, urlsplit, urlunsplit

import openai
from aiolimiter import AsyncLimiter
from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_exception, wait_random_exponential

from harness_ext.in_flight import InFlight
from harness_ext.masking import MASK, masked_text
from harness_ext.session import timings
from mmla_tasks.errors import ModelError, suggest

OPENAI_KEY: Final = "OPENAI_API_KEY"
OPENAI_URL: Final = "https://api.openai.com/v1"
MAX_WAIT_SECONDS: Final = 120.0
"""A server that asks for a longer wait is not waited for: the request has failed."""
PASSING: Final = (408, 409, 429)
"""Statuses below 500 that another attempt may not meet."""
OF_ONE_SAMPLE: Final = re.compile(
    r"context.?length|too (?:long|large)|content.?(?:policy|filter|management)|safety", re.IGNORECASE
)
"""Words of a refusal that is about one question and not about how all are asked."""
LIST_SECONDS: Final = 30.0
"""A server that has not told its models by then is not there."""
SHOWN_MESSAGE: Final = 300
"""Characters of a server's message that an error shows."""
SHOWN_REASONS: Final = 8
LISTED: Final = 20
NAMED: Final = 3
"""Questions that an error names for each reason."""

Value = TypeVar("Value")
Body = Mapping[str, Any]
Attempt = Callable[[], Awaitable[Value]]


class MalformedReplyError(Exception):
    """A reply that is no answer: cut short, empty, or not in the form that was asked for."""


class WithheldError(Exception):
    """The provider's filter kept the answer back."""


class OldNameError(Exception):
    """The server calls the token limit `max_completion_tokens`."""


FAILURES: Final = (openai.OpenAIError, TimeoutError, MalformedReplyError, WithheldError, OldNameError)
"""Everything that a request can fail with."""


@dataclass(frozen=True)
class Manners:
    """How a server is asked; changes no answer."""

    num_concurrent: int = 16
    """Requests that are open at once."""
    requests_per_minute: float | None = None
    """Attempts, evenly spaced; None: no limit."""
    max_retries: int = 5
    """Further attempts after the first."""
    timeout: float = 300.0
    """Seconds that one attempt may take."""


class Server:
    """A server, its key and how it is asked.

    Args:
        base_url: Such as ``http://localhost:8000/v1``; None takes OPENAI_BASE_URL, else OpenAI's own.
        key_variable: The environment variable that holds the key; None: OPENAI_API_KEY, which may be absent for
            servers other than OpenAI's.
        manners: Concurrency, pace and retries.

    Raises:
        ModelError: There is no key.
    """

    def __init__(self, base_url: str | None, key_variable: str | None, manners: Manners) -> None:
        self.manners = manners
        self._key = os.environ.get(key_variable or OPENAI_KEY, "").strip()
        self._base_url, self._user = _without_user(base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI_URL)
        self.url = masked_text(self._base_url)
        if not self._key and (key_variable or self._base_url == OPENAI_URL):
            variable = key_variable or OPENAI_KEY
            raise ModelError(
                f"{self.url} needs a key, and the environment variable {variable} is not set",
                next=f"export {variable}=...      api_key_env=NAME names another variable",
            )
        self._limit_name = "max_tokens"
        self._answered = False

    def _new_client(self) -> openai.AsyncOpenAI:
        basic = base64.b64encode(self._user.encode()).decode()
        return openai.AsyncOpenAI(
            api_key=self._key or "none",
            base_url=self._base_url,
            default_headers={"Authorization": f"Basic {basic}"} if self._user else None,
            max_retries=0,
            timeout=None,
        )

    @contextmanager
    def connected(self) -> Iterator[InFlight]:
        """An event loop with a client of its own; `complete` and `models` are called on it."""
        rate = self.manners.requests_per_minute
        with closing(InFlight(self.manners.num_concurrent)) as flight:
            self._client = self._new_client()
            # One request in each share of a minute: a bucket of a minute's requests would let twice as many through.
            self._pace: AbstractAsyncContextManager[None] = AsyncLimiter(1, 60 / rate) if rate else nullcontext()
            try:
                yield flight
            finally:
                flight.call(self._client.close)

    # ---- asking ------------------------------------------------------------------------------------------------

    async def complete(self, body: Body, limit: int, read: Callable[[Any], Value]) -> Value:
        """Ask until there is an answer or no attempt is left.

        Args:
            body: The request without its token limit; with ``messages`` a chat, with ``prompt`` a plain completion.
            limit: Tokens of the answer at most.
            read: Makes the answer of a reply; what it refuses with `MalformedReplyError` is asked again.

        Raises:
            Exception: One of `FAILURES`, that of the last attempt.
        """
        endpoint: Any = self._client.chat.completions if "messages" in body else self._client.completions
        rest = {name: value for name, value in body.items() if name not in ("model", "messages", "prompt")}
        asked = {name: value for name, value in body.items() if name not in rest}

        async def attempt() -> Value:
            name = self._limit_name
            try:
                return read(await endpoint.create(**asked, extra_body={name: limit, **rest}))
            except openai.BadRequestError as error:
                if name == "max_tokens" and "max_completion_tokens" in error.message:
                    self._limit_name = "max_completion_tokens"
                    raise OldNameError from error
                raise

        answer = await self._retried(attempt, may_pass)
        self._answered = True  # so the form of the requests is right
        return answer

    async def models(self) -> dict[str, Any]:
        """The models that the server offers, by name; empty where it does not tell."""
        try:
            listing = partial(self._client.models.list, timeout=LIST_SECONDS)
            page = await self._retried(listing, lambda error: may_pass(error) and not is_unreachable(error))
        except openai.NotFoundError:
            return {}
        return {model.id: model for model in getattr(page, "data", None) or ()}

    async def _retried(self, attempt: Attempt[Value], passing: Callable[[BaseException], bool]) -> Value:
        retrying = AsyncRetrying(
            retry=retry_if_exception(passing),
            wait=wait_exception(asked_to_wait) + wait_random_exponential(multiplier=0.5, max=30),
            stop=stop_after_attempt(1 + self.manners.max_retries),
            reraise=True,
        )
        return await retrying(self._attempt, attempt)

    async def _attempt(self, attempt: Attempt[Value]) -> Value:
        async with self._pace, self._timed():
            try:
                return await attempt()
            except ValueError as error:  # the client found no JSON
                raise MalformedReplyError(f"a reply that is no JSON: {error}") from error

    @asynccontextmanager
    async def _timed(self) -> AsyncIterator[None]:
        with timings().measure("request"):
            async with asyncio.timeout(self.manners.timeout):
                yield

    # ---- telling what went wrong -------------------------------------------------------------------------------

    def shown(self, text: str) -> str:
        """A server's words, shortened, without the key."""
        clean = " ".join(text.split())
        for secret in filter(None, (self._key, self._user.partition(":")[2])):
            clean = clean.replace(secret, MASK)
        return clean if len(clean) <= SHOWN_MESSAGE else clean[:SHOWN_MESSAGE] + " ..."

    def reason(self, error: BaseException) -> str:
        """Why a request failed, in one line."""
        match error:
            case openai.APIStatusError():
                return self.shown(f"status {error.status_code}: {message_of(error)}")
            case TimeoutError():
                return f"no reply within {self.manners.timeout:g} s"
            case openai.APIConnectionError():
                return self.shown(f"no connection: {error.__cause__ or error}")
            case _:
                return self.shown(str(error))

    def not_there(self, error: BaseException) -> ModelError:
        """The error for a server that does not answer at all."""
        return ModelError(
            f"no server answers at {self.url}",
            why=self.reason(error),
            next="start it (vllm serve MODEL --port 8000), or correct base_url=http://HOST:PORT/v1",
        )

    def refusal(
        self, error: BaseException, model: str, known: Mapping[str, Any], who: str, next: str
    ) -> ModelError | None:
        """The error for a failure that every request would meet; None for one that others may not.

        Args:
            error: One of `FAILURES`.
            model: The model that was asked for.
            known: The models that the server offers.
            who: Which question was asked.
            next: How else it could be asked.
        """
        if not isinstance(error, openai.APIStatusError):
            return None
        why = self.reason(error)
        match error.status_code:
            case 401 | 403:
                return ModelError(f"{self.url} refuses the key", why=why, next="export the key of this server")
            case 404 if known and model not in known:
                offers, hint = _listed(known), suggest(model, known)
                return ModelError(f"{self.url} has no model `{model}`", hint=hint, offers=offers, why=why)
            case 404:
                return ModelError(f"{self.url} has no such address or model", asked=who, why=why, next=next)
            case 429 if error.code == "insufficient_quota":
                return ModelError(f"{self.url} has no quota left for this key", why=why)
            case 400 | 422 if not self._answered and not is_of_one_sample(error):
                return ModelError(f"{self.url} refuses the form of the request", asked=who, why=why, next=next)
            case _:
                return None


def _listed(known: Iterable[str]) -> str:
    names = sorted(known)
    return ", ".join(names[:LISTED]) + (f" and {len(names) - LISTED} more" if len(names) > LISTED else "")


def _without_user(url: str) -> tuple[str, str]:
    """An address without what the client logs or appends itself; and ``user:password``, empty where there is none.

    >>> _without_user("http://me:abc@host:8000/v1/chat/completions")
    ('http://host:8000/v1', 'me:abc')
    """
    parts = urlsplit(re.sub(r"(/chat)?/completions/?$", "", url).rstrip("/"))  # lm-eval's users give the whole address
    user, _, host = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=host)), unquote(user)


class Failures:
    """Requests that got no answer, by reason."""

    def __init__(self) -> None:
        self.in_a_row = 0
        self._by_reason: dict[str, list[str]] = {}

    def __bool__(self) -> bool:
        return bool(self._by_reason)

    def add(self, reason: str, who: str) -> None:
        """Count one."""
        self.in_a_row += 1
        self._by_reason.setdefault(reason, []).append(who)

    def error(self, url: str, asked: int | None = None) -> ModelError:
        """The error that tells of all; `asked` is None where the run was ended because of them."""
        count = sum(map(len, self._by_reason.values()))
        what = f"{count:,} of {asked:,} requests" if asked else f"{self.in_a_row} requests in a row"
        commonest = sorted(self._by_reason.items(), key=lambda item: -len(item[1]))
        lines = [f"{len(who):,} x {reason}\n    {_named(who)}" for reason, who in commonest[:SHOWN_REASONS]]
        if len(commonest) > SHOWN_REASONS:
            lines.append(f"and {len(commonest) - SHOWN_REASONS:,} more reasons")
        return ModelError(
            f"{what} got no answer from {url}", why="\n".join(lines), next="the same command asks them again"
        )


def _named(who: Sequence[str]) -> str:
    more = f" and {len(who) - NAMED:,} more" if len(who) > NAMED else ""
    return ", ".join(who[:NAMED]) + more


def message_of(error: openai.APIStatusError) -> str:
    """The server's own words."""
    body = error.body
    said = body.get("message") or body.get("detail") if isinstance(body, Mapping) else body
    return str(said or error.response.reason_phrase or error.message)


def may_pass(error: BaseException) -> bool:
    """Whether another attempt may succeed."""
    if isinstance(error, openai.APIStatusError):
        passing = error.status_code in PASSING or error.status_code >= 500
        return passing and error.code != "insufficient_quota" and asked_to_wait(error) <= MAX_WAIT_SECONDS
    return is_unreachable(error) or isinstance(error, (TimeoutError, MalformedReplyError, OldNameError))


def is_unreachable(error: BaseException) -> bool:
    """Whether the connection failed."""
    return isinstance(error, openai.APIConnectionError)


def is_of_one_sample(error: openai.APIStatusError) -> bool:
    """Whether a refusal is about one question: too long, or against the provider's rules."""
    return bool(OF_ONE_SAMPLE.search(f"{error.code} {message_of(error)}"))


def asked_to_wait(error: BaseException) -> float:
    """Seconds that the server asks to wait before the next attempt; 0 where it says nothing."""
    if not isinstance(error, openai.APIStatusError):
        return 0.0
    headers = error.response.headers
    return max(0.0, _milliseconds(headers.get("retry-after-ms")) or _seconds(headers.get("retry-after")))


def _milliseconds(text: str | None) -> float:
    return float(text) / 1000 if text and re.fullmatch(r"\d+(\.\d+)?", text) else 0.0


def _seconds(text: str | None) -> float:
    """Seconds, or the time until an HTTP date.

    >>> _seconds("1.5"), _seconds(None), _seconds("soon")
    (1.5, 0.0, 0.0)
    """
    if not text or re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text or 0)
    try:
        return parsedate_to_datetime(text).timestamp() - time.time()
    except ValueError:
        return 0.0
