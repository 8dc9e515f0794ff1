"""The one task class: everything that MMLA tasks share, so that a task stays a short YAML.

`LabelTask` extends lm-eval's `ConfigurableTask` (0.4.13) and is built by stock ``lm_eval`` as well, through
``class: !function harness_ext.task.LabelTask``. Run-time choices reach it through lm-eval's task metadata.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from lm_eval.api.filter import Filter, FilterEnsemble
from lm_eval.api.instance import Instance
from lm_eval.api.metrics import mean
from lm_eval.api.samplers import ContextSampler
from lm_eval.api.task import ConfigurableTask

from harness_ext.bars import progress_bar
from harness_ext.catalogue import packaged_labels, refuse_faults
from harness_ext.decoding import decoding
from harness_ext.frame_policy import FramePolicy
from harness_ext.label_order import LabelOrder
from harness_ext.prompts import (
    PROMPT,
    PROMPT_TEXT,
    PROMPT_VIDEO,
    PROTOCOLS,
    answer_form,
    answer_prefix,
    render,
)
from harness_ext.released import COMMON, Family, family_named
from harness_ext.requests import BAD_CLIP_POLICIES, Request
from harness_ext.session import reads_clips
from harness_ext.taskfile import MODALITIES, OWN_KEYS, TaskFile, dataset_beside
from mmla_tasks.answers import parse_answer
from mmla_tasks.documents import Dataset, Documents, Split
from mmla_tasks.errors import DataError, UsageError
from mmla_tasks.records import Answer, Document
from mmla_tasks.root import DataRoot
from mmla_tasks.scorers import METRICS, score_document

TASK_VERSION = 1
"""Raised whenever a change to prompts, parsing or scoring changes results."""

HIDDEN_METRIC = "acc_mean"
"""Equal to `acc` in a leaf; lm-eval keeps one value per metric name and group, so the plain mean needs its own."""


@dataclass(frozen=True)
class TaskSpec:
    """The YAML keys that are ours, checked."""

    task: str
    dataset: str
    dimension: str
    labels: tuple[str, ...]
    modality: str = MODALITIES[0]
    prompt: str = PROMPT
    prompt_text: str = PROMPT_TEXT
    prompt_video: str = PROMPT_VIDEO
    released_prompt_labels: tuple[str, ...] = ()

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> TaskSpec:
        """Take our keys out of a YAML's.

        Raises:
            TaskFileError: all faults of these keys at once.
        """
        source = (config.get("metadata") or {}).get("config_source", "inline")
        known = {k: v for k, v in config.items() if k in OWN_KEYS | {"task"} and v is not None}
        refuse_faults(TaskFile(Path(str(source)), known))
        for key in ("labels", "released_prompt_labels"):
            if key in known:
                known[key] = tuple(known[key])
        return cls(**known)


@dataclass(frozen=True)
class RunChoices:
    """What a run chooses for all its tasks; travels in lm-eval's task metadata."""

    data_dir: str | None = None
    data_revision: str | None = None
    modality: str | None = None
    protocol: str = "clean"
    released_family: str | None = None
    """Whose released settings `paper` reproduces; None until the model is known."""
    on_bad_clip: str = "error"
    label_order: str | None = None
    """None: as declared."""

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any]) -> RunChoices:
        """Read the choices out of task metadata; keys of others are ignored.

        Raises:
            UsageError: a value that is not one of the choices.
        """
        names = cls.__dataclass_fields__
        choices = cls(**{k: v for k, v in metadata.items() if k in names and v is not None})
        allowed = {"modality": (None, *MODALITIES), "protocol": PROTOCOLS, "on_bad_clip": BAD_CLIP_POLICIES}
        for name, values in allowed.items():
            if getattr(choices, name) not in values:
                listed = ", ".join(str(v) for v in values if v)
                raise UsageError(f"{name} `{getattr(choices, name)}` is not known", choices=listed)
        LabelOrder.read(choices.label_order)
        if choices.protocol == "paper" and choices.modality == "video":
            raise UsageError(
                "the released code always shows the text: it has no video-only prompt",
                next="leave out --protocol paper, or --modality video",
            )
        if choices.released_family is not None:
            family_named(choices.released_family)
        return choices

    def to_metadata(self) -> dict[str, Any]:
        """The choices that say something, for ``TaskManager(metadata=...)``."""
        return {k: getattr(self, k) for k in self.__dataclass_fields__ if getattr(self, k) is not None}


