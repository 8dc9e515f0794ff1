"""The road from lm-eval's instances to a backend's answers and back, with journal, bad clips and progress.

Every backend's `generate_until` is `answer_all(self, instances)`; a backend only has to `answer` requests. A
`Session` holds what a run decided; without one (stock ``lm_eval``) nothing is journaled and tqdm shows progress.
"""

from __future__ import annotations

import json
import re
import shlex
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol
from weakref import WeakSet

from harness_ext.journal import Journal, request_key
from harness_ext.prefetch import DecodeLimits
from harness_ext.ranks import Ranks
from harness_ext.requests import Request, Response
from harness_ext.timings import Timings
from mmla_tasks.documents import VIDEO_FOLDER
from mmla_tasks.errors import ClipError, UsageError
from mmla_tasks.records import Clip
from mmla_tasks.sources import SOURCES


class Backend(Protocol):
    """What `answer_all` needs from a model."""

    answer_mode: str
    """``generate``, ``constrained`` or ``rank``."""

    deterministic: bool
    """Whether equal questions have equal answers, whatever their document; sampling aside."""

    def answer(self, requests: list[Request]) -> Iterator[tuple[int, Response]]:
        """Yield (index into `requests`, response), each as soon as it exists, in any order."""
        ...

    def identity(self) -> dict[str, Any]:
        """What an answer depends on besides the request, answer mode and frame policy: model, adapter. JSON-plain.

        Where adapters differ from task to task, `task_identity(task)` adds the one of a task.
        """
        ...


class Progress(Protocol):
    """Where progress is shown."""

    def start(self, totals: Mapping[str, int], found: Mapping[str, int]) -> None:
        """Begin, given requests and already journaled answers per task."""
        ...

    def advance(self, task: str, response: Response) -> None:
        """Count one answer."""
        ...

    def stop(self) -> None:
        """End, also after an error."""
        ...


@dataclass
class Session:
    """What a run decided that concerns every backend."""

    journal: Journal | None = None
    progress: Progress | None = None
    on_bad_clip: str = "error"
    seed: int | None = None
    """Torch seed, part of the key of sampled answers."""
    decode_limits: DecodeLimits = field(default_factory=DecodeLimits)
    timings: Timings = field(default_factory=Timings)
    ranks: Ranks = field(default_factory=Ranks)
    """The processes that share the requests."""
    found: int = 0
    """Answers that were taken from the journal."""
    asked: int = 0
    """Requests that were sent to the model."""
    bad_clips: Mapping[str, ClipError] = field(default_factory=dict)
    """Path -> what is wrong with it, of clip files that were found bad before the model was loaded."""
    clip_digests: dict[tuple[str, int | None, int | None], str] = field(default_factory=dict)


_current: ContextVar[Session | None] = ContextVar("mmla_session", default=None)


@contextmanager
def session(active: Session) -> Iterator[Session]:
    """Make a session the current one."""
    token = _current.set(active)
    try:
        yield active
    finally:
        _current.reset(token)


_backends: WeakSet[Any] = WeakSet()


def announce(backend: Any) -> None:
    """Say that this model takes clips as they are; every backend of ours does so when it is made.

    lm-eval makes its model before it builds requests, and tells tasks nothing about it. Held weakly: what was
    announced ends with the model, where a flag would outlive it and speak for the next model of the process.
    """
    _backends.add(backend)


def reads_clips() -> bool:
    """Whether requests are built for a backend of ours: `mmla run` is at work, or one was announced and lives."""
    return _current.get() is not None or len(_backends) > 0


def decode_limits() -> DecodeLimits:
    """How much a backend may decode at once."""
    active = _current.get()
    return active.decode_limits if active is not None else DecodeLimits()


def timings() -> Timings:
    """Where the current run's time is noted, also from the threads that `Ahead` and `InFlight` start."""
    active = _current.get()
    return active.timings if active is not None else Timings()


def sampling_seed() -> int | None:
    """The current run's torch seed, on which sampled answers depend."""
    active = _current.get()
    return active.seed if active is not None else None


def answer_all(backend: Backend, instances: Sequence[Any]) -> list[Response]:
    """Answer lm-eval's instances, in their order.

    Answers found in the journal are not asked again; every new one is journaled before the next is awaited. Where
    several processes share a run, each asks its part of what is left, and all get all answers.

    Raises:
        UsageError: an instance that is not of an MMLA task.
        ClipError: a clip cannot be read and the policy is ``error``.
        OtherRankError: another process failed.
    """
    active = _current.get() or Session(progress=_TqdmProgress())
    requests = [_request_of(instance, backend) for instance in instances]
    keys = _keys(backend, requests, active)
    responses = _found(keys, active)
    active.found += len(responses)
    todo = _share(backend, requests, [n for n in range(len(requests)) if n not in responses], active.ranks)
    asked: dict[int, Response] = {}
    _start(active, [requests[n] for n in (*responses, *todo)], found=len(responses))
    try:
        asking = _answers(backend, [requests[n] for n in todo], active)
        with active.timings.measure("answer"), closing(asking) as answers:
            for n, response in answers:
                index = todo[n]
                if active.journal is not None and not response.skipped:
                    active.journal.add(keys[index], requests[index], response)
                if active.progress is not None:
                    active.progress.advance(requests[index].task, response)
                asked[index] = response
    finally:
        if active.progress is not None:
            active.progress.stop()
    for part in active.ranks.gather(asked):
        responses.update(part)
    _complete(active, keys, requests, responses)
    return [responses[n] for n in range(len(requests))]


