"""One evaluation from names to numbers: what `mmla run` and `harness_ext.evaluate` do.

The evaluation itself is lm-eval's (`lm_eval.evaluator.evaluate`); here stands what surrounds it: choosing tasks
and data, checking clips before a model is loaded, the journal, and results that can be checked.
"""

from __future__ import annotations

import logging
import os
import random
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from harness_ext.bars import progress_bar
from harness_ext.catalogue import TEXT_SUFFIX, Catalogue, yaml_folder
from harness_ext.clip_check import Probed, check_clips, probe_files
from harness_ext.decoding import decoding
from harness_ext.label_order import LabelOrder
from harness_ext.masking import masked
from harness_ext.plugin import BACKENDS, backend_class, installed
from harness_ext.prefetch import DecodeLimits
from harness_ext.ranks import Ranks
from harness_ext.released import family_named, family_of
from harness_ext.repeats import numbered, over_repeats, refuse_equal_repeats, repeats_of
from harness_ext.requests import ANSWER_MODES
from harness_ext.results import LeftOut, build_results, sample_rows
from harness_ext.run_folder import SAMPLES, RunFolder
from harness_ext.session import Progress, Session, on_this_root, session
from harness_ext.shards import Shard, record
from harness_ext.taskfile import MODALITIES
from mmla_tasks.errors import ClipError, MissingExtraError, MmlaError, ModelError, UsageError, suggest
from mmla_tasks.root import SAMPLE_NOTE

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunOptions:
    """Everything a run can be told; names and meanings are those of ``mmla run``'s flags."""

    model: str
    tasks: Sequence[str]
    model_args: Mapping[str, Any] = field(default_factory=dict)
    include_path: Sequence[Path] = ()
    data_dir: str | None = None
    data_revision: str | None = None
    modality: str | None = None
    answer: str | None = None
    protocol: str = "clean"
    released_family: str | None = None
    """Whose released settings ``protocol="paper"`` reproduces; None: found by the model's config."""
    on_bad_clip: str = "error"
    require_all: bool = False
    run_dir: Path | None = None
    shard: str | None = None
    """``i/n``: the i-th of n parts of the rows, from 1; `mmla merge` puts them together."""
    limit: float | None = None
    samples: Mapping[str, list[int]] | None = None
    num_fewshot: int | None = None
    label_order: str | None = None
    """``declared`` or ``shuffled:SEED``; None: as declared."""
    repeats: int = 1
    """How often everything is asked."""
    batch_size: int | str | None = None
    max_batch_size: int | None = None
    device: str | None = None
    decode_limits: DecodeLimits = field(default_factory=DecodeLimits)
    """Clips decoded at once, and bytes of decoded frames."""
    gen_kwargs: Mapping[str, Any] = field(default_factory=dict)
    system_instruction: str | None = None
    apply_chat_template: bool | str | None = None
    """None: when the model has one."""
    fewshot_as_multiturn: bool | None = None
    """None: when a chat template is applied."""
    seed: Sequence[int | None] = (0, 1234, 1234, 1234)
    """python, numpy, torch, few-shot; lm-eval's defaults."""
    trust_remote_code: bool = False
    metadata: Mapping[str, Any] = field(default_factory=dict)
    predict_only: bool = False
    write_out: bool = False
    command: str | None = None
    """The command line, for the record."""

    def __post_init__(self) -> None:
        if self.answer not in (None, *ANSWER_MODES):
            raise UsageError(f"--answer {self.answer} is not known", choices=", ".join(ANSWER_MODES))
        if self.modality == "text+video+audio" or (self.modality or "").endswith("+audio"):
            raise UsageError("no backend hears yet: +audio is reserved", choices=", ".join(MODALITIES))
        if self.model not in BACKENDS:
            raise ModelError(
                f"`{self.model}` is no backend of mmla",
                hint=suggest(self.model, BACKENDS),
                backends=", ".join(BACKENDS),
                next=f'for lm-eval\'s own: lm_eval --include_path "$(mmla where)" --model {self.model} ...',
            )
        if self.limit is not None and self.samples is not None:
            raise UsageError("--limit and --samples exclude each other", next="leave one of them out")
        if self.limit is not None and not self.limit > 0:
            raise UsageError(f"--limit {self.limit:g} asks for no row", next="write a count, or a share below 1")
        if self.num_fewshot is not None and self.num_fewshot < 0:
            raise UsageError(f"--num_fewshot {self.num_fewshot} is below 0")
        if self.released_family is not None and self.protocol != "paper":
            raise UsageError("--released_family goes with --protocol paper", next="add it, or leave the family out")
        if self.repeats < 1:
            raise UsageError(f"--repeats {self.repeats} asks nothing", next="write a whole number of at least 1")
        if self.shard is not None and self.run_dir is None:
            raise UsageError(f"--shard {self.shard} needs a folder that all shards share", next="--run_dir FOLDER")
        LabelOrder.read(self.label_order)
        decoding(self.gen_kwargs)
        _ = self.part

    @property
    def part(self) -> Shard | None:
        """The shard that this run is."""
        return None if self.shard is None else Shard.read(self.shard)

    @property
    def answer_mode(self) -> str:
        """How answers are had: ``--answer``, else the model argument, else free text."""
        return str(self.answer or self.model_args.get("answer") or "generate")


