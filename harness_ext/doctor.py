"""What is wrong with the clips that a run would need: every file once, in threads, however many tasks share it.

The cheap part reads header and packets (`clip_check`). The deep part decodes the frames that a policy names; what it
finds is kept by the digest of the file's content, so that a second call is quick. lm-eval is not imported.

Importing this module loads no decoder and no numpy.
"""

from __future__ import annotations

import json
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from harness_ext.catalogue import Catalogue, packaged_labels
from harness_ext.clip_check import PASSING, Probed, check_clips, probe_files
from harness_ext.clip_facts import Facts, FactStore
from harness_ext.frame_policy import FramePolicy
from harness_ext.session import mending_command, on_this_root
from harness_ext.taskfile import TaskFile, dataset_beside
from harness_ext.video import Probe, clip_digest, decode, reader_versions
from mmla_tasks.documents import Dataset
from mmla_tasks.errors import ClipError, UsageError
from mmla_tasks.records import Clip, Document
from mmla_tasks.root import DataRoot
from mmla_tasks.sources import SOURCES

SHORT_SECONDS: Final = 0.1
"""A clip below is no utterance: some tool has cut it wrong."""
APART_SECONDS: Final = 0.5
APART_SHARE: Final = 0.1
"""A file's header may say another length than its pictures have, by this much or by this share of it."""
_KEPT_AT_ONCE: Final = 16
_KEPT_SECONDS: Final = 5.0
"""What was decoded is kept after so many clips or so long: a process that is killed has no time for it."""

Bar = Callable[[str, str], AbstractContextManager[Callable[[int, int], None]]]
"""Shows progress: what is done, in which unit; gives what is told how many are done, and of how many."""


@dataclass(frozen=True)
class Finding:
    """Something about one row's clip."""

    task: str
    id: str
    path: str
    kind: str
    """A `ClipFault`, ``duration`` or ``duplicate``."""
    why: str


@dataclass(frozen=True)
class DatasetClips:
    """The clips of one task and split."""

    task: str
    dataset: str
    split: str
    rows: int
    present: int
    left_out: bool
    """None of its clips is there, so that a run leaves the task out."""
    mending: str | None
    """What brings its clips, or brings them again."""


@dataclass
class Diagnosis:
    """What was found."""

    datasets: list[DatasetClips]
    files: int
    """That were looked into."""
    faults: list[Finding]
    """Clips that can't be shown: a run stops there, or does as --on_bad_clip says."""
    remarks: list[Finding]
    """Clips that can be shown and look odd: lengths that disagree, copies within a dataset."""
    seconds: list[float]
    """Length of each file."""
    formats: dict[str, int]
    """Such as ``h264 1280x720``, and how many files have it."""
    rates: dict[str, int]
    """Frames a second, and how many files have it."""
    frame_policy: dict[str, Any] | None
    """Whose frames were decoded; None where only packets were read."""
    decoded: int = 0
    """Clips that were decoded now; the others were before."""

    @property
    def left_out(self) -> list[DatasetClips]:
        """Tasks that a run would leave out."""
        return [part for part in self.datasets if part.left_out]

    def to_dict(self) -> dict[str, Any]:
        """JSON-plain."""
        return {
            "datasets": [vars(part) for part in self.datasets],
            "files": self.files,
            "faults": [vars(finding) for finding in self.faults],
            "remarks": [vars(finding) for finding in self.remarks],
            "seconds": spread(self.seconds),
            "formats": self.formats,
            "rates": self.rates,
            "frame_policy": self.frame_policy,
            "decoded": self.decoded,
        }


def spread(values: Sequence[float]) -> dict[str, float] | None:
    """Total, shortest, median and longest; None of nothing."""
    if not values:
        return None
    return {"total": sum(values), "min": min(values), "median": statistics.median(values), "max": max(values)}


@dataclass(frozen=True)
class Question:
    """What is to be looked at."""

    tasks: Sequence[str]
    data_dir: str | None = None
    data_revision: str | None = None
    include_path: Sequence[Path] = ()
    splits: Sequence[str] = ("test",)
    workers: int = 2
    deep: FramePolicy | None = None
    """Whose frames are decoded; None reads packets only."""