def _found(keys: Sequence[str], active: Session) -> dict[int, Response]:
    """Index -> answer in the journal of any rank: machines that share no disk have a journal each."""
    here = {n: found for n, key in enumerate(keys) if (found := _journaled(active, key)) is not None}
    everywhere: dict[int, Response] = {}
    for part in active.ranks.gather(here):
        everywhere = {**part, **everywhere}
    return everywhere


def _share(backend: Backend, requests: Sequence[Request], todo: list[int], ranks: Ranks) -> list[int]:
    """This rank's part of what is left to ask: long and short prompts dealt out evenly.

    Equal questions, and questions about one clip, stay together: they are asked, or decoded, once.
    """
    if ranks.count == 1:
        return todo
    together: dict[Any, list[int]] = {}
    for number, alike in enumerate(distinct([requests[n] for n in todo], backend.deterministic, _of_task(backend))):
        clip = requests[todo[alike[0]]].clip
        together.setdefault(clip["path"] if clip else number, []).extend(todo[m] for m in alike)
    dealt = sorted(together.values(), key=lambda same: (len(requests[same[0]].prompt), same[0]))
    return sorted(n for same in ranks.share(dealt) for n in same)


def _complete(
    active: Session, keys: Sequence[str], requests: Sequence[Request], responses: Mapping[int, Response]
) -> None:
    """Let the first rank's journal hold what others answered, where their files are on another disk."""
    if active.journal is None or active.ranks.count == 1 or not active.ranks.is_first:
        return
    active.journal.read()
    for n, response in responses.items():
        if not response.skipped and active.journal.get(keys[n]) is None:
            active.journal.add(keys[n], requests[n], response)


def _request_of(instance: Any, backend: Backend) -> Request:
    request = getattr(instance, "request", None)
    if not isinstance(request, Request):
        raise UsageError(
            f"{type(backend).__name__} answers MMLA tasks; `{getattr(instance, 'task_name', '?')}` is none",
            next="run other tasks with lm-eval's own backends: lm_eval --model hf ...",
        )
    return request


def _keys(backend: Backend, requests: Sequence[Request], active: Session) -> list[str]:
    if active.journal is None:
        return [""] * len(requests)
    asked_how = {**backend.identity(), "answer": backend.answer_mode}
    policy = getattr(backend, "frame_policy", None)
    shown_how = {**asked_how, "frame_policy": policy.to_dict()} if policy is not None else asked_how
    of_task = _of_task(backend)
    return [
        request_key(
            request,
            model={**(shown_how if request.clip else asked_how), **of_task(request.task)},
            clip_digest=_clip_digest(request, active),
            seed=active.seed,
        )
        for request in requests
    ]


def _clip_digest(request: Request, active: Session) -> str | None:
    """Digest of a clip's file with its span; None for a file that cannot be read, which the policy settles later."""
    clip = request.clip
    if clip is None or not clip["size"]:
        return None
    at = (clip["path"], clip["size"], clip["mtime_ns"])
    if at not in active.clip_digests:
        from harness_ext.video import clip_digest

        try:
            active.clip_digests[at] = clip_digest(clip, who=f"{request.task} id {request.id}")
        except ClipError:
            return None
    return f"{active.clip_digests[at]}:{clip['start_seconds']}:{clip['end_seconds']}"


def _journaled(active: Session, key: str) -> Response | None:
    """The journal's answer, unless it was given without video and the policy for bad clips is no longer `text`."""
    found = active.journal.get(key) if active.journal is not None else None
    return None if found is not None and found.as_text and active.on_bad_clip != "text" else found


def _answers(backend: Backend, requests: list[Request], active: Session) -> Generator[tuple[int, Response], None, None]:
    """Ask the backend, after settling requests whose clip is known to be bad."""
    ready: list[tuple[int, Request]] = []
    bad = {n: error for n, request in enumerate(requests) if (error := _known_error(request, active))}
    for n, request in enumerate(requests):
        if n not in bad:
            ready.append((n, request))
            continue
        match active.on_bad_clip:
            case "skip":
                yield n, Response("", skipped=True, clip_fault=bad[n].fault)
            case "text" if request.fallback is not None:
                ready.append((n, replace(request, clip=None, prompt=request.fallback, fallback=None)))
            case _:
                raise bad[n]
    for m, response in _asked_once(backend, [request for _, request in ready], active):
        n, _ = ready[m]
        if n in bad or response.as_text:
            fault = bad[n].fault if n in bad else response.clip_fault
            response = response.with_(as_text=True, clip_fault=fault, prompt=requests[n].fallback)
        yield n, response


