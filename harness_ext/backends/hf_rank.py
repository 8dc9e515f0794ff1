"""Likelihood of every label after a prompt, the prompt computed once (`rank` in `mmla-hf`).

The inner nodes of the label trie are read all at once behind the prompt and the forced prefix: in the same pass where
the prompt is a short text, else in one more step on top of the prompt's cache, which is never copied::

    keys:   p r o m p t   i n t e n t :   ask  for  com  plain
    ask     1 1 1 1 1 1   1 1 1 1 1 1 1    1    0    0    0
    for     1 1 1 1 1 1   1 1 1 1 1 1 1    1    1    0    0      a node sees the prompt and its own ancestors,
    com     1 1 1 1 1 1   1 1 1 1 1 1 1    0    0    1    0      and stands at: last position of the prompt + its depth
    plain   1 1 1 1 1 1   1 1 1 1 1 1 1    0    0    1    1

Positions come from the model's own `_prepare_position_ids_for_generation`, so M-RoPE needs no branch of ours: after a
text token its rows go on by one each, as in generation. Where a model cannot do this, each label is scored as a
sequence of its own.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Sequence
from typing import Any, Final

from harness_ext.backends.hf_batch import TOKEN_TYPES, Inputs, ran_out_of_memory
from harness_ext.labels import ROOT, AnswerTokens, LabelTrie

logger = logging.getLogger(__name__)

ONE_PASS_TOKENS: Final = 1024
"""Longest text prompt that is read together with the trie; beyond, a pass saved is small and the mask [L, L] large."""
PROBE_LABELS: Final = 3
"""Labels, those with most tokens, that are scored both ways on a run's first prompt."""
AGREEMENT: Final = {"float32": 2e-4, "float64": 2e-4}
"""Largest difference between the two ways in nats: 7e-6 is seen, positions wrong by one give 8e-4 in a tiny model."""
AGREEMENT_LOW_PRECISION: Final = 0.5
"""The same for bfloat16 and float16, whose rounding hides small faults: only gross ones are found."""