@dataclass
class RunOutcome:
    """What a run produced."""

    results: dict[str, Any]
    samples: dict[str, list[dict[str, Any]]]
    written: list[Path] = field(default_factory=list)
    found: int = 0
    """Answers that the journal already held."""


def run(options: RunOptions, *, progress: Progress | None = None, announce: Any = None) -> RunOutcome:
    """Evaluate.

    Args:
        options: What to run.
        progress: Where progress is shown; nowhere by default.
        announce: Called with (line: str) for what happens before the first answer.

    Raises:
        MmlaError: anything the user can mend; what was answered before is in the journal.
    """
    ranks = Ranks.of_environment()
    if not ranks.is_first:
        progress = announce = None
    _check_processes(options, ranks)
    say = announce or (lambda line: None)
    clock = _Clock()
    with ExitStack() as stack:
        stack.enter_context(ranks.together())
        folder = stack.enter_context(_open_folder(options, ranks)) if options.run_dir else None
        this = stack.enter_context(prepared(options))
        shown = {name: rows for name, rows in this.asked.items() if this.tasks[name].has_video}
        bad_clips = check_before_load(shown, this.tasks, options, ranks, say)
        clock.lap("tasks")
        made = _make_backend(options)
        if hasattr(made, "close"):
            stack.callback(made.close)
        backend = this.ready(made)
        if folder and ranks.is_first:
            folder.claim()
        clock.lap("load")
        for line in _opening_lines(backend, this.options, folder, this.left_out, ranks):
            say(line)
        active = Session(
            journal=folder.journal if folder else None,
            progress=progress,
            on_bad_clip=options.on_bad_clip,
            bad_clips=bad_clips,
            decode_limits=options.decode_limits,
            ranks=ranks,
        )
        outcome = answered(backend, this, active, say)
        clock.lap("answer and score")
        outcome.results["timings"] = _timings(clock.seconds, active, backend)
        if folder and ranks.is_first:
            outcome.written = write(folder, outcome, this.options)
            if options.shard:
                folder.write_record(record(options, backend, outcome.results))
    return outcome


def answered(backend: Any, this: PreparedRun, active: Session, say: Any) -> RunOutcome:
    """Ask everything, as often as the options say, and score it."""
    with session(active):
        repeats = [
            _ask_and_score(backend, this, repeat, active, say, number)
            for number, repeat in enumerate(repeats_of(this.options))
        ]
    samples = [rows for _, rows in repeats]
    results = over_repeats([results for results, _ in repeats], samples)
    return RunOutcome(results, numbered(samples), found=active.found)


