"""An adapter merged into its base: one model, written whole or not at all, and compared with the unmerged one."""

from __future__ import annotations

import gc
import json
import random
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from harness_ext.adapters import TRAINING, Adapter, Adapters
from harness_ext.run import RunOptions, prepared, run
from harness_ext.training import BEFORE, read_training
from mmla_tasks.errors import DataError, ModelError, UsageError

ROWS: Final = 24
"""Questions of a check, of all tasks together."""
TOLERANCE: Final = {"float32": 1e-3, "float64": 1e-3}
"""Largest difference of a label's log-probability in nats: about 1e-5 is seen."""
TOLERANCE_LOW_PRECISION: Final = 2.0
"""The same for bfloat16 and float16, where merged weights are rounded and products beside them are not: 1 is seen."""
TIE: Final = 0.25
"""Two labels that are nearer to each other than this share of the tolerance may change places."""
SPARE: Final = 1.02
"""Room that is asked for, as a multiple of the weights."""
WEIGHTS: Final = (".safetensors", ".bin", ".gguf", ".pt", ".pth", ".h5", ".msgpack", ".onnx")
REMADE: Final = ("config.json", "generation_config.json", "README.md", TRAINING)
"""Files of the base that the merged model has of its own, or that say nothing about it."""


@dataclass(frozen=True)
class Merge:
    """What to merge."""

    adapter: Path
    output: Path
    model: str | None = None
    """The base; None: the one that the adapter names."""
    dtype: str = "auto"
    """``auto``: that of the base."""
    trust_remote_code: bool = False

    @property
    def read(self) -> Adapter:
        """The one adapter.

        Raises:
            ModelError: It cannot be read, or there are several.
        """
        adapters = Adapters.read(str(self.adapter))
        if "" not in adapters.of_tasks:
            raise ModelError(
                f"{self.adapter} holds {len(adapters.all)} adapters, and one is merged at a time",
                there="\n".join(sorted(adapters.of_tasks)),
                next=f"mmla finetune merge {adapters.all[0].path} --output {self.output}",
            )
        return adapters.all[0]

    @property
    def base(self) -> str:
        """The model that the adapter is for.

        Raises:
            ModelError: Nothing names it.
        """
        named = self.model or self._recorded.get("pretrained") or self.read.trained_on
        if not named:
            raise ModelError(f"the adapter {self.adapter} names no base", next="--model FOLDER_OR_HUB_NAME")
        return str(named)

    @property
    def revision(self) -> str | None:
        """Of the base, where it is the one that the training recorded."""
        revision = self._recorded.get("revision") if self.base == self._recorded.get("pretrained") else None
        return str(revision) if revision else None

    @property
    def _recorded(self) -> Mapping[str, Any]:
        """The base as the training recorded it."""
        return (read_training(self.adapter) or {}).get("base") or {}


def merge(what: Merge) -> Path:
    """Write the merged model: weights, config, generation config, tokenizer or processor, and how it was trained.

    Returns:
        Its folder, `Merge.output`.

    Raises:
        UsageError: The folder is there and not empty.
        ModelError: Base and adapter do not fit, or the disk has no room for the result; nothing is left behind.
    """
    adapter = what.read
    _refuse_existing(what.output)
    with _aside(what.output) as folder:
        model, identity = _merged(what, adapter)
        _refuse_full_disk(model, folder)
        with _writing(what.output):
            _generation(what, model)
            model.save_pretrained(folder)
            for file in _other_files(what):
                shutil.copy2(file, folder / file.name)
            _write_training(folder, what, adapter, identity)
    return what.output


def _merged(what: Merge, adapter: Adapter) -> tuple[Any, dict[str, Any]]:
    """The model whose layers have taken in the adapter, and the identity of the base."""
    from harness_ext.backends.hf_load import ModelSource, load

    source = ModelSource(
        what.base,
        revision=what.revision,
        peft=str(adapter.path),
        dtype=what.dtype,
        trust_remote_code=what.trust_remote_code,
    )
    if source.gguf_file is not None:
        raise ModelError(
            f"the base {what.base} is a GGUF file, whose rounded weights take in no adapter",
            next="--model FOLDER with the same model in safetensors",
        )
    loaded = load(source)
    assert loaded.adapted is not None
    return loaded.adapted.merged(), loaded.identity


