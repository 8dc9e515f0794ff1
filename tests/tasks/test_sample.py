"""The embedded sample: balanced rows that tell nothing, clips that tell all, made once whoever asks."""

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml

from mmla_tasks.documents import Dataset, Split
from mmla_tasks.errors import DataError, MissingExtraError, UsageError
from mmla_tasks.sample import draw, rows_asked_for, sample_root
from mmla_tasks.sample.cache import QUOTED
from mmla_tasks.sample.rows import SAMPLE_NOTE, dataset_rows
from mmla_tasks.sources import SOURCES, SPLITS
from mmla_tasks.tsv import read_table

REPOSITORY = Path(__file__).parents[2]


def declared_labels() -> dict[str, list[str]]:
    """Dataset -> labels, from the task YAMLs, where they stand once."""
    labels = {}
    for path in sorted((REPOSITORY / "yaml_tasks").rglob("*.yaml")):
        task = yaml.safe_load(path.read_text(encoding="utf-8").replace("!function", ""))
        if "labels" in task:
            labels[task["dataset"]] = task["labels"]
    return labels


LABELS = declared_labels()
PREFIXES = {name: source.clip_prefix for name, source in SOURCES.items()}
TINY = {"MELD": ["joy", "anger", "fear"], "MUStARD": ["sincere", "sarcastic"]}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MMLA_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The texts of all twelve datasets."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MMLA_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        return sample_root(datasets=LABELS, prefixes=PREFIXES, with_clips=False)


def make_tiny(spec: str = "sample:6", **kwargs) -> Path:
    return sample_root(spec, datasets=TINY, prefixes=PREFIXES, **kwargs)


def read(root: Path, name: str, split: str, labels: dict[str, list[str]], with_clips: bool = False) -> Split:
    dataset = Dataset.in_root(root, name)
    return dataset.read(split, labels=labels[name], dimension="emotion", with_clips=with_clips)


def decode(path: str | Path) -> list:
    import av

    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


# ---- rows -----------------------------------------------------------------------------------------------------------


def test_the_yamls_declare_all_twelve_datasets():
    assert LABELS.keys() == SOURCES.keys()


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("name", SOURCES)
def test_every_text_stands_once_with_every_label(texts: Path, name: str, split: str):
    documents = read(texts, name, split, LABELS).documents
    pairs = Counter((d["text"], d["label"]) for d in documents)
    assert {label for _, label in pairs} == set(LABELS[name])
    assert len(pairs) == len({text for text, _ in pairs}) * len(LABELS[name])
    assert set(pairs.values()) == {1}
    assert len(documents) >= {"train": 200, "dev": 30, "test": 20}[split]


@pytest.mark.parametrize("name", SOURCES)
def test_splits_share_words_but_neither_texts_nor_ids(texts: Path, name: str):
    documents = {split: read(texts, name, split, LABELS).documents for split in SPLITS}
    for column in ("id", "text"):
        of_split = [{d[column].casefold() for d in documents[split]} for split in SPLITS]
        assert sum(map(len, of_split)) == len(set.union(*of_split)), column
    words = {split: set(re.findall(r"\w+", " ".join(d["text"] for d in documents[split]))) for split in SPLITS}
    assert words["test"] <= words["train"]


def test_no_text_holds_a_word_of_any_label(texts: Path):
    of_labels = {word for labels in LABELS.values() for label in labels for word in re.split(r"[\s_-]", label)}
    documents = [d for name in SOURCES for split in SPLITS for d in read(texts, name, split, LABELS).documents]
    of_texts = set(re.findall(r"\w+", " ".join(d["text"] for d in documents).lower()))
    stems = {word[:6] for word in of_labels - {"for", "non"}}  # so that "changed" counts as "change"
    assert not {(word, stem) for word in of_texts for stem in stems if word.startswith(stem)}


@pytest.mark.parametrize("spec, rows", [("sample:1", 1), ("sample:5", 5), ("sample:100", 100), ("sample:1000", 1000)])
def test_the_number_of_test_rows_is_what_was_asked(spec: str, rows: int):
    for name, labels in LABELS.items():
        made = dataset_rows(name, labels, rows_asked_for(spec))
        assert len(made["test"]) == rows
        counts = Counter(row.label for row in made["test"])
        assert max(counts.values()) - min(counts.get(label, 0) for label in labels) <= 1
        ids = [row.id.casefold() for split in SPLITS for row in made[split]]
        assert len(ids) == len(set(ids))
        assert len(made["train"]) == len(dataset_rows(name, labels)["train"])


