"""What tests share: the shared folder, small data roots, and the `mmla` command in this process."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings

# These machines are noisy: a slow example is no fault of the law that it tests.
settings.register_profile("mmla", deadline=None)
settings.load_profile("mmla")

# Who is started in the background ignores Ctrl-C, and so do its children: tests that send it would prove nothing.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN and threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)

SHARED = Path(__file__).parents[1].parent / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder beside the project with real texts, clips and golden answers."""
    if not SHARED.is_dir():
        pytest.skip(f"{SHARED} is not on this machine; it holds licensed texts that the project does not ship")
    return SHARED


@pytest.fixture(scope="session")
def real_texts(shared: Path) -> Path:
    return shared / "mmla_data"


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test reads this machine's data root, keeps frames in its cache or reaches for the Hub."""
    monkeypatch.delenv("MMLA_DATA_DIR", raising=False)
    monkeypatch.setenv("MMLA_FRAME_CACHE_GB", "0")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    yield


@dataclass
class Ran:
    """What a command printed and how it ended."""

    status: int
    out: str
    err: str


@pytest.fixture
def mmla(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Run `mmla` in this process: ``mmla("run", "--model", "mmla-echo", ...)``."""
    from harness_ext.cli import main

    def call(*arguments: object) -> Ran:
        capsys.readouterr()
        status = main([str(a) for a in arguments])
        captured = capsys.readouterr()
        return Ran(status, captured.out, captured.err)

    return call


@pytest.fixture
def data_root(tmp_path: Path) -> Callable[..., Path]:
    """Write a data root: ``data_root(MELD=[("1_1", "Hi.", "joy"), ...])`` makes its test split."""

    def write(folder: str = "data", **datasets: Sequence[tuple[str, str, str]]) -> Path:
        root = tmp_path / folder
        for name, rows in datasets.items():
            write_tsv(root / name.replace("__", "-") / "test.tsv", rows)
        return root

    return write


def write_tsv(path: Path, rows: Sequence[Sequence[str]], columns: Sequence[str] = ("id", "text", "label")) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ["\t".join(columns), *("\t".join(row) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def tsv() -> Callable[..., Path]:
    return write_tsv


MELD_ROWS = [
    (f"{n // 10}_{n % 10}", f"Sentence number {n}.", label)
    for n, label in enumerate(["neutral", "surprise", "fear", "sadness", "joy", "anger", "disgust"] * 6)
]


@pytest.fixture
def meld_root(data_root: Callable[..., Path]) -> Path:
    """Forty-two rows of MELD, six of each label, and a train split of the same size."""
    root = data_root(MELD=MELD_ROWS)
    write_tsv(root / "MELD" / "train.tsv", [(f"t{i}", f"Training {t}", label) for i, t, label in MELD_ROWS])
    return root


def metrics_of(results: Mapping[str, Mapping[str, Mapping[str, float]]], task: str) -> dict[str, float]:
    return {k.removesuffix(",none"): v for k, v in results["results"][task].items() if k.endswith(",none")}


@pytest.fixture
def metrics() -> Callable[..., dict[str, float]]:
    return metrics_of
