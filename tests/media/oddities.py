"""Draws valid files of every odd kind, with the frames that each must give, known by construction.

Look at them:

    python tests/media/oddities.py /tmp/oddities
"""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from draw import COLOURS, draw_clip, numbered_image, read_number

SIZE = (96, 64)


def as_it_is(image_HWC: Any) -> Any:
    return image_HWC


@dataclass(frozen=True)
class Oddity:
    """A drawn file, and what a full decode of the clip in it shows."""

    path: Path
    numbers: tuple[int, ...]
    """What each frame shows, in order of time."""
    seconds: tuple[float, ...]
    """When each is shown, from the clip's start."""
    size: tuple[int, int] = SIZE
    """Width and height as shown."""
    as_drawn: Callable[[Any], Any] = as_it_is
    """Brings a shown image back to what was drawn."""
    start_seconds: float = 0.0
    end_seconds: float | None = None

    def faults(self, frames: Any) -> list[str]:
        """What is wrong with `Frames` that should be all of the clip's."""
        _, height, width, _ = frames.frames_THWC.shape
        images = [self.as_drawn(image) for image in frames.frames_THWC]
        numbers = tuple(read_number(image) for image in images)
        found = []
        if numbers != self.numbers:
            found.append(f"frames {numbers}, not {self.numbers}")
        if (width, height) != self.size:
            found.append(f"size {width} x {height}, not {self.size}")
        if len(frames.seconds) != len(self.seconds) or not np.allclose(frames.seconds, self.seconds, atol=0.002):
            found.append(f"times {frames.seconds}, not {self.seconds}")
        off = max(_colour_off(image, number) for image, number in zip(images, numbers, strict=True))
        if off > COLOUR_TOLERANCE:
            found.append(f"colours are off by {off}")
        return found


COLOUR_TOLERANCE = 14
"""Of red, green or blue, in the middle of a block; a wrong matrix or range is off by more."""


