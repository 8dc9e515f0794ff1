"""How an adapter or a model was trained, as `mmla finetune` wrote it beside the weights, for results and readers.

`training.json` holds ``method`` (SFT or IT) and what `RECORDED` names. Results list in `mmla.training` a block for
each adapter that answered, and one for each training of the model itself, the first training first::

    {"tasks": [...], "adapter": {"path": ..., "digest": ...} or None, "rank": 16, "method": "sft", "base": ..., ...}
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from harness_ext.adapters import TRAINING, Adapter, Adapters
from harness_ext.catalogue import TEXT_SUFFIX
from mmla_tasks.errors import ModelError

RECORDED: Final = ("base", "config", "data", "steps", "selection", "overlap", "bad_clips", "merged")
BEFORE: Final = "before"
"""Key of a merged model's record under which the record of the base stands that was trained already."""
METHODS: Final = ("sft", "it")
UNKNOWN: Final = "adapter"
"""Method of a run whose adapters do not say, or not all alike, how they were trained."""


def read_training(folder: Path) -> dict[str, Any] | None:
    """What a folder tells of its training; None where it tells nothing.

    Raises:
        ModelError: The file is damaged.
    """
    file = folder / TRAINING
    if not file.is_file():
        return None
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{file} cannot be read", why=error, next="copy it again from where it was made") from None
    if not isinstance(record, dict):
        raise ModelError(f"{file} is no JSON object", next="copy it again from where it was made")
    return record


def trainings(tasks: Sequence[str], adapters: Adapters | None, model: Path) -> list[dict[str, Any]]:
    """The blocks of a run's results.

    Args:
        tasks: Leaf tasks of the run.
        adapters: Those over the loaded base.
        model: Folder of the base, where it is one.
    """
    blocks = [_block(list(tasks), None, record) for record in _one_after_the_other(read_training(model))]
    for adapter in adapters.all if adapters is not None else ():
        answered = [task for task in tasks if adapters is not None and adapters.of(task) == adapter]
        if answered:
            blocks.append(_block(answered, adapter, read_training(adapter.path) or {}))
    return blocks


