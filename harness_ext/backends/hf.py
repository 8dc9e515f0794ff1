"""`mmla-hf`: any transformers causal LM on texts, any model that reads video or images on everything.

Three ways to answer: `generate` (free text), `constrained` (one grammar of the answer forms) and `rank` (the likelihood
of every label, see `hf_rank`). Loading is in `hf_load`; torch and transformers are imported when a model is made.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final

from harness_ext.backends import processor_lm
from harness_ext.backends.hf_batch import (
    BatchBound,
    Inputs,
    Prepared,
    clip_bytes,
    collate,
    ran_out_of_memory,
    release_memory,
)
from harness_ext.backends.hf_load import Loaded, ModelSource, check_packages, end_tokens, load
from harness_ext.backends.processor_lm import ProcessorLM, ranked, unknown_argument
from harness_ext.labels import answer_grammar, answer_lead, longest_answer
from harness_ext.messages import model_inputs, token_counts
from harness_ext.order import asking_order
from harness_ext.prefetch import Ahead, in_batches
from harness_ext.questions import Question, Skipped
from harness_ext.requests import Request, Response
from harness_ext.session import decode_limits, timings
from mmla_tasks.errors import MissingExtraError, ModelError, suggest

if TYPE_CHECKING:
    from harness_ext.frame_policy import FramePolicy
    from harness_ext.timings import Stage, Timings

logger = logging.getLogger(__name__)

DEFAULT_NEW_TOKENS: Final = 64
AUTO_TOKENS: Final = {"cuda": 16_384, "cpu": 4_096}
"""Tokens of a batch, padding included, with which ``batch_size=auto`` starts, by kind of device."""
SAMPLING_ONLY: Final = ("temperature", "top_p", "top_k", "min_p", "typical_p")
NOT_FOR_GENERATE: Final = ("until", "max_gen_toks", "do_sample")


@dataclass(frozen=True)
class Options(processor_lm.Options):
    """How to ask, with what only batches of tensors need."""

    max_batch_tokens: int | None = None
    """Tokens of a batch's prompts, video and padding included; None is no bound, or `AUTO_TOKENS` with ``auto``."""