@dataclass(frozen=True)
class Wording:
    """How a task asks under the choices of a run: all that a question depends on but its document."""

    spec: TaskSpec
    modality: str
    protocol: str
    family: Family
    label_order: str | None

    @property
    def dimension(self) -> str:
        """The word for what is asked, as prompt and answer form write it."""
        return self.family.dimension(self.spec.dimension) if self.protocol == "paper" else self.spec.dimension

    @property
    def prompt_labels(self) -> tuple[str, ...]:
        """The labels that the prompt lists, in its order."""
        as_released = self.protocol == "paper" and not self.family.all_labels
        labels = (self.spec.released_prompt_labels if as_released else ()) or self.spec.labels
        return LabelOrder.read(self.label_order).arrange(labels, self.spec.dataset)

    def template(self, with_video: bool) -> str:
        """The Jinja template, with one ``<video>`` place where a clip is shown."""
        if self.protocol == "paper":
            return self.family.prompt(self.spec.dataset, with_video)
        if not with_video:
            return self.spec.prompt_text
        return self.spec.prompt_video if self.modality == "video" else self.spec.prompt

    def values(self, doc: Mapping[str, Any]) -> dict[str, Any]:
        """What a template may name."""
        return {**doc, "labels": self.prompt_labels, "dimension": self.dimension}

    def question(self, doc: Mapping[str, Any], with_video: bool) -> str:
        """The prompt of a document, without examples and chat template."""
        return render(self.template(with_video), self.values(doc))


@dataclass
class LabelInstance(Instance):  # type: ignore[misc]
    """lm-eval's instance together with the request that a backend of ours answers."""

    request: Request | None = field(default=None, repr=False)


