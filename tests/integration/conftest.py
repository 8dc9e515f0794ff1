"""Real and tiny models, real texts, drawn clips. Everything here needs torch; tests that use it are `slow`."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mmla_tasks.records import Clip

SHARED = Path(__file__).parents[3] / "shared"
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="session", autouse=True)
def own_cores() -> Iterator[None]:
    """Give each worker of `pytest -n` its share of the cores: threads that wait for each other cost more than they do."""
    torch = pytest.importorskip("torch", reason="the extra `hf` is not installed")
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))))
    yield
    torch.set_num_threads(before)


@pytest.fixture
def benchmark_named(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    """A module of the benchmarks, which are no package; what they add to the path is taken back."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if Path(getattr(sys.modules[name], "__file__", None) or "/").parent == BENCHMARKS:
            del sys.modules[name]


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """Folder of SmolLM2-135M-Instruct: `MMLA_SMOLLM2`, or made once in the user's cache."""
    from harness_ext.models import smollm2_folder

    return smollm2_folder()


@pytest.fixture(scope="session")
def tiny_qwen2_vl(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random Qwen2-VL."""
    from .tiny_models import tiny_qwen2_vl

    return tiny_qwen2_vl(tmp_path_factory.mktemp("tiny_qwen2_vl"), smollm2)


@pytest.fixture(scope="session")
def tiny_llama(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random text model."""
    from .tiny_models import tiny_llama

    return tiny_llama(tmp_path_factory.mktemp("tiny_llama"), smollm2)


@pytest.fixture(scope="session")
def labels_of() -> dict[str, tuple[str, tuple[str, ...]]]:
    """Dataset folder -> its dimension and labels, from the task YAMLs."""
    from harness_ext.catalogue import Catalogue

    configs = [file.config for file in Catalogue.load().files.values() if not file.is_group]
    return {str(c["dataset"]): (str(c["dimension"]), tuple(c["labels"])) for c in configs}


@pytest.fixture(scope="session")
def real_texts(labels_of: dict[str, tuple[str, tuple[str, ...]]]) -> Callable[[str, int], list[str]]:
    """`real_texts(dataset, n)`: the first n texts of a test split."""
    from mmla_tasks.documents import Dataset

    def read(dataset: str, count: int) -> list[str]:
        root = SHARED / "mmla_data"
        if not root.is_dir():
            pytest.skip(f"the real MMLA texts are not at {root}")
        dimension, labels = labels_of[dataset]
        split = Dataset.in_root(root, dataset).read("test", labels=labels, dimension=dimension, with_clips=False)
        return [document["text"] for document in split.documents[:count]]

    return read


@pytest.fixture(scope="session")
def drawn_clip(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Clip]:
    """`drawn_clip(seed, width=, height=, frames=)`: a clip of moving noise, 8 frames a second."""
    folder = tmp_path_factory.mktemp("clips")

    def draw(seed: int, *, width: int = 320, height: int = 240, frames: int = 12) -> Clip:
        path = folder / f"{seed}_{width}x{height}_{frames}.mp4"
        if not path.is_file():
            _write(path, seed, width, height, frames)
        stat = path.stat()
        return Clip(path=str(path), start_seconds=0.0, end_seconds=None, size=stat.st_size, mtime_ns=stat.st_mtime_ns)

    return draw


def _write(path: Path, seed: int, width: int, height: int, frames: int) -> None:
    import av
    import numpy as np

    small = np.random.default_rng(seed).integers(0, 256, (frames, height // 20, width // 20, 3), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=8)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for picture in small.repeat(20, axis=1).repeat(20, axis=2):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