def _one_after_the_other(record: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    """The records of a model that was trained several times, the first training first."""
    if not record:
        return []
    before = record.get(BEFORE)
    return [*_one_after_the_other(before if isinstance(before, dict) else None), record]


def _block(tasks: list[str], adapter: Adapter | None, record: Mapping[str, Any]) -> dict[str, Any]:
    method = str(record.get("method", "")).lower()
    return {
        "tasks": tasks,
        "adapter": adapter.identity if adapter else None,
        "rank": adapter.rank if adapter and "r" in adapter.config else None,
        "method": method if method in METHODS else UNKNOWN,
        **{key: record[key] for key in RECORDED if key in record},
    }


def method_of(blocks: Iterable[Mapping[str, Any]]) -> str | None:
    """The method of a run: that of its adapters, if they agree, else of the model's last training; None without any."""
    blocks = list(blocks)
    decisive = [block for block in blocks if block["adapter"]] or blocks[-1:]
    methods = {block["method"] for block in decisive}
    return None if not methods else methods.pop() if len(methods) == 1 else UNKNOWN


def refuse_other_base(adapters: Adapters, pretrained: str, digest: str | None) -> None:
    """Compare the model with the base that each adapter's training recorded.

    Layers of equal size fit any weights: only the digest tells a base from another of its kind.

    Args:
        adapters: Those of a run.
        pretrained: What is loaded.
        digest: Its digest; None where it is not known.

    Raises:
        ModelError: A recorded digest is another one.
    """
    bases = {adapter.path: (read_training(adapter.path) or {}).get("base") or {} for adapter in adapters.all}
    others = {
        str(path): f"trained on {base.get('pretrained')} (digest {str(base['digest'])[:12]})"
        for path, base in bases.items()
        if digest and base.get("digest") and base["digest"] != digest
    }
    if others:
        raise ModelError(
            f"{len(others)} of {len(bases)} adapters belong to another base than {pretrained}",
            others,
            this=f"digest {str(digest)[:12]}",
            next=f"pass pretrained= the base that they were trained on; if only its tokenizer or config files changed, "
            f"remove `base` from {TRAINING}",
        )


# ---- in words ------------------------------------------------------------------------------------------------------


def sentences(blocks: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """One sentence for each block; the tasks are named where there are several blocks."""
    for block in blocks:
        of = f"{', '.join(block['tasks'])}: " if len(blocks) > 1 else ""
        yield of + sentence(block)


def sentence(block: Mapping[str, Any]) -> str:
    """Such as ``SFT, LoRA rank 16, selected at step 120 of 167 by dev acc 58.0 % on 150 rows; ...``."""
    if block["method"] == UNKNOWN:
        what = f"adapter {Path(block['adapter']['path']).name}" if block["adapter"] else "trained weights"
        return f"{what}: how it was trained is not known ({TRAINING} is not beside it, or names no method)"
    what = f"LoRA rank {rank}" if (rank := _rank(block)) else "all weights"
    selected = _selected(block.get("selection") or {}, block.get("steps"))
    return "; ".join([", ".join(filter(None, (block["method"].upper(), what, selected))), *_overlaps(block)])


def origin(block: Mapping[str, Any]) -> str | None:
    """From which base and data it was made, with the beginnings of digests; None where nothing is recorded."""
    base, data = block.get("base") or {}, block.get("data") or {}
    named = [_with_digest(str(base["pretrained"]), base.get("digest"))] if base.get("pretrained") else []
    rows = [
        _with_digest(f"{task} {split} {of['rows']:,} rows", of.get("sha256"))
        for task, splits in data.items()
        for split, of in splits.items()
    ]
    return "; ".join([*named, *rows]) or None


def _with_digest(what: str, digest: str | None) -> str:
    return f"{what} ({digest[:16]})" if digest else what


def _rank(block: Mapping[str, Any]) -> int | None:
    """Of the adapter, or of the one that was merged into the model; None where whole weights were trained."""
    config = block.get("config") or {}
    merged: int | None = config.get("lora", {}).get("rank") if config.get("adapter") == "lora" else None
    return block["rank"] or merged


def _selected(selection: Mapping[str, Any], steps: int | None) -> str | None:
    if selection.get("step") is None:
        return None
    of = f" of {steps:,}" if steps else ""
    by = f" by dev {selection.get('metric', 'acc')} {100 * selection['value']:.1f} %" if "value" in selection else ""
    on = f" on {selection['rows']:,} rows" if selection.get("rows") else ""
    return f"selected at step {selection['step']:,}{of}{by}{on}"


def _overlaps(block: Mapping[str, Any]) -> Iterator[str]:
    """What test rows of the answered tasks have in common with the rows that were trained on."""
    overlap = block.get("overlap") or {}
    if overlap:
        yield from _counted(block, overlap)
        yield from _not_counted(block, overlap)


def _not_counted(block: Mapping[str, Any], overlap: Mapping[str, Any]) -> Iterator[str]:
    """Answered tasks whose test rows were not compared with train: they were no part of the training."""
    counted = {*(overlap.get("tasks") or ()), *(pair["test"] for pair in overlap.get("pairs") or ())}
    compared = {task.removesuffix(TEXT_SUFFIX) for task in counted}
    if others := [task for task in block["tasks"] if task.removesuffix(TEXT_SUFFIX) not in compared]:
        yield f"overlap with the test rows of {', '.join(others)} was not counted"


def _counted(block: Mapping[str, Any], overlap: Mapping[str, Any]) -> Iterator[str]:
    if overlap.get("excluded"):
        if any(task.get("overlapping") for task in (overlap.get("tasks") or {}).values()):
            yield "train rows that stand in test were left out"
        return
    asked = {task.removesuffix(TEXT_SUFFIX) for task in block["tasks"]}
    for pair in overlap.get("pairs") or ():
        if pair["test"].removesuffix(TEXT_SUFFIX) not in asked:
            continue
        several = f" of {pair['test']}" if len(asked) > 1 else ""
        train = "train" if pair["train"] == pair["test"] else f"train of {pair['train']}"
        for name, words in (("text_and_label", "text and label"), ("clip", "clip")):
            if pair[name]:
                yield f"{pair[name]:,} of {pair['test_rows']:,} test rows{several} also stand in {train} ({words})"