@dataclass
class PreparedRun:
    """Tasks with their documents, before a model is loaded."""

    options: RunOptions
    loaded: dict[str, Any]
    """Tasks and groups, as lm-eval takes them."""
    left_out: list[LeftOut]
    rows: dict[str, list[int]]
    """Leaf name -> the rows that will be asked, from 0."""

    @property
    def asked(self) -> dict[str, list[Any]]:
        """Leaf name -> the documents that will be asked."""
        return {name: [task.eval_docs[row] for row in self.rows[name]] for name, task in self.tasks.items()}

    @property
    def tasks(self) -> dict[str, Any]:
        """Leaf name -> task."""
        tasks: dict[str, Any] = self.loaded["tasks"]
        return tasks

    def ready(self, backend: Any) -> Any:
        """Fit backend and tasks to each other; a released protocol takes its settings from the model's family.

        Raises:
            ModelError: the backend cannot answer these tasks.
            UsageError: the backend cannot do what the options say.
        """
        _fit(backend, self.options, self.tasks, self.asked)
        if self.options.protocol == "paper":
            self.options = _follow_released(backend, self.tasks, self.options)
            refuse_equal_repeats(self.tasks, self.options)
        return backend

    def evaluate(self, backend: Any, options: RunOptions) -> dict[str, Any]:
        """What lm-eval makes of the backend's answers, with the options of one repeat."""
        if options.shard is not None:
            options = replace(options, limit=None, samples=self.rows)
        return _evaluate(backend, self.loaded, options)


@contextmanager
def prepared(options: RunOptions) -> Iterator[PreparedRun]:
    """Load tasks and documents, leave out what has no clips, and choose the rows; lm-eval is quiet meanwhile.

    Raises:
        MmlaError: unknown tasks, bad data, rows that are not there, nothing left to run.
    """
    catalogue = Catalogue.load(options.include_path)
    names = catalogue.resolve(list(options.tasks), options.modality)
    with _quiet_lm_eval(options.write_out):
        loaded = load_tasks(names, options)
        if options.protocol != "paper":  # there the model's family decides whether answers are sampled
            refuse_equal_repeats(loaded["tasks"], options)
        left_out = _leave_out_without_clips(loaded, options, catalogue)
        options = replace(options, samples=_chosen_rows(options, loaded["tasks"], left_out))
        yield PreparedRun(options, loaded, left_out, _asked_rows(loaded, options))


def _ask_and_score(
    backend: Any,
    this: PreparedRun,
    options: RunOptions,
    active: Session,
    say: Any,
    number: int,
) -> tuple[dict[str, Any], dict[str, list[dict[str, Any]]]]:
    """One repeat, counted from 0: its results, and its sample rows by task."""
    _seed(options.seed)
    active.seed = options.seed[2] if len(options.seed) > 2 else None
    for line in _repeat_lines(options, number):
        say(line)
    evaluated = this.evaluate(backend, options)
    results = build_results(evaluated, this.loaded, backend, options, left_out=this.left_out, root=_root(this.tasks))
    note = SAMPLE_NOTE if results["mmla"]["notes"][:1] == [SAMPLE_NOTE] else None
    return results, {task: list(sample_rows(rows, note)) for task, rows in evaluated["samples"].items()}


def _open_folder(options: RunOptions, ranks: Ranks) -> RunFolder:
    assert options.run_dir is not None
    return RunFolder(options.run_dir, _folder_identity(options), shard=options.part, ranks=ranks)


