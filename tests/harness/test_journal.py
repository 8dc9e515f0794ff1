"""The journal: nothing lost, nothing made up, and each answer under a key of what it depends on alone."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness_ext.journal import Journal, answer_count
from harness_ext.requests import Request, Response
from harness_ext.run import RunOptions, run

from ..clips import clip_bytes

TASK = "mmla_emotion_meld_text"
LABELS = ("neutral", "surprise", "fear", "sadness", "joy", "anger", "disgust")


def request(number: int) -> Request:
    return Request("t", str(number), f"prompt {number}", ("a", "b"), "x:", {"do_sample": False})


def filled(folder: Path, count: int = 5, writer: str = "answers") -> Path:
    """A journal of `count` answers; its file."""
    with Journal(folder, writer) as journal:
        for n in range(count):
            journal.add(f"key{n}", request(n), Response(f"ä {n}", label_scores={"b": -0.1, "a": -2.3}))
    return folder / f"{writer}.jsonl"


# ---------------------------------------------------------------------------------------------------------- lines


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_torn_last_line_is_told_and_the_next_answer_stands_on_its_own(tmp_path: Path, cut: int) -> None:
    file = filled(tmp_path)
    file.write_bytes(file.read_bytes()[:-cut])
    whole = 5 if cut == 1 else 4  # only the line's end is gone: the answer is whole
    with Journal(tmp_path) as journal:
        assert (len(journal), journal.torn_lines) == (whole, 5 - whole)
        journal.add("key9", request(9), Response("nine"))
    again = Journal(tmp_path)
    assert (len(again), again.torn_lines) == (whole + 1, 5 - whole)
    assert again.get("key9") == "nine" and again.get("key0") == "ä 0"


@pytest.mark.parametrize(
    "damage",
    [
        lambda line: line[: len(line) // 2],
        lambda line: b"\x00" * len(line),
        lambda line: b"no JSON",
        lambda line: b"[1, 2]",
        lambda line: b"7",
        lambda line: line.replace("ä".encode(), "ö".encode()),  # still JSON: only the checksum tells
        lambda line: line.replace(b"-2.3", b"-1.3"),
        lambda line: line.replace("ä".encode(), b"\xff\xff"),
    ],
)
def test_a_damaged_line_in_the_middle_is_no_answer(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    file = filled(tmp_path)
    lines = file.read_bytes().splitlines(keepends=True)
    lines[2] = damage(lines[2].rstrip(b"\n")) + b"\n"
    file.write_bytes(b"".join(lines))
    journal = Journal(tmp_path)
    assert (len(journal), journal.torn_lines) == (4, 1)
    assert journal.get("key2") is None and journal.get("key3") == "ä 3"
    assert answer_count(tmp_path) == 4


def test_a_torn_line_of_another_writer_is_left_to_it(tmp_path: Path) -> None:
    other = filled(tmp_path, writer="answers-2-of-2")
    torn = other.read_bytes()[:-5]
    other.write_bytes(torn)
    filled(tmp_path, writer="answers-1-of-2")
    assert other.read_bytes() == torn


def test_an_answer_comes_back_as_it_was_given(tmp_path: Path) -> None:
    response = Response(
        "joy\n\u2028 \"x\"", truncated=True, label_scores={"b": -0.1, "a": float("-inf")}, label_tokens={"b": 1, "a": 2},
        frames={"indices": [0, 5]}, prompt_tokens=9, new_tokens=3,
    )  # fmt: skip
    with Journal(tmp_path) as journal:
        journal.add("k", request(0), response)
    found = Journal(tmp_path).get("k")
    assert found is not None and found.to_dict() == response.to_dict()
    assert list(found.label_scores or ()) == ["b", "a"]  # sums and ties go by this order


def test_of_two_answers_the_first_one_stays_whoever_gave_it(tmp_path: Path) -> None:
    for writer, text in (("answers-2-of-2", "second"), ("answers-1-of-2", "first"), ("answers-1-of-2", "later")):
        with Journal(tmp_path / writer, writer) as journal:
            journal.add("k", request(0), Response(text))
    together = tmp_path / "together"
    together.mkdir()
    for writer in ("answers-2-of-2", "answers-1-of-2"):
        (together / f"{writer}.jsonl").write_bytes((tmp_path / writer / f"{writer}.jsonl").read_bytes())
    assert Journal(together).get("k") == "first"


def test_an_answer_with_video_takes_the_place_of_one_without(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        for response in (Response("text", as_text=True), Response("video"), Response("text again", as_text=True)):
            journal.add("k", request(0), response)
        assert journal.get("k") == "video"
    assert Journal(tmp_path).get("k") == "video"


def test_every_line_is_with_the_system_at_once_and_on_the_disk_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    real = os.fdatasync

    def sync(descriptor: int) -> None:
        real(descriptor)
        synced.append(os.fstat(descriptor).st_size)

    monkeypatch.setattr(os, "fdatasync", sync)
    journal = Journal(tmp_path)
    for n in range(50):
        journal.add(f"key{n}", request(n), Response("x"))
        assert answer_count(tmp_path) == n + 1  # another process sees it before the next is given
    size = (tmp_path / "answers.jsonl").stat().st_size
    deadline = time.monotonic() + 5
    while not (synced and synced[-1] == size):
        assert time.monotonic() < deadline, "no sync without close()"
        time.sleep(0.02)
    assert len(synced) < 50  # one serves many
    journal.close()


def test_a_disk_that_fails_to_sync_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mmla_tasks.errors import RunFolderError

    def fails(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", fails)
    journal = Journal(tmp_path)
    with pytest.raises(RunFolderError, match="the journal cannot be written"):
        for n in range(500):
            journal.add(f"key{n}", request(n), Response("x"))
            time.sleep(0.01)
    with pytest.raises(RunFolderError):
        journal.close()


# ----------------------------------------------------------------------------------------------------------- keys


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Task and id of every request that reaches the model."""
    from harness_ext.backends.echo import EchoLM

    seen: list[str] = []
    note = EchoLM._note

    def noting(self: EchoLM, request: Request) -> None:
        seen.append(f"{request.task} {request.id}")
        note(self, request)

    monkeypatch.setattr(EchoLM, "_note", noting)
    yield seen