def _colour_off(image_HWC: Any, number: int) -> int:
    height, width, _ = image_HWC.shape
    drawn = numbered_image(number, (width, height), COLOURS)
    rows, columns = [np.array([(2 * i + 1) * side // 8 for i in range(4)]) for side in (height, width)]
    middles = np.ix_(rows, columns)
    return int(np.abs(image_HWC[middles].astype(int) - drawn[middles]).max())


def at_rate(count: int, fps: Fraction | int = 25) -> tuple[float, ...]:
    return tuple(float(i / Fraction(fps)) for i in range(count))


def plain(path: Path, frames: int = 30, *, size: tuple[int, int] = SIZE, **settings: Any) -> Oddity:
    """A clip at a constant rate that shows all its frames."""
    draw_clip(path, frames=frames, size=size, colours=COLOURS, **settings)
    return Oddity(path, tuple(range(frames)), at_rate(frames, settings.get("fps", 25)), size=size)


def in_matroska(folder: Path) -> Oddity:
    return plain(folder / "matroska.mkv", 47, gop=7, b_frames=3, fps=Fraction(30000, 1001))


def fragmented(folder: Path) -> Oddity:
    return plain(folder / "fragmented.mp4", gop=6, container_options={"movflags": "frag_keyframe+empty_moov"})


ALT_REF = {"auto-alt-ref": "1", "lag-in-frames": "12", "deadline": "good", "cpu-used": "5", "b": "300k"}


def webm_with_hidden_frames(folder: Path) -> Oddity:
    return plain(folder / "hidden_frames.webm", 40, codec="libvpx", gop=20, options=ALT_REF)


def webm_of_vp9(folder: Path) -> Oddity:
    return plain(folder / "vp9.webm", 40, codec="libvpx-vp9", gop=20, options=ALT_REF)


def varying_rate(folder: Path) -> Oddity:
    ticks = [i * 40 + (i % 3) * 11 + (i > 12) * 900 for i in range(24)]
    path = draw_clip(
        colours=COLOURS, path=folder / "varying.mp4", frames=24, b_frames=2, ticks=ticks, tick_seconds=Fraction(1, 1000)
    )
    return Oddity(path, tuple(range(24)), tuple(tick / 1000 for tick in ticks))


def turned(folder: Path, degrees: int) -> Oddity:
    """Stored lying; the file asks to turn it."""
    path = draw_clip(
        colours=COLOURS,
        path=folder / f"turned_{degrees}.mp4",
        prepare=lambda _, stream: stream.set_display_rotation(degrees),
    )
    size = SIZE if degrees == 180 else SIZE[::-1]
    return Oddity(path, tuple(range(24)), at_rate(24), size, as_drawn=lambda image: np.rot90(image, -degrees // 90))


def mirrored(folder: Path) -> Oddity:
    """Stored as a mirror shows it; the file asks to turn left and right."""
    matrix = [-(1 << 16), 0, 0, 0, 1 << 16, 0, SIZE[0] << 16, 0, 1 << 30]
    path = draw_clip(
        colours=COLOURS, path=folder / "mirrored.mp4", prepare=lambda _, stream: stream.set_display_matrix(matrix)
    )
    return Oddity(path, tuple(range(24)), at_rate(24), as_drawn=lambda image: image[:, ::-1])


def odd_size(folder: Path) -> Oddity:
    return plain(folder / "odd_size.mp4", 12, size=(97, 65), pixel_format="yuv444p")


def odd_size_vp9(folder: Path) -> Oddity:
    return plain(folder / "odd_size.webm", 12, size=(97, 65), codec="libvpx-vp9", options={"lag-in-frames": "0"})


def one_frame(folder: Path) -> Oddity:
    return plain(folder / "one_frame.mp4", 1)


def ten_bit(folder: Path) -> Oddity:
    return plain(folder / "ten_bit.mp4", pixel_format="yuv420p10le", b_frames=2)


def tagged(primaries: int, transfer: int, matrix: int, full: bool = False) -> Callable[[Any, Any], None]:
    def prepare(_: Any, stream: Any) -> None:
        codec = stream.codec_context
        codec.color_primaries, codec.color_trc, codec.colorspace = primaries, transfer, matrix
        codec.color_range = 2 if full else 1

    return prepare


def hdr(folder: Path) -> Oddity:
    """HEVC of 10 bits, BT.2020 with the PQ curve."""
    return plain(
        folder / "hdr.mp4", codec="libx265", pixel_format="yuv420p10le", prepare=tagged(9, 16, 9), change=in_colours("yuv420p10le", "BT2020"),
        options={"x265-params": "log-level=none:keyint=10:bframes=2:pools=1", "crf": "18", "preset": "ultrafast"},
    )  # fmt: skip


def bt709(folder: Path) -> Oddity:
    return plain(folder / "bt709.mp4", prepare=tagged(1, 1, 1), change=in_colours("yuv420p", "ITU709"))


def full_range(folder: Path) -> Oddity:
    change = in_colours("yuvj420p", "ITU601", "JPEG")
    return plain(folder / "full_range.mp4", pixel_format="yuvj420p", prepare=tagged(5, 6, 5, full=True), change=change)


def in_colours(pixel_format: str, matrix: str, colour_range: str = "MPEG") -> Callable[[Any], Any]:
    """Converts a drawn frame as the file will be tagged."""

    def change(frame: Any) -> Any:
        pts, time_base = frame.pts, frame.time_base
        frame = frame.reformat(format=pixel_format, dst_colorspace=matrix, dst_color_range=colour_range)
        frame.pts, frame.time_base = pts, time_base
        return frame

    return change


def interlaced(folder: Path) -> Oddity:
    return plain(folder / "interlaced.mp4", options={"x264-params": "tff=1:keyint=10:bframes=2"})


def interlaced_mpeg2(folder: Path) -> Oddity:
    return plain(folder / "interlaced.ts", codec="mpeg2video", gop=10, options={"flags": "+ildct+ilme", "q": "2"})


def alpha_vp9(folder: Path) -> Oddity:
    return plain(folder / "alpha.webm", codec="libvpx-vp9", pixel_format="yuva420p", options={"auto-alt-ref": "0"})


def alpha_png(folder: Path) -> Oddity:
    return plain(folder / "alpha.mov", codec="png", pixel_format="rgba")


def late_start(folder: Path) -> Oddity:
    return plain(folder / "late_start.mp4", b_frames=2, first_tick=50)


def long_gop(folder: Path) -> Oddity:
    return plain(folder / "long_gop.mp4", 400, gop=9999, b_frames=2)


def many_b_frames(folder: Path) -> Oddity:
    return plain(folder / "b_frames.mp4", 50, b_frames=7, fps=60, options={"x264-params": "b-pyramid=normal"})


def segment(folder: Path) -> Oddity:
    path = draw_clip(colours=COLOURS, path=folder / "dialogue.mp4", frames=500, gop=25, b_frames=2, sound_seconds=20)
    return Oddity(path, tuple(range(180, 211)), at_rate(31), start_seconds=7.2, end_seconds=8.44)


def sound_goes_on(folder: Path) -> Oddity:
    return plain(folder / "sound_goes_on.mp4", sound_seconds=4)


def wide_pixels(folder: Path) -> Oddity:
    def prepare(_: Any, stream: Any) -> None:
        stream.codec_context.sample_aspect_ratio = Fraction(64, 45)

    return plain(folder / "wide_pixels.mp4", prepare=prepare)


def mpeg4_in_avi(folder: Path) -> Oddity:
    return plain(folder / "mpeg4.avi", codec="mpeg4", options={"bf": "2", "q": "3"}, gop=8)


def edit_list(folder: Path) -> Oddity:
    """The file holds 30 frames; its edit list shows those from the tenth on."""
    path = draw_clip(
        colours=COLOURS, path=folder / "edit_list.mp4", frames=30, gop=5, container_options={"use_editlist": "1"}
    )
    data = bytearray(path.read_bytes())
    at = data.index(b"elst") + 4
    (count,) = struct.unpack(">I", data[at + 4 : at + 8])
    assert count == 1 and data[at] == 0, "not the edit list that was expected"
    # Media time in ticks of the track, length in ticks of the film.
    track = struct.unpack(">I", data[data.index(b"mdhd") + 16 : data.index(b"mdhd") + 20])[0]
    film = struct.unpack(">I", data[data.index(b"mvhd") + 16 : data.index(b"mvhd") + 20])[0]
    data[at + 8 : at + 16] = struct.pack(">II", 20 * film // 25, 10 * track // 25)
    path.write_bytes(data)
    return Oddity(path, tuple(range(10, 30)), at_rate(20))


def open_gops(folder: Path) -> Oddity:
    return plain(folder / "open_gops.mp4", 60, gop=6, b_frames=2, options={"x264-params": "open-gop=1:keyint=6"})


def gradual_recovery(folder: Path) -> Oddity:
    return plain(folder / "recovery.mp4", 60, gop=10, options={"x264-params": "intra-refresh=1:keyint=10"})


def transport_stream(folder: Path) -> Oddity:
    return plain(folder / "transport.ts", gop=6, b_frames=2)


def motion_jpeg(folder: Path) -> Oddity:
    return plain(folder / "motion_jpeg.avi", 9, codec="mjpeg", options={"q": "2"})


def av1(folder: Path) -> Oddity:
    os.environ["SVT_LOG"] = "1"  # errors only
    return plain(
        folder / "av1.mp4",
        20,
        size=(192, 128),
        codec="libsvtav1",
        options={"preset": "8", "crf": "10", "svtav1-params": "lp=1"},
    )


def flash(folder: Path) -> Oddity:
    return plain(folder / "flash.flv", b_frames=2, gop=10)


def cover_first(folder: Path) -> Oddity:
    """The first video stream is a picture of the film, not the film."""

    def prepare(cover: Any) -> None:
        cover.pix_fmt, cover.disposition = "yuvj420p", av.stream.Disposition.attached_pic

    return _with_another(folder / "cover_first.mp4", "mjpeg", 1, prepare, film_first=False)


def two_films(folder: Path) -> Oddity:
    """The second film is longer and larger, and others may take it for the main one."""

    def prepare(other: Any) -> None:
        other.width, other.height = 320, 180

    return _with_another(folder / "two_films.mkv", "libx264", 60, prepare, film_first=True)


def _with_another(path: Path, codec: str, frames: int, prepare: Callable[[Any], None], *, film_first: bool) -> Oddity:
    """A film of 30 frames, beside a stream of `frames` frames whose numbers start at 900."""
    with av.open(str(path), "w") as container:
        first, second = (container.add_stream(name, rate=25) for name in ("libx264", codec)[:: 1 if film_first else -1])
        film, other = (first, second) if film_first else (second, first)
        for stream in (film, other):
            stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        film.options = {"preset": "veryfast", "crf": "18", "bf": "2"}
        prepare(other)
        for stream, numbers in [(other, range(900, 900 + frames)), (film, range(30))]:
            for pts, number in enumerate(numbers):
                image = numbered_image(number, (stream.width, stream.height), COLOURS)
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                frame.pts, frame.time_base = pts, Fraction(1, 25)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    return Oddity(path, tuple(range(30)), at_rate(30))


def changing_size(folder: Path) -> Oddity:
    """The picture becomes larger on the way; all frames are shown in the size of the first."""
    path, parts = folder / "changing.h264", []
    for part, (size, first) in enumerate([(SIZE, 0), ((192, 128), 15)]):
        piece = folder / f"piece_{part}.h264"
        draw_clip(piece, frames=15, size=size, numbers=range(first, first + 15), colours=COLOURS)
        parts.append(piece.read_bytes())
        piece.unlink()
    path.write_bytes(b"".join(parts))
    return Oddity(path, tuple(range(30)), at_rate(30))


def drawn(folder: Path, names: Sequence[str] | None = None) -> dict[str, Oddity]:
    """Draw all, or those named."""
    return {name: make(folder) for name, make in KINDS.items() if names is None or name in names}


KINDS: dict[str, Callable[[Path], Oddity]] = {
    "in Matroska, without a frame count": in_matroska,
    "fragmented MP4": fragmented,
    "WebM (VP8) with hidden frames": webm_with_hidden_frames,
    "WebM (VP9) with hidden frames": webm_of_vp9,
    "varying frame rate": varying_rate,
    "turned by 90 degrees": lambda folder: turned(folder, 90),
    "turned by 180 degrees": lambda folder: turned(folder, 180),
    "mirrored": mirrored,
    "odd size, 4:4:4": odd_size,
    "odd size, 4:2:0": odd_size_vp9,
    "one frame": one_frame,
    "10 bits": ten_bit,
    "HDR (BT.2020, PQ)": hdr,
    "tagged BT.709": bt709,
    "full range": full_range,
    "interlaced": interlaced,
    "interlaced MPEG-2": interlaced_mpeg2,
    "alpha, VP9": alpha_vp9,
    "alpha, PNG": alpha_png,
    "first timestamp not zero": late_start,
    "one keyframe in 400 frames": long_gop,
    "seven B-frames in a row": many_b_frames,
    "segment of a longer file": segment,
    "sound longer than the picture": sound_goes_on,
    "pixels that are not square": wide_pixels,
    "MPEG-4 in AVI": mpeg4_in_avi,
    "edit list": edit_list,
    "open GOPs": open_gops,
    "gradual recovery": gradual_recovery,
    "transport stream": transport_stream,
    "Motion JPEG": motion_jpeg,
    "AV1": av1,
    "Flash": flash,
    "cover picture as first stream": cover_first,
    "two films": two_films,
    "size changes on the way": changing_size,
}


if __name__ == "__main__":
    Path(sys.argv[1]).mkdir(parents=True, exist_ok=True)
    for kind, oddity in drawn(Path(sys.argv[1])).items():
        print(f"{kind:40} {oddity.path}")