def _folder_identity(options: RunOptions) -> dict[str, Any]:
    """What all answers of a folder share. Tasks, limit, batch size and device may change from command to command."""
    return {
        "model": options.model,
        "model_args": binding_arguments(options),
        "answer": options.answer_mode,
        "protocol": options.protocol,
        "released_family": options.released_family,
        "modality": options.modality or "as the tasks say",
        "decoding": dict(options.gen_kwargs),
        "num_fewshot": options.num_fewshot or 0,
        "fewshot_seed": options.seed[-1],
        "chat_template": options.apply_chat_template,
        "system_instruction": options.system_instruction,
        **({"label_order": order} if (order := _shuffled(options)) else {}),
    }


def binding_arguments(options: RunOptions) -> dict[str, Any]:
    """The model arguments in which the commands of one run folder must agree.

    A backend names others, which change no answer, in its `FREE_ARGUMENTS`.
    """
    free = ("batch_size", "max_batch_size", "device", "answer")
    free += tuple(getattr(backend_class(options.model), "FREE_ARGUMENTS", ()))
    return masked({name: value for name, value in options.model_args.items() if name not in free})


# ------------------------------------------------------------------------------------------------ tasks and clips


def load_tasks(names: Sequence[str], options: RunOptions) -> dict[str, Any]:
    """Build tasks and groups with lm-eval, from our YAMLs alone: scanning its own tree takes half a minute."""
    from lm_eval.tasks import TaskManager

    from harness_ext.task import RunChoices

    choices = RunChoices(
        data_dir=options.data_dir,
        data_revision=options.data_revision,
        modality=options.modality,
        protocol=options.protocol,
        released_family=options.released_family,
        on_bad_clip=options.on_bad_clip,
        label_order=_shuffled(options),
    )
    manager = TaskManager(
        include_path=[str(yaml_folder()), *(str(p.resolve()) for p in options.include_path)],
        include_defaults=False,
        metadata={**options.metadata, **choices.to_metadata()},
    )
    loaded: dict[str, Any] = manager.load(list(names))
    return loaded


def _shuffled(options: RunOptions) -> str | None:
    """The label order of a run that does not take the declared one."""
    order = LabelOrder.read(options.label_order)
    return str(order) if order.is_shuffled else None


def _leave_out_without_clips(loaded: dict[str, Any], options: RunOptions, catalogue: Catalogue) -> list[LeftOut]:
    """Take out tasks none of whose clips is there, and say so; with ``--require_all`` that is an error."""
    from mmla_tasks.documents import clip_counts

    left_out = []
    for name, task in list(loaded["tasks"].items()):
        if not task.has_video:
            continue
        present, missing = clip_counts(task.eval_docs)
        if missing and not present:
            source = task.dataset_files.source
            step = source.next_step_for_videos if source else f"put clips into {task.dataset_files.clips}"
            left_out.append(LeftOut(name, task.spec.dataset, f"none of {missing:,} clips is there", step))
            _take_out(name, loaded)
    if left_out and (options.require_all or not loaded["tasks"]):
        raise UsageError(
            "nothing left to run" if not loaded["tasks"] else "--require_all: some tasks have no clips",
            {item.task: f"{item.why}; {on_this_root(item.next_step, options.data_dir)}" for item in left_out},
            next="bring the clips, or ask without video: --modality text",
        )
    _drop_empty_groups(loaded["groups"])
    return left_out


def _drop_empty_groups(groups: dict[str, Any]) -> None:
    for name in [name for name, group in groups.items() if not group.get_all_tasks()]:
        del groups[name]
        for group in groups.values():
            group.pop(name)


def _asked_rows(loaded: dict[str, Any], options: RunOptions) -> dict[str, list[int]]:
    """Leaf name -> the rows that will be asked, after ``--limit``, ``--samples`` and ``--shard``, in order.

    A task that has fewer rows than there are shards is taken out of those that get none.
    """
    from lm_eval.evaluator_utils import get_sample_size

    asked = {}
    for name, task in list(loaded["tasks"].items()):
        limit = get_sample_size(task, options.limit)
        rows = list(range(len(task.eval_docs)))[: None if limit is None else int(limit)]
        if options.samples is not None:
            rows = sorted(set(options.samples[name]))
        asked[name] = options.part.of(rows) if options.part else rows
        if options.part and not asked[name]:
            _take_out(name, loaded)
    if not loaded["tasks"]:
        raise UsageError(f"no row is left for {options.part}", next="split the run into fewer shards")
    _drop_empty_groups(loaded["groups"])
    return {name: asked[name] for name in loaded["tasks"]}