@dataclass
class _Rows:
    """The documents of one task and split."""

    task: str
    dataset: Dataset
    split: str
    documents: Sequence[Document]

    @property
    def clips(self) -> list[tuple[str, Clip]]:
        """Id and clip of each row."""
        return [(row["id"], row["clip"]) for row in self.documents if row["clip"] is not None]


def diagnose(asked: Question, bar: Bar) -> Diagnosis:
    """Look at every clip that a run, or a training, would need.

    Args:
        asked: What is to be looked at.
        bar: Where progress is shown.

    Raises:
        MmlaError: unknown tasks, bad data, no task that shows video, PyAV is not installed.
    """
    parts = list(_rows(asked, bar))
    datasets = [_dataset(part, asked.data_dir) for part in parts]
    looked_at = [part for part, about in zip(parts, datasets, strict=True) if not about.left_out]
    probed = _probes(looked_at, asked.workers, bar)
    shown = [part for part in looked_at if part.clips]
    faults = list(_faults(shown, probed))
    bad = {(finding.task, finding.id) for finding in faults}
    decoded = 0
    if asked.deep is not None:
        deeper, decoded = _decoded(shown, bad, asked.deep, asked.workers, bar)
        faults += deeper
    good = [probe for probe in probed.values() if isinstance(probe, Probe)]
    return Diagnosis(
        datasets=datasets,
        files=len(probed),
        faults=faults,
        remarks=[*_odd_lengths(shown, probed), *_copies(shown, asked.workers, bar)],
        seconds=[probe.duration_seconds for probe in good],
        formats=_counted(f"{probe.codec} {probe.width}x{probe.height}" for probe in good),
        rates=_counted(f"{probe.fps:.3f}".rstrip("0").rstrip(".") for probe in good),
        frame_policy=asked.deep.to_dict() if asked.deep else None,
        decoded=decoded,
    )


def _counted(values: Iterator[str]) -> dict[str, int]:
    return dict(Counter(values).most_common())


# ── which clips ───────────────────────────────────────────────────────────────────────────────────────────────────


def _rows(asked: Question, bar: Bar) -> Iterator[_Rows]:
    catalogue = Catalogue.load(asked.include_path)
    names = [leaf for name in catalogue.resolve(asked.tasks) for leaf in catalogue.leaves(name)]
    files = [catalogue.files[name] for name in names if catalogue.files[name].modality != "text"]
    if not files:
        raise UsageError("none of these tasks shows video", tasks=", ".join(names), next="mmla doctor --tasks mmla")
    found = set()
    for file in files:
        dataset = _dataset_of(file, asked, bar)
        for split in asked.splits:
            if split == "test" or dataset.has(split):
                found.add(split)
                config = file.config
                labels, dimension = config["labels"], str(config["dimension"])
                read = dataset.read(split, labels=labels, dimension=dimension, with_clips=True, asked_by="mmla doctor")
                yield _Rows(file.name, dataset, split, read.documents)
    if absent := [split for split in asked.splits if split not in found]:
        raise UsageError(
            f"none of these tasks has the split {' or '.join(absent)}",
            tasks=", ".join(file.name for file in files),
            looked_for=f"{', '.join(f'{split}.tsv' for split in absent)} beside test.tsv",
            next="leave it out of --splits      mmla data status lists the splits that there are",
        )


def _dataset_of(file: TaskFile, asked: Question, bar: Bar) -> Dataset:
    name = str(file.config["dataset"])
    if beside := dataset_beside(file.path, name):
        return beside
    root = DataRoot.choose(asked.data_dir, asked.data_revision)
    with bar(f"drawing sample clips of {name}", "clip") as on_progress:
        return root.dataset(
            name, labels_of=packaged_labels, with_clips=True, splits=asked.splits, on_progress=on_progress
        )


def _dataset(part: _Rows, data_dir: str | None) -> DatasetClips:
    present = sum(clip["size"] is not None for _, clip in part.clips)
    left_out = bool(part.clips) and not present
    mending = _next_step(part.dataset.name) if left_out else mending_command(part.dataset.name)
    return DatasetClips(
        task=part.task,
        dataset=part.dataset.name,
        split=part.split,
        rows=len(part.documents),
        present=present,
        left_out=left_out,
        mending=mending and on_this_root(mending, data_dir),
    )


