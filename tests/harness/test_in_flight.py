from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator

import pytest

from harness_ext.in_flight import InFlight
from harness_ext.prefetch import Ahead, DecodeLimits
from harness_ext.questions import Question, Skipped
from harness_ext.requests import Request, Response


@pytest.fixture
def four() -> Iterator[InFlight]:
    loop = InFlight(4)
    yield loop
    loop.close()
    assert not any("mmla-prefetch" in thread.name for thread in threading.enumerate())


def question(n: int) -> Question | Skipped:
    return (
        Skipped("damaged")
        if n == 13
        else Question(Request("task", str(n), f"{n}?", ("a", "b"), "intent:", {}), f"{n}?")
    )


def ahead_of(count: int, cost: int = 0) -> Ahead[int, Question | Skipped]:
    return Ahead(range(count), question, cost=lambda n: cost, limits=DecodeLimits(2, 100), depth=3)


def test_each_is_answered_once_and_no_more_than_the_bound_are_asked_at_once(four: InFlight) -> None:
    now = most = 0

    async def ask(question: Question) -> Response:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.001 * (int(question.request.id) % 5))
        now -= 1
        return Response(f"answer {question.request.id}")

    with ahead_of(30) as ahead:
        answers = list(four.answers(ahead, ask))
    assert sorted(n for n, _ in answers) == list(range(30))
    assert all(
        response == f"answer {n}" or (n == 13 and response.skipped and response.clip_fault == "damaged")
        for n, response in answers
    )
    assert most == 4


def test_an_answer_is_handed_on_while_others_are_awaited(four: InFlight) -> None:
    slow = threading.Event()

    async def ask(question: Question) -> Response:
        while question.request.id == "0" and not slow.is_set():
            await asyncio.sleep(0.001)
        return Response(question.request.id)

    with ahead_of(10) as ahead:
        answers = four.answers(ahead, ask)
        assert sorted(next(answers)[0] for _ in range(9)) == list(range(1, 10))
        slow.set()
        assert [n for n, _ in answers] == [0]


def test_bytes_bound_what_is_asked_at_once(four: InFlight) -> None:
    now = most = 0

    async def ask(question: Question) -> Response:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.002)
        now -= 1
        return Response("")

    with ahead_of(9, cost=50) as ahead:
        assert len(list(four.answers(ahead, ask))) == 9
    assert most == 2


def test_an_error_comes_after_the_answers_before_it_and_ends_the_rest(four: InFlight) -> None:
    cancelled = 0

    async def ask(question: Question) -> Response:
        nonlocal cancelled
        if question.request.id == "2":
            raise ValueError("2 is bad")
        if question.request.id == "3":
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                cancelled += 1
                raise
        return Response("")

    got = []
    began = time.monotonic()
    with ahead_of(20) as ahead, pytest.raises(ValueError, match="2 is bad"):
        for n, _ in four.answers(ahead, ask):
            got.append(n)
    assert {0, 1} <= set(got)
    assert 2 not in got
    assert cancelled <= 1
    assert time.monotonic() - began < 10


def test_closing_early_cancels_what_is_asked(four: InFlight) -> None:
    async def ask(question: Question) -> Response:
        await asyncio.sleep(0 if question.request.id == "0" else 60)
        return Response("")

    with ahead_of(20) as ahead:
        answers = four.answers(ahead, ask)
        next(answers)
        answers.close()  # type: ignore[attr-defined]
