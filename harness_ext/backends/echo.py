"""`mmla-echo`: scripted answers, or answers by a declared rule. Walks the same road as a real model.

For tests, first runs and the measuring of everything around a model. Its scores say nothing about any model, and
results say so.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lm_eval.api.model import LM

from harness_ext.requests import ANSWER_MODES, Request, Response
from harness_ext.session import announce, answer_all
from mmla_tasks.errors import ModelError, suggest

RULES = ("gold", "random", "first")


class EchoLM(LM):  # type: ignore[misc]
    """Answers by a rule, or from a script.

    Args:
        script: Raw answers, given in the order of requests and then from the start again. Overrides `rule`.
        rule: ``gold`` (the document's label, with seeded errors), ``random`` (a seeded random label), or ``first``
            (the first label).
        error_rate: Share of documents for which ``gold`` answers another label, drawn per document.
        unparsed_rate: Share of documents that get an answer without any label.
        seed: Draws depend on seed, task and document id alone, not on order or process.
        answer: As for real backends; ``rank`` adds made-up label scores.
        delay_ms: Time that each answer takes, in milliseconds.
        history_file: File to which a line with task and id is added for every request asked, by all processes.

    Attributes:
        history: Every request asked, in order.
    """

    MULTIMODAL = True
    FREE_ARGUMENTS = ("delay_ms", "history_file")
    deterministic = False  # answers belong to documents, not to questions

    def __init__(
        self,
        script: Sequence[str] | str | None = None,
        rule: str = "random",
        error_rate: float = 0.0,
        unparsed_rate: float = 0.0,
        seed: int = 0,
        answer: str = "generate",
        delay_ms: float = 0.0,
        history_file: str | None = None,
        on_bad_clip: str = "error",
        batch_size: Any = None,
        max_batch_size: Any = None,
        device: Any = None,
        **unknown: Any,
    ) -> None:
        super().__init__()
        announce(self)
        if unknown:
            name = next(iter(unknown))
            known = ("script", "rule", "error_rate", "unparsed_rate", "seed", "answer", "delay_ms", "history_file")
            raise ModelError(
                f"mmla-echo has no argument `{name}`", hint=suggest(name, known), arguments=", ".join(known)
            )
        if rule not in RULES:
            raise ModelError(f"mmla-echo has no rule `{rule}`", rules=", ".join(RULES))
        if answer not in ANSWER_MODES:
            raise ModelError(f"answer mode `{answer}` is not known", modes=", ".join(ANSWER_MODES))
        self.script = [script] if isinstance(script, str) else list(script or ())
        self.rule = "script" if self.script else rule
        self.error_rate = _share("error_rate", error_rate)
        self.unparsed_rate = _share("unparsed_rate", unparsed_rate)
        self.seed = seed
        self.answer_mode = answer
        self.delay_ms = delay_ms
        self.history_file = None if history_file is None else Path(history_file)
        self.history: list[Request] = []

    def identity(self) -> dict[str, Any]:
        """The rule that made the answers."""
        return {
            "backend": "mmla-echo",
            "rule": self.rule,
            "script": self.script,
            "error_rate": self.error_rate,
            "unparsed_rate": self.unparsed_rate,
            "seed": self.seed,
            "answer": self.answer_mode,
        }

    def describe(self) -> str:
        """One line for the screen."""
        errors = f", errors {self.error_rate:g}" if self.error_rate else ""
        return f"mmla-echo  rule: {self.rule}{errors}, seed {self.seed}  (no model: scores mean nothing)"

    def answer(self, requests: list[Request]) -> Iterator[tuple[int, Response]]:
        """Answer by script or rule."""
        for n, request in enumerate(requests):
            self._note(request)
            if self.script:
                yield n, Response(self.script[(len(self.history) - 1) % len(self.script)])
            else:
                yield n, self._by_rule(request)

    def _note(self, request: Request) -> None:
        self.history.append(request)
        if self.history_file is not None:
            with self.history_file.open("ab", buffering=0) as file:  # one write a line, which no kill cuts
                file.write(f"{request.task} {request.id}\n".encode())
        time.sleep(self.delay_ms / 1000)

    def _by_rule(self, request: Request) -> Response:
        rng = random.Random(f"{self.seed}:{request.task}:{request.id}")
        if rng.random() < self.unparsed_rate and self.answer_mode == "generate":
            return Response("I cannot tell.")
        label = self._label(request, rng)
        text = f"{request.answer_prefix} {label}"
        return (
            Response(text, label_scores=_made_up_scores(request, label, rng))
            if self.answer_mode == "rank"
            else Response(text)
        )

    def _label(self, request: Request, rng: random.Random) -> str:
        match self.rule:
            case "first":
                return request.labels[0]
            case "random":
                return rng.choice(request.labels)
            case _ if rng.random() < self.error_rate:
                return rng.choice([label for label in request.labels if label != request.gold])
            case _:
                return request.gold

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[Response]:
        """Answer lm-eval's instances."""
        return answer_all(self, requests)

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        """Not offered: MMLA tasks generate."""
        raise ModelError("mmla-echo has no log-likelihoods")

    def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
        """Not offered: MMLA tasks generate."""
        raise ModelError("mmla-echo has no log-likelihoods")

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Plain text, so that ``--apply_chat_template`` can be tried without a model."""
        turns = [f"<{m['role']}> {m['content']}" for m in chat_history]
        return "\n".join([*turns, "<assistant> "] if add_generation_prompt else turns)

    @property
    def tokenizer_name(self) -> str:
        """Asked by lm-eval when a chat template is applied."""
        return "mmla-echo"


def _share(name: str, value: Any) -> float:
    if not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise ModelError(f"mmla-echo: {name} is {value!r}", next="write a number from 0 to 1")
    return float(value)


def _made_up_scores(request: Request, label: str, rng: random.Random) -> dict[str, float]:
    """Log-probabilities: at least half for the answer, the rest shared out among the other labels by chance."""
    sure = rng.uniform(0.5, 0.99)
    weights = {name: rng.uniform(0.01, 1) for name in request.labels if name != label}
    total = sum(weights.values())
    return {name: math.log(sure if name == label else (1 - sure) * weights[name] / total) for name in request.labels}
