"""Several processes that share one run's requests, started by `accelerate launch` or `torchrun` on one machine or more.

Every rank builds all requests and scores all answers; only the asking is shared out, in `session.answer_all`. What
they tell each other goes through accelerate (gloo, in main memory), which is imported only when there are several.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, TypeVar

from mmla_tasks.errors import MissingExtraError, MmlaError

Value = TypeVar("Value")

_LAUNCHED: Final = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR")
"""What a launcher sets; a cluster that sets only some of them has started no ranks."""
_PATIENCE: Final = timedelta(days=30)
"""How long a rank that is done waits for the slowest."""


class OtherRankError(MmlaError):
    """What went wrong on another rank, told here too."""


@dataclass(frozen=True)
class Ranks:
    """This process among those that share a run.

    All ranks call `gather` the same number of times in the same order; one that fails inside `together` makes the
    next `gather` of all others fail with its message, so that nobody waits for it.
    """

    index: int = 0
    """From 0; the first one prints and writes."""
    count: int = 1
    local_index: int = 0
    """Among the ranks of this machine: which GPU is this one's."""

    @classmethod
    def of_environment(cls) -> Ranks:
        """As the launcher says; alone without one."""
        if not all(name in os.environ for name in _LAUNCHED):
            return cls()
        return cls(*(int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")))

    @property
    def is_first(self) -> bool:
        """Whether this is the one that prints and writes."""
        return self.index == 0

    def share(self, items: Sequence[Value]) -> list[Value]:
        """Every `count`-th item: this rank's part."""
        return list(items[self.index :: self.count])

    def gather(self, value: Value) -> list[Value]:
        """What every rank handed in, by rank; waits for all of them.

        Raises:
            OtherRankError: one of them failed.
        """
        if self.count == 1:
            return [value]
        parts = _exchange((value, None))
        faults = [f"{fault}\n  rank {rank} of {self.count}" for rank, (_, fault) in enumerate(parts) if fault]
        if faults:
            raise OtherRankError(faults[0])
        return [value for value, _ in parts]

    def wait(self) -> None:
        """Wait until every rank has come here."""
        self.gather(None)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Let an error of one rank end all of them.

        Raises:
            MissingExtraError: accelerate is not installed.
        """
        if self.count == 1:
            yield
            return
        _join()
        try:
            yield
            self.wait()
        except OtherRankError:
            raise
        except Exception as error:
            _exchange((None, str(error) if isinstance(error, MmlaError) else f"{type(error).__name__}: {error}"))
            raise


def _join() -> None:
    """Meet the other ranks. In main memory, also beside GPUs: a rank may wait for hours, which NCCL spends spinning."""
    try:
        import torch.distributed
        from accelerate import PartialState
    except ModuleNotFoundError as error:
        raise MissingExtraError(str(error.name), extra="hf", purpose="a run over several processes") from None
    if torch.distributed.is_initialized():  # by an earlier run of this process, or by the program around it
        return
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // _ranks_here())))
    state = PartialState(cpu=True, backend="gloo", timeout=_PATIENCE)
    atexit.register(state.destroy_process_group)  # its threads would abort the process at its end


def _ranks_here() -> int:
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def _exchange(part: tuple[Any, str | None]) -> list[tuple[Any, str | None]]:
    from accelerate.utils import gather_object

    try:
        parts: list[tuple[Any, str | None]] = gather_object([part])
    except RuntimeError as error:
        raise OtherRankError("another process of this run ended without a word", why=error) from None
    return parts
