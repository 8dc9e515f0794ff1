"""What a run would ask, take and cost, told before a model is loaded: `mmla run --dry_run`.

The run's own road is walked with a stand-in that counts instead of answering, so prompts, chat template, examples,
label order and clips are those of the run. Clips are too many to open: a few of each task are decoded, and the rest is
taken to be like them.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from lm_eval.api.model import LM

from harness_ext.frame_policy import FramePolicy
from harness_ext.labels import answer_lead, longest_answer
from harness_ext.messages import clips_as, has_chat_template, model_inputs, render_chat, template_text, token_counts
from harness_ext.plugin import backend_class
from harness_ext.prefetch import DecodeLimits
from harness_ext.requests import Request, Response
from harness_ext.session import announce, distinct
from harness_ext.usage import Prices
from mmla_tasks.errors import ClipError, ModelError

if TYPE_CHECKING:
    from harness_ext.released import Family
    from harness_ext.results import LeftOut
    from harness_ext.run import RunOptions
    from harness_ext.video import Frames

PROBES: Final = 24
"""Clips of a task that are decoded, spread evenly over its rows."""
SOURCE_ARGUMENTS: Final = ("revision", "tokenizer", "trust_remote_code", "gguf_file")


@dataclass(frozen=True)
class ClipEstimate:
    """What the clips of one task take, from `probed` of them."""

    count: int
    """Clips to decode: those of the distinct questions."""
    probed: int
    unreadable: int
    """Of the probed ones, those that gave no frames."""
    seconds: float
    """Length of all clips together."""
    decode_seconds: float
    """Decoding all of them, in one thread."""
    frame_bytes: int
    """Decoded frames of one clip, the largest seen."""
    tokens: int | None
    """Prompt tokens that all clips together take; None without a processor to ask."""


@dataclass(frozen=True)
class TaskPlan:
    """One task of a run that was not made."""

    task: str
    dataset: str
    dimension: str
    rows: int
    requests: int
    """Distinct questions: equal ones are asked once."""
    text_tokens: int | None
    """Prompt tokens of the requests without those of video; None where the backend reads no tokens."""
    estimated: bool
    """Whether tokens are guessed, since the tokenizer is a server's."""
    new_tokens: int
    """Tokens that may be generated at most."""
    missing: int
    """Rows whose clip is not there or empty."""
    clips: ClipEstimate | None
    """None for a task without video, or without any clip."""

    @property
    def prompt_tokens(self) -> int | None:
        """Tokens of text and video together."""
        if self.text_tokens is None or (self.clips and self.clips.tokens is None):
            return None
        return self.text_tokens + ((self.clips.tokens or 0) if self.clips else 0)


@dataclass(frozen=True)
class RunPlan:
    """What a run would do."""

    tasks: list[TaskPlan]
    left_out: list[LeftOut]
    frame_policy: FramePolicy | None
    limits: DecodeLimits
    prices: Prices

    @property
    def cost(self) -> float | None:
        """What all answers cost at most; None without prices, or where tokens of video are not known."""
        prompts = [task.prompt_tokens for task in self.tasks]
        if None in prompts:
            return None
        return self.prices.cost(sum(tokens or 0 for tokens in prompts), sum(task.new_tokens for task in self.tasks))

    @property
    def decode_seconds(self) -> float:
        """Decoding every clip, with the run's own number of workers."""
        return sum(task.clips.decode_seconds for task in self.tasks if task.clips) / self.limits.workers

    @property
    def frame_bytes(self) -> int:
        """Decoded frames that may be in memory at once: two batches never hold more than the bound."""
        return max((task.clips.frame_bytes for task in self.tasks if task.clips), default=0)