def _take_out(name: str, loaded: dict[str, Any]) -> None:
    del loaded["tasks"][name]
    for group in loaded["groups"].values():
        group.pop(name)


def _chosen_rows(
    options: RunOptions, tasks: Mapping[str, Any], left_out: Sequence[LeftOut]
) -> dict[str, list[int]] | None:
    """Check ``--samples`` against the tasks: lm-eval would run all rows of a task that it does not name.

    Returns:
        Leaf name -> row numbers, under the names of the tasks that run; None without ``--samples``.
    """
    if options.samples is None:
        return None
    gone = {item.task for item in left_out}
    chosen = {_running_name(name, tasks, options): rows for name, rows in options.samples.items() if name not in gone}
    for name, rows in chosen.items():
        if name not in tasks:
            raise UsageError(
                f"--samples names {name}, which is not run", hint=suggest(name, tasks), runs=", ".join(tasks)
            )
        count = len(tasks[name].eval_docs)
        bad = [row for row in rows if not isinstance(row, int) or isinstance(row, bool) or not 0 <= row < count]
        if not rows or bad:
            why = f"row {bad[0]!r}" if bad else "no row"
            raise UsageError(f"--samples asks for {why} of {name}", rows=f"0 to {count - 1}")
    unnamed = [name for name in tasks if name not in chosen]
    if unnamed:
        raise UsageError(f"--samples names no rows of {', '.join(unnamed)}", next="name rows, or leave the task out")
    return chosen


def _running_name(name: str, tasks: Mapping[str, Any], options: RunOptions) -> str:
    twin = name + TEXT_SUFFIX
    return twin if options.modality == "text" and name not in tasks and twin in tasks else name


def check_before_load(
    shown: Mapping[str, Sequence[Any]], tasks: Mapping[str, Any], options: RunOptions, ranks: Ranks, say: Any
) -> Mapping[str, ClipError]:
    """Find bad clips before a model is loaded, so that a run does not fail after hours.

    Args:
        shown: Task -> documents whose clips will be shown.
        tasks: Task name -> task.
        options: Of the run: backend, policy, workers.
        ranks: Who share the files.
        say: Told how many are bad, where that does not end the run.

    Returns:
        File -> what is wrong with it, where the policy is not ``error``.

    Raises:
        ClipError: the policy is ``error`` and a clip is missing, empty, or without a frame by its packets.
    """
    opens = getattr(backend_class(options.model), "OPENS_CLIPS", True)
    checked = check_clips(shown, partial(_probed, options, ranks, say) if opens else lambda paths: {})
    if not checked.bad:
        return {}
    if options.on_bad_clip == "error":
        raise checked.error({name: task.spec.dataset for name, task in tasks.items()}, options.data_dir)
    then = "left out" if options.on_bad_clip == "skip" else "asked without video"
    say(f"{len(checked.bad):,} of {checked.clips:,} clips are bad ({checked.counts}): their rows are {then}")
    return checked.by_path


def _probed(options: RunOptions, ranks: Ranks, say: Any, paths: Sequence[str]) -> Mapping[str, Probed]:
    """What is known of clip files; every rank looks at its part of them."""
    mine = ranks.share(list(dict.fromkeys(paths)))
    found: dict[str, Probed] = {}
    with progress_bar("looking at clips", "clip", ranks.is_first) as on_progress:
        try:
            found = probe_files(mine, workers=options.decode_limits.workers, on_progress=on_progress)
        except MissingExtraError:
            say("clips are not looked into, for PyAV is not installed: a broken one shows when it is reached")
    return {path: probed for part in ranks.gather(found) for path, probed in part.items()}


