"""Tokens that a run's questions took, and what they cost where a server is paid by the token."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness_ext.requests import Request, Response
from harness_ext.session import distinct


@dataclass(frozen=True)
class Prices:
    """What a million tokens cost, in any one currency; None: not known."""

    prompt: float | None
    new: float | None

    @classmethod
    def of(cls, model_args: Mapping[str, Any]) -> Prices:
        """Those that model arguments tell."""
        return cls(model_args.get("price_in"), model_args.get("price_out"))

    def cost(self, prompt_tokens: int, new_tokens: int) -> float | None:
        """What so many tokens cost.

        >>> Prices(2.5, 10.0).cost(400_000, 20_000)
        1.2
        """
        if self.prompt is None or self.new is None:
            return None
        return round((prompt_tokens * self.prompt + new_tokens * self.new) / 1e6, 6)


def usage_of(asked: Sequence[tuple[Request, Response]], prices: Prices, *, deterministic: bool) -> dict[str, Any]:
    """Questions, tokens and cost, of each task and together; a function of the answers, whenever they were given.

    Args:
        asked: Every request with its answer.
        prices: Of the server.
        deterministic: Whether equal questions were asked once; then they count once, in the first one's task.
    """
    kept = [(request, response) for request, response in asked if not response.skipped]
    firsts = [kept[same[0]] for same in distinct([request for request, _ in kept], deterministic)]
    tasks: dict[str, list[Response]] = {}
    for request, response in firsts:
        tasks.setdefault(request.task, []).append(response)
    return _with_tasks({task: _counted(responses) for task, responses in tasks.items()}, prices)


def usage_over(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The usage of several repeats together."""
    tasks = {task: _added([part["tasks"][task] for part in parts]) for task in parts[0]["tasks"]}
    return _with_tasks(tasks, Prices(**parts[0]["prices"]))


def usage_line(usage: Mapping[str, Any]) -> str:
    """Usage for the screen."""
    cost = f", cost {usage['cost']:,.4f}" if usage["cost"] is not None else ""
    untold = f", {usage['untold']:,} answers without a count" if usage["untold"] else ""
    tokens = f"{usage['prompt_tokens']:,} in prompts, {usage['new_tokens']:,} in answers"
    return f"tokens {tokens} of {usage['questions']:,} questions{untold}{cost}"


def _with_tasks(tasks: Mapping[str, Mapping[str, int]], prices: Prices) -> dict[str, Any]:
    def priced(counts: Mapping[str, int]) -> dict[str, Any]:
        return {**counts, "cost": prices.cost(counts["prompt_tokens"], counts["new_tokens"])}

    return {
        **priced(_added(tasks.values())),
        "prices": {"prompt": prices.prompt, "new": prices.new},
        "tasks": {task: priced(counts) for task, counts in tasks.items()},
    }


def _counted(responses: Sequence[Response]) -> dict[str, int]:
    return {
        "questions": len(responses),
        "untold": sum(response.prompt_tokens is None for response in responses),
        "prompt_tokens": sum(response.prompt_tokens or 0 for response in responses),
        "new_tokens": sum(response.new_tokens or 0 for response in responses),
    }


def _added(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total = {"questions": 0, "untold": 0, "prompt_tokens": 0, "new_tokens": 0}
    for part in counts:
        for name in total:
            total[name] += part[name]
    return total