class CountingLM(LM):  # type: ignore[misc]
    """Takes the place of the model in a dry run: renders prompts as the model's own processor would, answers nothing.

    Args:
        model: Name of the backend whose place it takes.
        model_args: That backend's arguments.

    Attributes:
        requests: Every request that the run would make, in order.
    """

    def __init__(self, model: str, model_args: Mapping[str, Any]) -> None:
        super().__init__()
        announce(self)
        self.model = model
        self.deterministic = bool(backend_class(model).deterministic)
        self.requests: list[Request] = []
        self.processor = _processor(model_args)
        self._server = ServerTokens(model_args) if model == "mmla-api" else None
        self.model_config = _config(model_args) if self.processor is not None else None
        self._model_args = model_args
        self.frame_policy = FramePolicy.chosen(model_args)
        self._template: str | None = None

    @property
    def MULTIMODAL(self) -> bool:
        """Whether the model takes clips; a backend without a processor here says so only when it is asked."""
        return self.processor is None or clips_as(self.processor) is not None

    @property
    def has_chat_template(self) -> bool:
        """Whether prompts can be rendered as a chat."""
        return self.processor is not None and has_chat_template(self.processor)

    def apply_chat_template(self, chat_history: Sequence[Mapping[str, Any]], add_generation_prompt: bool = True) -> str:
        """Render a chat as the final prompt; without a processor, its contents one after the other."""
        if self.processor is None:
            return "\n".join(str(message["content"]) for message in chat_history)
        return render_chat(self.processor, chat_history, add_generation_prompt, self._template)

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """The template's text; a string also chooses it by name."""
        if not chat_template or self.processor is None:
            return ""
        self._template = chat_template if isinstance(chat_template, str) else None
        return template_text(self.processor, self._template)

    def follow(self, family: Family) -> None:
        """Show frames as the released code does for a family; frames that the user chose stay."""
        self.frame_policy = FramePolicy.chosen(self._model_args, family.frames)

    @property
    def tokenizer_name(self) -> str:
        """Asked by lm-eval when a chat template is applied."""
        return self.model

    def generate_until(self, requests: list[Any]) -> list[Response]:
        """Note the requests."""
        self.requests.extend(instance.request for instance in requests)
        return [Response("") for _ in requests]

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        """No task of ours asks for it."""
        raise ModelError("a dry run knows tasks of the kind generate_until only")

    def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
        """No task of ours asks for it."""
        raise ModelError("a dry run knows tasks of the kind generate_until only")

    # ---- counting ------------------------------------------------------------------------------------------------

    @property
    def estimates(self) -> bool:
        """Whether tokens are guessed."""
        return self._server is not None

    def text_tokens(self, requests: Sequence[Request]) -> int | None:
        """Tokens of all prompts, the one of each video place among them."""
        if self._server is not None:
            return sum(self._server.of_text(request.prompt) for request in requests)
        if self.processor is None:
            return None
        chats, plain = ([r.prompt for r in requests if r.chat is chat] for chat in (True, False))
        return sum(token_counts(self.processor, chats, chat=True) + token_counts(self.processor, plain, chat=False))

    def clip_tokens(self, request: Request, frames: Frames) -> int | None:
        """Tokens that a clip's frames add to its prompt."""
        if self._server is not None:
            return self._server.of_frames(frames)
        if self.processor is None:
            return None
        shown = model_inputs(
            self.processor,
            [request.prompt],
            [frames],
            chat=request.chat,
            template=self._template,
            max_pixels=self.frame_policy.max_pixels or None,
        )
        return int(shown["input_ids"].shape[1]) - (self.text_tokens([request]) or 0)


class ServerTokens:
    """A guess at the tokens of a server whose tokenizer is not here.

    Args:
        model_args: Of `mmla-api`.
    """

    def __init__(self, model_args: Mapping[str, Any]) -> None:
        clips_as = model_args.get("clips_as", "auto")
        self._as_images = clips_as == "images" or (clips_as == "auto" and "base_url" not in model_args)
        self._detail = model_args.get("image_detail") or "high"

    def of_text(self, prompt: str) -> int:
        """Four bytes a token, as English has with most tokenizers."""
        return math.ceil(len(prompt.encode()) / 4)

    def of_frames(self, frames: Frames) -> int | None:
        """Images of GPT-4o; None for frames in any other form.

        85 tokens each and, unless the detail is low, 170 for each tile of 512 x 512 pixels, the image shrunk to fit
        2048 x 2048 and its shorter side to 768 (OpenAI's guide to vision, "calculating costs").
        """
        if not self._as_images:
            return None
        height, width = frames.frames_THWC.shape[1:3]
        scale = min(1.0, 2048 / max(height, width), 768 / min(height, width))
        tiles = math.ceil(height * scale / 512) * math.ceil(width * scale / 512)
        return len(frames) * (85 if self._detail == "low" else 85 + 170 * tiles)


