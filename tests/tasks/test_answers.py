"""Answer parsing: the two rules, their laws as properties, hard cases by hand, and the released code's own results."""

from __future__ import annotations

import doctest
import json
import pickle
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from mmla_tasks import answers
from mmla_tasks.answers import label_faults, parse_answer
from mmla_tasks.errors import TaskFileError
from mmla_tasks.records import MULTI, UNKNOWN

REPOSITORY = Path(__file__).parents[2]
GOLDEN = sorted((REPOSITORY.parent / "shared" / "golden").glob("*.jsonl"))


class _TaskLoader(yaml.SafeLoader):
    """Reads a task file without importing what `!function` names."""


_TaskLoader.add_multi_constructor("!", lambda loader, suffix, node: suffix)


def _read_tasks() -> dict[str, dict[str, Any]]:
    """Dataset -> its task file; a label list stands in exactly one."""
    files = (yaml.load(path.read_text("utf-8"), _TaskLoader) for path in sorted(REPOSITORY.glob("yaml_tasks/*/*.yaml")))
    return {task["dataset"]: task for task in files if "labels" in task}


TASKS = _read_tasks()
LABELS = [(dataset, label) for dataset, task in TASKS.items() for label in task["labels"]]
MELD = ["neutral", "surprise", "fear", "sadness", "joy", "anger", "disgust"]
ACTS = ["question", "agreement", "disagreement", "statement-opinion", "statement-non-opinion"]
THERAPIST = ["question", "therapist_input", "reflection", "other"]
HELP = ["help", "ask for help", "can"]
CHINESE = ["积极", "消极", "中性"]

in_a_dataset = st.sampled_from(LABELS)
padding = st.text(alphabet=" \t\n\r\u00a0\u3000", max_size=4)
markdown = st.sampled_from(
    [
        "{}", "**{}**", "*{}*", "__{}__", "_{}_", "***{}***", "`{}`", "```\n{}\n```", "~{}~", "<b>{}</b>",
        "# {}", "### {} ###", "> {}", "- {}", "* {}", "• {}", "1. {}", "2) {}", "[{}]", "**[{}]**", "({})", "{}.",
        "{}!", '"{}"', "“{}”", "'{}'", "‘{}’", "«{}»", "「{}」", r"\boxed{{{}}}", r"$\boxed{{\text{{{}}}}}$",
    ]
)  # fmt: skip
spelling = st.sampled_from([str, str.upper, str.title, str.capitalize, str.swapcase])
separator = st.sampled_from(["_", "-", " ", "  ", "\u2011", "\u2013", "\u00a0"])


def parse(text: str, labels: list[str], dimension: str = "emotion", **kwargs: Any) -> answers.Answer:
    return parse_answer(text, labels, dimension=dimension, **kwargs)


def respell(label: str, separator: str) -> str:
    return separator.join(label.replace("_", " ").replace("-", " ").split())


# ------------------------------------------------------------------------------------------------------ laws


def test_the_twelve_lists_are_read() -> None:
    assert len(TASKS) == 12
    assert len(LABELS) == 103
    assert not [faults for task in TASKS.values() if (faults := label_faults(task["labels"]))]


@pytest.mark.parametrize(("dataset", "label"), LABELS)
def test_both_rules_agree_on_a_bare_label(dataset: str, label: str) -> None:
    task = TASKS[dataset]
    answer = parse(label, task["labels"], task["dimension"])
    assert (answer, answer.released, answer.outcome, answer.rule) == (label, label, "matched", "mention")
    released = parse(label, task["labels"], task["dimension"], rule="released")
    assert (released, released.outcome, released.rule) == (label, "matched", "released")


@pytest.mark.parametrize(("dataset", "label"), LABELS)
def test_the_answer_form_is_read_as_form(dataset: str, label: str) -> None:
    task = TASKS[dataset]
    others = ", ".join(task["labels"])
    answer = parse(f"{task['dimension']}: {label}\n\nThe candidates were {others}.", task["labels"], task["dimension"])
    assert (answer, answer.rule, answer.released) == (label, "form", MULTI)


@settings(deadline=None, max_examples=400)
@given(in_a_dataset, spelling, markdown, padding, padding, separator)
def test_a_label_matches_itself_under_case_padding_and_markdown(
    row: tuple[str, str], case: Any, mark: str, before: str, after: str, joint: str
) -> None:
    dataset, label = row
    task = TASKS[dataset]
    text = before + mark.format(case(respell(label, joint))) + after
    assert parse(text, task["labels"], task["dimension"]) == label


