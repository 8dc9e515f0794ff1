"""Answer forms as tokens: the forced prefix, the label trie and the grammar, shared by `constrained` and `rank`.

An answer form is ``intent: joke``. Its prefix ``intent:`` is forced; a label's score is that of its own tokens, here
`` joke``. Labels that begin alike share nodes of a trie, so a model reads every distinct beginning once::

    intent: ─┬─ joke
             └─ ask ──── for ─┬─ help
                              └─ opinions
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from harness_ext.requests import Request
from mmla_tasks.errors import ModelError

ROOT: Final = -1
"""Parent of a label's first token: the last token of the forced prefix."""


@dataclass(frozen=True)
class LabelTrie:
    """Label tokens as a tree. Parents stand before their children; the root itself is no node."""

    tokens: tuple[int, ...]
    """Token id of each node."""
    parents: tuple[int, ...]
    """Index of each node's parent, or `ROOT`."""
    depths: tuple[int, ...]
    """Distance from the root in tokens: 1 for a label's first token."""
    ends: tuple[int | None, ...]
    """Index of the label that ends at each node, None for the others."""

    @property
    def inner(self) -> tuple[int, ...]:
        """Nodes with children, in order: only these need to pass through a model, a last token never does."""
        return tuple(sorted(set(self.parents) - {ROOT}))

    def path(self, label: int) -> list[int]:
        """Nodes of one label, from its first token to its last."""
        node = self.ends.index(label)
        path = [node]
        while (node := self.parents[node]) != ROOT:
            path.append(node)
        return path[::-1]


@dataclass(frozen=True)
class AnswerTokens:
    """The answer forms of one task for one tokenizer."""

    labels: tuple[str, ...]
    prefix: tuple[int, ...]
    """Token ids forced after the prompt, the same for all labels."""
    own: tuple[tuple[int, ...], ...]
    """Token ids that are scored, one tuple a label; ``prefix + own[i]`` spells the i-th answer form exactly."""
    end_scored: bool
    """Whether each label's tokens include the end token, see `answer_tokens`."""
    trie: LabelTrie


def answer_lead(request: Request) -> str:
    """What parts the prompt from the answer form.

    A chat template ends where the answer begins. Without one the prompt ends in "... be provided.", and few-shot
    examples continue with a space: so does the forced answer.
    """
    return "" if request.chat or request.prompt[-1:].isspace() else " "


def answer_tokens(tokenizer: Any, request: Request, end_token: int) -> AnswerTokens:
    """Tokenise the answer forms and split them into the forced prefix and the labels' own tokens.

    The split is where the prefix ends when ``tok(prefix) + tok(" label") == tok(prefix + " label")`` holds for every
    label. Where a tokenizer merges across that border, it is after the longest run of tokens that the prefix alone and
    all whole forms begin with; the rest counts as the labels' own. Either way prefix and own tokens together are the
    whole form's tokens.

    If a label's tokens begin another's (``yes`` and ``yes please``), the shorter would win whatever the model thinks
    of an end there: then every label's score includes `end_token`.

    Args:
        tokenizer: A transformers tokenizer.
        request: Gives the prefix, the labels, and whether a space comes first.
        end_token: Token id with which the model ends an answer.

    Raises:
        ModelError: Two labels have the same tokens.
    """
    lead = answer_lead(request)
    forms = [form_ids(tokenizer, lead + form) for form in request.answer_forms]
    border = _common_beginning([form_ids(tokenizer, lead + request.answer_prefix), *forms])
    own = [tuple(form[border:]) for form in forms]
    _check_distinct(own, request.labels)
    end_scored = _any_begins_another(own)
    if end_scored:
        own = [(*ids, end_token) for ids in own]
    return AnswerTokens(request.labels, tuple(forms[0][:border]), tuple(own), end_scored, label_trie(own))


def form_ids(tokenizer: Any, text: str) -> list[int]:
    r"""Token ids of `text` as a continuation: no special tokens, no space that the tokenizer puts before a first word.

    The text is tokenised after a newline, which SentencePiece tokenizers need to leave it as it is (alone,
    ``intent:`` becomes ``▁intent:``), and the newline is cut off again where that can be done exactly.
    """
    anchor: list[int] = tokenizer.encode("\n", add_special_tokens=False)
    anchored: list[int] = tokenizer.encode("\n" + text, add_special_tokens=False)
    if anchor and anchored[: len(anchor)] == anchor:
        return anchored[len(anchor) :]
    return list(tokenizer.encode(text, add_special_tokens=False))


def _common_beginning(sequences: Sequence[Sequence[int]]) -> int:
    """Length of the longest common beginning.

    >>> _common_beginning([[5, 6], [5, 6, 7], [5, 6, 8]])
    2
    """
    shortest = min(len(ids) for ids in sequences)
    return next((i for i in range(shortest) if len({ids[i] for ids in sequences}) > 1), shortest)


def _check_distinct(own: Sequence[tuple[int, ...]], labels: Sequence[str]) -> None:
    seen: dict[tuple[int, ...], str] = {}
    for ids, label in zip(own, labels, strict=True):
        if ids in seen:
            raise ModelError(
                f"The tokenizer makes the same tokens of the labels '{seen[ids]}' and '{label}'",
                next="rename one of them, or use --answer generate",
            )
        seen[ids] = label


def _any_begins_another(own: Sequence[tuple[int, ...]]) -> bool:
    """Sorted, a beginning stands right before what it begins.

    >>> _any_begins_another([(4, 5), (9,), (4,)])
    True
    """
    ordered = sorted(own)
    return any(b[: len(a)] == a for a, b in itertools.pairwise(ordered))


def label_trie(own: Sequence[Sequence[int]]) -> LabelTrie:
    """Merge equal beginnings of token sequences, none of which begins another.

    >>> label_trie([(4, 5), (4, 6), (9,)])
    LabelTrie(tokens=(4, 5, 6, 9), parents=(-1, 0, 0, -1), depths=(1, 2, 2, 1), ends=(None, 0, 1, 2))
    """
    nodes: dict[tuple[int, ...], int] = {}
    tokens: list[int] = []
    parents: list[int] = []
    for ids in own:
        for depth in range(1, len(ids) + 1):
            beginning = tuple(ids[:depth])
            if beginning not in nodes:
                nodes[beginning] = len(tokens)
                tokens.append(beginning[-1])
                parents.append(nodes.get(beginning[:-1], ROOT))
    ends = {nodes[tuple(ids)]: label for label, ids in enumerate(own)}
    depths = tuple(len(beginning) for beginning in nodes)
    return LabelTrie(tuple(tokens), tuple(parents), depths, tuple(ends.get(n) for n in range(len(tokens))))


def answer_grammar(forms: Sequence[str], lead: str = "") -> str:
    r"""The choice among answer forms as an xgrammar EBNF text; one text for transformers and vLLM.

    It allows every token path that spells a form, not only the tokenizer's own: that is what vLLM does, and two
    backends must not disagree.

    >>> answer_grammar(["intent: joke", 'say "hi"'])
    'root ::= "intent: joke" | "say \\"hi\\""'
    """
    return "root ::= " + " | ".join(_literal(lead + form) for form in forms)


def _literal(text: str) -> str:
    """Quote for EBNF, whose escapes are JSON's."""
    return json.dumps(text, ensure_ascii=False)


def longest_answer(forms: Sequence[str], lead: str = "") -> int:
    """Upper bound on the tokens of a constrained answer: a token spells at least one byte, and an end token follows."""
    return max(len((lead + form).encode()) for form in forms) + 1
