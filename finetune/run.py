"""`mmla finetune run`: one run from its config to the selected adapter."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from finetune.config import Config
from finetune.examples import Example, check_clips_of, documents_of, examples_of, tasks_of
from finetune.mixture import Mixture
from finetune.order import Order, order_of
from finetune.output import LOG, RECORD, Output
from finetune.overlap import Overlap, overlap_with_test
from finetune.preflight import refuse_clips, refuse_long_examples, refuse_uneven_processes
from harness_ext.ranks import Ranks
from harness_ext.training import BEFORE, read_training
from mmla_tasks.errors import MissingExtraError, UsageError
from mmla_tasks.root import SAMPLE_NOTE

PACKAGES = ("torch", "transformers", "peft", "accelerate", "deepspeed", "av", "mmla-eval")
"""What can change what is learnt; their versions stand in the record."""


TRAINER = "trainer"
"""Folder of what `Trainer` itself writes: the files of TensorBoard and W&B."""


@dataclass
class Data:
    """What is learnt from and selected by."""

    tasks: dict[str, Any]
    train: dict[str, list[Any]]
    dev: dict[str, list[Any]]
    overlap: Overlap
    """What the train splits have in common with the test splits."""

    @property
    def notes(self) -> list[str]:
        """What must stand beside every score."""
        roots = [task.root for task in self.tasks.values()]
        return [SAMPLE_NOTE] if any(root is not None and root.is_sample for root in roots) else []

    @property
    def method(self) -> str:
        """``SFT`` for one dataset, ``IT`` for several."""
        return "SFT" if len(self.tasks) == 1 else "IT"

    def described(self) -> dict[str, Any]:
        """Rows and digests, by task and split."""
        described: dict[str, Any] = {}
        for name, task in self.tasks.items():
            used = {"train": self.train[name], "dev": self.dev[name]}
            described[name] = {
                split: {"rows": len(rows), "sha256": task.split(split).sha256} for split, rows in used.items()
            }
        return described


def data_of(config: Config) -> Data:
    """Read train and dev of all tasks; train without what stands in test, where that is asked for.

    Raises:
        MmlaError: unknown tasks, bad or absent data, or nothing left to train on.
    """
    tasks = tasks_of(config)
    train, dev = documents_of(tasks, "train"), documents_of(tasks, "dev")
    found = overlap_with_test(tasks, train)
    return Data(tasks, found.left_of(train) if config.exclude_test_overlap else train, dev, found)


def run(config: Config, reporter: Any = None) -> dict[str, Any]:
    """Train, select, and write down what was done.

    Args:
        config: What to do.
        reporter: Shows progress; nowhere by default.

    Returns:
        The record, as `training.json` has it.

    Raises:
        MmlaError: anything the user can mend; checkpoints are kept, and the same command goes on from the last.
        KeyboardInterrupt: it was asked to stop, and has saved where it is.
    """
    check_packages()
    check_reporters(config)
    ranks = Ranks.of_environment()
    output = Output(config.output_dir, config, {"processes": ranks.count})
    with output.held(ranks.is_first):
        if (done := output.record) is not None:
            return done
        return _trained(config, output, ranks, reporter)


def check_packages() -> None:
    """Say which package is missing before an import fails inside another library."""
    from importlib.util import find_spec

    for package in ("torch", "transformers", "peft", "accelerate"):
        if find_spec(package) is None:
            raise MissingExtraError(package, extra="finetune", purpose="mmla finetune")


def check_reporters(config: Config) -> None:
    """Say which package `report_to` lacks.

    Raises:
        UsageError: one is not installed.
    """
    from importlib.util import find_spec

    missing = [name for name in config.report_to if find_spec(name) is None]
    if missing:
        raise UsageError(
            f"report_to: {', '.join(missing)} is not installed",
            next=f"pip install {' '.join(missing)}, or leave it out of report_to",
        )


def _trained(config: Config, output: Output, ranks: Ranks, reporter: Any) -> dict[str, Any]:
    """Everything between an open folder and its record."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import torch
    from transformers import set_seed

    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # or DeepSpeed warns that it has found this out

    from finetune.collator import Collator, Rows
    from finetune.launch.deepspeed import deepspeed_settings, zero_stage
    from finetune.model import backend_of, described, loaded_model, trainable
    from finetune.selection import DevPart
    from finetune.trainer import AnswerTrainer, Reporter

    reporter = reporter if reporter is not None and ranks.is_first else Reporter()
    data = data_of(config)
    for line in data.overlap.report(excluded=config.exclude_test_overlap):
        reporter.say(line)
    check_clips_of(config, data.tasks, (data.train, data.dev), reporter.say)
    zero = deepspeed_settings(config.deepspeed) if config.deepspeed else None
    refuse_uneven_processes(config, data.tasks, zero_stage(zero), ranks.count)
    arguments = training_arguments(config, output, zero)  # before the model: under ZeRO-3 it is loaded in parts
    set_seed(config.seed)
    loaded = loaded_model(config)
    output.depends_on({"data": data.described(), "base": loaded.identity["digest"]})
    learner = trainable(config, loaded)
    reporter.say(described(config, loaded, learner))
    backend = backend_of(config, loaded, forward=learner)
    refuse_clips(config.model, backend.MULTIMODAL, data.tasks)
    examples = [one for name, task in data.tasks.items() for one in examples_of(backend, task, data.train[name])]
    rows = Rows(backend, examples, config.on_bad_clip, backend.max_length)
    refuse_long_examples(backend, examples, rows)
    order = _order(config, data, backend, examples, arguments.world_size)
    arguments.max_steps = len(order.steps)
    arguments.warmup_steps = round(config.warmup_ratio * len(order.steps))
    dev = DevPart(
        backend,
        data.tasks,
        data.dev,
        rows=config.selection.rows,
        metric=config.selection.metric,
        seed=config.seed,
    )
    trainer = AnswerTrainer(
        learner,
        arguments,
        batches=order.of_process(arguments.process_index),
        rows=rows,
        collator=Collator(backend.tokenizer.pad_token_id or 0),
        config=config,
        output=output,
        positions=lambda inputs: _positions(backend, inputs),
        dev=dev,
        reporter=reporter,
    )
    backend.scorer.agreed = lambda works: all(trainer.gather(works))
    _learn(trainer, config, output, order, ranks)
    return _finished(config, output, data, trainer, loaded, ranks, len(examples))


