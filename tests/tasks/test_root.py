from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mmla_tasks.errors import DataError, UsageError
from mmla_tasks.root import DataRoot

COMMIT = "a28a094ef0a1b2c3d4e5f60718293a4b5c6d7e8f"


def test_the_flag_wins_over_the_variable_and_the_hub_comes_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert DataRoot.choose().kind == "hub"
    monkeypatch.setenv("MMLA_DATA_DIR", str(tmp_path))
    assert (DataRoot.choose().kind, DataRoot.choose().origin) == ("folder", "MMLA_DATA_DIR")
    assert (DataRoot.choose("sample:4").kind, DataRoot.choose("sample").origin) == ("sample", "--data_dir")


@pytest.mark.parametrize("spec", ["sample:0", "sample:x", "sample:-1"])
def test_a_sample_of_no_rows_is_refused(spec: str) -> None:
    with pytest.raises((DataError, UsageError), match="is not a sample"):
        DataRoot.choose(spec)


def test_texts_from_the_hub_cache_with_their_commit(
    tmp_path: Path, tsv: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """huggingface_hub's own cache layout, offline: the real client finds the snapshot and its commit."""
    repository = tmp_path / "hub" / "datasets--THUIAR--MMLA-Datasets"
    tsv(repository / "snapshots" / COMMIT / "MUStARD" / "test.tsv", [("1_1", "Sure.", "sarcastic")])
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    root = DataRoot.choose()
    dataset = root.dataset("MUStARD", labels_of=dict, with_clips=False)
    assert root.commit("MUStARD") == COMMIT
    split = dataset.read("test", labels=["sincere", "sarcastic"], dimension="speaking style", with_clips=False)
    assert split.documents[0]["label"] == "sarcastic" and split.known_rows == 138