class HFLabelLM(ProcessorLM):
    """A transformers model as lm-eval and `answer_all` see it.

    Args:
        pretrained: Local folder, GGUF file or Hub id.
        **args: Fields of `hf_load.ModelSource` and of `Options`.

    Raises:
        ModelError: An argument is unknown or does not fit, or the model cannot be loaded.
        MissingExtraError: A package is not installed.
    """

    PACKAGES = ("torch", "transformers", "peft", "xgrammar", "av", "decord")
    """What can change an answer; their versions stand in the results."""

    NAME = "mmla-hf"
    FREE_ARGUMENTS = ("max_batch_tokens",)

    options: Options

    def __init__(self, pretrained: str | None = None, **args: Any) -> None:
        if pretrained is None:
            raise ModelError("mmla-hf needs a model", next="--model_args pretrained=FOLDER_OR_HUB_NAME")
        # Read when torch is loaded. Threads that spin while they wait keep the cores from the decoders: 202 ms of CPU
        # time for a clip without this, 178 ms with it (benchmarks/peers.py).
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        source, options = split_arguments(pretrained, args)
        check_packages(source)
        super().__init__(options)
        self._use(load(source))

    @classmethod
    def of(cls, loaded: Loaded, forward: Callable[..., Any] | None = None, **options: Any) -> HFLabelLM:
        """Make a backend of a model that is in memory already, such as one that is being trained.

        Args:
            loaded: The model; its weights may change between answers.
            forward: Runs a model that learns: itself, or a wrapper that first gathers its weights.
            **options: Fields of `Options`.
        """
        backend = cls.__new__(cls)
        ProcessorLM.__init__(backend, Options(**options))
        backend._use(loaded, forward)
        return backend

    def _use(self, loaded: Loaded, forward: Callable[..., Any] | None = None) -> None:
        from harness_ext.backends.hf_rank import LabelScorer

        self.model, self.processor = loaded.model, loaded.processor
        self._loaded, self.loaded_identity, self.adapters = loaded, loaded.identity, loaded.adapters
        self._device = loaded.model.device
        self.scorer = LabelScorer(loaded.model, forward)
        self._grammars = Grammars(loaded.tokenizer, vocabulary_size(loaded), self.end_tokens)
        self._bound = batch_bound(self.options, self._device.type)
        self._clip_bytes: dict[FramePolicy, int] = {}
        self._processor_lock = threading.Lock()
        self.decode_wait_seconds = 0.0
        self.max_length = self.options.max_length or context_length(loaded.model)

    # ---- what the journal and the results ask --------------------------------------------------------------------

    @property
    def model_config(self) -> Any:
        """The model's config, by which a released family is recognised."""
        return self.model.config

    def checkpoint_decoding(self) -> dict[str, Any]:
        """The checkpoint's own generation settings, which nothing but ``--protocol paper`` lets into force."""
        return dict(self._loaded.own_decoding)

    @property
    def end_tokens(self) -> list[int]:
        """Token ids with which the model ends an answer; the tokenizer's own end token, if it is one, comes first."""
        return end_tokens(self.model.generation_config, self.tokenizer)

    def reply(self, question: Question) -> str:
        """One free answer, outside of any journal."""
        settings = generation_settings(question.request.gen_kwargs)
        self._use_adapter(question.request.task)
        inputs = self._inputs([question], settings["max_new_tokens"])
        out = self.model.generate(**inputs, generation_config=self._generation_config(settings))
        return str(self.tokenizer.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))

    # ---- answering -----------------------------------------------------------------------------------------------

    def answer(self, requests: list[Request]) -> Iterator[tuple[int, Response]]:
        """Answer in batches, longest prompts first, each pair as soon as it exists.

        While one batch is asked, the next is decoded and made into tensors. What was yielded before an error is not
        lost.

        Yields:
            Index into `requests`, response.
        """
        if self.adapters is not None:
            self.adapters.check({request.task for request in requests})
        limits, waited_before = decode_limits(), self.decode_wait_seconds
        with Ahead(
            asking_order(requests, self.text_lengths(requests), self._batch_key),
            lambda index: self.tensors_of(requests[index]),
            cost=lambda index: self._cost(requests[index]),
            size=lambda prepared: prepared.nbytes if isinstance(prepared, Prepared) else 0,
            limits=limits,
            depth=limits.workers + (self._bound.prompts or 0),
        ) as ahead:
            for answered in in_batches(ahead, self._is_full, self._joins, self._answer_batch):
                self.decode_wait_seconds = waited_before + ahead.waited_seconds
                yield from answered

    def text_lengths(self, requests: Sequence[Request]) -> list[int]:
        """Tokens of each prompt without those of its clip, which nobody has opened yet."""
        chats = [n for n, request in enumerate(requests) if request.chat]
        plain = [n for n, request in enumerate(requests) if not request.chat]
        lengths: dict[int, int] = {}
        for chat, some in ((True, chats), (False, plain)):
            counts = token_counts(self.processor, [requests[n].prompt for n in some], chat=chat)
            lengths.update(zip(some, counts, strict=True))
        return [lengths[n] for n in range(len(requests))]

    def _batch_key(self, request: Request) -> tuple[Any, ...]:
        adapter = self.adapter_of(request.task)
        return adapter and adapter.path, *batch_key(request, self.options.answer)

    def _cost(self, request: Request) -> int:
        """Bytes that a request holds at most, known before its clip is opened."""
        if request.clip is None or not self.MULTIMODAL:
            return 0
        if self.frame_policy not in self._clip_bytes:
            self._clip_bytes[self.frame_policy] = clip_bytes(self.processor, self.frame_policy, self.model.dtype)
        return self._clip_bytes[self.frame_policy]

    def tensors_of(self, request: Request) -> Prepared | Skipped:
        """Decode a request's clip and make its tensors."""
        question = self._question(request)
        return question if isinstance(question, Skipped) else self.prepared(question)

    def prepared(self, question: Question) -> Prepared:
        """Tensors of one question, for whichever thread asks: processors promise nothing about threads."""
        with self._processor_lock, timings().measure("preprocess"):
            inputs = model_inputs(
                self.processor,
                [question.prompt],
                None if question.frames is None else [question.frames],
                chat=question.request.chat,
                template=self._template,
                max_pixels=self._max_pixels,
            )
        # Pictures in the model's precision, but not seconds, one number a clip: rounded, they would shift positions.
        dtypes = {k: self.model.dtype if v.is_floating_point() and v.ndim > 1 else v.dtype for k, v in inputs.items()}
        return Prepared(question.without_frames(), {k: v.to(dtypes[k]) for k, v in inputs.items()})

    def _is_full(self, batch: Sequence[Prepared | Skipped]) -> bool:
        """Whether nothing more fits into a batch, however short."""
        lengths = [one.length for one in batch if isinstance(one, Prepared)]
        return bool(lengths) and not self._bound.allows([*lengths, 0])

    def _joins(self, batch: Sequence[Prepared | Skipped], another: Prepared | Skipped) -> bool:
        """Whether a question fits into a batch that is not full; frames of two batches must fit into memory."""
        asked = [one for one in (*batch, another) if isinstance(one, Prepared)]
        if isinstance(another, Skipped) or len(asked) == 1:
            return True
        alike = self._batch_key(asked[0].question.request) == self._batch_key(another.question.request)
        fits = 2 * sum(one.nbytes for one in asked) <= decode_limits().memory
        return alike and fits and self._bound.allows([one.length for one in asked])

    def _answer_batch(self, batch: Mapping[int, Prepared | Skipped]) -> list[tuple[int, Response]]:
        """Ask one batch, given by its indices into the requests."""
        answered = [(index, one.response) for index, one in batch.items() if isinstance(one, Skipped)]
        alike: dict[tuple[Any, ...], dict[int, Prepared]] = {}  # some processors stack the clips of a batch
        for index, prepared in batch.items():
            if isinstance(prepared, Prepared):
                alike.setdefault(prepared.shapes, {})[index] = prepared
        for group in alike.values():
            answered.extend(zip(group, self._ask(list(group.values())), strict=True))
        return answered

    def _ask(self, prepared: Sequence[Prepared]) -> list[Response]:
        """Ask in one batch; when memory runs out, go on with half its tokens, to which later batches then keep."""
        self._use_adapter(prepared[0].question.request.task)
        responses: list[Response] = []
        while left := prepared[len(responses) :]:
            batch = self._bound.first(left)
            try:
                responses += self.rank_labels(batch) if self.options.answer == "rank" else self._generate(batch)
                continue
            except Exception as error:
                if not ran_out_of_memory(error):
                    raise
                if len(batch) == 1:
                    raise self._too_large(batch[0], error) from error
            self._bound.halve([one.length for one in batch])  # not above: there the error still holds the tensors
            logger.warning("out of memory with %d prompts, going on with %d tokens", len(batch), self._bound.tokens)
            release_memory()
        return responses

    def _use_adapter(self, task: str) -> None:
        if self._loaded.adapted is not None:
            self._loaded.adapted.use(self.adapter_of(task))

    def _too_large(self, prepared: Prepared, error: Exception) -> ModelError:
        request = prepared.question.request
        return ModelError(
            f"memory does not suffice for {request.task}, document {request.id}, alone",
            prompt=f"{prepared.length} tokens",
            why=str(error).split("\n")[0] or type(error).__name__,
            next="fewer frames (num_frames, fps, max_pixels), dtype=bfloat16, or a larger device",
        )

    def _inputs(self, questions: Sequence[Question], new_tokens: int) -> Inputs:
        """Tensors of some questions, as `_batch` gives them."""
        return self._batch([self.prepared(question) for question in questions], new_tokens)

    def _batch(self, prepared: Sequence[Prepared], new_tokens: int, length: int = 0) -> Inputs:
        """Tensors of one batch on the model's device, every prompt known to fit with `new_tokens` behind it.

        Args:
            prepared: Of equal shapes.
            new_tokens: What an answer may need.
            length: Pad to at least so many tokens.
        """
        for one in prepared:
            self._check_length(one.question.request, one.length, new_tokens)
        return {k: v.to(self._device) for k, v in collate(prepared, self.tokenizer.pad_token_id or 0, length).items()}

    # ---- generate and constrained --------------------------------------------------------------------------------

    def _generate(self, batch: list[Prepared]) -> list[Response]:
        """Generate answers, free or within the grammar of the answer forms."""
        import torch

        questions = [prepared.question for prepared in batch]
        settings = self._settings(questions)
        limit = settings["max_new_tokens"]
        inputs = self._batch(batch, limit)
        processors = [self._grammars.processor(questions)] if self.options.answer == "constrained" else []
        with torch.inference_mode(), prefill_then_generate(timings()) as watch:
            out = self.model.generate(
                **inputs, generation_config=self._generation_config(settings), logits_processor=[watch, *processors]
            )
        new = out[:, inputs["input_ids"].shape[1] :].tolist()  # [B, up to limit]
        return [self._response(one.question, ids, one.length, limit) for one, ids in zip(batch, new, strict=True)]

    def _settings(self, questions: Sequence[Question]) -> dict[str, Any]:
        settings = generation_settings(questions[0].request.gen_kwargs)
        if self.options.answer == "constrained":
            forms = [(q.request.answer_forms, answer_lead(q.request)) for q in questions]
            settings["max_new_tokens"] = max(longest_answer(*form) for form in forms)
        return settings

    def _generation_config(self, settings: Mapping[str, Any]) -> Any:
        from transformers import GenerationConfig

        known = GenerationConfig().to_dict()
        for name in settings:
            if name not in known:
                raise ModelError(f"Unknown generation argument '{name}'", hint=suggest(name, known))
        return GenerationConfig(**{**self.model.generation_config.to_diff_dict(), **settings})

    # ---- rank ----------------------------------------------------------------------------------------------------

    def rank_labels(self, batch: Sequence[Prepared], length: int = 0) -> list[Response]:
        """Score all labels of a batch that shares them, and answer with the likeliest; of equals, the first.

        Args:
            batch: Prompts of equal labels and shapes.
            length: Pad them to at least so many tokens.
        """
        answer = self._tokens_of(batch[0].question.request)
        longest = len(answer.prefix) + max(len(own) for own in answer.own)
        inputs = self._batch(batch, longest, length)
        with timings().measure("prefill"):
            scores = self.scorer.scores(inputs, answer, lambda i: self._batch([batch[i]], longest))
        return [ranked(one.question, answer, row, one.length) for one, row in zip(batch, scores, strict=True)]


