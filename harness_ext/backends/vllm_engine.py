"""vLLM's own asynchronous engine: configured, started, and ended for sure; its processes and its log.

The engine works in processes of its own, which write to this process's output. Unless `VLLM_LOGGING_LEVEL` is set, that
goes to a file, from which a fault's first telling line is read.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import re
import sys
import tempfile
import textwrap
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import fields
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Final

from mmla_tasks.errors import ModelError

LOGGING_LEVEL: Final = "VLLM_LOGGING_LEVEL"
LOGGED_ERROR: Final = re.compile(
    r"^(?:\([^)]*\) )?(?:ERROR [^\]]*\] )?([A-Za-z_.]*(?:Error|Exception|OutOfMemory)\b:? .+)$", re.M
)
"""A line of a traceback that names what was raised, with or without the prefixes of vLLM's log."""
LONGEST_REASON: Final = 300
GRACE_SECONDS: Final = 20
"""For the engine's processes to end by themselves: they wait 5 seconds for their workers."""
ADVICE: Final = {
    "architecture": "mmla-hf runs whatever transformers knows",
    "KV cache": "a smaller max_length, or more room: gpu_memory_utilization, on a CPU VLLM_CPU_KVCACHE_SPACE (GiB)",
    "emory": "a smaller max_length, max_num_seqs or gpu_memory_utilization, or tensor_parallel_size over more GPUs",
    "ddress already in use": "end what uses the port, or choose another with VLLM_PORT or master_port",
}
"""Part of a reason -> what to do; the first that fits."""


class EngineLog:
    """Where the engine's output goes: a file, or the screen when `VLLM_LOGGING_LEVEL` asks for it."""

    def __init__(self) -> None:
        self.path: Path | None = None
        if LOGGING_LEVEL not in os.environ:
            handle, name = tempfile.mkstemp(prefix="mmla-vllm-", suffix=".log")
            os.close(handle)
            self.path = Path(name)

    @contextmanager
    def capture(self) -> Iterator[None]:
        """Send what this process and its new children write to the log; children keep to it for all their life."""
        if self.path is None:
            yield
            return
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        screen = [os.dup(1), os.dup(2)]
        with self.path.open("ab") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
            try:
                yield
            finally:
                for stream in (sys.stdout, sys.stderr):
                    stream.flush()
                for target, saved in enumerate(screen, start=1):
                    os.dup2(saved, target)
                    os.close(saved)

    def hush(self) -> None:
        """Nothing of the engine's log from this process, whose faults are shown as ours; its children write all."""
        if self.path is not None:
            logging.getLogger("vllm").setLevel(logging.CRITICAL)

    def fault(self, what: str, error: BaseException) -> ModelError:
        """The error to show: the first telling line of the engine's fault, and where the whole log is."""
        logged = LOGGED_ERROR.search(self.path.read_text(errors="replace")) if self.path is not None else None
        why = logged[1] if logged and _is_hollow(error) else _reason(error)
        advice = next((step for part, step in ADVICE.items() if part in why), None)
        return ModelError(
            what, why=textwrap.shorten(why, LONGEST_REASON, placeholder=" ..."), log=self.path, next=advice
        )

    def remove(self) -> None:
        """Nobody needs it any more."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def _is_hollow(error: BaseException) -> bool:
    """Whether an error only says that another process failed."""
    return "root cause" in str(error) or type(error).__name__ == "EngineDeadError"


def _reason(error: BaseException) -> str:
    """What an exception says, in a line; of a failed validation the first message."""
    if callable(getattr(error, "errors", None)):
        return str(error.errors()[0]["msg"])  # type: ignore[attr-defined]  # pydantic's ValidationError
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"


class Engine:
    """The engine of one model. Nothing heavy happens before `start`.

    Args:
        arguments: Fields of vLLM's `AsyncEngineArgs`.

    Attributes:
        config: vLLM's own config of everything.

    Raises:
        ModelError: The arguments do not fit each other or the model, which vLLM does not know, say.
    """

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        self.log = EngineLog()
        self._llm: Any = None
        self._processes: set[BaseProcess] = set()
        self._requests = 0
        with self._explained(f"vLLM does not take the model {arguments['model']}"):
            from vllm.engine.arg_utils import AsyncEngineArgs

            self.log.hush()
            self.config = AsyncEngineArgs(**arguments).create_engine_config()

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        """Whatever vLLM raises is explained; none of its processes outlives an error or an interrupt."""
        before = set(multiprocessing.active_children())
        try:
            with self.log.capture():
                yield
        except BaseException as error:
            _end(set(multiprocessing.active_children()) - before)
            if isinstance(error, Exception):
                raise self.log.fault(what, error) from error
            self.log.remove()
            raise

    def start(self) -> None:
        """Start the engine's processes and load the weights; later calls do nothing.

        Raises:
            ModelError: It does not start.
        """
        if self._llm is not None:
            return
        with self._explained(f"the engine of vLLM does not start with {self.config.model_config.model}"):
            from vllm.v1.engine.async_llm import AsyncLLM

            before = set(multiprocessing.active_children())
            self._llm = AsyncLLM.from_vllm_config(self.config, disable_log_stats=True)
            self._processes = set(multiprocessing.active_children()) - before

    def close(self) -> None:
        """End the engine's processes."""
        if self._llm is not None:
            with self.log.capture(), suppress(Exception):
                self._llm.shutdown()
            self._llm = None
            _end(self._processes)
        self.log.remove()

    # ---- on the event loop ---------------------------------------------------------------------------------------

    async def prepared(self, prompt: Mapping[str, Any]) -> dict[str, Any]:
        """Turn token ids and clips into what the engine takes: places for video filled, pixels as tensors."""
        (made,) = await self._llm.renderer.render_cmpl_async([prompt])
        return dict(made)

    async def outputs(self, prompt: Mapping[str, Any], params: Any, lora: Any = None) -> AsyncIterator[Any]:
        """Ask, and give the answer as far as it has come: after the first token, and at the end.

        Raises:
            ModelError: The engine died, or refuses the sampling parameters.
        """
        self._requests += 1
        try:
            async for output in self._llm.generate(prompt, params, str(self._requests), lora_request=lora):
                yield output
        except Exception as error:
            raise self.log.fault("the engine of vLLM failed while it answered", error) from error

    async def add_adapter(self, lora: Any) -> None:
        """Load a LoRA adapter.

        Raises:
            ModelError: It fits no layer of the model, say.
        """
        try:
            await self._llm.add_lora(lora)
        except Exception as error:
            raise self.log.fault(f"the adapter {lora.lora_path} cannot be loaded into this model", error) from error


def _end(processes: Iterable[BaseProcess]) -> None:
    """Let processes end, which their own children wait for; those that do not are killed."""
    for process in processes:
        process.terminate()
    for process in processes:
        process.join(GRACE_SECONDS)
        if process.is_alive():
            process.kill()
            process.join()


def engine_arguments() -> set[str]:
    """Names of all arguments that vLLM's engine takes."""
    from vllm.engine.arg_utils import AsyncEngineArgs

    return {field.name for field in fields(AsyncEngineArgs)}
