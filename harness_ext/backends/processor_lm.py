"""What every model with a transformers processor has in common for lm-eval, the journal and the results.

`mmla-hf` and `mmla-vllm` differ in how a prepared question is asked. How a chat is rendered, which frames are shown,
how labels become tokens and how a raw answer is cut must not differ: it stands here.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from lm_eval.api.model import LM

from harness_ext.adapters import Adapter, Adapters
from harness_ext.decoding import decoding
from harness_ext.labels import AnswerTokens, answer_lead, answer_tokens
from harness_ext.messages import (
    ClipsAs,
    Message,
    clips_as,
    frame_size,
    has_chat_template,
    render_chat,
    template_text,
    tokenizer_of,
)
from harness_ext.questions import Question, Skipped, question_of
from harness_ext.requests import ANSWER_MODES, BAD_CLIP_POLICIES, Request, Response
from harness_ext.session import announce, answer_all
from harness_ext.training import trainings
from mmla_tasks.errors import ModelError, suggest

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

    from harness_ext.released import Family


@dataclass(frozen=True)
class Options:
    """Arguments of `--model_args` beside those that say what to load."""

    answer: str = "generate"
    """``generate``, ``constrained`` or ``rank``."""
    batch_size: int | str | None = 1
    """Prompts in a batch, or ``auto``."""
    max_batch_size: int | None = None
    """Upper bound for ``auto``."""
    max_length: int | None = None
    """Tokens of prompt and answer together; None takes the model's own limit."""
    num_frames: int | None = None
    fps: float | None = None
    max_frames: int | None = None
    max_pixels: int | None = None
    """Pixels per frame; this and the three above make the frame policy."""
    video_reader: str | None = None
    on_bad_clip: str = "error"
    """``error``, ``skip`` or ``text``."""
    enable_thinking: bool | None = None
    """Passed on to the chat template when set."""

    def __post_init__(self) -> None:
        check_choice("answer", self.answer, ANSWER_MODES)
        check_choice("on_bad_clip", self.on_bad_clip, BAD_CLIP_POLICIES)


