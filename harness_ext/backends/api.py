"""`mmla-api`: any model behind an OpenAI-compatible server, such as GPT-4o or a vLLM server.

Final prompts of a chat are its messages as JSON, since the server applies the chat template; ``<video>`` in them
becomes the clip when a request is sent. How the server is asked is in `api_server`.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lm_eval.api.model import LM

from harness_ext.backends.api_server import (
    FAILURES,
    Failures,
    MalformedReplyError,
    Manners,
    Server,
    WithheldError,
)
from harness_ext.backends.processor_lm import check_choice, unknown_argument
from harness_ext.frame_policy import FRAME_ARGUMENTS, FramePolicy
from harness_ext.labels import answer_grammar, answer_lead, longest_answer
from harness_ext.masking import is_secret, masked
from harness_ext.messages import VIDEO, Message
from harness_ext.order import asking_order
from harness_ext.prefetch import Ahead
from harness_ext.questions import Question, Skipped, frame_bytes, question_of
from harness_ext.requests import ANSWER_MODES, BAD_CLIP_POLICIES, Request, Response
from harness_ext.session import announce, answer_all, decode_limits, sampling_seed, timings
from mmla_tasks.errors import ModelError, suggest

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

    from harness_ext.released import Family
    from harness_ext.video import Frames

CLIPS_AS: Final = ("auto", "frames", "images", "video", "file")
"""How a clip is sent: its frames as one video, its frames as images, its file, or the file's path."""
COPIES: Final = 4
"""A clip in flight takes its frames, their base64 and the body that is sent, of at most 4/3 of them each."""
FAILED_IN_A_ROW: Final = 16
"""So many requests without an answer, none answered between them, end the run: the server is down."""

STANDARD_DECODING: Final = ("top_p", "presence_penalty", "frequency_penalty")
VLLM_DECODING: Final = {
    "top_p": 1.0,
    "top_k": 0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "skip_special_tokens": True,
}
"""Said to every vLLM server, whose defaults are the checkpoint's own."""