def echo(root: Path, folder: Path, asked: list[str], **options: Any) -> list[str]:
    """What a run asks."""
    asked.clear()
    options = {"tasks": [TASK], **options}
    run(RunOptions(model="mmla-echo", data_dir=str(root), run_dir=folder, **options))
    return list(asked)


def test_batch_size_and_order_ask_nothing_anew(meld_root: Path, tmp_path: Path, asked: list[str]) -> None:
    assert len(echo(meld_root, tmp_path, asked, batch_size=1, limit=20)) == 20
    assert len(echo(meld_root, tmp_path, asked, batch_size=7, samples={TASK: [30, 3, 19]})) == 1
    assert len(echo(meld_root, tmp_path, asked, batch_size="auto")) == 21
    lines = (tmp_path / "journal" / "answers.jsonl").read_text().splitlines()
    (tmp_path / "journal" / "answers.jsonl").write_text("\n".join(reversed(lines)) + "\n")
    assert echo(meld_root, tmp_path, asked) == []


def test_adding_tasks_only_adds(
    data_root: Callable[..., Path], meld_root: Path, tmp_path: Path, asked: list[str]
) -> None:
    data_root(IEMOCAP=[(str(n), f"Line {n}.", "Happy") for n in range(10)])
    folder = tmp_path / "run"
    assert len(echo(meld_root, folder, asked)) == 42
    both = echo(meld_root, folder, asked, tasks=["mmla_emotion_text"])
    assert len(both) == 10 and {line.split()[0] for line in both} == {"mmla_emotion_iemocap_text"}
    results = json.loads((folder / "results.json").read_text())
    assert {task: n["effective"] for task, n in results["n-samples"].items()} == {
        TASK: 42,
        "mmla_emotion_iemocap_text": 10,
    }


def test_a_changed_text_is_asked_anew(meld_root: Path, tmp_path: Path, asked: list[str]) -> None:
    echo(meld_root, tmp_path / "run", asked)
    file = meld_root / "MELD" / "test.tsv"
    file.write_text(file.read_text().replace("Sentence number 3.", "Another sentence."))
    assert echo(meld_root, tmp_path / "run", asked) == [f"{TASK} 0_3"]


def own_task(folder: Path, labels: tuple[str, ...] = LABELS, more: str = "") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "own.yaml").write_text(
        "task: own\nclass: !function harness_ext.task.LabelTask\ndataset: MELD\ndimension: emotion\n"
        f"labels: [{', '.join(labels)}]\n{more}"
    )
    return folder


def test_a_changed_prompt_and_a_changed_label_list_are_asked_anew(
    meld_root: Path, tmp_path: Path, asked: list[str]
) -> None:
    own = own_task(tmp_path / "yaml", more="modality: text\n")
    options: dict[str, Any] = {"tasks": ["own"], "include_path": [own]}
    assert len(echo(meld_root, tmp_path / "run", asked, **options)) == 42
    own_task(own, more="modality: text\nprompt_text: 'How does this sound: {{ text }}'\n")
    assert len(echo(meld_root, tmp_path / "run", asked, **options)) == 42
    # The prompt no longer lists labels, yet they decide how an answer is ranked and parsed.
    own_task(own, (*LABELS, "boredom"), "modality: text\nprompt_text: 'How does this sound: {{ text }}'\n")
    assert len(echo(meld_root, tmp_path / "run", asked, **options)) == 42
    assert echo(meld_root, tmp_path / "run", asked, **options) == []


def test_a_clip_counts_by_its_content(meld_root: Path, tmp_path: Path, asked: list[str]) -> None:
    clips = meld_root / "MELD" / "video"
    clips.mkdir()
    for n in range(3):
        (clips / f"MELD_0_{n}.mp4").write_bytes(clip_bytes(b"clip %d" % n))
    options: dict[str, Any] = {"tasks": ["mmla_emotion_meld"], "limit": 3}
    assert len(echo(meld_root, tmp_path / "run", asked, **options)) == 3
    os.utime(clips / "MELD_0_0.mp4", (1, 1))  # copied anew: the same clip
    assert echo(meld_root, tmp_path / "run", asked, **options) == []
    (clips / "MELD_0_1.mp4").write_bytes(clip_bytes(b"CLIP 1"))  # the same size
    assert echo(meld_root, tmp_path / "run", asked, **options) == ["mmla_emotion_meld 0_1"]
    moved = meld_root.rename(tmp_path / "moved")
    assert echo(moved, tmp_path / "run", asked, **options) == []