class ProcessorLM(LM):  # type: ignore[misc]  # lm_eval publishes no types
    """A model with a processor, or the bare tokenizer of a text model; backends add `answer` and what is abstract here.

    Args:
        options: How to ask.

    Raises:
        UsageError: The frame policy cannot be meant.
    """

    NAME: ClassVar[str]
    """The backend's name."""

    deterministic = True  # an answer depends on the question alone, whatever its document or batch

    processor: Any
    max_length: int | None
    """Tokens of prompt and answer together."""
    loaded_identity: Mapping[str, Any]
    """What distinguishes the answers of two runs as far as the loaded model goes. JSON-plain."""

    def __init__(self, options: Options) -> None:
        super().__init__()
        announce(self)
        from harness_ext.frame_policy import FramePolicy

        self.options = options
        self.frame_policy = FramePolicy.chosen(vars(options))
        self._template: str | None = None
        self._opening: list[Message] = []
        self._answer_tokens: dict[tuple[Any, ...], AnswerTokens] = {}

    # ---- what a backend says ------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def model_config(self) -> Any:
        """The model's config, by which a released family is recognised."""

    @property
    @abstractmethod
    def end_tokens(self) -> list[int]:
        """Token ids with which the model ends an answer; the tokenizer's own end token, if it is one, comes first."""

    @abstractmethod
    def checkpoint_decoding(self) -> dict[str, Any]:
        """The checkpoint's own generation settings, which nothing but ``--protocol paper`` lets into force."""

    @abstractmethod
    def reply(self, question: Question) -> str:
        """One free answer, outside of any journal."""

    # ---- what lm-eval asks ---------------------------------------------------------------------------------------

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """Answer through the journal."""
        return list(answer_all(self, requests))  # type: ignore[arg-type]  # a backend has `answer`

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Refuse: labels are ranked by `answer=rank`, within the same tasks."""
        raise ModelError(
            f"{self.NAME} answers tasks of the kind generate_until only",
            next=f"use --model {self.NAME.removeprefix('mmla-')} for tasks that need loglikelihood",
        )

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """Refuse, as `loglikelihood` does."""
        self.loglikelihood(requests)
        return []

    def apply_chat_template(self, chat_history: Sequence[Message], add_generation_prompt: bool = True) -> str:
        """Render a chat as the final prompt, `<video>` replaced by what the model's template puts there."""
        thinking = self.options.enable_thinking
        extra = {} if thinking is None else {"enable_thinking": thinking}
        history = with_opening(chat_history, self._opening)
        return render_chat(self.processor, history, add_generation_prompt, self._template, **extra)

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """The template's text; a string also chooses it by name for the prompts that follow."""
        if not chat_template:
            return ""
        self._template = chat_template if isinstance(chat_template, str) else None
        return template_text(self.processor, self._template)

    @property
    def tokenizer_name(self) -> str:
        """Name under which lm-eval would cache requests."""
        return str(self.options_source).replace("/", "__")

    @property
    def options_source(self) -> str:
        """The tokenizer's own source, else the model's."""
        return str(self.loaded_identity["tokenizer"] or self.loaded_identity["pretrained"])

    @property
    def MULTIMODAL(self) -> bool:
        """Whether clips can be shown: lm-eval refuses tasks with clips where they cannot."""
        return self.clips_as is not None

    # ---- what the journal and the results ask --------------------------------------------------------------------

    @property
    def clips_as(self) -> ClipsAs | None:
        """How the model takes a clip: as video, as images, or not at all."""
        return clips_as(self.processor)

    @property
    def tokenizer(self) -> Any:
        """The processor's tokenizer."""
        return tokenizer_of(self.processor)

    @property
    def has_chat_template(self) -> bool:
        """Whether prompts can be rendered as a chat."""
        return has_chat_template(self.processor)

    @property
    def answer_mode(self) -> str:
        """``generate``, ``constrained`` or ``rank``."""
        return self.options.answer

    def identity(self) -> dict[str, Any]:
        """JSON-plain: everything about this model that can change an answer; the batch size is not among it."""
        chosen = {"max_length": self.options.max_length, "enable_thinking": self.options.enable_thinking}
        size = frame_size(self.processor, self._max_pixels) if self.MULTIMODAL else None
        return {**self.loaded_identity, **chosen, "clips_as": self.clips_as, "frame_size": size}

    def describe(self) -> str:
        """One line for the screen: model, revision, dtype, and the frame policy where clips are read."""
        identity = self.loaded_identity
        revision = f" @ {identity['revision'][:7]}" if identity["revision"] else ""
        frames = f"  {self.frame_policy.describe()}" if self.MULTIMODAL else ""
        frames += " as images" if self.clips_as == "images" else ""
        adapters = f" + {self.adapters.source}" if self.adapters else ""
        return f"{self.NAME}  {identity['pretrained']}{revision}{adapters}  {identity['dtype']}{frames}"

    # ---- adapters ------------------------------------------------------------------------------------------------

    adapters: Adapters | None = None
    """Those over the loaded base."""

    def adapter_of(self, task: str) -> Adapter | None:
        """The adapter that answers one task."""
        return self.adapters.of(task) if self.adapters is not None else None

    def task_identity(self, task: str) -> dict[str, Any]:
        """What an answer to one task depends on besides the loaded model: its adapter."""
        adapter = self.adapter_of(task)
        return {"peft": adapter.identity} if adapter else {}

    def trainings(self, tasks: Sequence[str]) -> list[dict[str, Any]]:
        """How the model and the adapters of these tasks were trained; see `harness_ext.training`."""
        return trainings(tasks, self.adapters, Path(self.loaded_identity["pretrained"]).expanduser())

    def prepare(self, tasks: Mapping[str, Any], ids: Mapping[str, Sequence[str]]) -> None:
        """Find out before anything is asked whether every task has its adapter."""
        if self.adapters is not None:
            self.adapters.check(tasks)

    def follow(self, family: Family) -> None:
        """Show frames and begin chats as the released code does for a family; frames that the user chose stay."""
        from harness_ext.frame_policy import FramePolicy

        self.frame_policy = FramePolicy.chosen(vars(self.options), family.frames)
        if family.opening is not None and self.has_chat_template:
            self._opening = self._opening_turns(family, family.opening)

    def _opening_turns(self, family: Family, opening: str) -> list[Message]:
        """A first turn and the model's own answer to it."""
        said: list[Message] = [{"role": "user", "content": opening}]
        system: list[Message] = [{"role": "system", "content": family.system}] if family.system else []
        prompt = self.apply_chat_template([*system, *said])
        settings = decoding(self.checkpoint_decoding(), family.decoding)
        reply = self.reply(Question(Request("opening turn", opening, prompt, (), "", settings, chat=True), prompt))
        return [*said, {"role": "assistant", "content": reply.strip()}]

    # ---- what every way of asking needs --------------------------------------------------------------------------

    @property
    def _max_pixels(self) -> int | None:
        """The frame policy's bound per frame; 0 there is no bound."""
        return self.frame_policy.max_pixels or None

    def _question(self, request: Request) -> Question | Skipped:
        """`question_of`, where the model can see."""
        if request.clip is not None and not self.MULTIMODAL:
            raise ModelError(
                f"{self.options_source} takes no video", task=request.task, next=f"--tasks {request.task}_text"
            )
        return question_of(request, self.frame_policy, self.options.on_bad_clip)

    def _check_length(self, request: Request, prompt_tokens: int, new_tokens: int) -> None:
        """Nothing is cut to fit: half a video or half a prompt would be scored as if it were whole."""
        if self.max_length is not None and prompt_tokens + new_tokens > self.max_length:
            raise ModelError(
                f"The prompt of {request.task}, document {request.id}, is too long for the model",
                prompt=f"{prompt_tokens} tokens, and up to {new_tokens} for the answer",
                limit=f"{self.max_length} tokens",
                next="fewer frames (num_frames, fps, max_pixels) or fewer examples (--num_fewshot)",
            )

    def _tokens_of(self, request: Request) -> AnswerTokens:
        key = (request.answer_prefix, request.labels, answer_lead(request))
        if key not in self._answer_tokens:
            if not self.end_tokens:
                raise ModelError(f"{self.options_source} has no end token", next="pass tokenizer= with one that has")
            self._answer_tokens[key] = answer_tokens(self.tokenizer, request, self.end_tokens[0])
        return self._answer_tokens[key]

    def _response(self, question: Question, ids: Sequence[int], prompt_tokens: int, limit: int) -> Response:
        """Cut at the end token and at the stop strings, and say whether either came.

        Args:
            question: What was asked.
            ids: New tokens; what stands behind an end token is padding.
            prompt_tokens: Length of the prompt.
            limit: Most new tokens that were allowed.
        """
        end = next((i for i, token in enumerate(ids) if token in self.end_tokens), None)
        kept = ids if end is None else ids[:end]
        text = self.tokenizer.decode(kept, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        if end is None:
            text = text.rstrip("\ufffd")  # bytes of a character that the limit cut; servers leave them out
        text, stopped = cut_at(text, self._stops(question.request))
        return Response(
            text.strip() if self.options.answer == "constrained" else text,
            truncated=end is None and not stopped and len(ids) >= limit,
            **question.evidence,
            prompt_tokens=prompt_tokens,
            new_tokens=len(ids) if end is None else end + 1,
        )

    def _stops(self, request: Request) -> list[str]:
        """Stop strings, which only free answers have."""
        stops = request.gen_kwargs.get("until") if self.options.answer == "generate" else None
        return [stops] if isinstance(stops, str) else list(stops or [])


def with_opening(history: Sequence[Message], opening: Sequence[Message]) -> list[Message]:
    """Put first turns before a chat, behind its system prompt."""
    system = [message for message in history[:1] if message["role"] == "system"]
    return [*system, *opening, *history[len(system) :]]


def unknown_argument(name: str, known: Sequence[str]) -> ModelError:
    """The error for a model argument that nobody reads."""
    listed = ", ".join(known) if len(known) < 50 else None
    return ModelError(f"Unknown model argument '{name}'", hint=suggest(name, known), known=listed)


def check_choice(name: str, value: str, allowed: Sequence[str]) -> None:
    """Raise a `ModelError` that names the allowed values."""
    if value not in allowed:
        raise ModelError(f"{name}='{value}' is not one of {', '.join(allowed)}", hint=suggest(str(value), allowed))


def cut_at(text: str, stops: Sequence[str]) -> tuple[str, bool]:
    r"""Cut before the first stop string.

    >>> cut_at("joy.\n\nBecause", ["\n\n"])
    ('joy.', True)
    """
    found = [place for stop in stops if stop and (place := text.find(stop)) >= 0]
    return (text[: min(found)], True) if found else (text, False)


def ranked(question: Question, answer: AnswerTokens, scores: Sequence[float], prompt_tokens: int) -> Response:
    """The likeliest answer form with the evidence; of equals, the first."""
    best = max(range(len(scores)), key=lambda i: (scores[i], -i))
    return Response(
        question.request.answer_forms[best],
        **question.evidence,
        label_scores=dict(zip(answer.labels, scores, strict=True)),
        label_tokens={label: len(own) for label, own in zip(answer.labels, answer.own, strict=True)},
        prompt_tokens=prompt_tokens,
    )