class LabelScorer:
    """Scores labels with one model; remembers whether the model can read the trie at once.

    Args:
        model: A transformers model.
        forward: Runs a model that learns: itself, or a wrapper that first gathers its weights.
    """

    def __init__(self, model: Any, forward: Callable[..., Any] | None = None) -> None:
        self.model = model
        self.forward = forward or model
        self.learns = forward is not None
        self.agreed: Callable[[bool], bool] = bool
        """Of several processes that run one model together, all must go the same way: what they agree on."""
        self._parameters = set(inspect.signature(model.forward).parameters)
        self._tree_works: bool | None = None
        self._said: set[str] = set()

    def scores(self, inputs: Inputs, answer: AnswerTokens, alone: Callable[[int], Inputs]) -> list[list[float]]:
        """Log-probability (natural log, summed over its own tokens) of each label.

        Args:
            inputs: B left-padded prompts.
            answer: The answer forms, the same for all B.
            alone: Gives the unpadded inputs of the i-th prompt; asked only where labels are scored one by one.

        Returns:
            B lists in the order of ``answer.labels``.
        """
        import torch

        # A model that learns must not keep tensors of inference mode, in which ZeRO-3 gathers its weights.
        with torch.no_grad() if self.learns else torch.inference_mode():
            if self._may_branch(inputs, answer):
                scores = self._checked_tree(inputs, answer, alone)
                if scores is not None:
                    return [[float(score) for score in row] for row in scores]
            rows = range(inputs["input_ids"].shape[0])
            return [[float(score) for score in self.naive(alone(row), answer)] for row in rows]

    # ---- all labels at once --------------------------------------------------------------------------------------

    def tree(self, inputs: Inputs, answer: AnswerTokens) -> Any:
        """Score the trie on top of prompt and prefix. Float32 [B, labels]."""
        trie, inputs = answer.trie, with_tokens(inputs, answer.prefix)
        positions = self.positions(inputs)
        in_one = trie.inner and is_text(inputs) and inputs["input_ids"].shape[1] <= ONE_PASS_TOKENS
        logits = (self._in_one_pass if in_one else self._in_two_passes)(inputs, trie, positions)
        return _label_sums(logits, answer)

    def positions(self, inputs: Inputs) -> Any:
        """Position ids as the model's own `generate` makes them: [B, L], or [4, B, L] with M-RoPE."""
        others = {k: v for k, v in inputs.items() if k != "input_ids"}
        return self.model._prepare_position_ids_for_generation(inputs["input_ids"], others)

    def node_positions(self, positions: Any, trie: LabelTrie) -> Any:
        """Positions of the inner nodes, [..., B, N]: their depths, counted on from the last token of the prefix."""
        import torch

        return positions[..., -1:] + torch.tensor([trie.depths[n] for n in trie.inner], device=positions.device)

    def _in_one_pass(self, inputs: Inputs, trie: LabelTrie, positions: Any) -> Any:
        """Read prompt and nodes together, which saves a pass over the weights. Logits [B, 1 + N, V]."""
        import torch

        nodes, mask = node_tokens(inputs, trie), inputs["attention_mask"]
        seen = torch.cat([prompt_sees(mask, len(trie.inner)), nodes_see(mask, trie)], dim=2)  # [B, 1, L + N, L + N]
        out = self._forward(
            input_ids=torch.cat([inputs["input_ids"], nodes], dim=1),
            attention_mask=additive(seen, self.model.dtype),
            position_ids=torch.cat([positions, self.node_positions(positions, trie)], dim=-1),
            use_cache=False,
            keep=1 + len(trie.inner),
        )
        return out.logits[:, -1 - len(trie.inner) :]

    def _in_two_passes(self, inputs: Inputs, trie: LabelTrie, positions: Any) -> Any:
        """Read the prompt as generation does, then the nodes on top of its cache. Logits [B, 1 + N, V].

        The prompt's mask stays the model's own: some families let the tokens of one picture see each other both ways.
        """
        import torch

        prompt = self._forward(**inputs, position_ids=positions, use_cache=True, keep=1)
        if not trie.inner:
            return prompt.logits[:, -1:]
        step = self._forward(
            input_ids=node_tokens(inputs, trie),
            attention_mask=additive(nodes_see(inputs["attention_mask"], trie), self.model.dtype),
            position_ids=self.node_positions(positions, trie),
            past_key_values=prompt.past_key_values,
            use_cache=True,
        )
        return torch.cat([prompt.logits[:, -1:], step.logits], dim=1)

    def _forward(self, *, keep: int = 0, **inputs: Any) -> Any:
        if keep and "logits_to_keep" in self._parameters:
            inputs["logits_to_keep"] = keep
        return self.forward(**inputs)

    # ---- each label on its own -----------------------------------------------------------------------------------

    def naive(self, inputs: Inputs, answer: AnswerTokens, only: Sequence[int] | None = None, rows: int = 8) -> Any:
        """Score each label as a whole sequence: prompt, prefix, label. Float32 [labels].

        Labels of equal length share a batch, so nothing is padded, and masks and positions are the model's own.

        Args:
            inputs: One unpadded prompt.
            answer: The answer forms.
            only: Indices of the labels to score; None is all.
            rows: Largest number of sequences in a forward pass.
        """
        import torch

        prompt, labels = with_tokens(inputs, answer.prefix), list(only if only is not None else range(len(answer.own)))
        scores = torch.zeros(len(labels), dtype=torch.float32)
        for length in sorted({len(answer.own[label]) for label in labels}):
            places = [i for i, label in enumerate(labels) if len(answer.own[label]) == length]
            for start in range(0, len(places), rows):
                some = places[start : start + rows]
                scores[some] = self._whole_sequences(prompt, [answer.own[labels[i]] for i in some])
        return scores

    def _whole_sequences(self, prompt: Inputs, own: Sequence[Sequence[int]]) -> Any:
        """Score n continuations of one prompt, all of the same length. Float32 [n]."""
        import torch

        inputs = {name: torch.cat([value] * len(own)) for name, value in prompt.items()}
        tails = torch.tensor(own, device=inputs["input_ids"].device)  # [n, T]
        length = tails.shape[1]
        out = self._forward(**with_tokens(inputs, tails), use_cache=False, keep=length + 1)
        logp = out.logits[:, -length - 1 : -1].float().log_softmax(-1)  # [n, T, V]
        return logp.gather(-1, tails[..., None])[..., 0].sum(-1).cpu()

    # ---- which of the two ----------------------------------------------------------------------------------------

    def _may_branch(self, inputs: Inputs, answer: AnswerTokens) -> bool:
        if self._tree_works is None and (reason := why_not_at_once(self.model, self._parameters)):
            self._tree_works = False
            self._say_once(reason)
        window = sliding_window(self.model.config.get_text_config())
        length = inputs["input_ids"].shape[1] + len(answer.prefix) + len(answer.trie.inner)
        if self._tree_works is not False and window is not None and length > window:
            self._say_once(f"prompts are longer than the sliding window of {window} tokens")
            return False
        return self._tree_works is not False

    def _checked_tree(self, inputs: Inputs, answer: AnswerTokens, alone: Callable[[int], Inputs]) -> Any | None:
        """Score the trie; the first time compare with the other way, and give None for good where they differ.

        Custom model code may refuse a tree mask, or take it and ignore it.
        """
        try:
            scores = self.tree(inputs, answer)
        except (RuntimeError, TypeError, ValueError, IndexError) as error:
            if self._tree_works or ran_out_of_memory(error):
                raise
            self._tree_works = False
            self._say_once(f"it cannot read the labels at once ({type(error).__name__}: {str(error).splitlines()[0]})")
            return None
        if self._tree_works is None:
            self._tree_works = self.agreed(self._agrees(scores[0], alone(0), answer))
        return scores if self._tree_works else None

    def _agrees(self, scores: Any, inputs: Inputs, answer: AnswerTokens) -> bool:
        longest = sorted(range(len(answer.own)), key=lambda i: -len(answer.own[i]))[:PROBE_LABELS]
        difference = float((scores[longest] - self.naive(inputs, answer, only=longest)).abs().max())
        allowed = AGREEMENT.get(str(self.model.dtype).removeprefix("torch."), AGREEMENT_LOW_PRECISION)
        if difference > allowed:
            self._say_once(f"scores of all labels at once are off by {difference:.3g} nats")
        return difference <= allowed

    def _say_once(self, reason: str) -> None:
        if reason not in self._said:
            self._said.add(reason)
            logger.warning("rank: each label is scored as a sequence of its own, which is slower: %s", reason)