@settings(deadline=None, max_examples=400)
@given(in_a_dataset, spelling, markdown, separator, st.sampled_from([":", " : ", "：", ":\t"]), st.data())
def test_the_form_is_read_under_case_and_markdown(
    row: tuple[str, str], case: Any, mark: str, joint: str, colon: str, data: st.DataObject
) -> None:
    dataset, label = row
    task = TASKS[dataset]
    other = data.draw(st.sampled_from(task["labels"]))
    word = data.draw(st.sampled_from(["{}", "**{}**", "- {}", "## {}", "[{}]", '"{}"', "1. {}"]))
    text = f"It may be {other}.\n{word.format(case(respell(task['dimension'], joint)))}{colon}"
    if "\n" in mark:  # a fence is not on the line
        mark = "{}"
    answer = parse(text + mark.format(label), task["labels"], task["dimension"])
    assert (answer, answer.rule) == (label, "form")


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_no_text_yields_anything_but_one_label_unknown_or_multi(data: st.DataObject) -> None:
    task = TASKS[data.draw(st.sampled_from(sorted(TASKS)))]
    pieces = st.one_of(
        st.text(max_size=8),
        st.sampled_from(
            [*task["labels"], task["dimension"], f"{task['dimension']}: ", "<think>", "</think>", "\n", "是"]
        ),
    )
    text = "".join(data.draw(st.lists(pieces, max_size=10)))
    cut = data.draw(st.booleans())
    for rule in ("clean", "released"):
        answer = parse(text, task["labels"], task["dimension"], truncated=cut, rule=rule)
        assert str(answer) in {*task["labels"], UNKNOWN, MULTI}
        assert answer.released in {*task["labels"], UNKNOWN, MULTI}
        assert (answer.outcome == "matched") == (answer in task["labels"]) == (answer.rule is not None)
        assert (answer.outcome == "several") == (answer == MULTI)
        assert (answer.outcome == "truncated") <= answer.truncated
        assert answer.raw == text


# ------------------------------------------------------------------------------------------------ hard cases