# ---- arguments ---------------------------------------------------------------------------------------------------


def split_arguments(pretrained: str, args: Mapping[str, Any]) -> tuple[ModelSource, Options]:
    """Sort `--model_args` into what to load and how to ask.

    Raises:
        ModelError: An argument is unknown, or its value is not among the allowed ones.
    """
    source = {f.name for f in fields(ModelSource)} - {"pretrained"}
    options = {f.name for f in fields(Options)}
    for name in args:
        if name not in source | options:
            known = sorted({"pretrained"} | source | options)
            raise unknown_argument(name, known)
    given = {k: v for k, v in args.items() if v is not None}
    made = Options(**{k: v for k, v in given.items() if k in options})
    return ModelSource(str(pretrained), **{k: v for k, v in given.items() if k in source}), made


def batch_bound(options: Options, device: str) -> BatchBound:
    """How large batches may be at first; lm-eval also writes ``auto`` as ``auto:4``."""
    size = str(options.batch_size)
    if size.startswith("auto"):
        tokens = options.max_batch_tokens or AUTO_TOKENS.get(device, AUTO_TOKENS["cpu"])
        return BatchBound(options.max_batch_size, tokens)
    if not size.isdigit() or int(size) < 1:
        raise ModelError(f"batch_size='{size}' is neither a positive number nor auto")
    return BatchBound(int(size), options.max_batch_tokens)


