"""Remake the golden prompts: `make golden`. A diff in review is then a decision."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent / "prompts"
DOCUMENT = {"id": "1", "text": "Oh, “great” — {{ braces }} & <b>tags</b>.", "label": "", "clip": None}
CLIP = {"path": "/clips/1.mp4", "start_seconds": 0.0, "end_seconds": None, "size": 1, "mtime_ns": 1}


def renderings() -> dict[str, str]:
    """Task name -> its prompts under both protocols, and the answer form, for one document."""
    from harness_ext.catalogue import Catalogue
    from harness_ext.task import LabelTask

    texts = {}
    for file in Catalogue.load().files.values():
        if file.is_group:
            continue
        parts = []
        for modality in ("text",) if file.modality == "text" else ("text+video", "video"):
            for protocol in ("clean",) if modality == "video" else ("clean", "paper"):
                task = _without_data(LabelTask, file, modality, protocol)
                document = {**DOCUMENT, "label": task.spec.labels[0], "clip": CLIP if task.has_video else None}
                parts.append(f"== {modality}, {protocol}\n{task.doc_to_text(document)}")
        parts.append(f"== answer\n{task.doc_to_target(document)}")
        texts[file.name] = "\n".join(parts) + "\n"
    return texts


def _without_data(task_class, file, modality, protocol):
    """A task for rendering alone: everything of the constructor but lm-eval's, which reads the data."""
    from harness_ext.released import COMMON
    from harness_ext.task import RunChoices, TaskSpec

    task = task_class.__new__(task_class)
    task.spec = TaskSpec.from_config({k: v for k, v in file.config.items() if k != "class"})
    task.choices = RunChoices(modality=modality, protocol=protocol)
    task.modality = task._modality()
    task.family, task._images = COMMON, None
    return task


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for old in FOLDER.glob("*.txt"):
        old.unlink()
    for name, text in renderings().items():
        (FOLDER / f"{name}.txt").write_text(text, encoding="utf-8")
    print(f"wrote {FOLDER}")
