"""HF's `Trainer` with what is ours: the loss on answers alone, looks at dev, whole checkpoints, a stop that keeps."""

from __future__ import annotations

import math
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from finetune.collator import IGNORED
from finetune.config import Config
from finetune.output import LOG, LOOKS, Output
from finetune.selection import DevPart, Look, SharedRounds
from mmla_tasks.errors import MmlaError, ModelError

SHOWN = 8
"""Rows that an error names at most."""


class Interrupted(KeyboardInterrupt):
    """The run was asked to stop, and has saved where it is."""


@dataclass
class Reporter:
    """Where progress is shown; nowhere."""

    def start(self, step: int, steps: int) -> None:
        """Begin at a step."""

    def step(self, step: int, loss: float, rate: float) -> None:
        """One optimizer step is done."""

    def looked(self, look: Look, best: bool) -> None:
        """Dev was looked at."""

    def say(self, line: str) -> None:
        """Anything else, in a line."""

    def stop(self) -> None:
        """End, also after an error."""


@dataclass
class Selected:
    """The looks at dev so far, and which is the best of them."""

    looks: list[Look] = field(default_factory=list)

    @property
    def best(self) -> Look | None:
        """The first of the best after step 0: there nothing is learnt, so there is nothing to keep."""
        learnt = [look for look in self.looks if look.step]
        return max(learnt, key=lambda look: look.value) if learnt else None

    def exhausted(self, patience: int | None) -> bool:
        """Whether the last `patience` looks brought nothing better."""
        if patience is None or self.best is None:
            return False
        return sum(look.step > self.best.step for look in self.looks) >= patience


