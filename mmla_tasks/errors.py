"""What can go wrong, as one tree. Every message says what, which one, where, and what next.

MmlaError                 shown to the user without a traceback, exit status 2
├─ UsageError             the command line or its arguments
├─ TaskFileError          a task YAML, all its faults at once
├─ DataError              texts: root, folder, file, row, label, id
├─ ClipError              a video clip: missing, empty, unreadable
├─ ModelError             a model, adapter, tokenizer or backend argument
├─ MissingExtraError      a package that an optional extra installs
├─ RunFilesError          results or samples of a run that cannot be read back
└─ RunFolderError         a run folder that cannot be written
   └─ OtherRunError       a run folder that belongs to another run, or is in use
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, Literal


class MmlaError(Exception):
    """A fault the user can mend. `str()` is the whole message, ready to print after ``error: ``.

    Args:
        what: One sentence: what is wrong and with which thing.
        listed: Lines below it whose names are printed as they are, such as task names.
        **details: Aligned lines below it, in the given order, such as ``file=..., why=..., next=...``.
            A detail that is None is left out; underscores in names become spaces.
    """

    def __init__(self, what: str, listed: Mapping[str, Any] | None = None, /, **details: Any) -> None:
        self.what = what
        named = {**(listed or {}), **{name.replace("_", " "): value for name, value in details.items()}}
        self.details = {name: str(value) for name, value in named.items() if value is not None}
        super().__init__(what)

    def __str__(self) -> str:
        width = max((len(name) for name in self.details), default=0)
        lines = [self.what]
        for name, value in self.details.items():
            first, *rest = value.split("\n")
            lines.append(f"  {name:<{width}}   {first}")
            lines.extend(f"  {'':<{width}}   {line}" for line in rest)
        return "\n".join(lines)


class UsageError(MmlaError):
    """The command line or its arguments."""


class TaskFileError(MmlaError):
    """A task YAML, all its faults at once."""


class DataError(MmlaError):
    """Texts: root, folder, file, row, label, id."""


ClipFault = Literal[
    "missing", "empty", "not_video", "audio_only", "no_frames", "cut_short", "damaged", "outside", "too_large",
    "unsupported", "timeout", "memory", "crash", "unforeseen",
]  # fmt: skip
"""What is wrong with a clip, in one word, for counting. `outside`: the file has no frame in the clip's time;
`unsupported`: this reader can't, another may; `timeout`, `memory`, `crash`: how decoding was ended."""


class ClipError(MmlaError):
    """A video clip: missing, empty, unreadable.

    Args:
        what: As for every `MmlaError`, and so are `listed` and `details`.
        listed: See there.
        fault: In one word.
        **details: See there.
    """

    def __init__(
        self, what: str, listed: Mapping[str, Any] | None = None, /, *, fault: ClipFault = "damaged", **details: Any
    ) -> None:
        self.fault: ClipFault = fault
        super().__init__(what, listed, **details)


class ModelError(MmlaError):
    """A model, adapter, tokenizer or backend argument."""


class MissingExtraError(MmlaError):
    """A package that an optional extra installs.

    Args:
        package: The import name that is missing, such as ``torch``.
        extra: The extra of this distribution that brings it, such as ``hf``.
        purpose: What needed it, such as ``mmla-hf``.
    """

    def __init__(self, package: str, *, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package `{package}`, which is not installed",
            next=f"pip install 'mmla-eval[{extra}]'      in a clone: pip install -e '.[{extra}]'",
        )


class RunFilesError(MmlaError):
    """Results or samples of a run that cannot be read back."""


class RunFolderError(MmlaError):
    """A run folder that cannot be written."""


class OtherRunError(RunFolderError):
    """A run folder that belongs to another run, or is in use."""


def suggest(name: str, known: Iterable[str]) -> str | None:
    """Say which known names look like `name`.

    Returns:
        "did you mean `a` or `b`?", or None when nothing is near.
    """
    near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.6)
    return f"did you mean {' or '.join(f'`{n}`' for n in near)}?" if near else None
