"""A clip as images: decoded when touched, dropped again, equal to `decode`; and who gets a clip as images at all."""

from __future__ import annotations

import copy
import doctest
import json
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from weakref import WeakSet

import numpy as np
import pytest
from lm_eval.utils import handle_non_serializable, hash_dict_images

from harness_ext import lazy_images, session
from harness_ext.backends.echo import EchoLM
from harness_ext.frame_policy import FramePolicy
from harness_ext.lazy_images import ClipImages, clip_images, image_policy
from harness_ext.video import decode
from mmla_tasks.errors import ClipError, UsageError
from mmla_tasks.records import Clip

TASK = "mmla_emotion_meld"
POLICY = FramePolicy(num_frames=3, max_pixels=64 * 48)


@pytest.fixture(autouse=True)
def nobody_announced(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process of plain lm-eval, whatever models other tests hold on to."""
    monkeypatch.setattr(session, "_backends", WeakSet())


@pytest.fixture(autouse=True)
def decoded(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Who was decoded, in order; nothing is kept from the test before."""
    asked: list[str] = []
    really = ClipImages.pixels

    def noted(self: ClipImages) -> Any:
        asked.append(self["who"])
        return really(self)

    monkeypatch.setattr(ClipImages, "pixels", noted)
    monkeypatch.setattr(lazy_images, "_KEPT", lazy_images._Kept())
    yield asked


@pytest.fixture
def clip(draw: ModuleType, tmp_path: Path) -> Callable[..., Clip]:
    def drawn(name: str = "clip", frames: int = 12) -> Clip:
        path = draw.draw_clip(tmp_path / f"{name}.mp4", frames=frames)
        stat = path.stat()
        return Clip(path=str(path), start_seconds=0.0, end_seconds=None, size=stat.st_size, mtime_ns=stat.st_mtime_ns)

    return drawn


def images_of(clip: Clip, name: str = "1") -> ClipImages:
    return clip_images(clip, POLICY, TASK, name)


def test_doctests() -> None:
    assert doctest.testmod(lazy_images).attempted >= 1
    assert doctest.testmod(lazy_images).failed == 0


# ---- the images --------------------------------------------------------------------------------------------------


def test_frames_are_those_of_decode(clip: Callable[..., Clip]) -> None:
    one = clip()
    frames = decode(one, POLICY).frames_THWC
    images = list(images_of(one))
    assert len(images) == len(images_of(one)) == 3
    for image, frame in zip(images, frames, strict=True):
        assert np.array_equal(np.asarray(image), frame)
        assert np.array_equal(np.asarray(image.convert("RGB")), frame)
        assert image.tobytes() == frame.tobytes()
        assert (image.height, image.width, image.mode) == (*frame.shape[:2], "RGB")
        assert image.load()[5, 7] == image.getpixel((5, 7)) == tuple(frame[7, 5])
        assert np.array_equal(np.asarray(image.crop((2, 3, 20, 30))), frame[3:30, 2:20])
        assert image.resize((8, 6)).size == (8, 6)


def test_nothing_is_decoded_before_a_touch_and_a_clip_once(clip: Callable[..., Clip], decoded: list[str]) -> None:
    one = clip()
    images = list(images_of(one))
    repr(images), copy.deepcopy(images), pickle.loads(pickle.dumps(images))
    assert images[0].mode == "RGB"
    assert decoded == []
    for image in images:
        assert image.size
        np.asarray(image)
    assert decoded == [f"{TASK} id 1"]


def test_little_is_kept(clip: Callable[..., Clip], decoded: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    one_clip = decode(clip(), POLICY).frames_THWC.nbytes
    monkeypatch.setattr(lazy_images, "KEPT_BYTES", 2 * one_clip)
    clips = [images_of(clip(str(n)), str(n)) for n in range(5)]
    for images in clips:
        images[0].tobytes()
    assert sum(frames.nbytes for frames in lazy_images._KEPT._frames.values()) == 2 * one_clip
    clips[4][2].tobytes()
    assert len(decoded) == 5
    clips[0][2].tobytes()
    assert len(decoded) == 6
    monkeypatch.setattr(lazy_images, "KEPT_BYTES", 0)
    clips[1][0].tobytes()
    assert len(lazy_images._KEPT._frames) == 1


def test_a_short_clip_repeats_its_last_frame(clip: Callable[..., Clip]) -> None:
    one = clip(frames=2)
    first, second, third = (np.asarray(image) for image in images_of(one))
    assert not np.array_equal(first, second)
    assert np.array_equal(second, third)


def test_copies_and_pickles_are_equal(clip: Callable[..., Clip]) -> None:
    images = images_of(clip())
    for other in (copy.deepcopy(images), pickle.loads(pickle.dumps(images)), copy.deepcopy(images[:3])):
        assert [image.tobytes() for image in other] == [image.tobytes() for image in images]
    assert type(copy.deepcopy(images)) is ClipImages


def test_a_change_in_place_is_kept_in_this_image_alone(clip: Callable[..., Clip]) -> None:
    images = images_of(clip())
    (changed, *_), (untouched, *_) = images, images
    before = untouched.tobytes()
    changed.putpixel((1, 2), (9, 8, 7))
    assert changed.getpixel((1, 2)) == (9, 8, 7)
    assert changed.size == untouched.size
    changed.paste((1, 1, 1), (0, 0, 4, 4))
    changed.thumbnail((16, 16))
    assert max(changed.size) == 16
    assert np.asarray(changed).shape == (changed.height, changed.width, 3)
    for other in (copy.deepcopy(changed), pickle.loads(pickle.dumps(changed))):
        assert (other.size, other.tobytes()) == (changed.size, changed.tobytes())
    assert untouched.tobytes() == before


def test_samples_and_cache_keys_say_what_was_shown(clip: Callable[..., Clip], decoded: list[str]) -> None:
    """What lm-eval does with the arguments of a request: hash images, write JSON, hash JSON."""
    from lm_eval.api.model import hash_args

    one = clip()
    arguments = ("prompt", {"max_gen_toks": 1}, {"visual": images_of(one)})
    logged = hash_dict_images({TASK: [{"arguments": [arguments]}]})
    written = json.loads(json.dumps(logged, default=handle_non_serializable))
    visual = written[TASK][0]["arguments"][0][2]["visual"]
    assert visual == {"clip": one, "frames": POLICY.to_dict(), "who": f"{TASK} id 1"}
    assert json.loads(json.dumps(arguments, indent=1))[2]["visual"] == visual
    longer = ("prompt", {"max_gen_toks": 1}, {"visual": clip_images(one, FramePolicy(num_frames=4), TASK, "1")})
    assert hash_args("generate_until", arguments) != hash_args("generate_until", longer)
    assert decoded == []


def test_a_broken_clip_is_named_when_touched(tmp_path: Path) -> None:
    path = tmp_path / "broken.mp4"
    path.write_bytes(b"not a video")
    images = images_of(Clip(path=str(path), start_seconds=0.0, end_seconds=None, size=11, mtime_ns=1), "7_1")
    with pytest.raises(ClipError) as caught:
        images[0].size  # noqa: B018
    assert f"clip for {TASK} id 7_1 can't be read" in str(caught.value)
    assert "broken.mp4 (11 bytes)" in str(caught.value)
    assert "_text twin" in str(caught.value)
    assert "on_bad_clip" not in str(caught.value)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"fps": 1}, "fps=1 can't be used where a clip is shown as images"),
        ({"on_bad_clip": "skip"}, "on_bad_clip=skip can't be used where a clip is shown as images"),
        ({"on_bad_clip": "text"}, "on_bad_clip=text can't be used"),
        ({"num_frames": 0}, "num_frames=0 can't be used"),
        ({"video_reader": "other"}, "video_reader=other can't be used"),
    ],
)
def test_metadata_that_images_do_not_allow(metadata: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        image_policy(metadata)


def test_metadata_makes_the_policy() -> None:
    given = {"num_frames": "8", "max_pixels": 50176, "video_reader": "pyav", "on_bad_clip": "error", "pretrained": "x"}
    assert image_policy(given) == FramePolicy(num_frames=8, max_pixels=50176)
    assert image_policy({}) == FramePolicy()


# ---- who gets them -----------------------------------------------------------------------------------------------


@pytest.fixture
def task(tsv: Callable[..., Path], clip: Callable[..., Clip], tmp_path: Path) -> Callable[..., Any]:
    """`task(**metadata)`: MELD with two rows and their clips, built as plain lm-eval does."""
    from lm_eval.tasks import TaskManager

    from harness_ext.catalogue import yaml_folder

    root = tmp_path / "data"
    tsv(root / "MELD" / "test.tsv", [("1_0", "Hi.", "joy"), ("2_0", "No.", "anger")])
    (root / "MELD" / "video").mkdir()
    for name in ("MELD_1_0", "MELD_2_0"):
        Path(clip(name)["path"]).rename(root / "MELD" / "video" / f"{name}.mp4")

    def build(**metadata: Any) -> Any:
        given = {"data_dir": str(root), **metadata}
        manager = TaskManager(include_path=str(yaml_folder()), include_defaults=False, metadata=given)
        return manager.load([TASK])["tasks"][TASK]

    return build


def test_models_of_others_get_images(task: Callable[..., Any], decoded: list[str]) -> None:
    asked = task(num_frames=2)
    asked.build_all_requests()
    first = asked.instances[0]
    assert first.args[0].startswith("<image>\n<image>\nYou are presented with a video")
    assert first.args[0].count("<image>") == len(first.args[2]["visual"]) == 2
    assert "<video>" not in first.args[0]
    assert asked.dump_config()["prompt"].startswith("<image>\n<image>\n")
    assert decoded == []


def test_their_chat_template_sees_the_places(task: Callable[..., Any]) -> None:
    asked = task(num_frames=2)
    seen: list[str] = []

    def chat_template(messages: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        seen.append(messages[-1]["content"])
        return "chat"

    asked.build_all_requests(apply_chat_template=True, chat_template=chat_template)
    assert all(prompt.startswith("<image>\n<image>\nYou") for prompt in seen)
    assert len(seen) == 2


def test_ours_get_the_clip(task: Callable[..., Any]) -> None:
    asked = task(num_frames=2, fps=1)  # where no images are made, nothing is wrong with fps
    model = EchoLM()
    asked.build_all_requests()
    for instance in asked.instances:
        assert instance.args[0].startswith("<video>You are presented")
        assert instance.args[2]["visual"] == instance.request.clip
    del model
    asked = task()
    asked.build_all_requests()
    assert "<image>" in asked.instances[0].args[0]


def test_mmla_run_gets_the_clip(task: Callable[..., Any]) -> None:
    asked = task(fps=1)
    with session.session(session.Session()):
        asked.build_all_requests()
    assert asked.instances[0].args[0].startswith("<video>You")
    task_alone = task(fps=1)
    assert task_alone.doc_to_text(task_alone.eval_docs[0]).startswith("<video>You")


def test_a_missing_clip_stops_with_its_row(task: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "data" / "MELD" / "video" / "MELD_2_0.mp4").unlink()
    with pytest.raises(ClipError) as caught:
        task().build_all_requests()
    assert f"clip for {TASK} id 2_0 is missing" in str(caught.value)
    assert "_text twin" in str(caught.value)
    asked = task()
    asked.build_all_requests(limit=1)
    assert len(asked.instances) == 1


def test_text_tasks_know_nothing_of_images(task: Callable[..., Any]) -> None:
    asked = task(modality="text", fps=1)
    asked.build_all_requests()
    assert len(asked.instances[0].args) == 2