@pytest.mark.parametrize("spec", ["sample:", "sample:0", "sample:-3", "sample:x", "sample:²", "samples", ""])
def test_an_odd_spec_is_refused(spec: str):
    with pytest.raises(UsageError, match="is not a sample"):
        rows_asked_for(spec)


# ---- the folder -----------------------------------------------------------------------------------------------------


def test_both_dialects_and_the_capitalised_labels_are_met(texts: Path):
    tables = {name: read_table(texts / name / "train.tsv") for name in SOURCES}
    with_quotes = {name for name, table in tables.items() if any('"' in row[1] for row in table.rows)}
    assert {name for name, table in tables.items() if table.quoted} == QUOTED & with_quotes
    assert len(QUOTED & with_quotes) >= 3 and len(with_quotes - QUOTED) >= 3
    assert {row[2] for row in tables["IEMOCAP"].rows} == {label.capitalize() for label in LABELS["IEMOCAP"]}
    assert b"\r" not in (texts / "MELD" / "test.tsv").read_bytes()
    assert SAMPLE_NOTE in (texts / "SAMPLE.md").read_text(encoding="utf-8")


def test_two_caches_hold_the_same_rows_and_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import numpy as np

    roots = []
    for n in "12":
        monkeypatch.setenv("MMLA_CACHE_DIR", str(tmp_path / n))
        roots.append(make_tiny())
    first, second = ({p.relative_to(r): p for p in r.rglob("*") if p.is_file()} for r in roots)
    assert roots[0] != roots[1] and first.keys() == second.keys()
    assert roots[0].name == roots[1].name
    for name in first:
        if name.suffix == ".mp4":
            assert np.array_equal(decode(first[name]), decode(second[name])), name
        else:
            assert first[name].read_bytes() == second[name].read_bytes(), name


def test_the_place_depends_on_rows_labels_and_prefixes(cache: Path):
    roots = [
        make_tiny("sample:6", with_clips=False),
        make_tiny("sample:7", with_clips=False),
        sample_root("sample:6", datasets=TINY | {"MELD": ["joy", "fear"]}, prefixes=PREFIXES, with_clips=False),
        sample_root("sample:6", datasets=TINY, prefixes=PREFIXES | {"MELD": "M"}, with_clips=False),
    ]
    assert len(set(roots)) == 4
    assert {root.parent for root in roots} == {cache / "sample"}


