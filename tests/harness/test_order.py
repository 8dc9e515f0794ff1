from __future__ import annotations

from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from harness_ext.order import asking_order
from harness_ext.requests import Request


def ask(task: str, clip: str | None) -> Request:
    place: Any = clip and {"path": clip, "start_seconds": 0.0, "end_seconds": None, "size": 1, "mtime_ns": 1}
    return Request(task, "1", "", (), "", {}, clip=place)


asked = st.lists(
    st.tuples(st.builds(ask, st.sampled_from("ab"), st.sampled_from([None, "x", "y", "z"])), st.integers(0, 9))
)


@given(asked)
def test_every_request_is_asked_once_and_the_same_clip_at_a_stretch(pairs: list[tuple[Request, int]]) -> None:
    requests = [request for request, _ in pairs]
    order = asking_order(requests, [length for _, length in pairs], lambda request: request.task)
    assert sorted(order) == list(range(len(requests)))
    stretches = [(requests[i].task, requests[i].clip and requests[i].clip["path"]) for i in order]
    changes = [now for before, now in zip([None, *stretches], stretches, strict=False) if now != before]
    with_clip = [stretch for stretch in changes if stretch[1]]
    assert len(with_clip) == len(set(with_clip))
    tasks = [
        task for before, (task, _) in zip([None, *changes], changes, strict=False) if not before or before[0] != task
    ]
    assert len(tasks) == len(set(tasks))


@given(st.lists(st.integers(0, 9)))
def test_without_clips_the_longest_come_first(lengths: list[int]) -> None:
    order = asking_order([ask("a", None)] * len(lengths), lengths)
    assert [lengths[i] for i in order] == sorted(lengths, reverse=True)
    assert all(i < j for i, j in pairwise(order) if lengths[i] == lengths[j])