def _root(tasks: Mapping[str, Any]) -> Any:
    return next((task.root for task in tasks.values() if task.root is not None), None)


# -------------------------------------------------------------------------------------------------------- backend


def _check_processes(options: RunOptions, ranks: Ranks) -> None:
    """Refuse several processes of a backend that spreads by itself, before they wait for each other."""
    spread = getattr(backend_class(options.model), "own_parallel", None)
    if ranks.count > 1 and spread:
        raise UsageError(
            f"{options.model} spreads over devices by itself: start it once, not as {ranks.count} processes",
            next=f"mmla run --model {options.model} --model_args {spread}",
        )


def _make_backend(options: RunOptions) -> Any:
    made = backend_class(options.model)
    args = {**options.model_args, **_run_wide(options)}
    given = {"batch_size": options.batch_size, "max_batch_size": options.max_batch_size, "device": options.device}
    _seed(options.seed)
    with installed(options.model):
        return made.create_from_arg_obj(args, given)


def _fit(backend: Any, options: RunOptions, tasks: Mapping[str, Any], asked: Mapping[str, list[Any]]) -> None:
    """Refuse a backend that cannot answer these tasks, and let it see them."""
    if options.repeats > 1 and not getattr(backend, "REPEATABLE", True):
        raise UsageError(f"--repeats {options.repeats}: {options.model} answers the same each time", next="--repeats 1")
    video = [name for name, task in tasks.items() if task.has_video]
    if video and not getattr(backend, "MULTIMODAL", False):
        raise ModelError(
            f"the model takes no video, which {video[0]} shows",
            model=options.model_args.get("pretrained", options.model),
            also=f"{len(video) - 1} more tasks" if len(video) > 1 else None,
            next=_without_video(options),
        )
    if hasattr(backend, "prepare"):
        backend.prepare(tasks, {name: [d["id"] for d in documents] for name, documents in asked.items()})


def _follow_released(backend: Any, tasks: Mapping[str, Any], options: RunOptions) -> RunOptions:
    """Set wording, frames and decoding as the released code does for this family of models.

    Returns:
        The options with its name and its system prompt, where a chat template can hold one and none was given.
    """
    config = getattr(backend, "model_config", None)
    family = family_named(options.released_family) if options.released_family else family_of(config)
    own = backend.checkpoint_decoding() if family.own_decoding and hasattr(backend, "checkpoint_decoding") else {}
    for task in tasks.values():
        task.follow(family, own)
    if hasattr(backend, "follow"):
        backend.follow(family)
    system = family.system if chat_template_applied(backend, options) else None
    given = options.system_instruction
    return replace(options, released_family=family.name, system_instruction=system if given is None else given)


def _without_video(options: RunOptions) -> str:
    """How to ask the same without video: the text twins by name, where there are any."""
    known = Catalogue.load(options.include_path).files
    twins = [name + TEXT_SUFFIX for name in options.tasks if name + TEXT_SUFFIX in known]
    named = f"--tasks {' '.join(twins)}      or " if len(twins) == len(options.tasks) else ""
    return f"{named}--modality text"


def _run_wide(options: RunOptions) -> dict[str, Any]:
    """What every backend is told besides its own arguments."""
    told: dict[str, Any] = {"answer": options.answer_mode, "on_bad_clip": options.on_bad_clip}
    return {**told, "trust_remote_code": True} if options.trust_remote_code else told


def _seed(seeds: Sequence[int | None]) -> None:
    python, numpy_seed, torch_seed = (*seeds, None, None, None)[:3]
    if python is not None:
        random.seed(python)
    if numpy_seed is not None:
        import numpy as np

        np.random.seed(numpy_seed)
    torch = sys.modules.get("torch")  # never imported for its seed alone
    if torch_seed is not None and torch is not None:
        torch.manual_seed(torch_seed)


