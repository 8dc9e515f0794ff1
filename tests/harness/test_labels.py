"""Answer forms as tokens, with tokenizers small enough to reason about."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from harness_ext.labels import ROOT, answer_grammar, answer_lead, answer_tokens, form_ids, label_trie, longest_answer
from harness_ext.requests import Request
from mmla_tasks.errors import ModelError

END = 0


class Greedy:
    """Cuts a text into the longest pieces that it knows, else into characters."""

    def __init__(self, *pieces: str) -> None:
        self.pieces = ["<end>", *sorted(pieces, key=len, reverse=True)]

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        assert not add_special_tokens
        ids = []
        while text:
            piece = next((p for p in self.pieces[1:] if text.startswith(p)), text[0])
            if piece not in self.pieces:
                self.pieces.append(piece)
            ids.append(self.pieces.index(piece))
            text = text[len(piece) :]
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(self.pieces[i] for i in ids)


class Metaspace(Greedy):
    """Puts a space before whatever it reads, as SentencePiece tokenizers do."""

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        return super().encode(" " + text, add_special_tokens)


def request(*labels: str, prefix: str = "intent:", prompt: str = "Who?\n", chat: bool = True) -> Request:
    return Request("t", "1", prompt, labels, prefix, {}, chat=chat)


def spelled(tokenizer: Greedy, asked: Request) -> list[str]:
    answer = answer_tokens(tokenizer, asked, END)
    return [tokenizer.decode((*answer.prefix, *own)) for own in answer.own]


def test_split_stands_where_the_prefix_ends() -> None:
    tokenizer = Greedy("intent", " joke", " ask", " for", " help")
    answer = answer_tokens(tokenizer, request("joke", "ask for help"), END)
    assert tokenizer.decode(answer.prefix) == "intent:"
    assert [tokenizer.decode(own) for own in answer.own] == [" joke", " ask for help"]
    assert not answer.end_scored


def test_a_token_across_the_border_moves_the_split_back_and_stays_exact() -> None:
    tokenizer = Greedy("intent", ": joke", " ask")
    answer = answer_tokens(tokenizer, request("joke", "ask"), END)
    assert tokenizer.decode(answer.prefix) == "intent"
    assert [tokenizer.decode(own) for own in answer.own] == [": joke", ": ask"]


def test_labels_that_begin_alike_do_not_lengthen_the_prefix() -> None:
    tokenizer = Greedy("act", " statement", "-opinion", "-non")
    asked = request("statement-opinion", "statement-non-opinion", prefix="act:")
    assert tokenizer.decode(answer_tokens(tokenizer, asked, END).prefix) == "act:"


def test_the_end_token_is_scored_for_all_when_one_label_begins_another() -> None:
    tokenizer = Greedy("intent", " yes", " please", " no")
    answer = answer_tokens(tokenizer, request("yes", "yes please", "no"), END)
    assert answer.end_scored
    assert {own[-1] for own in answer.own} == {END}
    assert [len(own) for own in answer.own] == [2, 3, 2]


def test_labels_with_equal_tokens_are_refused() -> None:
    with pytest.raises(ModelError, match="same tokens of the labels 'joke' and 'joke'"):
        answer_tokens(Greedy(), request("joke", "joke"), END)


@pytest.mark.parametrize("tokenizer", [Greedy(" intent", " joke"), Metaspace(" intent", "intent", " joke")])
@pytest.mark.parametrize("chat", [True, False])
def test_prefix_and_own_tokens_spell_the_form(tokenizer: Greedy, chat: bool) -> None:
    asked = request("joke", "悲伤", prompt="Who is it?", chat=chat)
    lead = "" if chat else " "
    assert spelled(tokenizer, asked) == [lead + "intent: joke", lead + "intent: 悲伤"]


def test_no_space_is_invented_before_the_first_word() -> None:
    tokenizer = Metaspace("intent")
    assert tokenizer.decode(form_ids(tokenizer, "intent")) == "intent"


@pytest.mark.parametrize(
    ("prompt", "chat", "lead"), [("Who?", False, " "), ("Who?\n", False, ""), ("<|assistant|>", True, "")]
)
def test_a_plain_prompt_and_its_answer_are_parted_by_one_space(prompt: str, chat: bool, lead: str) -> None:
    assert answer_lead(request("joke", prompt=prompt, chat=chat)) == lead


def test_trie_shares_beginnings_and_keeps_every_path() -> None:
    own = [(4, 5), (4, 6, 7), (4, 6, 8), (9,)]
    trie = label_trie(own)
    assert len(trie.tokens) == 6
    assert [tuple(trie.tokens[n] for n in trie.path(i)) for i in range(len(own))] == own
    assert all(parent < node for node, parent in enumerate(trie.parents))
    assert all(d == (1 if p == ROOT else trie.depths[p] + 1) for d, p in zip(trie.depths, trie.parents, strict=True))


def test_only_nodes_with_children_pass_through_a_model() -> None:
    assert label_trie([(4, 5), (4, 6, 7), (9,)]).inner == (0, 2)
    assert label_trie([(4,), (5,)]).inner == ()


def test_grammar_quotes_what_would_end_a_literal() -> None:
    forms = ["act: joy", 'say: "hi"', "path: a\\b"]
    literals = answer_grammar(forms).removeprefix("root ::= ").split(" | ")
    assert [json.loads(literal) for literal in literals] == forms


def test_a_constrained_answer_never_needs_more_tokens_than_bytes() -> None:
    assert longest_answer(["情: 悲伤"], lead=" ") == 1 + len("情: 悲伤".encode()) + 1