def context_length(model: Any) -> int | None:
    """Tokens that the model's positions reach; None where its config does not say."""
    config = model.config.get_text_config()
    found = (getattr(config, name, None) for name in ("max_position_embeddings", "n_positions", "max_seq_len"))
    return next((int(length) for length in found if length), None)


def vocabulary_size(loaded: Loaded) -> int:
    """Width of the logits, which is often padded beyond the tokenizer's vocabulary."""
    return max(int(loaded.model.config.get_text_config().vocab_size), len(loaded.tokenizer))


# ---- batches -----------------------------------------------------------------------------------------------------


def batch_key(request: Request, mode: str) -> tuple[Any, ...]:
    """What all requests of a batch must share."""
    shared = (request.clip is None, request.chat)
    if mode == "rank":
        return (*shared, answer_lead(request), request.answer_prefix, request.labels)
    return (*shared, json.dumps(dict(request.gen_kwargs), sort_keys=True, default=str))


@contextmanager
def prefill_then_generate(timings: Timings) -> Iterator[FirstToken]:
    """Measure one call of `generate` as two stages; it must be given what this yields among its logits processors."""
    watch = FirstToken(timings)
    timings.begin("prefill")
    try:
        yield watch
    finally:
        timings.end(watch.stage)


class FirstToken:
    """Notices when the scores of the first new token are there, and changes nothing."""

    def __init__(self, timings: Timings) -> None:
        self.stage: Stage = "prefill"
        self._timings = timings

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """Give the scores back."""
        if self.stage == "prefill":
            scores.max().item()  # a GPU works on while Python goes on: ask for one number
            self._timings.end("prefill")
            self.stage = "generate"
            self._timings.begin("generate")
        return scores