class LabelFilter(Filter):  # type: ignore[misc]
    """Turns raw answers into `Answer`s: the one filter of every task.

    Args:
        labels: The closed label list.
        dimension: Names the requested answer form.
        rule: The rule whose label is used, ``clean`` or ``released``; the other is recorded beside it.
    """

    def __init__(self, labels: Sequence[str], dimension: str, rule: str = "clean", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.labels = tuple(labels)
        self.dimension = dimension
        self.rule = rule

    def apply(self, resps: Sequence[Sequence[str]], docs: Sequence[Document]) -> list[Answer]:
        """Parse the first response of each document."""
        return [self.parse(responses[0]) for responses in resps]

    def parse(self, response: str) -> Answer:
        """Parse one raw answer; a `Response` also tells whether it was cut or never asked."""
        if getattr(response, "skipped", False):
            return Answer("unknown", outcome="skipped", rule=None, raw="", released="unknown")
        truncated = bool(getattr(response, "truncated", False))
        rule: Any = self.rule
        return parse_answer(str(response), self.labels, dimension=self.dimension, truncated=truncated, rule=rule)


class DocumentSampler(ContextSampler):  # type: ignore[misc]
    """Draws few-shot examples per document, so that they do not depend on process, limit or order.

    lm-eval draws from one stream per task and process: other prompts under two processes and under ``--samples``.
    """

    def __init__(self, task: LabelTask) -> None:
        self.task = task
        self.seed: int | None = 1234  # lm-eval's default few-shot seed
        self.document: Document | None = None

    def set_rnd(self, rnd: int | None) -> DocumentSampler:
        """Take lm-eval's few-shot seed."""
        self.seed = rnd
        return self

    def sample(self, n: int, eval_doc: Any = None, df: Any = None, **kwargs: Any) -> list[Document]:
        """Draw `n` training documents for the document set last.

        Raises:
            DataError: the train split is absent or smaller than `n`.
        """
        if n == 0 or self.document is None:
            return []
        document = self.document
        pool = [
            d for d in self.task.split("train", asked_by=f"--num_fewshot {n}").documents if d["id"] != document["id"]
        ]
        if len(pool) < n:
            raise DataError(
                f"--num_fewshot {n} asks for more examples than {self.task.spec.dataset} has in train ({len(pool)})",
                task=self.task.spec.task,
            )
        return random.Random(f"{self.seed}:{self.task.spec.dataset}:{document['id']}").sample(pool, n)


class _LazySplits(Mapping[str, Documents]):
    """Split name -> documents, read when asked for. An absent train or dev split is empty here."""

    def __init__(self, task: LabelTask) -> None:
        self.task = task

    def __getitem__(self, split: str) -> Documents:
        if split != "test" and not self.task.dataset_files.has(split):
            return Documents()
        return self.task.split(split).documents

    def __iter__(self) -> Iterator[str]:
        return iter(self.task.dataset_files.files)

    def __len__(self) -> int:
        return len(self.task.dataset_files.files)


class LabelTask(ConfigurableTask):  # type: ignore[misc]
    """A closed-label question about a speaker, asked per document and parsed to one label.

    Args:
        config: The merged YAML with lm-eval's `metadata`.

    Attributes:
        spec: Our keys of the YAML.
        choices: What the run chose.
        root: Where texts and clips come from.
    """

    VERSION = TASK_VERSION

    def __init__(self, config: dict[str, Any]) -> None:
        self.spec = TaskSpec.from_config(config)
        self.metadata = dict(config.get("metadata") or {})
        self.choices = RunChoices.from_metadata(self.metadata)
        self.modality = self._modality()
        self.family = family_named(self.choices.released_family or COMMON.name)
        self._splits: dict[str, Split] = {}
        self._fallback: str | None = None
        self._images: FramePolicy | None = None
        super().__init__(config=self._lm_eval_config(config))
        self.sampler = DocumentSampler(self)
        parse = partial(LabelFilter, self.spec.labels, self.spec.dimension, rule=self.parsing_rule)
        self._filters = [FilterEnsemble("none", [parse])]

    @property
    def parsing_rule(self) -> str:
        """The rule whose label stands in the results."""
        return "released" if self.choices.protocol == "paper" else "clean"

    @property
    def has_video(self) -> bool:
        """Whether the model is shown a clip."""
        return self.modality != "text"

    @property
    def wording(self) -> Wording:
        """How it asks, as things stand."""
        choices = self.choices
        return Wording(self.spec, self.modality, choices.protocol, self.family, choices.label_order)

    @property
    def dimension(self) -> str:
        """The word for what is asked, as prompt and answer form write it."""
        return self.wording.dimension

    @property
    def prompt_labels(self) -> tuple[str, ...]:
        """The labels that the prompt lists, in its order."""
        return self.wording.prompt_labels

    def follow(self, family: Family, own_decoding: Mapping[str, Any]) -> None:
        """Ask as the released code asks this family of models (``--protocol paper``).

        Args:
            family: Its wording and decoding.
            own_decoding: The checkpoint's own generation arguments, which some families leave in force.
        """
        self.family = family
        self.choices = replace(self.choices, released_family=family.name)
        self.set_config("generation_kwargs", decoding(self.config.generation_kwargs, own_decoding, family.decoding))

    # ------------------------------------------------------------------ data

    def download(self, dataset_kwargs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Find the files; called by lm-eval while the task is built. Rows are read on first use."""
        self.dataset_files = self._find_dataset()
        self.dataset = _LazySplits(self)

    def _find_dataset(self) -> Dataset:
        self.root: DataRoot | None = None
        source = Path(str(self.metadata.get("config_source", "inline")))
        beside = dataset_beside(source, self.spec.dataset) if source.suffix in (".yaml", ".yml") else None
        if beside is not None:
            return beside
        self.root = DataRoot.choose(self.choices.data_dir, self.choices.data_revision)
        return self._in_root(self.root, "test")

    def _in_root(self, root: DataRoot, split: str) -> Dataset:
        """Find the files under the data root; of the sample, the clips of one split are drawn."""
        with progress_bar(f"drawing sample clips of {self.spec.dataset}", "clip") as on_progress:
            return root.dataset(
                self.spec.dataset,
                labels_of=packaged_labels,
                with_clips=self.has_video,
                splits=(split,),
                on_progress=on_progress,
            )

    def draw_clips(self, split: str) -> None:
        """Draw the sample's clips of a split, those that are not there yet; no other data has clips to draw.

        Those of the test split are there when the task is built.
        """
        if self.root is not None and self.root.is_sample:
            self._in_root(self.root, split)

    def split(self, name: str, *, asked_by: str = "") -> Split:
        """Read one split, once.

        Raises:
            DataError: it is absent (naming `asked_by`) or has faults.
        """
        if name not in self._splits:
            self._splits[name] = self.dataset_files.read(
                name,
                labels=self.spec.labels,
                dimension=self.spec.dimension,
                with_clips=self.has_video,
                asked_by=asked_by or self.spec.task,
            )
        return self._splits[name]

    def fewshot_docs(self) -> None:
        """Nothing yet: examples are read when few-shot asks for them."""
        return None

    # ---------------------------------------------------------------- prompt

    def build_all_requests(self, **kwargs: Any) -> None:
        """Make prompts and requests; for a model that is none of ours a clip becomes images.

        Raises:
            UsageError: the metadata asks for what images do not allow.
            ClipError: a clip that is to be shown as images is missing.
        """
        self._images = self._image_policy() if self.has_video and not reads_clips() else None
        super().build_all_requests(**kwargs)

    def _image_policy(self) -> FramePolicy:
        from harness_ext.lazy_images import image_policy

        return image_policy(self.metadata)

    def doc_to_text(self, doc: Document, doc_to_text: Any = None) -> str:
        """Render the prompt of a document; one ``<video>`` place, or one for each image, when it has a clip to show."""
        with_video = self.has_video and doc["clip"] is not None
        return render(self._template(with_video), self.wording.values(doc))

    def doc_to_target(self, doc: Document, doc_to_target: Any = None) -> str:
        """The answer in the requested form: few-shot target and training target."""
        return answer_form(self.dimension, doc["label"])

    def doc_to_image(self, doc: Document, doc_to_image: Any = None) -> dict[str, Any] | None:
        """The clip reference as a plain dict, or its images (`ClipImages`); nothing is opened."""
        if doc["clip"] is None or self._images is None:
            return dict(doc["clip"]) if doc["clip"] is not None else None
        from harness_ext.lazy_images import clip_images

        return clip_images(doc["clip"], self._images, self.spec.task, doc["id"])

    def _template(self, with_video: bool) -> str:
        template = self.wording.template(with_video)
        if self._images is None:
            return template
        from harness_ext.lazy_images import with_image_places

        return with_image_places(template, self._images)

    def fewshot_context(self, doc: Document, num_fewshot: int, *args: Any, **kwargs: Any) -> str:
        """Build the whole prompt as lm-eval does, with examples drawn for this document.

        Raises:
            UsageError: few-shot examples for a task with video.
        """
        if num_fewshot and self.has_video:
            raise UsageError(
                f"--num_fewshot {num_fewshot} is for text tasks; {self.spec.task} shows video",
                next=f"--modality text      asks {self.spec.task} without video",
            )
        self.sampler.document = doc
        context: str = super().fewshot_context(doc, num_fewshot, *args, **kwargs)
        self._fallback = self._without_video(doc, *args, **kwargs) if self.choices.on_bad_clip == "text" else None
        return context

    def _without_video(self, doc: Document, *args: Any, **kwargs: Any) -> str | None:
        """The same question asked without video, for ``--on_bad_clip text``; None where there is none to begin with."""
        if doc["clip"] is None:
            return None
        context: str = super().fewshot_context({**doc, "clip": None}, 0, *args, **kwargs)
        return context

    def construct_requests(self, doc: Document, ctx: str, **kwargs: Any) -> LabelInstance:
        """Make lm-eval's instance, carrying the `Request` that our backends answer."""
        chat = bool(kwargs.pop("apply_chat_template", False))
        kwargs.pop("chat_template", None)
        gen_kwargs = deepcopy(self.config.generation_kwargs)
        clip = doc["clip"] if self.has_video else None
        request = Request(
            task=self.spec.task,
            id=doc["id"],
            prompt=ctx,
            labels=self.spec.labels,
            answer_prefix=answer_prefix(self.dimension),
            gen_kwargs=gen_kwargs,
            clip=clip,
            chat=chat,
            fallback=self._fallback if clip else None,
            version=TASK_VERSION,
            gold=doc["label"],
        )
        visual = ({"visual": self.doc_to_image(doc)},) if self.has_video else ()
        return LabelInstance(
            request_type=self.OUTPUT_TYPE,
            doc=doc,
            arguments=(ctx, gen_kwargs, *visual),
            idx=0,
            request=request,
            **kwargs,
        )

    # --------------------------------------------------------------- scoring

    def process_results(self, doc: Document, results: Sequence[Any]) -> dict[str, Any]:
        """Per-document values: pairs of gold and answer, which `aggregation` reduces. A skipped one has none."""
        answer = results[0]
        if answer.outcome == "skipped":
            return {}
        hit = float(answer == doc["label"])
        values: dict[str, Any] = {"acc": hit, HIDDEN_METRIC: hit}
        for name, metric in METRICS.items():
            if name != "acc":
                values[name] = score_document(doc["label"], answer, released=metric.released)
        return values

    def aggregation(self) -> dict[str, Any]:
        """Metric name -> function from per-document values to the corpus number."""
        functions: dict[str, Any] = {"acc": mean, HIDDEN_METRIC: mean}
        for name, metric in METRICS.items():
            if name != "acc":
                functions[name] = partial(_reduce, metric.function, self.spec.labels)
        return functions

    def higher_is_better(self) -> dict[str, bool]:
        """Metric name -> direction."""
        return {HIDDEN_METRIC: True, **{name: metric.higher_is_better for name, metric in METRICS.items()}}

    # ------------------------------------------------------------------ about

    def dump_config(self) -> dict[str, Any]:
        """The task as it ran, for the results: plain values, no code, no secrets."""
        config = self.config
        return {
            "task": self.spec.task,
            "task_alias": config.task_alias or self.spec.task,
            "dataset": self.spec.dataset,
            "dimension": self.spec.dimension,
            "labels": list(self.spec.labels),
            "modality": self.modality,
            "prompt": self._template(self.has_video),
            "answer_form": answer_form(self.dimension, "{label}"),
            "output_type": self.OUTPUT_TYPE,
            "num_fewshot": config.num_fewshot or 0,
            "fewshot_delimiter": config.fewshot_delimiter,
            "target_delimiter": config.target_delimiter,
            "description": config.description,
            "generation_kwargs": dict(config.generation_kwargs),
            "metadata": {
                "version": self.VERSION,
                **{k: v for k, v in self.choices.to_metadata().items() if k != "data_dir"},
            },
        }

    def _modality(self) -> str:
        asked = self.choices.modality
        if self.spec.modality == "text" and asked not in (None, "text"):
            raise UsageError(
                f"{self.spec.task} is a text task: it has no video to show",
                asked=f"--modality {asked}",
                next=f"--tasks {self.spec.task.removesuffix('_text')}" if self.spec.task.endswith("_text") else None,
            )
        return asked or self.spec.modality

    def _lm_eval_config(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """The keys that lm-eval knows; metrics and filter are ours and set apart."""
        theirs = {k: v for k, v in config.items() if k not in OWN_KEYS | {"class", "include"}}
        released = self.family.decoding if self.choices.protocol == "paper" else {}
        return {
            **theirs,
            "output_type": "generate_until",
            "training_split": "train",
            "validation_split": "dev",
            "test_split": "test",
            "fewshot_split": "train",
            "doc_to_text": "text",
            "doc_to_target": "label",
            **({"doc_to_image": "clip"} if self.has_video else {}),
            "generation_kwargs": decoding(config.get("generation_kwargs") or {}, released),
            "metric_list": [],
            "metadata": {"version": TASK_VERSION, **self.metadata},
        }


def _reduce(function: Any, labels: Sequence[str], pairs: Sequence[tuple[str, str]]) -> float:
    return float(function(pairs, labels))
