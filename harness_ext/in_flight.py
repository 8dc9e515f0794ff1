"""Many questions asked at once, each answer handed on as it comes: for engines and servers that batch by themselves.

`mmla-vllm` and `mmla-api` are asynchronous and run on an event loop in a thread of its own; whoever takes the answers
stays in the thread of `answer_all`, where the journal is written.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any, TypeVar

from harness_ext.prefetch import Ahead
from harness_ext.questions import Question, Skipped
from harness_ext.requests import Response

Value = TypeVar("Value")


class InFlight:
    """An event loop in a thread, on which questions are asked.

    The thread is a daemon: where nobody calls `close`, as in a script with lm-eval alone, the interpreter still ends.

    Args:
        bound: Questions that may be asked at once.
    """

    def __init__(self, bound: int) -> None:
        self.bound = bound
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="mmla-in-flight", daemon=True)
        self._thread.start()

    def call(self, function: Callable[..., Coroutine[Any, Any, Value]], *args: Any) -> Value:
        """Run a coroutine function on the loop and wait for it."""
        return self._start(function(*args)).result()

    def _start(self, coroutine: Coroutine[Any, Any, Value]) -> Future[Value]:
        """Start it in the context of this thread, so that it finds the current session."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def close(self) -> None:
        """End whatever still runs on the loop, then the loop and its thread."""
        self.call(_end_others)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def answers(
        self, ahead: Ahead[int, Question | Skipped], ask: Callable[[Question], Coroutine[Any, Any, Response | None]]
    ) -> Iterator[tuple[int, Response]]:
        """Ask whatever `ahead` gives, at most `bound` at once; it is told when an answer is there.

        An error ends the rest, after the answers that came before it; so does closing the iterator.

        Args:
            ahead: Gives each index with its question.
            ask: Gives the answer, or None where there is none, and the others go on.

        Yields:
            Index, response.
        """
        asked: dict[Future[Response | None], int] = {}
        try:
            while ahead or asked:
                while len(asked) < self.bound and ahead.head is not None and (ahead.head.done() or not asked):
                    index, question = ahead.take()
                    if isinstance(question, Skipped):
                        ahead.done(index)
                        yield index, question.response
                    else:
                        asked[self._start(ask(question))] = index
                        del question
                if asked:
                    yield from self._finished(ahead, asked)
        finally:
            for future in asked:
                future.cancel()
            wait(asked)

    def _finished(
        self, ahead: Ahead[int, Question | Skipped], asked: dict[Future[Response | None], int]
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


async def _end_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