def make_plan(options: RunOptions) -> RunPlan:
    """Say what `options` would ask.

    Raises:
        MmlaError: what would also stop the run before its first question; missing clips are counted instead.
    """
    from harness_ext.run import prepared

    counting = CountingLM(options.model, options.model_args)
    with prepared(options) as this:
        this.evaluate(this.ready(counting), this.options)
    tasks = [_task_plan(name, task, counting, options) for name, task in this.tasks.items()]
    policy = counting.frame_policy if any(task.clips for task in tasks) else None
    return RunPlan(tasks, this.left_out, policy, options.decode_limits, _prices(options.model_args))


def _task_plan(name: str, task: Any, counting: CountingLM, options: RunOptions) -> TaskPlan:
    asked = [request for request in counting.requests if request.task == name]
    there = [request for request in asked if request.clip is None or request.clip["size"]]
    questions = [there[same[0]] for same in distinct(there, counting.deterministic)]
    return TaskPlan(
        task=name,
        dataset=task.spec.dataset,
        dimension=task.spec.dimension,
        rows=len(asked),
        requests=len(questions),
        text_tokens=counting.text_tokens(questions),
        estimated=counting.estimates,
        new_tokens=sum(_new_tokens(request, options.answer_mode) for request in questions),
        missing=len(asked) - len(there),
        clips=_estimate([request for request in questions if request.clip is not None], counting),
    )


def _new_tokens(request: Request, answer_mode: str) -> int:
    match answer_mode:
        case "rank":
            return 0
        case "constrained":
            return longest_answer(request.answer_forms, answer_lead(request))
        case _:
            return int(request.gen_kwargs["max_gen_toks"])


def _estimate(requests: Sequence[Request], counting: CountingLM) -> ClipEstimate | None:
    step = max(1, len(requests) / PROBES)
    chosen = [requests[int(n * step)] for n in range(min(PROBES, len(requests)))]
    if not chosen:
        return None
    probes = list(_probes(chosen, counting))
    tokens = [probe.tokens for probe in probes if probe.tokens is not None]

    def of_all(values: Sequence[float]) -> float:
        return len(requests) * statistics.fmean(values) if values else 0.0

    return ClipEstimate(
        count=len(requests),
        probed=len(chosen),
        unreadable=len(chosen) - len(probes),
        seconds=of_all([probe.seconds for probe in probes]),
        decode_seconds=of_all([probe.decode_seconds for probe in probes]),
        frame_bytes=max((probe.frame_bytes for probe in probes), default=0),
        tokens=round(of_all(tokens)) if tokens else None,
    )


@dataclass(frozen=True)
class _Probe:
    """One decoded clip."""

    seconds: float
    decode_seconds: float
    frame_bytes: int
    tokens: int | None


def _probes(requests: Sequence[Request], counting: CountingLM) -> Iterator[_Probe]:
    from harness_ext.video import decode

    for request in requests:
        assert request.clip is not None
        began = time.perf_counter()
        try:
            frames = decode(request.clip, counting.frame_policy)
        except ClipError:
            continue
        took = time.perf_counter() - began
        tokens = counting.clip_tokens(request, frames)
        yield _Probe(frames.duration_seconds, took, frames.frames_THWC.nbytes, tokens)


def _prices(model_args: Mapping[str, Any]) -> Prices:
    return Prices(model_args.get("price_in"), model_args.get("price_out"))


def _processor(model_args: Mapping[str, Any]) -> Any:
    """The processor or tokenizer of the model; None for a backend that has none on this machine."""
    if "pretrained" not in model_args:
        return None
    from harness_ext.backends.hf_load import load_processor

    return load_processor(str(model_args["pretrained"]), **_source(model_args))


def _config(model_args: Mapping[str, Any]) -> Any:
    from harness_ext.backends.hf_load import load_config

    return load_config(str(model_args["pretrained"]), **_source(model_args))


def _source(model_args: Mapping[str, Any]) -> dict[str, Any]:
    return {name: model_args[name] for name in SOURCE_ARGUMENTS if model_args.get(name) is not None}