def _generation(what: Merge, model: Any) -> None:
    """The checkpoint's own generation settings, which loading for an evaluation takes out of force."""
    from harness_ext.backends.hf_load import load_generation

    model.generation_config = load_generation(what.base, model.config, revision=what.revision)


def _other_files(what: Merge) -> list[Path]:
    """Tokenizer, processor, templates and code of the base, byte by byte."""
    from harness_ext.backends.hf_load import ModelSource

    folder = ModelSource(what.base).folder
    if folder is None:
        from huggingface_hub import snapshot_download

        ignored = [f"*{suffix}" for suffix in WEIGHTS]
        folder = Path(snapshot_download(what.base, revision=what.revision, ignore_patterns=ignored))
    others = (path for path in sorted(folder.iterdir()) if path.is_file() and path.name not in REMADE)
    return [path for path in others if path.suffix not in WEIGHTS and not path.name.endswith(".index.json")]


def _write_training(folder: Path, what: Merge, adapter: Adapter, base: Mapping[str, Any]) -> None:
    """How the weights came about, a trained base's own too; also of an adapter that does not say how it was trained."""
    record = {**(read_training(adapter.path) or {}), "merged": {"adapter": adapter.identity, "into": dict(base)}}
    if before := read_training(Path(what.base).expanduser()):
        record[BEFORE] = before
    (folder / TRAINING).write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


# ---- written whole or not at all -----------------------------------------------------------------------------------


def _refuse_existing(output: Path) -> None:
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UsageError(f"{output} is there and not empty", next="name another --output, or remove it")


@contextmanager
def _aside(output: Path) -> Iterator[Path]:
    """A folder beside `output` that takes its name at the end, and is gone if anything fails."""
    folder = output.with_name(f".{output.name}.part")
    shutil.rmtree(folder, ignore_errors=True)  # of a merge that was killed
    try:
        with _writing(output):
            folder.mkdir(parents=True)
        yield folder
        with _writing(output):
            folder.replace(output)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _writing(output: Path) -> Iterator[None]:
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"the merged model cannot be written to {output}", why=error, next="make room, or name another --output"
        ) from error


def _refuse_full_disk(model: Any, folder: Path) -> None:
    needed = int(SPARE * sum(weight.nbytes for weight in model.parameters()))
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ModelError(
            f"the disk of {folder.parent} has no room for the merged model",
            needed=f"{needed / 1e9:,.1f} GB",
            free=f"{free / 1e9:,.1f} GB",
            next="make room, name an --output on another disk, or use the adapter unmerged",
        )


# ---- the same answers ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Questions:
    """Which questions a check asks."""

    tasks: Sequence[str]
    data_dir: str | None = None
    data_revision: str | None = None
    modality: str | None = None
    on_bad_clip: str = "error"
    """What becomes of a question whose clip is bad; with ``skip`` it is not compared."""
    include_path: Sequence[Path] = ()
    frames: Mapping[str, Any] | None = None
    """Frame policy, as model arguments."""
    rows: int = ROWS
    seed: int = 0

    @classmethod
    def of_training(cls, adapter: Path, **given: Any) -> Questions:
        """Those of the tasks that an adapter was trained on; what is given and not None goes before.

        Raises:
            UsageError: Neither says which tasks.
        """
        config = (read_training(adapter) or {}).get("config") or {}
        frames = {name: value for name, value in (config.get("frames") or {}).items() if value is not None}
        known = {name: config.get(name) for name in ("tasks", "data_dir", "data_revision", "modality")}
        if given.get("data_dir"):  # another data root has not the revisions of that one
            known["data_revision"] = None
        known["on_bad_clip"] = config.get("on_bad_clip") or "error"
        known["include_path"] = [Path(path) for path in config.get("include_path") or ()]
        said = {**known, "frames": frames, **{name: value for name, value in given.items() if value is not None}}
        if not said["tasks"]:
            raise UsageError(
                f"{adapter} does not say on which tasks it was trained, and a check needs questions",
                next="--tasks mmla_intent_mintrec_text --data_dir FOLDER",
            )
        return cls(**said)