def test_texts_need_neither_pyav_nor_pillow_nor_clips(cache: Path):
    code = (
        "import sys; sys.modules.update({'av': None, 'PIL': None, 'numpy': None})\n"
        "from mmla_tasks.sample import sample_root\n"
        f"print(sample_root(datasets={TINY!r}, prefixes={PREFIXES!r}, with_clips=False))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    root = Path(done.stdout.strip())
    assert sorted(p.name for p in (root / "MELD").iterdir()) == ["dev.tsv", "test.tsv", "train.tsv"]


@pytest.mark.parametrize("package", ["av", "PIL.Image"])
def test_clips_without_their_packages_end_in_the_pip_command(
    cache: Path, package: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=re.escape("pip install 'mmla-eval[hf]'")):
        make_tiny()


def test_two_processes_at_once_make_one_cache(cache: Path):
    code = (
        "from mmla_tasks.sample import sample_root\n"
        f"print(sample_root('sample:6', datasets={TINY!r}, prefixes={PREFIXES!r}))"
    )
    command = [sys.executable, "-c", code]
    processes = [subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    roots = {Path(process.communicate(timeout=60)[0].strip()) for process in processes}
    assert [process.returncode for process in processes] == [0, 0]
    (root,) = roots
    assert [p.name for p in (cache / "sample").iterdir() if p.is_dir()] == [root.name]
    assert all(len(decode(path)) == draw.FRAMES for path in root.rglob("*.mp4"))
    assert len(list(root.rglob("*.mp4"))) == 12


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("MMLA_CACHE_DIR", str(tmp_path / "file"))
    with pytest.raises(DataError, match="MMLA_CACHE_DIR"):
        make_tiny(with_clips=False)


def test_too_many_labels_are_refused(cache: Path):
    with pytest.raises(DataError, match="43 labels"):
        sample_root(datasets={"MELD": [f"label {n}" for n in range(43)]}, prefixes=PREFIXES)


# ---- clips ----------------------------------------------------------------------------------------------------------


def test_every_test_row_finds_its_clip_and_it_decodes(cache: Path):
    root = make_tiny()
    for name in TINY:
        for document in read(root, name, "test", TINY, with_clips=True).documents:
            assert document["clip"] is not None and document["clip"]["size"]
            frames = decode(document["clip"]["path"])
            assert len(frames) == draw.FRAMES
            assert frames[0].shape == (draw.SIDE, draw.SIDE, 3)


def test_clips_are_drawn_when_asked_for_and_only_once(cache: Path):
    calls: list[tuple[int, int]] = []

    def make(**kwargs) -> set[str]:
        calls.clear()
        root = make_tiny(on_progress=lambda done, total: calls.append((done, total)), **kwargs)
        return {path.name for path in root.rglob("*.mp4")}

    assert make(with_clips=False) == set() and not calls
    of_meld = make(clips_of=["MELD"])
    assert len(of_meld) == 6 and all(name.startswith("MELD_") for name in of_meld)
    assert calls == [(n, 6) for n in range(1, 7)]
    assert len(make()) == 12 and calls[-1] == (6, 6)
    assert len(make()) == 12 and not calls
    assert len(make(clips_of=["MUStARD"], splits=("test", "dev"))) == 12 + 48 and calls[-1] == (48, 48)


@pytest.mark.parametrize("damage", [b"", b"no clip"])
def test_a_damaged_clip_is_drawn_again(cache: Path, damage: bytes):
    root = make_tiny()
    first, second, *others = sorted(root.rglob("*.mp4"))
    whole, kept = (first.read_bytes(), second.read_bytes()), {path: os.stat(path).st_mtime_ns for path in others}
    first.write_bytes(damage)
    second.write_bytes(whole[1][:-100])
    assert make_tiny() == root
    assert (first.read_bytes(), second.read_bytes()) == whole
    assert all(os.stat(path).st_mtime_ns == mtime for path, mtime in kept.items())


def test_an_interrupted_drawing_goes_on(cache: Path):
    def interrupt(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_tiny(on_progress=interrupt)
    (root,) = (p for p in (cache / "sample").iterdir() if p.is_dir())
    kept = {path: os.stat(path).st_mtime_ns for path in root.rglob("*.mp4")}
    assert 3 <= len(kept) < 12
    assert make_tiny() == root
    assert len(list(root.rglob("*.mp4"))) == 12
    assert all(os.stat(path).st_mtime_ns == mtime for path, mtime in kept.items())


@pytest.mark.parametrize("num_labels", [2, 3, 7, 12, 20, 30, draw.MAX_LABELS])
def test_no_two_labels_look_alike(num_labels: int):
    looks = [draw.look_of(n, num_labels) for n in range(num_labels)]
    assert len({(look.expression, look.gesture) for look in looks}) == num_labels
    assert len({(look.hue, look.lightness) for look in looks}) == num_labels
    assert all(0.15 < look.lightness < 0.85 for look in looks)


def test_the_picture_tells_the_label_and_differs_from_row_to_row():
    import numpy as np

    looks = [draw.look_of(n, 7) for n in range(7)]
    clips = {(n, s): np.stack(list(draw.clip_frames(looks[n], f"test/{s}"))) for n in range(7) for s in range(4)}
    assert clips[0, 0].shape == (draw.FRAMES, draw.SIDE, draw.SIDE, 3) and clips[0, 0].dtype == np.uint8
    assert all(np.abs(c[0].astype(int) - c[5]).max() > 50 for c in clips.values()), "nothing moves"
    assert not np.array_equal(clips[0, 0], clips[0, 1])
    # The centre of the picture is face: its mean colour alone names the label of a clip never seen.
    middle = {key: clip[:, 40:56, 46:66].mean((0, 1, 2)) for key, clip in clips.items()}
    known = {n: np.mean([middle[n, s] for s in (0, 1, 2)], axis=0) for n in range(7)}
    nearest = [min(known, key=lambda k: float(np.abs(known[k] - middle[n, 3]).sum())) for n in range(7)]
    assert nearest == list(range(7))


def test_an_encoder_is_always_found_or_named(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    assert draw.encoder_name() == "libx264" and not caplog.records
    monkeypatch.setattr(draw, "_ENCODERS", ("no-such-encoder", "mpeg4"))
    assert draw.encoder_name() == "mpeg4"
    assert "encoded with mpeg4" in caplog.text