@dataclass(frozen=True)
class Options:
    """Arguments of `--model_args` beside `api_server.Manners`."""

    model: str = ""
    """The server's name for the model."""
    base_url: str | None = None
    """Such as ``http://localhost:8000/v1``; None takes OPENAI_BASE_URL, else OpenAI's own."""
    api_key_env: str | None = None
    """Environment variable that holds the key; None: OPENAI_API_KEY."""
    clips_as: str = "auto"
    """One of `CLIPS_AS`; ``auto``: frames for a vLLM server, images for others."""
    image_detail: str | None = None
    """``low``, ``high`` or ``auto`` of OpenAI's images; None says nothing."""
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of every request, over all others."""
    price_in: float | None = None
    price_out: float | None = None
    """What a million tokens of prompts and of answers cost, in any one currency."""
    num_frames: int | None = None
    fps: float | None = None
    max_frames: int | None = None
    max_pixels: int | None = None
    """Pixels per frame; this and the three above make the frame policy."""
    video_reader: str | None = None
    answer: str = "generate"
    """``generate`` or ``constrained``."""
    on_bad_clip: str = "error"
    """``error``, ``skip`` or ``text``."""

    def __post_init__(self) -> None:
        if not self.model:
            raise ModelError(
                "mmla-api needs a model",
                next="--model_args model=gpt-4o      or model=NAME,base_url=http://localhost:8000/v1",
            )
        check_choice("answer", self.answer, ANSWER_MODES)
        check_choice("on_bad_clip", self.on_bad_clip, BAD_CLIP_POLICIES)
        check_choice("clips_as", self.clips_as, CLIPS_AS)
        if self.answer == "rank":
            raise ModelError(
                "--answer rank needs the log-probabilities of given tokens, which chat servers do not tell",
                next="--answer constrained      or rank with --model mmla-vllm or mmla-hf",
            )
        if not isinstance(self.extra_body, Mapping):
            raise ModelError(
                f"extra_body is {self.extra_body!r}, not a mapping",
                next="""--model_args '{"model": "...", "extra_body": {"reasoning_effort": "low"}}'""",
            )
        prices = [_number("price", price) for price in (self.price_in, self.price_out) if price is not None]
        if len(prices) == 1:
            raise ModelError("price_in and price_out go together", next="give both, for a million tokens each")


class APILabelLM(LM):  # type: ignore[misc]  # lm_eval publishes no types
    """A model behind a server, as lm-eval and `answer_all` see it.

    Args:
        **args: Fields of `Options` and of `api_server.Manners`.

    Raises:
        ModelError: An argument is unknown or does not fit, there is no key, or no server answers.
    """

    MULTIMODAL = True  # whether the model takes clips, only the server knows
    PACKAGES = ("openai", "av", "decord")
    FREE_ARGUMENTS = (*(field.name for field in fields(Manners)), "api_key_env", "price_in", "price_out")
    PAID_BY_TOKEN = True
    deterministic = True  # as far as a server's greedy decoding is
    has_chat_template = True

    def __init__(self, **args: Any) -> None:
        super().__init__()
        announce(self)
        self.options, manners = read_arguments(args)
        self._server = Server(self.options.base_url, self.options.api_key_env, manners)
        self._known = self._offered_models()
        self.clips_as = self._clips_as()
        self.frame_policy = self._frame_policy()
        self._failures = Failures()

    def _offered_models(self) -> dict[str, Any]:
        with self._server.connected() as flight:
            try:
                return flight.call(self._server.models)
            except FAILURES as error:
                refusal = self._server.refusal(error, self.options.model, {}, "the list of models", "check base_url")
                raise refusal or self._server.not_there(error) from None

    @property
    def _is_vllm(self) -> bool:
        return getattr(self._known.get(self.options.model), "owned_by", None) == "vllm"

    def _clips_as(self) -> str:
        if self.options.clips_as != "auto":
            return self.options.clips_as
        return "frames" if self._is_vllm else "images"

    def _frame_policy(self) -> FramePolicy | None:
        """None where the server itself picks the frames of a file."""
        if self.clips_as in ("frames", "images"):
            return FramePolicy.chosen(vars(self.options))
        for name in FRAME_ARGUMENTS:
            if getattr(self.options, name) is not None:
                raise ModelError(
                    f"{name} says nothing with clips_as={self.clips_as}: the server picks the frames",
                    next=f"clips_as=frames or images, or leave {name} out",
                )
        return None

    # ---- what lm-eval asks -------------------------------------------------------------------------------------

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """Answer through the journal."""
        return list(answer_all(self, requests))

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Refuse: a chat tells no log-likelihoods of given texts."""
        raise ModelError(
            "mmla-api answers tasks of the kind generate_until only",
            next="use --model local-completions of lm-eval for tasks that need loglikelihood",
        )

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """Refuse, as `loglikelihood` does."""
        self.loglikelihood(requests)
        return []

    def apply_chat_template(self, chat_history: Sequence[Message], add_generation_prompt: bool = True) -> str:
        """The messages as JSON; the server makes the prompt of them."""
        return json.dumps(list(chat_history), ensure_ascii=False)

    def chat_template(self, chat_template: bool | str = False) -> str:
        """Nothing to tell: the template is the server's."""
        if isinstance(chat_template, str):
            raise ModelError(
                f"mmla-api cannot choose the chat template `{chat_template}`: the server applies its own",
                next="leave --apply_chat_template out; vllm serve --chat-template FILE sets one",
            )
        return ""

    @property
    def tokenizer_name(self) -> str:
        """Name under which lm-eval would cache requests."""
        return self.options.model.replace("/", "__")

    # ---- what the journal and the results ask ------------------------------------------------------------------

    @property
    def answer_mode(self) -> str:
        """``generate`` or ``constrained``."""
        return self.options.answer

    def identity(self) -> dict[str, Any]:
        """JSON-plain: the server, its model, and the form of requests, as far as an answer depends on it."""
        options = self.options
        served = self._known.get(options.model)
        constrained = {"constrained_by": "grammar" if self._is_vllm else "json_schema"}
        return {
            "backend": "mmla-api",
            "base_url": self._server.url,
            "model": options.model,
            "served": {name: getattr(served, name, None) for name in ("owned_by", "root", "parent")},
            "clips_as": self.clips_as,
            "image_detail": options.image_detail,
            "extra_body": masked(options.extra_body),
            **(constrained if self.answer_mode == "constrained" else {}),
        }

    def describe(self) -> str:
        """One line for the screen: model, server, and how clips are shown."""
        shown = self.frame_policy.describe() if self.frame_policy else "clips"
        return f"mmla-api  {self.options.model} at {self._server.url}  {shown} as {self.clips_as}"

    def follow(self, family: Family) -> None:
        """Show frames as the released code does for a family; frames that the user chose stay."""
        if self.frame_policy is not None:
            self.frame_policy = FramePolicy.chosen(vars(self.options), family.frames)

    # ---- answering ---------------------------------------------------------------------------------------------

    def answer(self, requests: list[Request]) -> Iterator[tuple[int, Response]]:
        """Ask many at once and give each answer as it comes; what failed is told when the rest is answered.

        Yields:
            Index into `requests`, response.

        Raises:
            ModelError: Requests failed in the end, or one failed for a reason that all others share.
        """
        self._failures = Failures()
        policy = self.frame_policy
        with (
            self._server.connected() as flight,
            Ahead(
                asking_order(requests),
                lambda n: self._question(requests[n]),
                cost=lambda n: COPIES * frame_bytes(requests[n], policy) if policy else 0,
                limits=decode_limits(),
                depth=flight.bound,
            ) as ahead,
        ):
            yield from flight.answers(ahead, self._ask)
        if self._failures:
            raise self._failures.error(self._server.url, len(requests))

    def _question(self, request: Request) -> Question | Skipped:
        if self.frame_policy is None:
            return Question(request, request.prompt)
        return question_of(request, self.frame_policy, self.options.on_bad_clip)

    async def _ask(self, question: Question) -> Response | None:
        """The answer; None for a request that failed, which is noted."""
        body = await asyncio.to_thread(self._body, question)
        limit = self._token_limit(question.request)
        try:
            response = await self._server.complete(body, limit, lambda reply: self._response(question, reply))
        except FAILURES as error:
            self._note(question.request, error)
            return None
        self._failures.in_a_row = 0
        return response

    def _note(self, request: Request, error: BaseException) -> None:
        """Count a failure, or end the run where every other request would meet it too."""
        who = f"{request.task} id {request.id}"
        if refusal := self._server.refusal(error, self.options.model, self._known, who, self._other_form(request)):
            raise refusal from None  # what lies behind may repeat the key
        self._failures.add(self._server.reason(error), who)
        if self._failures.in_a_row >= FAILED_IN_A_ROW:
            raise self._failures.error(self._server.url) from None

    def _other_form(self, request: Request) -> str:
        """How else a question could be asked of a server that refuses its form."""
        if request.clip is not None:
            other = "images" if self.clips_as != "images" else "frames"
            return f"clips_as={other} sends clips in another form; --modality text asks without them"
        return "--no_chat_template asks with plain prompts" if request.chat else "leave --no_chat_template out"

    # ---- a request ---------------------------------------------------------------------------------------------

    def _body(self, question: Question) -> dict[str, Any]:
        """Everything of a request but its token limit."""
        request = question.request
        with timings().measure("preprocess"):
            return {
                "model": self.options.model,
                **self._prompt_fields(question),
                **self._decoding_fields(request),
                **(self._constraint(request) if self.answer_mode == "constrained" else {}),
                **self.options.extra_body,
            }

    def _prompt_fields(self, question: Question) -> dict[str, Any]:
        request, shows_clip = question.request, question.request.clip is not None and not question.as_text
        if not request.chat:
            if shows_clip:
                raise ModelError("a clip can only be sent in a chat", next="leave --no_chat_template out")
            return {"prompt": question.prompt}
        messages = json.loads(question.prompt)
        if not shows_clip:
            return {"messages": messages}
        clip = self._clip_parts(question)
        shown = [{**message, "content": with_clip(message["content"], clip)} for message in messages]
        return {"messages": shown, **self._video_metadata(question.frames)}

    def _clip_parts(self, question: Question) -> list[dict[str, Any]]:
        """The clip as parts of a message."""
        if question.frames is None:
            return [{"type": "video_url", "video_url": {"url": self._file_url(question.request)}}]
        pictures = [png(frame) for frame in question.frames.frames_THWC]
        if self.clips_as == "frames":
            # vLLM takes single pictures of any format under this name; PNG loses nothing.
            return [{"type": "video_url", "video_url": {"url": f"data:video/jpeg;base64,{','.join(pictures)}"}}]
        detail = {"detail": self.options.image_detail} if self.options.image_detail else {}
        urls = [f"data:image/png;base64,{picture}" for picture in pictures]
        return [{"type": "image_url", "image_url": {"url": url, **detail}} for url in urls]

    def _file_url(self, request: Request) -> str:
        """The clip's file, as data or as a path that the server can read."""
        assert request.clip is not None
        path = Path(request.clip["path"])
        if request.clip["start_seconds"] or request.clip["end_seconds"] is not None:
            raise ModelError(
                f"clips_as={self.clips_as} sends whole files; that of {request.task} id {request.id} is a part of one",
                file=path,
                next="clips_as=frames or images",
            )
        if self.clips_as == "file":
            return path.resolve().as_uri()
        return f"data:video/{path.suffix.removeprefix('.') or 'mp4'};base64,{_base64(path.read_bytes())}"

    def _video_metadata(self, frames: Frames | None) -> dict[str, Any]:
        """What a vLLM server must know of ready frames: their times, and that none may be picked out or left out."""
        if frames is None or self.clips_as != "frames":
            return {}
        from harness_ext.video import frames_metadata

        told = frames_metadata(frames)
        video = {
            "num_frames": -1,
            "fps": told["fps"],
            "duration": told["duration"],
            "frames_indices": told["frames_indices"],
            "total_num_frames": max(told["total_num_frames"], len(frames)),  # a released rule repeats frames
            "do_sample_frames": False,
        }
        return {"media_io_kwargs": {"video": video}}

    def _decoding_fields(self, request: Request) -> dict[str, Any]:
        """How the answer is decoded, all of it said: greedy unless the task's arguments sample."""
        asked = {k: v for k, v in request.gen_kwargs.items() if k not in ("max_gen_toks", "do_sample", "temperature")}
        sampled = bool(request.gen_kwargs.get("do_sample"))
        stops = asked.pop("until", None)
        if not self._is_vllm and asked.get("repetition_penalty") == 1.0:
            del asked["repetition_penalty"]
        known = VLLM_DECODING if self._is_vllm else STANDARD_DECODING
        for name in asked:
            if name not in known:
                raise ModelError(
                    f"{self._server.url} takes no generation argument `{name}`",
                    hint=suggest(name, known),
                    known=", ".join(known),
                )
        return {
            **(VLLM_DECODING if self._is_vllm else {}),
            **asked,
            "temperature": request.gen_kwargs["temperature"] if sampled else 0.0,
            **({"seed": seed_of(request)} if sampled else {}),
            **({"stop": stops} if stops and self.answer_mode == "generate" else {}),
        }

    def _constraint(self, request: Request) -> dict[str, Any]:
        """The grammar that other backends decode by, where the server has grammars; else a JSON schema."""
        if self._is_vllm:
            grammar = answer_grammar(request.answer_forms, answer_lead(request))
            return {"structured_outputs": {"grammar": grammar}}
        schema = {
            "type": "object",
            "properties": {"answer": {"type": "string", "enum": list(request.answer_forms)}},
            "required": ["answer"],
            "additionalProperties": False,
        }
        return {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "answer", "strict": True, "schema": schema},
            }
        }

    def _token_limit(self, request: Request) -> int:
        if self.answer_mode != "constrained":
            return int(request.gen_kwargs["max_gen_toks"])
        form = longest_answer(request.answer_forms, answer_lead(request))
        return form if self._is_vllm else form + len('{ "answer": "" }\n')

    # ---- a reply -----------------------------------------------------------------------------------------------

    def _response(self, question: Question, reply: Any) -> Response:
        """Read a reply.

        Raises:
            MalformedReplyError: It holds no answer, or not one of the answer forms where they were asked for.
            WithheldError: The provider kept the answer back.
        """
        choices, usage = getattr(reply, "choices", None), getattr(reply, "usage", None)
        if not choices:
            raise MalformedReplyError("a reply without an answer")
        ended, text = getattr(choices[0], "finish_reason", None), said(choices[0])
        if ended == "content_filter":
            raise WithheldError("the provider's content filter kept the answer back")
        cut = ended == "length"
        if self.answer_mode == "constrained" and not cut:
            text = self._answer_form(question.request, text)
        return Response(
            text,
            truncated=cut,
            **question.evidence,
            prompt_tokens=usage.prompt_tokens if usage else None,
            new_tokens=usage.completion_tokens if usage else None,
        )

    def _answer_form(self, request: Request, text: str) -> str:
        """The answer form that a constrained answer is."""
        try:
            form = text.strip() if self._is_vllm else json.loads(text)["answer"]
        except (ValueError, TypeError, KeyError):
            form = None
        if form not in request.answer_forms:
            raise MalformedReplyError(f"the server did not keep to the answer forms: {text[:80]!r}")
        return str(form)