def _next_step(dataset: str) -> str | None:
    """What brings the first clips of a dataset; nothing is there yet that could be repaired."""
    source = SOURCES.get(dataset)
    return source.next_step_for_videos if source else None


# ── what is wrong with them ───────────────────────────────────────────────────────────────────────────────────────


def _probes(parts: Sequence[_Rows], workers: int, bar: Bar) -> dict[str, Probed]:
    paths = [clip["path"] for part in parts for _, clip in part.clips if clip["size"]]
    with bar("looking at clips", "clip") as on_progress:
        return probe_files(paths, workers=workers, on_progress=on_progress)


def _faults(parts: Sequence[_Rows], probed: Mapping[str, Probed]) -> Iterator[Finding]:
    for part in parts:
        for row in check_clips({part.task: part.documents}, lambda paths: probed).bad:
            yield _of_error(row.task, row.id, row.path, row.error)
        for name, clip in part.clips:
            if (why := _outside(clip, probed.get(clip["path"]))) is not None:
                yield Finding(part.task, name, clip["path"], "outside", why)


def _of_error(task: str, name: str, path: str, error: ClipError) -> Finding:
    return Finding(task, name, path, error.fault, error.details.get("why", "the file is missing"))


def _outside(clip: Clip, probe: Probed | None) -> str | None:
    """Say so where a clip is a stretch of a file that ends before."""
    if not isinstance(probe, Probe) or clip["start_seconds"] < probe.end_seconds:
        return None
    return f"the clip starts at {clip['start_seconds']:g} s; the file ends at {probe.end_seconds:.3f} s"


def _odd_lengths(parts: Sequence[_Rows], probed: Mapping[str, Probed]) -> Iterator[Finding]:
    for part in parts:
        for name, clip in part.clips:
            probe = probed.get(clip["path"])
            if isinstance(probe, Probe) and (why := odd_length(clip, probe)) is not None:
                yield Finding(part.task, name, clip["path"], "duration", why)


def odd_length(clip: Clip, probe: Probe) -> str | None:
    """Say what is odd about the length of a clip that can be shown; None where nothing is.

    Args:
        clip: The clip, which may be a stretch of its file.
        probe: Of its file.
    """
    has, declared = probe.duration_seconds, probe.declared_seconds
    start, end = clip["start_seconds"], clip["end_seconds"]
    length = has if end is None and not start else min(end or probe.end_seconds, probe.end_seconds) - start
    if 0 < length < SHORT_SECONDS:
        return f"{length:.3f} s are shown, less than {SHORT_SECONDS:g} s"
    if end is not None:
        late = start < probe.end_seconds < end - max(1 / probe.fps, SHORT_SECONDS)
        return f"the clip ends at {end:g} s, the file at {probe.end_seconds:.3f} s" if late else None
    if declared is not None and abs(declared - has) > max(APART_SECONDS, APART_SHARE * declared):
        sound = "sound included" if probe.has_audio else "without sound"
        return f"the pictures last {has:.3f} s, the file says {declared:.3f} s, {sound}"
    return None


def _copies(parts: Sequence[_Rows], workers: int, bar: Bar) -> Iterator[Finding]:
    """Files of one dataset and split with equal content; only those of equal size are read to know."""
    alike: dict[tuple[str, str, int], dict[str, tuple[str, str, Clip]]] = {}
    for part in parts:
        for name, clip in part.clips:
            if clip["size"]:
                same = alike.setdefault((part.dataset.name, part.split, clip["size"]), {})
                same.setdefault(clip["path"], (part.task, name, clip))
    candidates = {path: row for same in alike.values() if len(same) > 1 for path, row in same.items()}
    digests = _digests({path: clip for path, (_, _, clip) in candidates.items()}, workers, bar)
    groups: dict[tuple[str, str], list[str]] = {}
    for (dataset, _, _), same in alike.items():
        for path in same:
            if path in digests:
                groups.setdefault((dataset, digests[path]), []).append(path)
    for paths in groups.values():
        for path in paths[1:]:
            task, name, _ = candidates[path]
            yield Finding(task, name, path, "duplicate", f"the same file as id {candidates[paths[0]][1]}")


