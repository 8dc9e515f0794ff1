"""Miniature IEMOCAP and CMU-MOSI in their original layouts, with drawn videos whose frame numbers can be read back."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

NTSC = Fraction(30000, 1001)
DIALOGUES: dict[str, dict[str, tuple[float, float, str]]] = {
    "Ses06F_impro09": {
        "F000": (0.3127, 1.2243, "The kettle sings."),
        "M000": (1.2243, 2.0, "It sings in green today."),
        "F001": (3.9, 5.05, "Purple suits a kettle."),  # over a keyframe
        "FXX0": (2.1, 2.4, "Clack."),  # spoken, not judged
    },
    "Ses06M_script09_1b": {"M000": (0.5, 1.1, "Which moon is this?"), "F000": (1.2, 1.9, "The square one.")},
    "Ses09F_impro09": {
        "F000": (1 / 3, 1.0, "A heron painted my ladder."),
        "M000": (4.25, 5.75, "Paint the heron back."),
    },
}
"""Dialogue -> turn -> start, end, text. All is invented; IEMOCAP has five sessions."""
FRAMES = 180


def draw_iemocap(draw: ModuleType, parent: Path) -> Path:
    """Write ``IEMOCAP_full_release``; its second dialogue is packed as DivX packs them."""
    top = parent / "IEMOCAP_full_release"
    for name, turns in DIALOGUES.items():
        dialog = top / f"Session{int(name[3:5])}" / "dialog"
        for folder in ("avi/DivX", "EmoEvaluation/Attribute", "transcriptions"):
            (dialog / folder).mkdir(parents=True, exist_ok=True)
        avi = dialog / "avi" / "DivX" / f"{name}.avi"
        look: dict[str, Any] = {"frames": FRAMES, "fps": NTSC, "gop": 60, "codec": "mpeg4"}
        if name == "Ses06M_script09_1b":
            plain = parent / "plain.avi"
            draw.draw_clip(plain, **look, b_frames=1, options={"bf": "1"})
            pack(plain, avi)
            plain.unlink()
        else:
            bf = 2 if name == "Ses09F_impro09" else 0
            draw.draw_clip(avi, **look, b_frames=bf, options={"bf": str(bf)})
        (avi.parent / f"._{avi.name}").write_bytes(b"\0\5\x16\7 what a Mac leaves behind")
        _write_texts(dialog, name, turns)
        sentence = dialog.parent / "sentences" / "wav" / name / f"{name}_F000.wav"
        sentence.parent.mkdir(parents=True)
        sentence.write_bytes(b"RIFF")
    return top


def _write_texts(dialog: Path, name: str, turns: dict[str, tuple[float, float, str]]) -> None:
    judged = ["% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]", ""]
    spoken = []
    for turn, (start, end, text) in turns.items():
        spoken.append(f"{name}_{turn} [{start:08.4f}-{end:08.4f}]: {text}")
        if "XX" not in turn:
            judged.append(f"[{start:.4f} - {end:.4f}]\t{name}_{turn}\tneu\t[2.5000, 2.5000, 2.5000]")
            judged += ["C-E2:\tNeutral;\t()", f"A-E3:\tval 3; act 2; dom  2;\t({text})", ""]
    spoken.append("M: [LAUGHTER]")
    (dialog / "EmoEvaluation" / f"{name}.txt").write_text("\n".join(judged))
    (dialog / "EmoEvaluation" / "Attribute" / f"{name}_e1_atr.txt").write_text(f"{name}_F000 :act 2; :val  3; ;\n")
    (dialog / "transcriptions" / f"{name}.txt").write_text("\n".join(spoken) + "\n")


def draw_mosi(draw: ModuleType, parent: Path, clips: dict[str, int]) -> Path:
    """Write ``Raw`` of CMU-MOSI, given the clips of each video; clip n of a video has 10 + n frames."""
    top = parent / "Raw"
    for folder in ("Video/Full", "Video/Segmented", "Transcript/Segmented", "Audio/WAV_16000/Segmented"):
        (top / folder).mkdir(parents=True, exist_ok=True)
    for video, count in clips.items():
        draw.draw_clip(top / "Video" / "Full" / f"{video}.mp4", frames=40)
        lines = []
        for n in range(1, count + 1):
            draw.draw_clip(top / "Video" / "Segmented" / f"{video}_{n}.mp4", frames=10 + n)
            lines.append(f"{n}_DELIM_SENTENCE NUMBER {n} OF IT")
        (top / "Transcript" / "Segmented" / f"{video}.annotprocessed").write_text("\n".join(lines) + "\n")
    return top


def pack(plain: Path, packed: Path) -> None:
    """Pack an AVI of I, P, B, P, B ... as DivX does: a P and its B in one packet, then an empty picture.

    Six seconds of silence are added.
    """
    import av
    import numpy as np

    with av.open(str(plain)) as old, av.open(str(packed), "w") as new:
        stream = old.streams.video[0]
        out = new.add_stream_from_template(stream)
        sound = new.add_stream("pcm_s16le", rate=16000, layout="mono")
        packets = [(bytes(packet), packet.is_keyframe) for packet in old.demux(stream) if packet.size]
        for n, (data, is_keyframe) in enumerate(_packed(packets)):
            packet = av.Packet(data)
            packet.stream, packet.pts, packet.dts, packet.time_base = out, n, n, 1 / NTSC
            packet.is_keyframe = is_keyframe
            new.mux(packet)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 96_000), dtype=np.int16), format="s16", layout="mono")
        silence.rate, silence.pts = 16000, 0
        new.mux([*sound.encode(silence), *sound.encode(None)])


_PICTURE = b"\x00\x00\x01\xb6"
_EMPTY = _PICTURE + bytes([0b01010000, 0, 0b00001000, 0x7F])
_NAME = b"\x00\x00\x01\xb2DivX503b1393p"


def _packed(packets: list[tuple[bytes, bool]]) -> list[tuple[bytes, bool]]:
    out: list[tuple[bytes, bool]] = []
    waiting = [(data.replace(_PICTURE, _NAME + _PICTURE, 1) if is_key else data, is_key) for data, is_key in packets]
    while waiting:
        data, is_keyframe = waiting.pop(0)
        if waiting and waiting[0][0].split(_PICTURE)[1][0] >> 6 == 2:
            out += [(data + waiting.pop(0)[0], is_keyframe), (_EMPTY, False)]
        else:
            out.append((data, is_keyframe))
    return out
