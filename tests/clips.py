"""Clip files for tests that need some which can be read, and care little for what they show."""

from __future__ import annotations

import io
from functools import lru_cache


def clip_bytes(tail: bytes = b"") -> bytes:
    """An MP4 of three small frames with `tail` behind it, which no reader minds and which makes it another file."""
    return _drawn() + tail


@lru_cache(maxsize=1)
def _drawn() -> bytes:
    import av
    import numpy as np

    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        for n in range(3):
            picture = np.full((32, 32, 3), 80 * n, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()