def _known_error(request: Request, active: Session) -> ClipError | None:
    """What is known to be wrong with a request's clip before it is opened."""
    if request.clip is None:
        return None
    if not request.clip["size"]:
        return missing_clip(request.task, request.id, request.clip)
    return active.bad_clips.get(request.clip["path"])


def _asked_once(backend: Backend, requests: list[Request], active: Session) -> Iterator[tuple[int, Response]]:
    """Ask equal questions once ("Yeah." stands 77 times in AnnoMi-client), where equal questions have equal answers."""
    copies = distinct(requests, backend.deterministic, _of_task(backend))
    active.asked += len(copies)
    if copies:
        for m, response in backend.answer([requests[same[0]] for same in copies]):
            for n in copies[m]:
                yield n, response


def distinct(
    requests: Sequence[Request], deterministic: bool, of_task: Callable[[str], Any] = lambda task: None
) -> list[list[int]]:
    """Indices of the requests, those of equal questions together.

    Args:
        requests: Of one run.
        deterministic: Whether equal questions have equal answers; sampled ones never have.
        of_task: What else an answer to a task depends on, such as its adapter.
    """
    others = {task: json.dumps(of_task(task), default=str) for task in {request.task for request in requests}}
    alike: dict[Any, list[int]] = {}
    for n, request in enumerate(requests):
        same = (_question(request), others[request.task]) if deterministic and not _is_sampled(request) else n
        alike.setdefault(same, []).append(n)
    return list(alike.values())


def _of_task(backend: Backend) -> Callable[[str], dict[str, Any]]:
    """The backend's `task_identity`, where it has one."""
    of_task: Callable[[str], dict[str, Any]] = getattr(backend, "task_identity", lambda task: {})
    return of_task


def _question(request: Request) -> str:
    """Everything of a request that a model sees."""
    clip = request.clip and [request.clip[k] for k in ("path", "start_seconds", "end_seconds", "size", "mtime_ns")]
    parts = [request.prompt, request.labels, request.answer_prefix, dict(request.gen_kwargs), clip, request.chat]
    return json.dumps(parts, default=str)


def _is_sampled(request: Request) -> bool:
    return bool(request.gen_kwargs.get("do_sample"))


WITHOUT_CLIP = "run with --on_bad_clip skip      --modality text asks without video"


def mending_command(dataset: str) -> str | None:
    """What brings the clips of a dataset again; None for one that is not MMLA's."""
    source = SOURCES.get(dataset)
    if source is None:
        return None
    return f"mmla data download {dataset} --repair" if source.videos_published else source.next_step_for_videos


def on_this_root(step: str, data_dir: str | None) -> str:
    """Add ``--data_dir`` to the commands of a next step, where it was given: else they would act on another root.

    >>> on_this_root("mmla data download MOSI; then get it, then: mmla data import mosi PATH", "d")
    'mmla data download MOSI --data_dir d; then get it, then: mmla data import mosi PATH --data_dir d'
    """
    flag = f" --data_dir {shlex.quote(data_dir)}" if data_dir else ""
    return re.sub(r"mmla data [^;]+", lambda command: command[0] + flag, step)


def _next_without(clip: Clip) -> str:
    """What brings the clip, where its folder is one of the benchmark's, and what does without it."""
    folder = next((path.parent.name for path in Path(clip["path"]).parents if path.name == VIDEO_FOLDER), "")
    return f"{mending_command(folder) or 'get the clip'}      or {WITHOUT_CLIP}"


def missing_clip(task: str, doc_id: str, clip: Clip, next: str | None = None) -> ClipError:
    """The error for a clip that is not there or empty."""
    missing = clip["size"] is None
    state = "is missing" if missing else "can't be read"
    return ClipError(
        f"clip for {task} id {doc_id} {state}",
        fault="missing" if missing else "empty",
        file=f"{clip['path']} ({'missing' if missing else '0 bytes'})",
        why=None if missing else "the file is empty; the archive may have been extracted only in part",
        next=next or _next_without(clip),
    )


def _start(active: Session, requests: Sequence[Request], found: int) -> None:
    """Begin to show progress; the first `found` of the requests are answered."""
    if active.progress is not None:
        totals = Counter(request.task for request in requests)
        done = Counter(request.task for request in requests[:found])
        active.progress.start(totals, {task: done[task] for task in totals})


class _TqdmProgress:
    """One bar, for stock lm-eval, which shows tqdm bars too."""

    def start(self, totals: Mapping[str, int], found: Mapping[str, int]) -> None:
        from tqdm import tqdm  # type: ignore[import-untyped]

        self._bar = tqdm(total=sum(totals.values()), initial=sum(found.values()), desc="answers", unit="")

    def advance(self, task: str, response: Response) -> None:
        self._bar.update()

    def stop(self) -> None:
        self._bar.close()
