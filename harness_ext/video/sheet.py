"""A picture for people: the frames that a model would see, side by side."""

from __future__ import annotations

from pathlib import Path

from harness_ext.video.frames import Frames


def contact_sheet(frames: Frames, path: Path, caption: str, *, columns: int = 8, width: int = 320) -> None:
    """Write a PNG with the frames side by side, number and seconds beneath each, the caption below.

    Args:
        frames: What a model would see.
        path: The PNG to write.
        caption: One line.
        columns: Frames in a row.
        width: Of a frame on the sheet at most, in pixels.
    """
    from PIL import Image, ImageDraw, ImageFont

    margin, line = 8, 18
    _, source_height, source_width, _ = frames.frames_THWC.shape
    cell_width = min(width, source_width)
    cell_height = max(1, source_height * cell_width // source_width)
    across = min(columns, len(frames))
    down = -(-len(frames) // across)
    size = (margin + across * (cell_width + margin), down * (cell_height + line + margin) + line + 2 * margin)
    sheet = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=12)
    for position, (image, index, seconds) in enumerate(
        zip(frames.frames_THWC, frames.indices, frames.seconds, strict=True)
    ):
        row, column = divmod(position, across)
        x, y = margin + column * (cell_width + margin), margin + row * (cell_height + line + margin)
        sheet.paste(Image.fromarray(image).resize((cell_width, cell_height)), (x, y))
        draw.text((x, y + cell_height + 2), f"frame {index}   {seconds:.2f} s", fill="black", font=font)
    draw.text((margin, size[1] - line - margin), caption, fill="black", font=font)
    sheet.save(path, format="PNG")
