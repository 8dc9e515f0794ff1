"""Ids, texts and labels of the sample, made by a seeded generator; the same bytes on every machine.

No text comes from a dataset, and no text tells its label: in every split each text stands once with *each* label, so
a reader of the text alone, whatever it has learned, is right once in K rows (K labels). Only the picture tells. Train,
dev and test share their words but no text.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from mmla_tasks.errors import UsageError
from mmla_tasks.sources import SPLITS

SAMPLE_NOTE = "sample data, not a benchmark score"
"""Stands on every output that was made from the sample."""

DEFAULT_TEST_ROWS = 24
"""Rows of a test split unless asked otherwise, rounded down to whole rounds of all labels (one round at least)."""
DEV_ROWS = 48
TRAIN_ROWS = 280
"""Enough for a two-layer video model to learn the clips of a seven-label task; rounded like the others."""

_LOWER_CASED = frozenset({"MIntRec", "MIntRec2.0", "IEMOCAP-DA", "MOSI", "UR-FUNNY-v2"})
"""Their texts are released in lower case."""
_CHINESE = frozenset({"CH-SIMSv2.0"})

# Sentences that people say in any mood. None may hold a word of any label; tests/tasks/test_sample.py looks.
_OPENERS = ("So,", "Well,", "Look,", "Okay,", "You know,", "Oh,", "Listen,", "Right,", "Hm,", "Anyway,", "Wait,", "Um,")
_SENTENCES = (
    "I can't believe you did that.",
    "this is what you meant yesterday.",
    "that is exactly how she put it.",
    "you came all the way from the station.",
    'he said "later", and that was all.',
    "we have been here since seven o'clock.",
    "I have never seen a kitchen like this -- never.",
    "they moved the piano into the hall.",
    "it was on the table when I came in.",
    "nobody told me it was today.",
    "you always sit in that chair.",
    "there are three letters under the door.",
    "my brother's car is still outside.",
    'she read the "whole" book in one night.',
    "that's the second time this week.",
    "I thought it would be larger.",
    "we could see the river from up there—all of it.",
    "you kept the blue one, then.",
    "it is ten past four, and the train is gone.",
    "I told them both of us would be there.",
    "someone has painted the fence again.",
    "the dog slept on your coat.",
    "this soup is the one from Sunday.",
    "you still have the old lock.",
    "he wrote it down on the back of a ticket.",
)
_CHINESE_OPENERS = ("嗯，", "哦，", "那个，", "你看，", "对了，", "其实，", "好吧，", "哎，", "所以，", "你听，")
_CHINESE_SENTENCES = (
    "我没想到你会这么做。",
    "这就是你昨天说的意思。",
    "她当时就是这么讲的。",
    "你从车站一路走过来的。",
    "他说“以后再说”，就这样。",
    "我们七点就到这儿了。",
    "这样的厨房我还是第一次见。",
    "他们把钢琴搬到大厅里去了。",
    "我进来的时候它就在桌子上。",
    "没有人告诉我是今天。",
    "你总是坐在那把椅子上。",
    "门底下有三封信。",
    "我哥哥的车还停在外面。",
    "这已经是这个星期第二次了。",
    "我以为它会更大一些。",
    "从上面可以看到整条河。",
    "你还是留下了蓝色的那个。",
    "现在四点十分，火车已经开了。",
    "又有人把篱笆刷了一遍。",
    "狗睡在你的外套上。",
)

_LETTERS = "abcdefghijkmnopqrstuvwxyz"
_IDS: dict[str, Callable[[int], str]] = {
    "MIntRec": lambda n: f"S{4 + n % 3:02}_E{1 + n // 60:02}_{n + 11}",
    "IEMOCAP": lambda n: f"Ses{1 + n // 200:02}F_impro{1 + n // 25 % 8:02}_{'FM'[n % 2]}{n % 25:03}",
    "IEMOCAP-DA": lambda n: f"Ses{1 + n // 200:02}M_script{1 + n // 25 % 8:02}_1_{'FM'[n % 2]}{n % 25:03}",
    "MOSI": lambda n: f"{_word(n // 12)}$_${n % 12 + 1}",
    "CH-SIMSv2.0": lambda n: f"video_{1 + n // 15:04}_{1 + n % 15:04}",
    "UR-FUNNY-v2": lambda n: str(24 + 3 * n),
    "MUStARD": lambda n: f"1_{70 + n}",
}
"""Dataset -> id of its n-th row over all splits, in the style of the real ids; the others look like ``116_163``."""


class Row(NamedTuple):
    """One row of a sample split."""

    id: str
    text: str
    label: str


def rows_asked_for(spec: str) -> int | None:
    """Read ``sample`` or ``sample:N``.

    Returns:
        N, the rows per test split and task; None for the default size.

    Raises:
        UsageError: `spec` is neither.

    >>> rows_asked_for("sample:40")
    40
    """
    name, colon, count = spec.partition(":")
    if name != "sample" or (colon and not (count.isascii() and count.isdigit() and int(count))):
        raise UsageError(f"`{spec}` is not a sample", next="write sample, or sample:N with N rows per test split")
    return int(count) if colon else None


def dataset_rows(dataset: str, labels: Sequence[str], test_rows: int | None = None) -> dict[str, list[Row]]:
    """Make all rows of one dataset.

    Args:
        dataset: Our folder name, such as ``MELD``; decides the language, the style of the ids and the seed.
        labels: The declared labels.
        test_rows: Rows of the test split, exactly; None for about 24. With fewer rows than labels, some labels are
            absent from test.

    Returns:
        Split name -> its rows, in a shuffled order.
    """
    sizes = {
        "train": _whole_rounds(TRAIN_ROWS, len(labels)),
        "dev": _whole_rounds(DEV_ROWS, len(labels)),
        "test": test_rows or _whole_rounds(DEFAULT_TEST_ROWS, len(labels)),
    }
    texts = _texts_of_splits(dataset, {split: math.ceil(size / len(labels)) for split, size in sizes.items()})
    make_id = _IDS.get(dataset, _plain_id)
    rows: dict[str, list[Row]] = {}
    first_id = 0
    for split in SPLITS:
        rng = random.Random(f"mmla sample rows {dataset} {split}")
        pairs = _cross(texts[split], labels, sizes[split], rng)
        rows[split] = [Row(make_id(n), text, label) for n, (text, label) in enumerate(pairs, start=first_id)]
        first_id += sizes[split]
    return rows


def _whole_rounds(about: int, num_labels: int) -> int:
    """`about` rounded down to a multiple of `num_labels`, so that labels are balanced; at least one of each."""
    return max(1, about // num_labels) * num_labels


def _cross(texts: Sequence[str], labels: Sequence[str], count: int, rng: random.Random) -> list[tuple[str, str]]:
    """Pair text 1 with every label, text 2 with every label, ... (in turn, from the start again), then shuffle."""
    pairs: list[tuple[str, str]] = []
    while len(pairs) < count:
        text = texts[len(pairs) // len(labels) % len(texts)]
        pairs.extend((text, label) for label in rng.sample(labels, len(labels)))
    pairs = pairs[:count]
    rng.shuffle(pairs)
    return pairs


def _texts_of_splits(dataset: str, counts: Mapping[str, int]) -> dict[str, list[str]]:
    """At most ``counts[split]`` texts, opener and sentence, for each split; no text stands in two splits.

    Dev and test hold only openers and sentences that train holds too, so that a small model trained from nothing
    meets no word for the first time in an evaluation.
    """
    chinese = dataset in _CHINESE
    openers, sentences = (_CHINESE_OPENERS, _CHINESE_SENTENCES) if chinese else (_OPENERS, _SENTENCES)
    dealt: dict[str, list[tuple[str, str]]] = {split: [] for split in SPLITS}
    for i, opener in enumerate(openers):
        for j, sentence in enumerate(sentences):
            dealt[("test", "dev", "train", "train", "train")[(i + j) % 5]].append((opener, sentence))
    for split in SPLITS:
        random.Random(f"mmla sample texts {dataset} {split}").shuffle(dealt[split])
    trained = dealt["train"][: counts["train"]]
    known = {part for text in trained for part in text}
    texts: dict[str, list[str]] = {}
    for split in SPLITS:
        usable = [text for text in dealt[split] if known.issuperset(text)] or dealt[split]
        chosen = (trained if split == "train" else usable)[: counts[split]]
        joined = [("" if chinese else " ").join(text) for text in chosen]
        texts[split] = [text.lower() for text in joined] if dataset in _LOWER_CASED else joined
    return texts


def _plain_id(n: int) -> str:
    return f"{100 + n // 20}_{n % 20}"


def _word(n: int) -> str:
    """An 11-letter name like those of MOSI's videos, unique for n < 25 ** 2 whatever the case of letters."""
    rng = random.Random(f"mmla sample word {n}")
    tail = "".join(rng.choice(_LETTERS + _LETTERS.upper()) for _ in range(9))
    return _LETTERS[n % 25] + _LETTERS[n // 25 % 25].upper() + tail