# ------------------------------------------------------------------------------------------------------- lm-eval


def _evaluate(backend: Any, loaded: Mapping[str, Any], options: RunOptions) -> dict[str, Any]:
    from lm_eval.evaluator import evaluate as lm_evaluate

    for task in loaded["tasks"].values():
        if options.gen_kwargs:
            task.set_config("generation_kwargs", decoding(task.config.generation_kwargs, options.gen_kwargs))
        if options.num_fewshot is not None:
            task.set_config("num_fewshot", options.num_fewshot)
        task.set_fewshot_seed(options.seed[-1])
        task.choices = replace(task.choices, label_order=_shuffled(options))
    chat = chat_template_applied(backend, options)
    multiturn = options.fewshot_as_multiturn if options.fewshot_as_multiturn is not None else chat
    results: dict[str, Any] = lm_evaluate(
        lm=backend,
        task_dict=dict(loaded),
        limit=options.limit,
        samples=dict(options.samples) if options.samples is not None else None,
        log_samples=True,
        write_out=options.write_out,
        system_instruction=options.system_instruction,
        apply_chat_template=chat,
        fewshot_as_multiturn=multiturn,
    )
    for rows in results["samples"].values():
        rows.sort(key=lambda row: row["doc_id"])
    return results


def chat_template_applied(backend: Any, options: RunOptions) -> bool:
    """Whether prompts pass through a chat template: as asked, else when the model has one."""
    if options.apply_chat_template is None:
        return bool(getattr(backend, "has_chat_template", False))
    if options.apply_chat_template and isinstance(options.apply_chat_template, str):
        backend.chat_template(options.apply_chat_template)
    return bool(options.apply_chat_template)


@contextmanager
def _quiet_lm_eval(write_out: bool) -> Iterator[None]:
    """lm-eval shows a tqdm bar and log lines per task; progress and the end table say it once."""
    import lm_eval.api.task as lm_eval_task

    def plain(iterable: Any, *args: Any, **kwargs: Any) -> Any:
        return iterable

    logger = logging.getLogger("lm_eval")
    shown, level = lm_eval_task.tqdm, logger.level
    lm_eval_task.tqdm = plain
    logger.setLevel(os.environ.get("LMEVAL_LOG_LEVEL", "INFO" if write_out else "ERROR"))
    if write_out and not logging.getLogger().handlers:
        logging.basicConfig(format="%(message)s")
    try:
        yield
    finally:
        lm_eval_task.tqdm = shown
        logger.setLevel(level)


# ------------------------------------------------------------------------------------------------------- the rest


def _opening_lines(
    backend: Any, options: RunOptions, folder: RunFolder | None, left_out: Sequence[LeftOut], ranks: Ranks
) -> Iterator[str]:
    described = backend.describe() if hasattr(backend, "describe") else options.model
    protocol = f"{options.protocol} ({options.released_family})" if options.released_family else options.protocol
    shuffled = _shuffled(options)
    order = f"  labels {shuffled}" if shuffled else ""
    yield f"{described}  answers: {options.answer_mode}  protocol: {protocol}{order}"
    if folder:
        count = folder.journal.torn_lines
        torn = f" ({count} torn line{'s' * (count > 1)} left aside)" if count else ""
        answers = "1 answer" if len(folder.journal) == 1 else f"{len(folder.journal):,} answers"
        yield f"journal  {folder.journal.folder}   {answers} found{torn}"
    if options.part:
        yield f"{options.part}: a part of the rows; when all have run: mmla merge {options.run_dir}"
    if ranks.count > 1:
        yield f"{ranks.count} processes share the requests; the progress shown is that of the first"
    for item in left_out:
        yield f"left out {item.task}: {item.why}; {on_this_root(item.next_step, options.data_dir)}"