# (text, labels, result, rule or outcome, why)
CASES = [
    ("neutral", MELD, "neutral", "mention", "bare"),
    ("The speaker is angry.", MELD, UNKNOWN, "none", "no synonyms: `angry` is not `anger`"),
    ("joyful", MELD, UNKNOWN, "none", "part of a word"),
    ("fears", MELD, UNKNOWN, "none", "a plural is another word"),
    ("joy2", MELD, UNKNOWN, "none", "a digit joins"),
    ("joyé", MELD, UNKNOWN, "none", "a letter outside ASCII joins too"),
    ("joy, not anger", MELD, MULTI, "several", "negation is not understood"),
    ("joy joy JOY", MELD, "joy", "mention", "one label, three times"),
    ("joy/anger", MELD, MULTI, "several", "a slash is a boundary"),
    ("The labels are [" + ", ".join(MELD) + "]", MELD, MULTI, "several", "echo of the prompt"),
    ("Respond in the format: 'emotion: [label]'", MELD, UNKNOWN, "none", "echo of the format"),
    ("emotion: [label]\njoy", MELD, "joy", "mention", "a form line without a label decides nothing"),
    ("emotion: joy", MELD, "joy", "form", "the requested form"),
    ("Emotion:joy\nbecause there is no anger", MELD, "joy", "form", "the form wins over mentions"),
    ("I feel anger.\n**Emotion:** [Joy].", MELD, "joy", "form", "Markdown around the word and the label"),
    ("EMOTION： joy\nanger", MELD, "joy", "form", "full-width colon"),
    ("emotion: joy or anger", MELD, MULTI, "several", "a form line with two labels decides nothing"),
    ("emotion: joy or anger?\nemotion: joy", MELD, "joy", "form", "the line with one label decides"),
    ("emotion: joy\nEmotion: joy\nanger", MELD, "joy", "form", "two lines agree"),
    ("emotion: joy\nemotion: anger", MELD, MULTI, "several", "two lines contradict each other"),
    ("The emotion: joy\nanger", MELD, MULTI, "several", "the form begins its line"),
    ('{\n  "emotion": "joy",\n  "reason": "no anger"\n}', MELD, "joy", "form", "JSON, one key per line"),
    ("emotional: joy\nanger", MELD, MULTI, "several", "another word than the dimension"),
    ("说话人的情感是neutral。", MELD, "neutral", "mention", "CJK neighbours are boundaries"),
    ("Ｊｏｙ", MELD, "joy", "mention", "full-width letters (NFKC)"),
    ("ｊｏｙ的", MELD, "joy", "mention", "both"),
    ("j\u200boy", MELD, "joy", "mention", "an invisible character"),
    ("**Joy**ful", MELD, UNKNOWN, "none", "shown as one word"),
    ("**J**oy", MELD, "joy", "mention", "shown as one word"),
    (r"$\boxed{\text{joy}}$", MELD, "joy", "mention", "LaTeX"),
    ("disagreement", ACTS, "disagreement", "mention", "`agreement` within it does not count"),
    ("statement non opinion", ACTS, "statement-non-opinion", "mention", "a space for a hyphen"),
    ("Statement–Opinion", ACTS, "statement-opinion", "mention", "a dash for a hyphen"),
    ("statement_opinion, statement-opinion", ACTS, "statement-opinion", "mention", "one label in two spellings"),
    ("statement\nopinion", ACTS, "statement-opinion", "mention", "a line break is a space"),
    ("therapist input", THERAPIST, "therapist_input", "mention", "a space for `_`"),
    (r"**therapist\_input**", THERAPIST, "therapist_input", "mention", "`_` escaped in Markdown"),
    ("TherapistInput", THERAPIST, UNKNOWN, "none", "no space at all"),
    ("on the other hand, reflection", THERAPIST, MULTI, "several", "`other` is a word and a label"),
    ("ask for help", HELP, "ask for help", "mention", "the longest mention wins"),
    ("ask for help, or help", HELP, MULTI, "several", "both are mentioned"),
    ("I help", HELP, "help", "mention", "the short one alone"),
    ("I can't help", HELP, "help", "mention", "`can't` is one word"),
    ("I can’t help", HELP, "help", "mention", "with a typographic apostrophe"),
    ("you 'can'", HELP, "can", "mention", "single quotes"),
    ("a b c", ["a b", "b c"], MULTI, "several", "overlapping mentions, neither within the other"),
    ("a b c", ["a b", "b c", "a b c"], "a b c", "mention", "both within a longer one"),
    ("情感是积极的。", CHINESE, "积极", "mention", "a CJK label among CJK text"),
    ("不积极", CHINESE, "积极", "mention", "CJK has no word boundaries; negation is not understood"),
    ("不积极", [*CHINESE, "不积极"], "不积极", "mention", "unless the longer word is a label"),
    ("不是消极，是积极", CHINESE, MULTI, "several", "two CJK labels"),
    ("emotion：积极\n不是消极", CHINESE, "积极", "form", "the form with a CJK label"),
    ("c++", ["c", "c++"], "c++", "mention", "signs at the edge of a label"),
    ("in c.", ["c", "c++"], "c", "mention", "signs at the edge of another label"),
    ("Straße", ["STRASSE", "weg"], "STRASSE", "mention", "case folding, not lower-casing"),
    ("", MELD, UNKNOWN, "empty", "nothing"),
    (" \n\u3000", MELD, UNKNOWN, "empty", "white space only"),
    ("?", MELD, UNKNOWN, "none", "something, but no label"),
    ("<think>joy or anger?</think>joy", MELD, "joy", "mention", "a thought is no answer"),
    ("<think>\nemotion: fear\n</think>\n\nemotion: joy", MELD, "joy", "form", "a form line in a thought neither"),
    ("<think>fear</think>", MELD, UNKNOWN, "empty", "nothing but a thought"),
    ("fear? anger?</think>joy", MELD, "joy", "mention", "the tag was opened in the prompt"),
    ("<think>fear", MELD, UNKNOWN, "truncated", "a thought without end"),
    ("<THINK>a</THINK>joy<think>fear", MELD, "joy", "mention", "a second thought without end"),
    ("<think>a<think>b</think>joy", MELD, "joy", "mention", "a tag within a thought"),
    ("a < b, joy", MELD, "joy", "mention", "not every `<` is a tag"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "labels", "label", "found", "why"), CASES, ids=[case[-1] for case in CASES])
def test_hard_case(text: str, labels: list[str], label: str, found: str, why: str) -> None:
    answer = parse(text, labels)
    assert answer == label, why
    assert (answer.rule or answer.outcome) == found, why
    assert answer.raw == text