def why_not_at_once(model: Any, parameters: set[str]) -> str | None:
    """Say what keeps a model from reading the trie at once, None if nothing does.

    Args:
        model: A transformers model.
        parameters: Names that its forward takes.
    """
    config = model.config.get_text_config()
    attention = getattr(config, "_attn_implementation", None)
    if attention not in ("sdpa", "eager"):
        return f"attention '{attention}' takes no tree mask, attn_implementation=sdpa does"
    if getattr(model, "_is_stateful", False):
        return "the model is recurrent"
    if "position_ids" not in parameters or not hasattr(model, "_prepare_position_ids_for_generation"):
        return "the model takes no explicit positions"
    unknown = set(getattr(config, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}
    return f"the model has layers of the kind {', '.join(sorted(unknown))}" if unknown else None


def sliding_window(config: Any) -> int | None:
    """Tokens that the narrowest layer sees; None when all layers see everything."""
    window: int | None = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    return window if kinds is None or "sliding_attention" in kinds else None


def with_tokens(inputs: Inputs, tokens: Any) -> Inputs:
    """Append text tokens to every prompt: the same ones ([T] ids) or one row each ([B, T])."""
    import torch

    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    tail = torch.as_tensor(tokens, dtype=ids.dtype, device=ids.device).expand(ids.shape[0], -1)
    grown = {"input_ids": torch.cat([ids, tail], 1), "attention_mask": torch.cat([mask, torch.ones_like(tail)], 1)}
    for name in TOKEN_TYPES:
        if name in inputs:
            grown[name] = torch.cat([inputs[name], torch.zeros_like(tail)], 1)
    return {**inputs, **grown}


def is_text(inputs: Inputs) -> bool:
    """Whether nothing but tokens is shown."""
    return not set(inputs) - {"input_ids", "attention_mask", *TOKEN_TYPES}


def node_tokens(inputs: Inputs, trie: LabelTrie) -> Any:
    """Token ids of the inner nodes, once for each prompt. [B, N]."""
    import torch

    ids = inputs["input_ids"]
    tokens = torch.tensor([trie.tokens[n] for n in trie.inner], dtype=ids.dtype, device=ids.device)
    return tokens.expand(ids.shape[0], -1)


def nodes_see(prompt_mask: Any, trie: LabelTrie) -> Any:
    """What each inner node sees: the prompt without its padding, itself and its ancestors. Bool [B, 1, N, L + N]."""
    import torch

    place = {node: i for i, node in enumerate(trie.inner)}
    among = torch.zeros(len(place), len(place), dtype=torch.bool, device=prompt_mask.device)
    for node, i in place.items():
        ancestor = node
        while ancestor != ROOT:
            among[i, place[ancestor]] = True
            ancestor = trie.parents[ancestor]
    batch = prompt_mask.shape[0]
    prompt = prompt_mask.bool()[:, None, None, :].expand(batch, 1, len(place), -1)
    return torch.cat([prompt, among.expand(batch, 1, -1, -1)], dim=-1)


def prompt_sees(prompt_mask: Any, nodes: int) -> Any:
    """What each token of the prompt sees: those before it and itself, and no node. Bool [B, 1, L, L + N]."""
    import torch

    length = prompt_mask.shape[1]
    before = torch.ones(length, length, dtype=torch.bool, device=prompt_mask.device).tril()
    return torch.nn.functional.pad(before & prompt_mask.bool()[:, None, None, :], (0, nodes))


def additive(seen: Any, dtype: Any) -> Any:
    """What is added to attention scores: 0 where something is seen, the least number of `dtype` where not."""
    import torch

    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill(~seen, torch.finfo(dtype).min)


def _label_sums(logits: Any, answer: AnswerTokens) -> Any:
    """Sum log-probabilities along each label's path.

    Args:
        logits: What follows the root and each inner node, [B, 1 + N, V].
        answer: The answer forms.

    Returns:
        Float32 [B, labels].
    """
    import torch

    trie = answer.trie
    row = {ROOT: 0, **{node: i + 1 for i, node in enumerate(trie.inner)}}
    after = torch.tensor([row[parent] for parent in trie.parents], device=logits.device)
    tokens = torch.tensor(trie.tokens, device=logits.device)
    logp = logits.float().log_softmax(-1)[:, after, tokens]  # [B, nodes]
    return torch.stack([logp[:, trie.path(label)].sum(-1) for label in range(len(answer.own))], dim=1).cpu()
