"""`mmla-hf`: any transformers causal LM on texts, any model that reads video or images on everything.

Three ways to answer: `generate` (free text), `constrained` (one grammar of the answer forms) and `rank` (the likelihood
of every label, see `hf_rank`). Loading is in `hf_load`; torch and transformers are imported when a model is made.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from itertools import chain
from typing import Any, Final

from harness_ext.backends.hf_load import Loaded, ModelSource, check_packages, end_tokens, load
from harness_ext.backends.processor_lm import Options, ProcessorLM, ranked, unknown_argument
from harness_ext.labels import answer_grammar, answer_lead, longest_answer
from harness_ext.messages import model_inputs
from harness_ext.prefetch import prefetched
from harness_ext.questions import Question, frame_bytes
from harness_ext.requests import Request, Response
from harness_ext.session import decode_limits
from mmla_tasks.errors import MissingExtraError, ModelError, suggest

logger = logging.getLogger(__name__)

DEFAULT_NEW_TOKENS: Final = 64
AUTO_BATCH: Final = {"cuda": 32, "cpu": 8}
"""Where ``batch_size=auto`` starts, by kind of device; halved when memory runs out. A quarter of it with clips."""
SAMPLING_ONLY: Final = ("temperature", "top_p", "top_k", "min_p", "typical_p")
NOT_FOR_GENERATE: Final = ("until", "max_gen_toks", "do_sample")


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

    def _use(self, loaded: Loaded) -> None:
        from harness_ext.backends.hf_rank import LabelScorer

        self.model, self.processor = loaded.model, loaded.processor
        self._loaded, self.loaded_identity = loaded, loaded.identity
        self._device = loaded.model.device
        self._scorer = LabelScorer(loaded.model)
        self._grammars = Grammars(loaded.tokenizer, vocabulary_size(loaded), self.end_tokens)
        self.batch_size = starting_batch_size(self.options, self._device.type)
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
    def adapters_note(self) -> str:
        """The one adapter."""
        adapter = self._loaded.identity["peft"]
        return f" + {adapter['path']}" if adapter else ""

    @property
    def end_tokens(self) -> list[int]:
        """Token ids with which the model ends an answer; the tokenizer's own end token, if it is one, comes first."""
        return end_tokens(self.model.generation_config, self.tokenizer)

    def reply(self, question: Question) -> str:
        """One free answer, outside of any journal."""
        settings = generation_settings(question.request.gen_kwargs)
        inputs = self._inputs([question], settings["max_new_tokens"])
        out = self.model.generate(**inputs, generation_config=self._generation_config(settings))
        return str(self.tokenizer.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))

    # ---- answering -----------------------------------------------------------------------------------------------

    def answer(self, requests: list[Request]) -> Iterator[tuple[int, Response]]:
        """Answer in batches, longest prompts first, each pair as soon as it exists.

        Frames of two batches are in memory at most: while one is asked, the next is decoded. What was yielded before
        an error is not lost.

        Yields:
            Index into `requests`, response.
        """

        def ask(batch: Sequence[int], questions: list[Question | None]) -> list[tuple[int, Response]]:
            size = self._batch_size_for(requests[batch[0]])  # memory may have run out since the batch was planned
            pairs = list(zip(batch, questions, strict=True))
            parts = [dict(pairs[n : n + size]) for n in range(0, len(pairs), size)]
            return [answer for part in parts for answer in self._answer_batch(part)]

        batches = plan_batches(requests, self.options.answer, self._batch_size_for)
        yield from chain.from_iterable(
            prefetched(
                batches,
                lambda i: self._question(requests[i]),
                ask,
                cost=lambda i: frame_bytes(requests[i], self.frame_policy),
                limits=decode_limits(),
                waited=self._waited,
            )
        )

    def _waited(self, seconds: float) -> None:
        self.decode_wait_seconds += seconds

    def _batch_size_for(self, request: Request) -> int:
        if request.clip is None:
            return self.batch_size
        size = self.batch_size // 4 if self.options.batch_size == "auto" else self.batch_size
        two_batches = 2 * frame_bytes(request, self.frame_policy)
        return max(1, min(size, decode_limits().memory // two_batches))

    def _answer_batch(self, questions: Mapping[int, Question | None]) -> list[tuple[int, Response]]:
        """Ask and pack one batch, given by its indices into the requests; None is a request to skip."""
        answered = [(index, Response("", skipped=True)) for index, question in questions.items() if question is None]
        alike: dict[int, dict[int, Question]] = {}  # by number of frames: some processors stack the clips of a batch
        for index, question in questions.items():
            if question is not None:
                alike.setdefault(len(question.frames or ()), {})[index] = question
        for group in alike.values():
            answered.extend(zip(group, self._ask(list(group.values())), strict=True))
        return answered

    def _ask(self, questions: list[Question]) -> list[Response]:
        """Ask one batch; when memory runs out, in halves, which later batches then start with."""
        import torch

        try:
            return self._rank_labels(questions) if self.options.answer == "rank" else self._generate(questions)
        except torch.OutOfMemoryError:
            if len(questions) == 1:
                raise
        torch.cuda.empty_cache()
        half = len(questions) // 2
        logger.warning("out of memory with a batch of %d, going on with %d", len(questions), half)
        self.batch_size = min(self.batch_size, half)
        return self._ask(questions[:half]) + self._ask(questions[half:])

    def _inputs(self, questions: Sequence[Question], new_tokens: int) -> dict[str, Any]:
        """Tensors of one batch on the model's device, every prompt known to fit with `new_tokens` behind it."""
        frames = [question.frames for question in questions if question.frames is not None]
        inputs = model_inputs(
            self.processor,
            [question.prompt for question in questions],
            frames or None,
            chat=questions[0].request.chat,
            template=self._template,
            max_pixels=self._max_pixels,
        )
        for question, length in zip(questions, prompt_lengths(inputs), strict=True):
            self._check_length(question.request, length, new_tokens)
        # Pictures in the model's precision, but not seconds, one number a clip: rounded, they would shift positions.
        dtypes = {k: self.model.dtype if v.is_floating_point() and v.ndim > 1 else None for k, v in inputs.items()}
        return {k: v.to(self._device, dtypes[k]) for k, v in inputs.items()}

    # ---- generate and constrained --------------------------------------------------------------------------------

    def _generate(self, questions: list[Question]) -> list[Response]:
        """Generate answers, free or within the grammar of the answer forms."""
        import torch

        settings = self._settings(questions)
        limit = settings["max_new_tokens"]
        inputs = self._inputs(questions, limit)
        processors = [self._grammars.processor(questions)] if self.options.answer == "constrained" else []
        with torch.inference_mode():
            out = self.model.generate(
                **inputs, generation_config=self._generation_config(settings), logits_processor=processors
            )
        new = out[:, inputs["input_ids"].shape[1] :].tolist()  # [B, up to limit]
        lengths = prompt_lengths(inputs)
        return [self._response(q, ids, n, limit) for q, ids, n in zip(questions, new, lengths, strict=True)]

    def _settings(self, questions: list[Question]) -> dict[str, Any]:
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

    def _rank_labels(self, questions: list[Question]) -> list[Response]:
        """Score all labels of a batch that shares them, and answer with the likeliest; of equals, the first."""
        answer = self._tokens_of(questions[0].request)
        longest = len(answer.prefix) + max(len(own) for own in answer.own)
        inputs = self._inputs(questions, longest)
        scores = self._scorer.scores(inputs, answer, lambda i: self._inputs([questions[i]], longest))
        lengths = prompt_lengths(inputs)
        return [ranked(q, answer, row, n) for q, row, n in zip(questions, scores, lengths, strict=True)]


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


def starting_batch_size(options: Options, device: str) -> int:
    """Prompts in the first batch; lm-eval also writes ``auto`` as ``auto:4``."""
    size = str(options.batch_size)
    if size.startswith("auto"):
        return min(AUTO_BATCH.get(device, AUTO_BATCH["cpu"]), options.max_batch_size or AUTO_BATCH["cuda"])
    if not size.isdigit() or int(size) < 1:
        raise ModelError(f"batch_size='{size}' is neither a positive number nor auto")
    return int(size)


def context_length(model: Any) -> int | None:
    """Tokens that the model's positions reach; None where its config does not say."""
    config = model.config.get_text_config()
    found = (getattr(config, name, None) for name in ("max_position_embeddings", "n_positions", "max_seq_len"))
    return next((int(length) for length in found if length), None)


def vocabulary_size(loaded: Loaded) -> int:
    """Width of the logits, which is often padded beyond the tokenizer's vocabulary."""
    return max(int(loaded.model.config.get_text_config().vocab_size), len(loaded.tokenizer))


# ---- batches -----------------------------------------------------------------------------------------------------


def plan_batches(requests: Sequence[Request], mode: str, size_for: Callable[[Request], int]) -> Iterator[list[int]]:
    """Cut requests into batches: alike in what a batch must share, longest prompts first, then in given order.

    The longest come first so that too little memory shows at once. The size is asked anew for every batch.

    Yields:
        Indices into `requests`.
    """
    groups: dict[tuple[Any, ...], list[int]] = {}
    for index, request in enumerate(requests):
        groups.setdefault(_batch_key(request, mode), []).append(index)
    for members in groups.values():
        left = sorted(members, key=lambda i: (-len(requests[i].prompt), i))
        while left:
            size = size_for(requests[left[0]])
            yield left[:size]
            del left[:size]


def _batch_key(request: Request, mode: str) -> tuple[Any, ...]:
    shared = (request.clip is None, request.chat)
    if mode == "rank":
        return (*shared, answer_lead(request), request.answer_prefix, request.labels)
    return (*shared, json.dumps(dict(request.gen_kwargs), sort_keys=True, default=str))


def prompt_lengths(inputs: Mapping[str, Any]) -> list[int]:
    """Tokens of each prompt, padding left out."""
    lengths: list[int] = inputs["attention_mask"].sum(-1).tolist()
    return lengths


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