def _positions(backend: Any, inputs: Mapping[str, Any]) -> Any:
    """Positions as evaluation has them; None where the model takes none."""
    if not hasattr(backend.model, "_prepare_position_ids_for_generation"):
        return None
    return backend.scorer.positions(dict(inputs))


def training_arguments(config: Config, output: Output, deepspeed: dict[str, Any] | None) -> Any:
    """What `Trainer` is told."""
    import torch
    from transformers import TrainingArguments

    from finetune.model import precision

    shows_clips = config.modality != "text"
    return TrainingArguments(
        output_dir=str(output.path / TRAINER),
        per_device_train_batch_size=config.batch_size,
        gradient_accumulation_steps=config.gradient_accumulation,
        learning_rate=config.learning_rate,
        lr_scheduler_type=config.scheduler,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        bf16=precision(config) == "bfloat16",
        **({"gradient_checkpointing": True} if config.gradient_checkpointing else {}),
        deepspeed=deepspeed,
        use_cpu=not torch.cuda.is_available(),  # or, under DeepSpeed, each process takes itself for the only one
        seed=config.seed,
        max_steps=1,  # set when the data is known
        logging_strategy="no",
        save_strategy="no",
        logging_nan_inf_filter=False,
        remove_unused_columns=False,
        disable_tqdm=True,
        report_to=list(config.report_to) or "none",
        dataloader_num_workers=config.workers if shows_clips else 0,
        dataloader_pin_memory=False,
        ddp_find_unused_parameters=False,
        label_names=["labels"],
    )


