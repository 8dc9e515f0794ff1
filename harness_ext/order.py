"""In which order a model is asked: what shares a prefix stands together, the longest first."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

from harness_ext.requests import Request


def asking_order(
    requests: Sequence[Request],
    lengths: Sequence[int] | None = None,
    apart: Callable[[Request], Hashable] = lambda request: None,
) -> list[int]:
    """Indices of the requests in the order in which to ask them.

    Prompts begin with the video, so only those about the same clip share a prefix of any length. Two datasets have two
    tasks each, which ask about the same clips: these stand side by side, where an engine finds the prefix in its cache
    and the clip is decoded once. Otherwise the longest come first: neighbours are alike in length, so that a batch is
    padded little, too little memory shows at once, and nothing long is waited for at the end.

    Args:
        requests: Of one run.
        lengths: Of each request, in whatever unit; text is enough, since one frame policy holds for all clips. None
            takes characters.
        apart: Requests of which this differs cannot share a batch; they come in order of first appearance.

    >>> ask = lambda task, clip: Request(task, "", "", (), "", {}, clip={"path": clip} if clip else None)
    >>> asking_order([ask("emotion", "a"), ask("emotion", "b"), ask("act", "a"), ask("act", "b")], [9, 7, 5, 8])
    [0, 2, 3, 1]
    """
    counts = lengths or [len(request.prompt) for request in requests]
    groups: dict[Hashable, dict[Hashable, list[int]]] = {}
    for index, request in enumerate(requests):
        alike = groups.setdefault(apart(request), {})
        alike.setdefault(index if request.clip is None else tuple(request.clip.values()), []).append(index)

    def longest_first(index: int) -> tuple[int, int]:
        return -counts[index], index

    ordered = []
    for group in groups.values():
        together = [sorted(indices, key=longest_first) for indices in group.values()]
        ordered += [index for indices in sorted(together, key=lambda same: longest_first(same[0])) for index in indices]
    return ordered