class AnswerTrainer(Trainer):  # type: ignore[misc]
    """Trains on answers and selects by dev.

    Args:
        model: What `Trainer` trains.
        arguments: Of `Trainer`.
        batches: This process's batches of the whole run.
        rows: The examples, a dataset of `Row`s.
        collator: Makes tensors of rows.
        config: The run's.
        output: The run's folder.
        positions: Positions of a batch's tokens, as evaluation has them.
        dev: Rows to look at.
        reporter: Shows progress.
    """

    def __init__(
        self,
        model: Any,
        arguments: TrainingArguments,
        *,
        batches: Sequence[Sequence[int]],
        rows: Any,
        collator: Any,
        config: Config,
        output: Output,
        positions: Callable[[dict[str, Any]], Any],
        dev: DevPart,
        reporter: Reporter,
    ) -> None:
        super().__init__(model, arguments, train_dataset=rows, data_collator=collator)
        self.remove_callback(PrinterCallback)
        self.add_callback(_LookFirst(self))
        self.model_accepts_loss_kwargs = True  # the loss is ours, and counts the answers' tokens of the whole step
        self.batches, self.config, self.output = batches, config, output
        self.positions, self.dev, self.reporter = positions, dev, reporter
        self.selected = Selected([Look(**look) for look in output.lines(LOOKS)])
        self._bad_clips: list[str] = []
        self._own_losses: list[tuple[list[str], Any]] = []
        self._asked_to_stop = False
        self._staging = Path(arguments.output_dir)  # asked for at the end also where nothing was left to train
        self._step_began = time.monotonic()

    # ---- data ----------------------------------------------------------------------------------------------------

    def get_train_dataloader(self) -> Any:
        """This process's batches, in order; which they are was worked out before."""
        from torch.utils.data import DataLoader

        workers = self.args.dataloader_num_workers
        return DataLoader(
            self.train_dataset, batch_sampler=_Batches(self.batches), collate_fn=self.data_collator, num_workers=workers
        )

    def get_batch_samples(self, epoch_iterator: Iterator[Any], num_batches: int, device: Any) -> Any:
        """Take the batches of a step; say in words what is wrong with a row."""
        batches, items = super().get_batch_samples(_without_faults(epoch_iterator), num_batches, device)
        self._bad_clips = sorted({name for batch in batches for name in batch["bad_clips"]})
        self._own_losses = []
        return batches, items

    def num_examples(self, dataloader: Any) -> int:
        """Rows of the training data."""
        return len(self.train_dataset)

    def floating_point_ops(self, inputs: Any) -> int:
        """Not counted."""
        return 0

    # ---- loss ----------------------------------------------------------------------------------------------------

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Cross-entropy of the answers' tokens, summed, over their number in the whole step.

        Only the last columns, where answers stand, pass through the output layer: that saves a product of all
        positions with the whole vocabulary.
        """
        labels, tensors = inputs["labels"], dict(inputs["tensors"])
        width = labels.shape[1]
        positions = self.positions(tensors)
        if positions is not None:
            tensors["position_ids"] = positions
        logits = model(**tensors, use_cache=False, logits_to_keep=width).logits[:, -width:-1].float()  # [B, K, V]
        losses = torch.nn.functional.cross_entropy(
            logits.transpose(1, 2), labels[:, 1:], ignore_index=IGNORED, reduction="none"
        )  # [B, K]
        self._own_losses.append((inputs["names"], losses.detach().sum(1)))
        # Processes average their gradients, each of which is already over the tokens of all.
        loss = losses.sum() / num_items_in_batch.clamp(min=1) * self.accelerator.num_processes
        return (loss, logits) if return_outputs else loss

    # ---- after each step -----------------------------------------------------------------------------------------

    def _maybe_log_save_evaluate(self, tr_loss: Any, grad_norm: Any, model: Any, *args: Any, **kwargs: Any) -> None:
        """Log the step, look at dev, save, and stop where that is asked for. All processes do the same."""
        step = self.state.global_step
        if step <= self._globalstep_last_logged:
            return  # called once more at the end of the epoch
        loss = self._step_loss(tr_loss)
        self._refuse_not_finite(loss, grad_norm, step)
        self._log_step(step, loss, tr_loss, grad_norm, kwargs.get("learning_rate"))
        last = step >= self.state.max_steps
        if last or step % self.config.selection.every == 0:
            self.look()
        stopping = self._any(self._asked_to_stop)
        exhausted = self.selected.exhausted(self.config.selection.patience)
        if last or stopping or exhausted or step % self.config.steps_between_saves == 0:
            self._save_checkpoint(model, None)
        if exhausted and not last:
            self.reporter.say(f"stopped early: {self.config.selection.patience} looks at dev brought nothing better")
        if stopping and not (last or exhausted):
            raise Interrupted
        if stopping or exhausted:
            self.control.should_training_stop = True
        self._step_began = time.monotonic()

    def _step_loss(self, tr_loss: Any) -> float:
        """The mean of all processes' losses, which each have their share of the step's."""
        return float(self.accelerator.gather(tr_loss.detach().reshape(1)).mean())

    def _refuse_not_finite(self, loss: float, grad_norm: Any, step: int) -> None:
        """Stop at a loss that is no number. The step's damage to the weights is not saved."""
        if math.isfinite(loss) and (grad_norm is None or math.isfinite(float(grad_norm))):
            return
        own = [
            name
            for names, losses in self._own_losses
            for name, value in zip(names, losses.tolist(), strict=True)
            if not math.isfinite(value) or math.isfinite(loss)
        ]
        rows = [name for part in self.gather(own) for name in part]
        more = f"\nand {len(rows) - SHOWN} more" if len(rows) > SHOWN else ""
        what = f"the loss is {loss}" if not math.isfinite(loss) else f"the gradient's norm is {float(grad_norm)}"
        raise self._stopped_at(f"{what} at step {step}", None, rows="\n".join(rows[:SHOWN]) + more)

    def _stopped_at(self, what: str, why: str | None, **details: Any) -> ModelError:
        last = self.output.last_checkpoint()
        kept = (
            f"{last.relative_to(self.output.path)}, {self.output.best(0).parent.name}/" if last else "no checkpoint yet"
        )
        advice = "a lower learning_rate or max_grad_norm, float32, or look at these rows" if "rows" in details else None
        return ModelError(
            what,
            why=why,
            **details,
            kept=kept,
            next=advice or "give the same command again: it goes on from the last checkpoint",
        )

    def _log_step(self, step: int, loss: float, tr_loss: Any, grad_norm: Any, rate: float | None) -> None:
        tr_loss -= tr_loss
        self._total_loss_scalar += loss
        self._globalstep_last_logged = step
        values = {"loss": loss, "lr": float(rate or 0.0), "seconds": round(time.monotonic() - self._step_began, 3)}
        rows = {"rows": self._rows_by_task()} if len(self.dev.tasks) > 1 else {}
        bad = sorted({name for part in self.gather(self._bad_clips) for name in part})
        if self.is_world_process_zero():
            self.output.append(LOG, {"step": step, **values, **rows, **({"bad_clips": bad} if bad else {})})
        self.reporter.step(step, loss, values["lr"])
        norm = {} if grad_norm is None else {"grad_norm": float(grad_norm)}
        self.control.should_log = False
        self.log({"loss": loss, "learning_rate": values["lr"], **norm})

    def _rows_by_task(self) -> dict[str, int]:
        """How many rows of each task the step was of, in all processes."""
        own = Counter(name.partition(" id ")[0] for names, _ in self._own_losses for name in names)
        counts: Counter[str] = sum(self.gather(own), Counter())
        return {task: counts[task] for task in self.dev.tasks}

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Hand values to TensorBoard or W&B, where asked for. Our own log is `log.jsonl`."""
        self.callback_handler.on_log(self.args, self.state, self.control, logs)

    # ---- dev -----------------------------------------------------------------------------------------------------

    def look(self) -> Look:
        """Look at dev with the weights as they are, and keep them when they are the best so far."""
        step, before = self.state.global_step, self.selected.best
        began = time.monotonic()
        self.model_wrapped.eval()
        look = self.dev.look(step, SharedRounds(self.args.process_index, self.args.world_size, self.gather))
        self.model_wrapped.train()
        look = Look(**{**vars(look), "seconds": round(time.monotonic() - began, 3)})
        self.selected.looks.append(look)
        is_best = self.selected.best is look
        if is_best:
            with self._whole(self.output.best(step), "the selected weights") as folder:
                self.save_model(str(folder), _internal_call=True)
        if self.is_world_process_zero():
            self.output.append(LOOKS, look.plain())
        self.reporter.looked(look, is_best and before is not None)
        self.log({"dev_acc": look.acc, "dev_macro_f1": look.macro_f1})
        return look

    # ---- saving --------------------------------------------------------------------------------------------------

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Load weights as they were saved. Of models that see, files name layers otherwise than the model itself.

        `Trainer` reads a whole model's file name by name, finds none of its layers, warns, and goes on with the weights
        of the start.
        """
        if self.config.adapter == "lora":
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        saved = type(self.model).from_pretrained(resume_from_checkpoint, dtype=self.model.dtype)
        self.model.load_state_dict(saved.state_dict())

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write a checkpoint beside its place, and rename it when all of it is on the disk."""
        target = self.output.checkpoints / f"checkpoint-{self.state.global_step}"
        with self._whole(target, f"the checkpoint of step {self.state.global_step}") as folder:
            self._staging = folder
            super()._save_checkpoint(model, trial)
            self._wait()
            if self.is_world_process_zero():
                _lift(folder / target.name, folder)
        if self.is_world_process_zero():
            self.output.keep(self.config.keep_checkpoints)
            self.output.keep_best(self.selected.best.step if self.selected.best else None)

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._staging)

    @contextmanager
    def _whole(self, target: Path, what: str) -> Iterator[Path]:
        first = self.is_world_process_zero()
        with self.output.whole(target, first=first, what=what, barrier=self._wait) as folder:
            yield folder

    # ---- processes -----------------------------------------------------------------------------------------------

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train; torch tells of a worker's death wherever the training is at that moment."""
        try:
            with self.stopping_on_signals():
                return super().train(*args, **kwargs)
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise self._stopped_at("a process that makes tensors was killed", str(error).split("\n")[0]) from error

    def gather(self, value: Any) -> list[Any]:
        """What every process handed in."""
        from accelerate.utils import gather_object

        return list(gather_object([value])) if self.args.world_size > 1 else [value]

    def _any(self, flag: bool) -> bool:
        return any(self.gather(flag))

    def _wait(self) -> None:
        self.accelerator.wait_for_everyone()

    @contextmanager
    def stopping_on_signals(self) -> Iterator[None]:
        """Let Ctrl-C and SIGTERM end the run after the step at hand, saved; a second one ends it at once."""

        def ask(number: int, frame: Any) -> None:
            if self._asked_to_stop:
                raise KeyboardInterrupt
            self._asked_to_stop = True
            self.reporter.say("stopping after this step; once more stops at once")

        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            with suppress(ValueError):  # in a thread, signals are somebody else's
                for number in before:
                    signal.signal(number, ask)
            yield
        finally:
            with suppress(ValueError):
                for number, handler in before.items():
                    signal.signal(number, handler)


class _LookFirst(TrainerCallback):  # type: ignore[misc]
    """Looks at dev when the model is ready and has learnt nothing."""

    def __init__(self, trainer: AnswerTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        """Called once the model is wrapped."""
        if not self.trainer.selected.looks:
            self.trainer.look()


class _Batches:
    """Batches as a sampler."""

    def __init__(self, batches: Sequence[Sequence[int]]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Sequence[int]]:
        return iter(self.batches)


def _without_faults(batches: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Raise what is wrong with a row in the process that trains."""
    for batch in batches:
        if "fault" in batch:
            fault: MmlaError = batch["fault"]
            raise fault
        yield batch


def _lift(inner: Path, outer: Path) -> None:
    """Move everything of a folder one up."""
    for path in inner.iterdir():
        os.replace(path, outer / path.name)
    inner.rmdir()