def _order(config: Config, data: Data, backend: Any, examples: list[Example], processes: int) -> Order:
    sizes = [len(data.train[name]) for name in data.tasks]
    mixing = config.mixture
    mixture = Mixture.of(sizes, mixing.weights, temperature=mixing.temperature, seed=config.seed)
    per_step = config.batch_size * config.gradient_accumulation * processes
    steps = config.max_steps or max(1, round(config.epochs * mixture.steps_per_epoch(per_step)))
    lengths = backend.text_lengths([example.request for example in examples])
    return order_of(
        mixture,
        lengths,
        steps=steps,
        batch_size=config.batch_size,
        accumulation=config.gradient_accumulation,
        processes=processes,
    )


def _learn(trainer: Any, config: Config, output: Output, order: Order, ranks: Ranks) -> None:
    """Train from the last checkpoint on, or from the start with a look at what the model knows already."""
    from finetune.output import LOOKS, step_of
    from finetune.selection import Look
    from finetune.trainer import Selected

    last = output.last_checkpoint()
    trainer.gather(last and last.name)
    if ranks.is_first:
        output.claim()
        output.rewind(step_of(last) if last else -1)
    trainer.gather(None)
    trainer.selected = Selected([Look(**look) for look in output.lines(LOOKS)])
    trainer.reporter.start(step_of(last) if last else 0, len(order.steps))
    try:
        trainer.train(resume_from_checkpoint=str(last) if last else None)
    finally:
        trainer.reporter.stop()


def _finished(
    config: Config, output: Output, data: Data, trainer: Any, loaded: Any, ranks: Ranks, rows: int
) -> dict[str, Any]:
    """Put the selected weights in their place, and write the record: beside the logs, and inside the adapter."""
    best = trainer.selected.best
    bad_clips = sorted({name for step in output.lines(LOG) for name in step.get("bad_clips", ())})
    record = {
        "method": data.method,
        "notes": data.notes,
        "base": {k: loaded.identity[k] for k in ("pretrained", "revision", "digest", "class", "dtype")},
        "config": config.plain(),
        "data": data.described(),
        "selection": {
            "metric": config.selection.metric,
            "rows": best.rows,
            "step": best.step,
            "value": best.value,
            "looks": [look.plain() for look in trainer.selected.looks],
        },
        "steps": trainer.state.global_step,
        "examples": rows,
        "overlap": data.overlap.facts(excluded=config.exclude_test_overlap),
        "bad_clips": {"policy": config.on_bad_clip, "train": bad_clips, "dev": trainer.dev.skipped},
        "processes": ranks.count,
        "versions": versions(),
    }
    if config.adapter == "none" and (before := read_training(Path(config.model))):
        record[BEFORE] = before
    if ranks.is_first:
        _place_selected(output, best.step, loaded, record)
    trainer.gather(None)
    return record


def _place_selected(output: Output, step: int, loaded: Any, record: Mapping[str, Any]) -> None:
    with output.writing():
        source = output.best(step)
        if source.exists():
            shutil.rmtree(output.selected, ignore_errors=True)
            shutil.copytree(source, output.selected)
        (output.selected / "training_args.bin").unlink(missing_ok=True)
        if output.config.adapter == "none":
            loaded.processor.save_pretrained(output.selected)
    inside = output.selected.relative_to(output.path) / RECORD
    output.write_json(str(inside), record)
    from finetune.curve import draw

    draw(output, record)
    output.write_json(RECORD, record)
    shutil.rmtree(output.path / "best", ignore_errors=True)
    if not output.config.report_to:
        shutil.rmtree(output.path / TRAINER, ignore_errors=True)


def versions() -> dict[str, str]:
    """Versions of what can change what is learnt, of those that are installed."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
