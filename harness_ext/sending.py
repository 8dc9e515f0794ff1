"""Scores of a run, and its samples where asked, to Weights & Biases, Trackio and the Hub: through lm-eval's loggers.

| path | scores | samples |
|---|---|---|
| ``--wandb_args``, ``--trackio_args`` | always | with ``--log_samples`` |
| ``--hf_hub_log_args`` | with ``push_results_to_hub`` | with ``push_samples_to_hub`` |
"""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from harness_ext.catalogue import Catalogue
from harness_ext.masking import masked
from harness_ext.rights import require_rights
from mmla_tasks.errors import MmlaError, UsageError
from mmla_tasks.root import DataRoot

Rows = Mapping[str, Sequence[Mapping[str, Any]]]
"""Leaf name -> sample rows."""


@dataclass(frozen=True)
class Destinations:
    """Where a run is sent, in the words of ``mmla run``'s flags."""

    wandb_args: Mapping[str, Any] = field(default_factory=dict)
    wandb_config_args: Mapping[str, Any] = field(default_factory=dict)
    trackio_args: Mapping[str, Any] = field(default_factory=dict)
    hf_hub_log_args: Mapping[str, Any] = field(default_factory=dict)
    log_samples: bool = False
    """Whether samples go to the services too; on this machine they are always logged."""

    def __post_init__(self) -> None:
        if "output_path" in self.hf_hub_log_args:
            raise UsageError(
                "--hf_hub_log_args takes no output_path: lm-eval would push all that lies there, earlier runs included",
                next="leave it out; --run_dir keeps what is written here",
            )

    def of_samples(self) -> list[str]:
        """The flags whose service gets samples."""
        services = {"--wandb_args": self.wandb_args, "--trackio_args": self.trackio_args}
        flags = [flag for flag, args in services.items() if args and self.log_samples]
        return [*flags, *(["--hf_hub_log_args"] if self.hf_hub_log_args.get("push_samples_to_hub") else [])]

    def refuse_restricted(
        self,
        tasks: Sequence[str],
        modality: str | None,
        include: Iterable[Path],
        data_dir: str | None,
        *,
        granted: bool,
    ) -> None:
        """Refuse to send samples of restricted datasets, before the model is loaded.

        Raises:
            UsageError: samples of restricted datasets would be sent without ``--i_have_the_rights``.
        """
        flags = self.of_samples()
        if not flags or DataRoot.choose(data_dir).is_sample:
            return
        catalogue = Catalogue.load(include)
        leaves = [leaf for name in catalogue.resolve(tasks, modality) for leaf in catalogue.leaves(name)]
        datasets = {str(catalogue.files[leaf].config["dataset"]) for leaf in leaves}
        require_rights(datasets, f"sending samples ({', '.join(flags)})", granted)

    def refuse_missing_packages(self) -> None:
        """Refuse before the model is loaded what could not be sent after it has answered.

        Raises:
            UsageError: a service's package is not installed.
        """
        for flag, args, package in (
            ("--wandb_args", self.wandb_args, "wandb"),
            ("--trackio_args", self.trackio_args, "trackio"),
        ):
            if args and importlib.util.find_spec(package) is None:
                raise UsageError(f"{flag} needs the package `{package}`", next=f"pip install {package}")

    def send(self, results: Mapping[str, Any], samples: Rows) -> None:
        """Send.

        Raises:
            MmlaError: a service did not take it; what was written on this machine is not touched.
        """
        rows = {task: deepcopy(list(rows)) for task, rows in samples.items()}  # the loggers rewrite them
        for args, send in (
            (self.wandb_args, self._to_wandb),
            (self.trackio_args, self._to_trackio),
            (self.hf_hub_log_args, self._to_hub),
        ):
            if args:
                send(for_loggers(results, rows), rows)

    def _to_wandb(self, results: dict[str, Any], samples: Rows) -> None:
        from lm_eval.loggers import WandbLogger

        logger = WandbLogger(dict(self.wandb_args), dict(self.wandb_config_args))
        logger.post_init(results)
        logger.log_eval_result()
        if self.log_samples:
            logger.log_eval_samples(samples)
        logger.run.finish()

    def _to_trackio(self, results: dict[str, Any], samples: Rows) -> None:
        from lm_eval.loggers import TrackioLogger

        logger = TrackioLogger(dict(self.trackio_args))
        logger.post_init(results)
        logger.log_eval_result()
        if self.log_samples:
            logger.log_eval_samples(samples)
        logger.finish()

    def _to_hub(self, results: dict[str, Any], samples: Rows) -> None:
        from lm_eval.loggers import EvaluationTracker

        config, template = results["config"], results["mmla"]["chat_template"]
        with TemporaryDirectory() as folder, _failures_raised():
            try:
                tracker = EvaluationTracker(
                    **{"token": os.environ.get("HF_TOKEN", ""), **self.hf_hub_log_args, "output_path": folder}
                )
            except (TypeError, ValueError) as error:
                raise UsageError("--hf_hub_log_args cannot be used", why=error) from None
            model = {"model": config["model"], **masked(config["model_args"] or {})}
            tracker.general_config_tracker.log_experiment_args(
                model_source=config["model"],
                model_args=model,
                system_instruction=config["system_instruction"],
                chat_template=None,
                fewshot_as_multiturn=template["applied"],
            )
            tracker.save_results_aggregated(results=results, samples=dict(samples))
            if self.hf_hub_log_args.get("push_samples_to_hub"):
                for task, rows in samples.items():
                    tracker.save_results_samples(task_name=task, samples=rows)


def for_loggers(results: Mapping[str, Any], samples: Rows) -> dict[str, Any]:
    """A copy of the results with what lm-eval's loggers look for in a task's config, to read its samples by."""
    copied = deepcopy(dict(results))
    for task, rows in samples.items():
        metrics = [{"metric": "acc"}] if all("acc" in row for row in rows) else []
        copied["configs"][task] |= {"metric_list": metrics, "output_type": "generate_until"}
    return copied


@contextmanager
def _failures_raised() -> Iterator[None]:
    """Lm-eval's tracker says what failed in its log alone, and the reason in the line after."""
    logger, said = logging.getLogger("lm_eval.loggers.evaluation_tracker"), _Kept()
    level = logger.level
    logger.addHandler(said)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(said)
        logger.setLevel(level)
    failed = [n for n, record in enumerate(said.records) if record.getMessage().startswith("Could not")]
    if failed:
        reasons = [record.getMessage() for record in said.records[failed[0] + 1 :][:1]]
        raise MmlaError(
            "the Hub did not take the results",
            why=reasons[0][:500] if reasons else None,
            next="everything is still in --run_dir, if one was named; the same command asks nothing again",
        )


class _Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)
