"""Many questions asked at once, each answer handed on as it comes: for engines and servers that batch by themselves.

`mmla-vllm` and `mmla-api` are asynchronous and run on an event loop in a thread of its own; whoever takes the answers
stays in the thread of `answer_all`, where the journal is written.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import ExitStack
from typing import Any, TypeVar

from harness_ext.prefetch import Ahead
from harness_ext.questions import Question
from harness_ext.requests import Response

Value = TypeVar("Value")


class InFlight:
    """An event loop in a thread, on which questions are asked.

    Args:
        bound: Questions that may be asked at once.
    """

    def __init__(self, bound: int) -> None:
        from anyio.from_thread import start_blocking_portal

        self.bound = bound
        self._stack = ExitStack()
        self._portal = self._stack.enter_context(start_blocking_portal())

    def call(self, function: Callable[..., Awaitable[Value]], *args: Any) -> Value:
        """Run a coroutine function on the loop and wait for it."""
        return self._portal.call(function, *args)

    def close(self) -> None:
        """End the loop and its thread."""
        self._stack.close()

    def answers(
        self, ahead: Ahead[int, Question | None], ask: Callable[[Question], Awaitable[Response | None]]
    ) -> Iterator[tuple[int, Response]]:
        """Ask whatever `ahead` gives, at most `bound` at once; it is told when an answer is there.

        An error ends the rest, after the answers that came before it; so does closing the iterator.

        Args:
            ahead: Gives each index with its question; one that is None is skipped.
            ask: Gives the answer, or None where there is none, and the others go on.

        Yields:
            Index, response.
        """
        asked: dict[Future[Response | None], int] = {}
        try:
            while ahead or asked:
                while len(asked) < self.bound and ahead.head is not None and (ahead.head.done() or not asked):
                    index, question = ahead.take()
                    if question is None:
                        yield self._skipped(ahead, index)
                    else:
                        asked[self._portal.start_task_soon(ask, question)] = index
                        del question
                if asked:
                    yield from self._finished(ahead, asked)
        finally:
            for future in asked:
                future.cancel()
            wait(asked)

    def _skipped(self, ahead: Ahead[int, Question | None], index: int) -> tuple[int, Response]:
        ahead.done(index)
        return index, Response("", skipped=True)

    def _finished(
        self, ahead: Ahead[int, Question | None], asked: dict[Future[Response | None], int]
    ) -> Iterator[tuple[int, Response]]:
        """Wait for an answer, or for a question to ask where there is room for one; give what is there."""
        awaited: list[Future[Any]] = list(asked)
        if len(asked) < self.bound and ahead.head is not None:
            awaited.append(ahead.head)
        wait(awaited, return_when=FIRST_COMPLETED)
        answered = [future for future in asked if future.done()]
        for future in sorted(answered, key=lambda future: future.exception() is not None):
            response = future.result()
            index = asked.pop(future)
            ahead.done(index)
            if response is not None:
                yield index, response
