r"""From a raw answer to a label: `parse_answer`. The label set is closed, and nothing is guessed.

Two rules read every answer; both results are kept in the `Answer`.

**clean** (the default) reads a normal form of text and labels (see `normalise`), in this order:

1. A ``<think>`` block is no answer and is removed. Without an opening tag (chat templates may put it into the
   prompt) everything before ``</think>`` is the block; without a closing tag, everything after ``<think>`` is,
   and the answer counts as truncated.
2. *form*: a line ``{dimension}: ...`` that names exactly one label decides. Lines that name none or several decide
   nothing; lines that decide for different labels are `several`.
3. *mention*: else the one label that is named anywhere. A list of candidates, such as an echo of the prompt, names
   several.

A label is named where it stands as a whole: no letter or digit touches it, except that CJK characters, which are
written without spaces, do not join to their neighbours. So ``是neutral。`` names `neutral`, and a label that is
itself written in CJK is named wherever it occurs, also inside a longer word: ``很积极`` names `积极`, and so does
``不积极`` unless that is a label too. A mention inside a longer mention does not count: "ask for help" names
`ask for help` and not `help`.

**released** does what the published code does (src/Zero-shot_Inference/eval.py, thuiar/MMLA @ 48efd63): lower-case,
then look for each label with ``(?<!\w)label(?!\w)`` anywhere. No normal form, no requested form, and ``<think>``
blocks are read like the rest. Only on an empty answer, where that code can crash, it says `unknown` here.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from mmla_tasks.errors import TaskFileError
from mmla_tasks.records import MULTI, UNKNOWN, Answer, Outcome

Rule = Literal["clean", "released"]

_THINK_TAG = re.compile(r"<(/?)think\s*>", re.IGNORECASE)

# An apostrophe inside a word belongs to the word ("can't" does not name `can`); elsewhere it is a quotation mark.
_INNER_APOSTROPHE = re.compile(r"['\u2019\u02bc](?<=\w.)(?=\w)")
_LATEX_COMMAND = re.compile(r"\\(?:boxed|fbox|text[a-z]{0,6}|math[a-z]{2,6}|emph)\b")
_INVISIBLE = "\u00ad\u200b-\u200f\u2060\ufe00-\ufe0f\ufeff"
# `*` leaves nothing behind: "**Joy**ful" is shown as one word, so it must not name `joy`.
_DROPPED = re.compile(rf"[*{_INVISIBLE}]+")
_QUOTES = "\"'`\u2018-\u201f\u2032\u2033\u02bc\u00ab\u00bb\u2039\u203a\u301d-\u301f"
_BRACKETS = r"\[\]{}「」『』《》〈〉【】〔〕〖〗"
_HYPHENS = r"_\-\u2010-\u2015\u2212"
_SPACED = re.compile(rf"[{_QUOTES}{_BRACKETS}{_HYPHENS}\\$]+")

_CJK = (
    "\u1100-\u11ff\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3040-\u30ff\u3100-\u318f\u31a0-\u31ff\u3400-\u4dbf"
    "\u4e00-\u9fff\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\U00020000-\U0003ffff"
)
_JOINS = rf"[^\W{_CJK}]"
"""A letter or digit that makes one word with its neighbour: any but CJK."""


@dataclass(frozen=True)
class _Label:
    """One declared label, ready to be looked for."""

    declared: str
    clean: str
    clean_pattern: re.Pattern[str]
    released: str
    released_pattern: re.Pattern[str]


@dataclass(frozen=True)
class _Matcher:
    """A label list and a dimension, compiled."""

    labels: tuple[_Label, ...]
    dimension: str
    form: re.Pattern[str]


def parse_answer(
    raw: str,
    labels: Sequence[str],
    *,
    dimension: str,
    truncated: bool = False,
    rule: Rule = "clean",
) -> Answer:
    r"""Read one raw answer with both rules; the module says what they do.

    Args:
        raw: The text as the model gave it.
        labels: The task's declared labels.
        dimension: The word of the requested form, such as ``dialogue act``; case, ``_``, ``-`` do not matter.
        truncated: Whether the answer was cut at the token limit.
        rule: The rule whose result the answer is; the other one's is recorded all the same.

    Returns:
        The declared label, ``unknown`` or ``multi``, with the evidence. `outcome` is `matched`; `several`; or, where
        no label is named, `truncated` if the answer was cut, else `empty` if nothing stands outside ``<think>``, else
        `none`.

    Raises:
        TaskFileError: The label list cannot be told apart, see `label_faults`.

    Example:
        >>> answer = parse_answer("**Emotion:** Joy!\nNot anger.", ["joy", "anger"], dimension="emotion")
        >>> answer, answer.rule, answer.released
        ('joy', 'form', 'multi')
    """
    matcher = _matcher(tuple(labels), dimension)
    visible, unclosed = _without_thinking(raw)
    cut = truncated or unclosed
    released = _released_labels(raw, matcher)
    if rule == "released":
        found, matched_by = released, "released"
    else:
        found, matched_by = _clean_labels(visible, matcher)
    outcome: Outcome = "matched" if len(found) == 1 else "several" if found else _why_nothing(visible, cut)
    return Answer(
        _verdict(found),
        outcome=outcome,
        rule=matched_by if outcome == "matched" else None,
        raw=str(raw),
        released=_verdict(released),
        truncated=cut,
    )


def normalise(text: str) -> str:
    r"""Give text and labels one spelling, so that equal words are equal strings.

    NFKC and casefold; quotation marks, square and curly brackets, backticks, LaTeX commands such as ``\boxed``, ``_``
    and hyphens become spaces; ``*`` and invisible characters vanish; runs of spaces become one. Lines stay lines.
    (``#``, ``>`` and list bullets need nothing: no label joins to them, and the form skips them.)
    """
    if text.isascii():
        text = text.lower()
    else:
        # An acute accent typed as a quotation mark: NFKC would make it a space and a combining accent.
        text = unicodedata.normalize("NFKC", text.replace("\u00b4", "'"))
        text = unicodedata.normalize("NFKC", text.casefold())
    if "\\" in text:
        text = _LATEX_COMMAND.sub(" ", text)
    text = _SPACED.sub(" ", _DROPPED.sub("", _INNER_APOSTROPHE.sub("", text)))
    return "\n".join(" ".join(line.split()) for line in text.splitlines())


def label_faults(labels: Sequence[str]) -> list[str]:
    """Say what makes a label list unfit for parsing, one sentence per fault; empty when it is fine.

    Faults: no label; a label without any letter or sign; two labels with one normal form, such as ``a_b`` and ``A b``;
    a label that is spelled like the results ``unknown`` and ``multi``.
    """
    faults = [] if labels else ["the list of labels is empty"]
    seen: dict[str, str] = {}
    for label in labels:
        clean = _flat(label)
        if not clean:
            faults.append(f"label {label!r} is empty once Markdown and quotes are stripped")
        elif clean in (UNKNOWN, MULTI):
            faults.append(f"label {label!r} is reserved: it marks answers without exactly one label")
        elif clean in seen:
            faults.append(f"labels {seen[clean]!r} and {label!r} cannot be told apart: case, `_`, `-` do not count")
        seen.setdefault(clean, label)
    return faults


@lru_cache(maxsize=256)
def _matcher(labels: tuple[str, ...], dimension: str) -> _Matcher:
    """Compile a label list once per process."""
    if faults := label_faults(labels):
        raise TaskFileError("these labels cannot be parsed", faults="\n".join(faults))
    word = _flat(dimension)
    # What may stand before the word: signs of any kind (bullet, heading, quote) and a list number.
    form = re.compile(rf"^[^\w\n]*(?:\d+[.)][^\w\n]*)?{re.escape(word)} ?: ?(.*)$", re.MULTILINE)
    return _Matcher(tuple(_compile_label(label) for label in labels), word, form)


def _compile_label(label: str) -> _Label:
    clean = _flat(label)
    word = re.escape(clean)
    # Looking back past the word itself lets the search begin with the word's first letter: three times as fast.
    left = rf"(?<!{_JOINS}{word})" if re.match(_JOINS, clean[0]) else ""
    right = rf"(?!{_JOINS})" if re.match(_JOINS, clean[-1]) else ""
    released = label.lower()
    return _Label(
        declared=label,
        clean=clean,
        clean_pattern=re.compile(word + left + right),
        released=released,
        released_pattern=re.compile(rf"(?<!\w){re.escape(released)}(?!\w)"),
    )


def _without_thinking(raw: str) -> tuple[str, bool]:
    """Return the text outside ``<think>`` blocks, and whether the last block is not closed."""
    if "<" not in raw:
        return raw, False
    kept: list[str] = []
    start, inside = 0, False
    for tag in _THINK_TAG.finditer(raw):
        if tag[1]:
            if not inside:  # opened in the prompt: all before is thought
                kept.clear()
            start, inside = tag.end(), False
        elif not inside:
            kept.append(raw[start : tag.start()])
            inside = True
    if not inside:
        kept.append(raw[start:])
    return "\n".join(kept), inside


def _clean_labels(visible: str, matcher: _Matcher) -> tuple[list[str], str]:
    """Return the labels that the clean rule finds, and the part of the rule that found them."""
    text = normalise(visible)
    if matcher.dimension in text:
        lines = (_named(line[1], matcher.labels) for line in matcher.form.finditer(text))
        decided = _distinct(names[0] for names in lines if len(names) == 1)
        if decided:
            return decided, "form"
    return _named(text.replace("\n", " "), matcher.labels), "mention"


def _named(text: str, labels: Iterable[_Label]) -> list[str]:
    """Return the distinct declared labels that a normalised text names, in the order of their first mention."""
    spans = [
        (match.start(), -match.end(), label.declared)
        for label in labels
        if label.clean in text  # a substring search is far cheaper than the pattern
        for match in label.clean_pattern.finditer(text)
    ]
    if len(spans) < 2:
        return [span[2] for span in spans]
    names: list[str] = []
    covered = 0
    for _, minus_end, name in sorted(spans):
        if -minus_end > covered:  # else it lies within a longer mention that began no later
            names.append(name)
            covered = -minus_end
    return _distinct(names)


def _released_labels(raw: str, matcher: _Matcher) -> list[str]:
    """Return the distinct labels that the released rule finds; overlapping ones all count."""
    text = raw.lower()
    return [
        label.declared for label in matcher.labels if label.released in text and label.released_pattern.search(text)
    ]


def _verdict(found: Sequence[str]) -> str:
    return UNKNOWN if not found else found[0] if len(found) == 1 else MULTI


def _why_nothing(visible: str, cut: bool) -> Outcome:
    if cut:
        return "truncated"
    return "none" if visible.strip() else "empty"


def _flat(text: str) -> str:
    """The normal form on one line."""
    return normalise(text).replace("\n", " ").strip()


def _distinct(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