def _digests(clips: Mapping[str, Clip], workers: int, bar: Bar) -> dict[str, str]:
    """File -> digest of its content, of those that can be read."""
    found: dict[str, str] = {}
    with bar("comparing clips of equal size", "clip") as on_progress:
        for path, digest in _in_threads(clips, lambda path: clip_digest(clips[path]), workers, on_progress):
            if isinstance(digest, str):
                found[path] = digest
    return found


def _in_threads(
    items: Mapping[str, Any], work: Callable[[str], Any], workers: int, on_progress: Callable[[int, int], None]
) -> Iterator[tuple[str, Any]]:
    """What `work` makes of each key, a `ClipError` as a value; whoever stops taking ends the rest."""

    def guarded(key: str) -> Any:
        try:
            return work(key)
        except ClipError as error:
            return error

    with ThreadPoolExecutor(workers, thread_name_prefix="mmla-doctor") as pool:
        futures = {pool.submit(guarded, key): key for key in items}
        try:
            for done, future in enumerate(as_completed(futures), 1):
                on_progress(done, len(items))
                yield futures[future], future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


# ── the deep part ─────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class _Deep:
    """Clips to decode."""

    policy: FramePolicy
    rows: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    """Key of a clip -> task and id of the rows that show it."""
    clips: dict[str, Clip] = field(default_factory=dict)
    """Key -> one of the equal clips."""

    @property
    def state(self) -> str:
        """What the frames depend on besides the clip."""
        return json.dumps([self.policy.to_dict(), reader_versions(self.policy.reader)])


def _decoded(
    parts: Sequence[_Rows], bad: set[tuple[str, str]], policy: FramePolicy, workers: int, bar: Bar
) -> tuple[list[Finding], int]:
    """Decode what is not known by its digest to give its frames.

    Returns:
        Clips that gave none, and how many were decoded now.
    """
    good = [(p.task, name, clip) for p in parts for name, clip in p.clips if (p.task, name) not in bad]
    with bar("reading clips", "clip") as on_progress:
        files = {clip["path"]: clip for _, _, clip in good}
        digests = dict(_in_threads(files, lambda path: clip_digest(files[path]), workers, on_progress))
    deep = _Deep(policy)
    found = [
        _of_error(task, name, clip["path"], digest)
        for task, name, clip in good
        if isinstance(digest := digests[clip["path"]], ClipError)
    ]
    for task, name, clip in good:
        if isinstance(digest := digests[clip["path"]], str):
            key = f"{digest}:{clip['start_seconds']}:{clip['end_seconds']}"
            deep.rows.setdefault(key, []).append((task, name))
            deep.clips[key] = clip
    facts, count = _frames(deep, workers, bar)
    for key, fact in facts.items():
        if "fault" in fact:
            found += [Finding(t, i, deep.clips[key]["path"], fact["fault"], fact["why"]) for t, i in deep.rows[key]]
    return found, count


def _frames(deep: _Deep, workers: int, bar: Bar) -> tuple[dict[str, Facts], int]:
    """Key of a clip -> fingerprint of its frames, or what is wrong; and how many were decoded now."""
    store = FactStore("decodes")
    states = dict.fromkeys(deep.clips, deep.state)
    found = store.known(states)
    left = {key: clip for key, clip in deep.clips.items() if key not in found}
    new: dict[str, Facts] = {}
    kept = time.monotonic()

    def facts(key: str) -> Facts:
        return dict(decode(left[key], deep.policy).fingerprint)

    try:
        with bar("decoding clips", "clip") as on_progress:
            for key, value in _in_threads(left, facts, workers, on_progress):
                error = isinstance(value, ClipError)
                found[key] = {"fault": value.fault, "why": value.details.get("why", "")} if error else value
                if not error or value.fault not in PASSING:
                    new[key] = found[key]
                if len(new) >= _KEPT_AT_ONCE or time.monotonic() - kept > _KEPT_SECONDS:
                    store.keep(new, states)
                    new, kept = {}, time.monotonic()
    finally:  # also when it is interrupted
        store.keep(new, states)
    return found, len(left)