# ---- parts of requests and replies -------------------------------------------------------------------------------


def with_clip(content: str, clip: Sequence[Mapping[str, Any]]) -> str | list[Mapping[str, Any]]:
    """A message's content with the clip where `<video>` stands; other contents stay as they are.

    >>> with_clip("<video>Who?", [{"type": "image_url"}])
    [{'type': 'image_url'}, {'type': 'text', 'text': 'Who?'}]
    """
    before, place, after = content.partition(VIDEO)
    if not place:
        return content
    around = [{"type": "text", "text": before}] if before else [], [{"type": "text", "text": after}] if after else []
    return [*around[0], *clip, *around[1]]


def png(frame_HWC: Any) -> str:
    """A frame, uint8 [H, W, 3], as base64 of a PNG: smaller than its pixels, and nothing is lost."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(frame_HWC).save(file, "png", compress_level=1)
    return _base64(file.getvalue())


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def said(choice: Any) -> str:
    """The text of a choice, with the reasoning that some servers set apart put back before it.

    Raises:
        MalformedReplyError: There is no text.
    """
    message = getattr(choice, "message", None)
    if message is None:
        text = getattr(choice, "text", None)
    else:
        text = getattr(message, "content", None) or getattr(message, "refusal", None) or ""
    if not isinstance(text, str):
        raise MalformedReplyError("a reply without a text")
    reasoning = getattr(message, "reasoning", None) or getattr(message, "reasoning_content", None)
    if not reasoning:
        return text
    return f"<think>{reasoning}</think>{text}" if text else f"<think>{reasoning}"


def seed_of(request: Request) -> int:
    """The run's seed made another for each document: with one for all, equal texts would get equal answers."""
    drawn = hashlib.sha256(f"{sampling_seed()}:{request.task}:{request.id}".encode()).digest()
    return int.from_bytes(drawn[:4], "big") >> 1


