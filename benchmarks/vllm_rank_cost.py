"""What ranking labels costs in vLLM, in answers of 16 tokens on the same prompt: SmolLM2, float32, four ways.

Run in an environment with vLLM as ``python benchmarks/vllm_rank_cost.py``, in that of ``make test-vllm`` as
``PYTHONPATH=. .venv-vllm/bin/python benchmarks/vllm_rank_cost.py``; its table is in docs/decisions/005. Exit status 1
when the way that `mmla-vllm` takes costs more than twice the answer.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

TASKS = ("mmla_emotion_meld", "mmla_intent_mintrec", "mmla_intent_mintrec2")
WORDS = "you know what I did yesterday "
ANSWER_TOKENS = 16
LIMIT = 2.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9, help="prompts per figure; the median is shown")
    parser.add_argument(
        "--block_size", type=int, help="tokens that share a place in the prefix cache (default: vLLM's)"
    )
    args = parser.parse_args()

    from harness_ext.backends.vllm import VLLMLabelLM
    from harness_ext.models import smollm2_folder

    block = {"block_size": args.block_size} if args.block_size else {}
    lm = VLLMLabelLM(
        str(smollm2_folder()), dtype="float32", enforce_eager=True, max_length=2048, max_num_seqs=64,
        distributed_executor_backend="uni", **block,
    )  # fmt: skip
    try:
        lm.engine.start()
        blocks = lm.engine.config.cache_config.block_size
        print(f"blocks of {blocks} tokens, median of {args.repeats} prompts\n")
        print("| labels | inner nodes | prompt tokens | answer of 16 | " + " | ".join(WAYS) + " |")
        print("|---:|---:|---:|---:|" + "---:|" * len(WAYS))
        worst = max(row(lm, task, args.repeats) for task in TASKS)
    finally:
        lm.close()
    print(f"\nat the trie's nodes, all at once: at most {worst:.2f} answers; asked for: {LIMIT:g}")
    return 0 if worst <= LIMIT else 1


def row(lm: Any, task: str, repeats: int) -> float:
    """Print one task's line; give the cost of the way taken, in answers."""
    prompts = iter(range(10_000))

    def seconds(ask: Callable[[Any, dict[str, Any]], Awaitable[Any]]) -> float:
        """Median over prompts that the prefix cache has not seen; the first one warms up."""
        return statistics.median(
            [lm._in_flight.call(timed, lm, task, next(prompts), ask) for _ in range(repeats + 1)][1:]
        )

    base = seconds(answer)
    costs = [seconds(way) for way in WAYS.values()]
    request, prompt = lm._in_flight.call(prepared, lm, task, next(prompts))
    trie = lm._tokens_of(request).trie
    shown = " | ".join(f"{cost:.2f} s, {cost / base:.2f}" for cost in costs)
    tokens = len(prompt["prompt_token_ids"])
    print(f"| {len(request.labels)} | {len(trie.inner)} | {tokens} | {base:.2f} s | {shown} |", flush=True)
    return costs[0] / base


async def timed(lm: Any, task: str, number: int, ask: Callable[[Any, Any, Any], Awaitable[Any]]) -> float:
    request, prompt = await prepared(lm, task, number)
    began = time.perf_counter()
    await ask(lm, request, prompt)
    return time.perf_counter() - began


async def prepared(lm: Any, task: str, number: int) -> tuple[Any, dict[str, Any]]:
    """A prompt that begins unlike all others."""
    from harness_ext.catalogue import Catalogue
    from harness_ext.prompts import PROMPT_TEXT, answer_prefix, render
    from harness_ext.questions import Question
    from harness_ext.requests import Request

    config = Catalogue.load().files[task].config
    dimension, labels = str(config["dimension"]), tuple(config["labels"])
    text = render(PROMPT_TEXT, {"text": WORDS * 4, "dimension": dimension, "labels": labels})
    prompt = lm.apply_chat_template([{"role": "system", "content": f"{number}"}, {"role": "user", "content": text}])
    request = Request(task, str(number), prompt, labels, answer_prefix(dimension), {}, chat=True)
    return request, await lm._prompt(Question(request, prompt), ANSWER_TOKENS)


async def answer(lm: Any, request: Any, prompt: dict[str, Any]) -> None:
    from harness_ext.backends.vllm import sampling

    await lm._answered(prompt, sampling(max_tokens=ANSWER_TOKENS, ignore_eos=True))


async def at_nodes(lm: Any, request: Any, prompt: dict[str, Any]) -> None:
    await lm._label_scores(prompt, lm._tokens_of(request), None)


async def at_nodes_after_the_root(lm: Any, request: Any, prompt: dict[str, Any]) -> None:
    """The prompt alone first, so that it is in the cache for sure when the nodes are asked."""
    from harness_ext.backends.vllm import sampling

    await lm._answered(prompt, sampling(max_tokens=1))
    await lm._label_scores(prompt, lm._tokens_of(request), None)


async def by_prompt_logprobs(lm: Any, request: Any, prompt: dict[str, Any]) -> None:
    await whole_labels(lm, request, prompt, skip_reading_prefix_cache=True)


async def by_prompt_logprobs_from_the_cache(lm: Any, request: Any, prompt: dict[str, Any]) -> None:
    """As far as the cache reaches log-probabilities are lost, which is right while it ends before the labels begin."""
    await whole_labels(lm, request, prompt, skip_reading_prefix_cache=False)


async def whole_labels(lm: Any, request: Any, prompt: dict[str, Any], **options: Any) -> None:
    """Each label as a sequence of its own."""
    from harness_ext.backends.vllm import sampling

    tokens = lm._tokens_of(request)
    params = sampling(max_tokens=1, prompt_logprobs=1, **options)
    ends = [[*prompt["prompt_token_ids"], *tokens.prefix, *own] for own in tokens.own]
    await asyncio.gather(*(lm._answered({**prompt, "prompt_token_ids": ids}, params) for ids in ends))


WAYS: dict[str, Callable[[Any, Any, Any], Awaitable[None]]] = {
    "nodes, all at once": at_nodes,
    "nodes, after the root": at_nodes_after_the_root,
    "`prompt_logprobs`": by_prompt_logprobs,
    "`prompt_logprobs`, cache read": by_prompt_logprobs_from_the_cache,
}
"""How labels can be ranked; each cost in seconds, and in answers of 16 tokens. The first is what `mmla-vllm` does."""


if __name__ == "__main__":
    sys.exit(main())