def _repeat_lines(repeat: RunOptions, number: int) -> Iterator[str]:
    if repeat.repeats > 1:
        order = LabelOrder.read(repeat.label_order)
        yield f"repeat {number + 1} of {repeat.repeats}   labels {order}, torch seed {repeat.seed[2]}"


def write(folder: RunFolder, outcome: RunOutcome, options: RunOptions) -> list[Path]:
    """Write samples, results and score card; with ``--predict_only`` the samples alone."""
    from harness_ext.reports.scorecard import score_card

    asked = {task: counts["effective"] for task, counts in outcome.results["n-samples"].items()}
    folder.keep_earlier(asked, repeats=options.repeats)
    for task, rows in outcome.samples.items():
        folder.write_samples(task, rows)
    samples = folder.output / SAMPLES
    if options.predict_only:
        return [samples]
    return [folder.write_results(outcome.results), samples, folder.write_score_card(score_card(outcome.results))]


def _timings(laps: Mapping[str, float], active: Session, backend: Any) -> dict[str, Any]:
    """Wall time in seconds, by stage of the run and by stage of an answer, and how many questions that is a second."""
    stages = dict(active.timings.seconds)
    answer = stages.pop("answer", 0.0)
    waits = {"decode waits": round(backend.decode_wait_seconds, 3)} if hasattr(backend, "decode_wait_seconds") else {}
    return {
        "total": laps["total"],
        "tasks": laps["tasks"],
        "load": laps["load"],
        "answer": round(answer, 3),
        "score": round(laps["answer and score"] - answer, 3),
        "stages of answer": {**{stage: round(seconds, 3) for stage, seconds in stages.items()}, **waits},
        "questions a second": round(active.asked / answer, 3) if active.asked else None,
    }


class _Clock:
    """Wall time by stage, in seconds."""

    def __init__(self) -> None:
        self._started = self._last = time.perf_counter()
        self.seconds: dict[str, float] = {}

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.seconds[stage] = round(self.seconds.get(stage, 0.0) + now - self._last, 3)
        self.seconds["total"] = round(now - self._started, 3)
        self._last = now


def evaluate(model: str, tasks: Sequence[str] | str, **options: Any) -> dict[str, Any]:
    """Do what ``mmla run`` does, from Python.

    Args:
        model: Backend name, such as ``mmla-hf``.
        tasks: Task and group names.
        **options: Any field of `RunOptions`, such as ``model_args={"pretrained": "..."}``, ``data_dir="sample"``,
            ``answer="rank"``, ``limit=10``, ``run_dir=Path("runs/x")``.

    Returns:
        The content of results.json, with the samples per task under ``samples``.

    Raises:
        MmlaError: anything the caller can mend.

    Example:
        >>> results = evaluate("mmla-echo", "mmla_intent_text", data_dir="sample", limit=2)  # doctest: +SKIP
    """
    names = tasks.split(",") if isinstance(tasks, str) else list(tasks)
    if isinstance(options.get("model_args"), str):
        from lm_eval.utils import simple_parse_args_string

        options["model_args"] = simple_parse_args_string(options["model_args"])
    unknown = [name for name in options if name not in RunOptions.__dataclass_fields__]
    if unknown:
        raise UsageError(
            f"evaluate() has no option `{unknown[0]}`", hint=suggest(unknown[0], RunOptions.__dataclass_fields__)
        )
    if "run_dir" in options and options["run_dir"] is not None:
        options["run_dir"] = Path(options["run_dir"])
    if "include_path" in options:
        given = options["include_path"]
        options["include_path"] = [Path(given)] if isinstance(given, (str, Path)) else [Path(p) for p in given]
    outcome = run(RunOptions(model=model, tasks=names, **options))
    return {**outcome.results, "samples": outcome.samples}


__all__ = ["MmlaError", "RunOptions", "RunOutcome", "evaluate", "run"]