# ---- arguments ---------------------------------------------------------------------------------------------------


def read_arguments(args: Mapping[str, Any]) -> tuple[Options, Manners]:
    """Sort `--model_args` into what to ask and how to ask, and check them before anything is asked.

    Raises:
        ModelError: An argument is unknown, a secret, or out of range; there is no model; labels are to be ranked.
    """
    given = {
        name: value for name, value in args.items() if value is not None and name not in ("max_batch_size", "device")
    }
    batch_size = str(given.pop("batch_size", "auto"))
    if not batch_size.startswith("auto"):
        given.setdefault("num_concurrent", batch_size)
    options, manners = ({f.name for f in fields(kind)} for kind in (Options, Manners))
    for name, value in given.items():
        if is_secret(name, value):
            raise ModelError(
                f"`{name}` in --model_args would be written to results",
                next="export OPENAI_API_KEY=...      api_key_env=NAME names another variable",
            )
        if name not in options | manners:
            raise unknown_argument(name, sorted(options | manners))
    made = Options(**{name: value for name, value in given.items() if name in options})
    return made, Manners(**{name: _number(name, value) for name, value in given.items() if name in manners})


def _number(name: str, value: Any) -> Any:
    """A number above 0; counts are whole, and some may be 0."""
    counts, least = name in ("num_concurrent", "max_retries"), 0 if name in ("max_retries", "price") else 1e-3
    try:
        number = int(str(value)) if counts else float(value)
    except (TypeError, ValueError):
        number = -1
    if not least <= number < 1e9:
        whole, bound = "whole " if counts else "", "from 0" if least == 0 else "above 0"
        raise ModelError(f"{name}={value} is no {whole}number {bound}")
    return number