@dataclass(frozen=True)
class Agreement:
    """How the answers of two models differ on the same questions, labels ranked."""

    rows: int
    same: int
    """Rows with the same answer, or with another one only where the two are all but equally likely (`TIE`)."""
    largest_difference: float
    """Of a label's log-probability, in nats."""
    tolerance: float

    @property
    def holds(self) -> bool:
        """Whether they are the same model but for rounding."""
        return self.same == self.rows and self.largest_difference <= self.tolerance

    def __str__(self) -> str:
        return (
            f"merged and unmerged give the same answers to {self.same} of {self.rows} questions; "
            f"label scores differ by {self.largest_difference:.2g} nats at most, {self.tolerance:g} are allowed"
        )


def agreement(what: Merge, questions: Questions) -> Agreement:
    """Ask base with adapter, then the merged model, a seeded set of test rows.

    Raises:
        MmlaError: There are no such tasks or data, a model cannot be loaded, or every row was skipped.
    """
    unmerged = {"pretrained": what.base, "peft": str(what.adapter), "dtype": what.dtype}
    if what.revision:
        unmerged["revision"] = what.revision
    first, dtype = _ranked(unmerged, what, questions)
    second, _ = _ranked({"pretrained": str(what.output), "dtype": what.dtype}, what, questions)
    tolerance = TOLERANCE.get(dtype, TOLERANCE_LOW_PRECISION)
    pairs = [(a, b) for a, b in zip(first, second, strict=True) if a and b]
    if not pairs:
        raise DataError(
            f"merged and unmerged cannot be compared: all {len(first)} questions have bad clips, which are skipped",
            model=f"{what.output} is written",
            next="--tasks with clips that can be read, --data_dir FOLDER, or more --rows",
        )
    return Agreement(
        rows=len(pairs),
        same=sum(_same(a, b, tolerance) for a, b in pairs),
        largest_difference=max(abs(a[label] - b[label]) for a, b in pairs for label in a),
        tolerance=tolerance,
    )


def _same(first: Mapping[str, float], second: Mapping[str, float], tolerance: float) -> bool:
    best = max(second, key=second.__getitem__)
    return first[best] >= max(first.values()) - TIE * tolerance


def _ranked(args: Mapping[str, Any], what: Merge, asked: Questions) -> tuple[list[dict[str, float]], str]:
    """Label scores of every row, none of a skipped one, and the precision in which they were computed."""
    options = RunOptions(
        "mmla-hf",
        asked.tasks,
        model_args={**args, **(asked.frames or {})},
        include_path=asked.include_path,
        data_dir=asked.data_dir,
        data_revision=asked.data_revision,
        modality=asked.modality,
        on_bad_clip=asked.on_bad_clip,
        answer="rank",
        batch_size=8,
        trust_remote_code=what.trust_remote_code,
    )
    with prepared(options) as this:
        counts = {name: len(task.eval_docs) for name, task in this.tasks.items()}
    outcome = run(replace(options, tasks=list(counts), samples=_drawn(counts, asked)))
    gc.collect()  # the model: the next one may not fit beside it
    rows = [row["response"].get("label_scores") or {} for rows in outcome.samples.values() for row in rows]
    return rows, str(outcome.results["mmla"]["model"]["dtype"])


def _drawn(counts: Mapping[str, int], asked: Questions) -> dict[str, list[int]]:
    """Task -> rows, about as many of each."""
    share = max(1, asked.rows // len(counts))
    draw = random.Random(asked.seed)
    return {name: sorted(draw.sample(range(count), min(share, count))) for name, count in counts.items()}
