"""An OpenAI-compatible server on loopback that answers by a rule and fails as it is told to. Standard library only."""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.harness.serving import serving

FAULTS = ("429", "429 date", "500", "503", "hang", "cut", "empty", "odd", "no json", "drop")
HANG_SECONDS = 6.0
RETRY_AFTER_SECONDS = 1


@dataclass
class Call:
    """One request that reached the server."""

    question: str
    """Text of the last message, or the plain prompt."""
    body: Mapping[str, Any]
    fault: str | None
    began: float
    ended: float = 0.0
    """When the reply was sent; 0 for one that the client did not wait for."""


@dataclass
class Loopback:
    """What the server does, and what it saw."""

    fault_of: Callable[[str, int], str | None] = lambda question, attempt: None
    """Question and how often it was asked before -> one of `FAULTS`, a status with a message, or None."""
    answer_of: Callable[[Mapping[str, Any]], str] = lambda body: "emotion: joy"
    models: Mapping[str, str] = field(default_factory=lambda: {"m": "somebody"})
    """Name -> owner."""
    wants: str = ""
    """The authorization that it wants; it is so rude as to repeat a wrong one."""
    seconds: float = 0.0
    """What an answer takes."""
    calls: list[Call] = field(default_factory=list)
    most_at_once: int = 0

    def __post_init__(self) -> None:
        self.lock = threading.Lock()
        self.now = 0

    @property
    def answered(self) -> Counter[str]:
        """Question -> successful replies."""
        return Counter(call.question for call in self.calls if call.fault is None and call.ended)

    @contextmanager
    def serving(self, port: int = 0) -> Iterator[str]:
        """Listen; gives the base URL."""
        with serving(_handler(self), port) as address:
            yield f"{address}/v1"


def random_faults(share: float, seed: int, kinds: Sequence[str] = FAULTS) -> Callable[[str, int], str | None]:
    """A share of all requests fails, drawn for each question and attempt; whatever the order."""

    def fault(question: str, attempt: int) -> str | None:
        rng = random.Random(f"{seed}:{question}:{attempt}")
        return rng.choice(kinds) if rng.random() < share else None

    return fault


def question_of(body: Mapping[str, Any]) -> str:
    if "messages" not in body:
        return str(body["prompt"])
    content = body["messages"][-1]["content"]
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def _handler(state: Loopback) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if not self._knows_key():
                return
            models = [{"id": name, "object": "model", "owned_by": owner} for name, owner in state.models.items()]
            self._send(200, {"object": "list", "data": models})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            if not self._knows_key():
                return
            question = question_of(body)
            with state.lock:
                attempt = sum(call.question == question for call in state.calls)
                call = Call(question, body, state.fault_of(question, attempt), time.monotonic())
                state.calls.append(call)
                state.now += call.fault != "hang"
                state.most_at_once = max(state.most_at_once, state.now)
            time.sleep(state.seconds)
            with state.lock:
                state.now -= call.fault != "hang"
            call.ended = time.monotonic()
            try:
                self._reply(call)
            except OSError:  # the client has gone
                call.ended = 0.0

        def _knows_key(self) -> bool:
            given = self.headers["authorization"]
            if state.wants and given != state.wants:
                self._send(
                    401, {"error": {"message": f"Incorrect API key provided: {given}", "code": "invalid_api_key"}}
                )
                return False
            return True

        def _reply(self, call: Call) -> None:
            done = _completion(state.answer_of(call.body), call.body)
            match call.fault:
                case None:
                    self._send(200, done)
                case "429":
                    self._send(429, _error("slow down"), {"retry-after": str(RETRY_AFTER_SECONDS)})
                case "429 date":
                    until = time.time() + RETRY_AFTER_SECONDS + 1  # an HTTP date has whole seconds
                    self._send(429, _error("slow down"), {"retry-after": self.date_time_string(int(until))})
                case "hang":
                    time.sleep(HANG_SECONDS)
                    self.close_connection = True
                case "cut":
                    self._send_text(200, json.dumps(done)[:-20])
                case "empty":
                    self._send(200, {**done, "choices": []})
                case "odd":
                    self._send(200, {**done, "choices": ["?"]})
                case "filtered":
                    self._send(200, {**done, "choices": [{**done["choices"][0], "finish_reason": "content_filter"}]})
                case "429 for an hour":
                    self._send(429, _error("slow down"), {"retry-after": "3600"})
                case "no json":
                    self._send_text(200, "<html>busy</html>", "text/html")
                case "drop":
                    self.close_connection = True
                case fault:
                    status, _, message = fault.partition(" ")
                    self._send(int(status), _error(message or "failed"))

        def _send(self, status: int, value: Any, headers: Mapping[str, str] | None = None) -> None:
            self._send_text(status, json.dumps(value), "application/json", headers)

        def _send_text(
            self, status: int, text: str, kind: str = "application/json", headers: Mapping[str, str] | None = None
        ) -> None:
            data = text.encode()
            self.send_response(status)
            for name, value in {"content-type": kind, "content-length": str(len(data)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler


def _error(message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "test", "code": None if " " in message else message}}


def _completion(text: str, body: Mapping[str, Any]) -> dict[str, Any]:
    said = {"text": text} if "prompt" in body else {"message": {"role": "assistant", "content": text}}
    return {
        "id": "1",
        "object": "chat.completion",
        "created": 0,
        "model": body["model"],
        "choices": [{"index": 0, "finish_reason": "stop", **said}],
        "usage": {"prompt_tokens": len(question_of(body)), "completion_tokens": 4, "total_tokens": 0},
    }
