"""A bar for work that may take a while and usually takes none: it shows on a terminal, after half a second."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress_bar(what: str, unit: str, shown: bool = True) -> Iterator[Callable[[int, int], None]]:
    """Give a function that is told how much is done, and of how much.

    Args:
        what: Such as ``looking at clips``.
        unit: Of what is counted, such as ``clip``.
        shown: Whether there is a bar at all, where there is a terminal.
    """
    from tqdm import tqdm  # type: ignore[import-untyped]

    bar = tqdm(desc=what, unit=unit, leave=False, disable=None if shown else True, delay=0.5)

    def advance(done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)

    with bar:
        yield advance