@pytest.mark.parametrize(
    "written", ["dialogue act", "Dialogue_Act", "DIALOGUE-ACT", "dialogue  act", "**dialogue act**"]
)
@pytest.mark.parametrize("declared", ["dialogue act", "dialogue_act", "Dialogue-Act"])
def test_dimension_spellings(written: str, declared: str) -> None:
    assert parse(f"{written}: question\nno agreement", ACTS, declared).rule == "form"


def test_truncation() -> None:
    cut = parse("I think that the", MELD, truncated=True)
    assert (cut, cut.outcome, cut.truncated) == (UNKNOWN, "truncated", True)
    nothing = parse("", MELD, truncated=True)
    assert nothing.outcome == "truncated"
    in_time = parse("joy, because", MELD, truncated=True)
    assert (in_time, in_time.outcome, in_time.truncated) == ("joy", "matched", True)
    assert parse("joy, anger,", MELD, truncated=True).outcome == "several"
    assert parse("<think>hm", MELD).truncated
    assert not parse("<think>hm</think>", MELD).truncated


# What the released code does and ours does not, from reference/protocol.md, section 5.
RELEASED = [
    ("Answer: question", ["question", "answer"], MULTI),
    ("on the other hand, reflection", THERAPIST, MULTI),
    ("thanks", ["thank"], UNKNOWN),
    ("therapist input", THERAPIST, UNKNOWN),
    ("disagreement", ACTS, "disagreement"),
    ("statement-non-opinion", ACTS, "statement-non-opinion"),
    ("说话人的情感是neutral。", MELD, UNKNOWN),
    ("_joy_", MELD, UNKNOWN),
    ("joy joy", MELD, "joy"),
    ("<think>joy</think>anger", MELD, MULTI),
    ("<think>joy", MELD, "joy"),
    ("ask for help", HELP, MULTI),
    ("FRUSTRATED", ["Frustrated", "Happy"], "Frustrated"),
    ("", MELD, UNKNOWN),
]


@pytest.mark.parametrize(("text", "labels", "label"), RELEASED)
def test_released_rule(text: str, labels: list[str], label: str) -> None:
    assert parse(text, labels).released == label
    answer = parse(text, labels, rule="released")
    assert answer == answer.released == label
    assert answer.rule == ("released" if label in labels else None)


@pytest.mark.skipif(not GOLDEN, reason="needs ../shared/golden, which lies beside the repository on the build machine")
@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_released_parse_equals_the_released_code(path: Path) -> None:
    task = TASKS[path.stem]
    rows = [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]
    wrong = [
        (row, answer.released)
        for row in rows
        if (answer := parse(row["response"], task["labels"], task["dimension"])).released != row["released_code_parses"]
    ]
    assert rows and not wrong


# --------------------------------------------------------------------------------------------------- the rest


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ([], "empty"),
        (["joy", "**"], "'**' is empty"),
        (["a_b", "A-b"], "'a_b' and 'A-b' cannot be told apart"),
        (["joy", "Unknown"], "'Unknown' is reserved"),
    ],
)
def test_a_list_that_cannot_be_parsed_is_refused(labels: list[str], words: str) -> None:
    with pytest.raises(TaskFileError) as fault:
        parse("joy", labels)
    assert words in str(fault.value)


def test_an_answer_survives_pickling() -> None:
    answer = parse("<think>x</think>joy", MELD)
    copy = pickle.loads(pickle.dumps(answer))
    assert copy == answer and vars(copy) == vars(answer)


def test_raw_is_a_plain_string() -> None:
    class Response(str):
        pass

    assert type(parse(Response("joy"), MELD).raw) is str


def test_docstring_examples() -> None:
    assert doctest.testmod(answers).failed == 0


def test_all_answers_of_the_benchmark_parse_in_no_time() -> None:
    task = TASKS["MIntRec2.0"]
    text = "The speaker’s intent is to *criticize* someone, and not to complain."
    start = time.process_time()
    for _ in range(15_710):
        parse(text, task["labels"], task["dimension"])
    assert time.process_time() - start < 3  # 0.7 s on a quiet core


@pytest.mark.parametrize("text", ["<think>", "!?\n", "emotion: ", "joy ", r"\text", "1. ", "'a", "**_["])
def test_long_answers_take_linear_time(text: str) -> None:
    start = time.process_time()
    parse(text * 50_000, MELD)
    assert time.process_time() - start < 2