# ---- settings and texts ------------------------------------------------------------------------------------------


def generation_settings(gen_kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """lm-eval's generation arguments as transformers'; greedy, without repetition penalty, unless they say otherwise.

    >>> generation_settings({"max_gen_toks": 8, "temperature": 0.0, "until": []})
    {'num_beams': 1, 'repetition_penalty': 1.0, 'max_new_tokens': 8, 'do_sample': False}
    """
    sample = bool(gen_kwargs.get("do_sample", False))
    unused = NOT_FOR_GENERATE if sample else (*NOT_FOR_GENERATE, *SAMPLING_ONLY)
    passed = {name: value for name, value in gen_kwargs.items() if name not in unused}
    limit = gen_kwargs.get("max_gen_toks", gen_kwargs.get("max_new_tokens", DEFAULT_NEW_TOKENS))
    return {"num_beams": 1, "repetition_penalty": 1.0, **passed, "max_new_tokens": int(limit), "do_sample": sample}


# ---- grammar -----------------------------------------------------------------------------------------------------


class Grammars:
    """Compiled grammars of answer forms, one per label list."""

    def __init__(self, tokenizer: Any, vocabulary: int, end_tokens: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self._vocabulary = vocabulary
        self._end_tokens = list(end_tokens)
        self._compiler: Any = None
        self._compiled: dict[str, Any] = {}

    def processor(self, questions: Sequence[Question]) -> GrammarProcessor:
        """A logits processor for one batch, whose rows may belong to different tasks."""
        texts = [answer_grammar(q.request.answer_forms, answer_lead(q.request)) for q in questions]
        return GrammarProcessor([self._compile(text) for text in texts], self._vocabulary)

    def _compile(self, text: str) -> Any:
        if text not in self._compiled:
            self._compiled[text] = self._compiler_once().compile_grammar(text)
        return self._compiled[text]

    def _compiler_once(self) -> Any:
        if self._compiler is None:
            try:
                import xgrammar
            except ImportError as error:
                raise MissingExtraError("xgrammar", extra="hf", purpose="--answer constrained") from error
            info = xgrammar.TokenizerInfo.from_huggingface(
                self._tokenizer, vocab_size=self._vocabulary, stop_token_ids=self._end_tokens
            )
            self._compiler = xgrammar.GrammarCompiler(info)
        return self._compiler


class GrammarProcessor:
    """Lets each row of a batch continue only as its grammar allows. For one call of `generate`."""

    def __init__(self, compiled: Sequence[Any], vocabulary: int) -> None:
        import xgrammar

        self._matchers = [xgrammar.GrammarMatcher(grammar) for grammar in compiled]
        self._bitmask = xgrammar.allocate_token_bitmask(len(compiled), vocabulary)
        self._vocabulary = vocabulary
        self._started = False

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """Take each row's last token, [B, L] -> mask the next token's scores, [B, V]. Finished rows are left alone."""
        import xgrammar

        for row, matcher in enumerate(self._matchers):
            if self._started and not matcher.is_terminated():
                matcher.accept_token(int(input_ids[row, -1]))
        self._started = True
        open_rows = [row for row, matcher in enumerate(self._matchers) if not matcher.is_terminated()]
        for row in open_rows:
            self._matchers[row].fill_next_token_bitmask(self._bitmask, row)
        if open_rows:
            xgrammar.apply_token_bitmask_inplace(scores, self._bitmask.to(scores.device), indices=open_rows)
            scores[open_rows, self._vocabulary :] = -float("inf")  # logits wider than any token
        return scores
