"""Clips a second on one tiny Qwen2-VL: `mmla-hf`, lmms-eval's `qwen2_vl`, and a serial loop, on the same 200 clips.

python benchmarks/peers.py [--clips 200] [--lmms_python PYTHON]

Clips of 3 s, 640 x 360 pixels, 25 frames a second; four frames of at most 151,200 pixels are shown and eight tokens
generated, greedy, in float32. lmms-eval needs an environment of its own, since it asks for another PyAV::

    python -m venv peers && peers/bin/pip install lmms-eval==0.7.3 decord torch==2.14.1 transformers==5.23.0

Its model class is asked through its own `generate_until` with a batch of one. Every way runs in a process of its own,
with no frame cache; loading and the first three clips (which warm up) are left out of the time. Prompts are equally
long but for the system prompt that lmms-eval puts before them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
NEW_TOKENS, FRAMES, PIXELS = 8, 4, 360 * 420
WARM_UP = 3
PROMPT = (
    "You are presented with a video in which the speaker says: Sure, take your time. Based on the text and video "
    "content, what is the intent of this speaker?\nThe candidate labels for intent are: [complain, praise, apologise, "
    "thank, criticize, agree, taunt, flaunt, joke, oppose, comfort, care, inform, advise, arrange, introduce, leave, "
    "prevent, greet, ask for help]. Respond in the format: 'intent: [label]'. Only one label should be provided."
)


# ── what is measured, each in a process of its own ────────────────────────────────────────────────────────────────


def ours(model: str, clips: list[str], batch_size: int = 16) -> Callable[[list[str]], list[str]]:
    """`mmla-hf` as `mmla run` uses it, from clip references to answers."""
    from harness_ext.backends.hf import HFLabelLM
    from harness_ext.requests import Request
    from mmla_tasks.records import Clip

    lm = HFLabelLM(model, dtype="float32", num_frames=FRAMES, max_pixels=PIXELS, batch_size=batch_size)
    prompt = lm.apply_chat_template([{"role": "user", "content": "<video>" + PROMPT}])
    settings = {"max_gen_toks": NEW_TOKENS, "do_sample": False, "until": [], "min_new_tokens": NEW_TOKENS}

    def answer(paths: list[str]) -> list[str]:
        requests = []
        for path in paths:
            stat = os.stat(path)
            clip = Clip(path=path, start_seconds=0.0, end_seconds=None, size=stat.st_size, mtime_ns=stat.st_mtime_ns)
            requests.append(
                Request("peers", path, prompt, ("joke", "agree"), "intent:", settings, clip=clip, chat=True)
            )
        answers = dict(lm.answer(requests))
        return [answers[n] for n in range(len(requests))]

    return answer


def serial(model: str, clips: list[str]) -> Callable[[list[str]], list[str]]:
    """One clip after the other: decode it whole, save its frames as JPEGs, read them, generate."""
    import av
    import torch
    from PIL import Image
    from transformers import AutoModelForImageTextToText, AutoProcessor

    processor = AutoProcessor.from_pretrained(model)
    network = AutoModelForImageTextToText.from_pretrained(model, dtype=torch.float32).eval()
    messages = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": PROMPT}]}]
    prompt = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    settings = {"max_new_tokens": NEW_TOKENS, "min_new_tokens": NEW_TOKENS, "do_sample": False}

    def answer(paths: list[str]) -> list[str]:
        with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
            return [one(path, Path(folder)) for path in paths]

    def one(path: str, folder: Path) -> str:
        with av.open(path) as container:
            decoded = list(container.decode(video=0))
        for n in range(FRAMES):
            decoded[n * (len(decoded) - 1) // (FRAMES - 1)].to_image().save(folder / f"{n}.jpg")
        frames = [Image.open(folder / f"{n}.jpg").convert("RGB") for n in range(FRAMES)]
        size = {"shortest_edge": 3136, "longest_edge": PIXELS}
        options = {"do_sample_frames": False, "size": size, "cap_pixels_per_frame": True}
        inputs = processor(text=[prompt], videos=[frames], return_tensors="pt", videos_kwargs=options)
        out = network.generate(**inputs, **settings)
        return str(processor.decode(out[0, inputs["input_ids"].shape[1] :]))

    return answer


def lmms(model: str, clips: list[str]) -> Callable[[list[str]], list[str]]:
    """lmms-eval's own model class, asked with its own instances."""
    from lmms_eval.api.instance import Instance
    from lmms_eval.models.simple.qwen2_vl import Qwen2_VL

    lm = Qwen2_VL(pretrained=model, device="cpu", device_map="cpu", max_num_frames=FRAMES, max_pixels=PIXELS)
    lm.model.generation_config.min_new_tokens = NEW_TOKENS

    def answer(paths: list[str]) -> list[str]:
        lm.task_dict = {"peers": {"test": dict(enumerate(paths))}}
        settings = {"max_new_tokens": NEW_TOKENS, "until": ["\n\n"]}
        requests = [
            Instance(
                "generate_until", (PROMPT, dict(settings), lambda path: [path], n, "peers", "test"), 0, _metadata(n)
            )
            for n in range(len(paths))
        ]
        return list(lm.generate_until(requests))

    return answer


def _metadata(number: int) -> dict[str, Any]:
    return {"task": "peers", "doc_id": number, "repeats": 1}


WAYS = {"ours": ours, "serial": serial, "lmms": lmms}


def child(way: str, model: str, clips: list[str]) -> int:
    """Load, warm up, answer, and print the seconds and the number of answers."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as `mmla-hf` does, for every way
    from transformers import GenerationMixin

    lengths: list[int] = []
    generate = GenerationMixin.generate

    def noting_length(self: Any, *args: Any, **kwargs: Any) -> Any:
        lengths.append(int(kwargs["input_ids"].shape[1]))
        return generate(self, *args, **kwargs)

    GenerationMixin.generate = noting_length
    answer = WAYS[way](model, clips)
    answer(clips[:WARM_UP])
    began = time.perf_counter()
    answers = answer(clips[WARM_UP:])
    seconds = time.perf_counter() - began
    print(json.dumps({"seconds": seconds, "answers": len(answers), "prompt_tokens": max(lengths)}))
    return 0


# ── the runs ──────────────────────────────────────────────────────────────────────────────────────────────────────


def draw_clips(folder: Path, count: int) -> list[str]:
    """Draw `count` clips of moving noise over a gradient, 75 frames each, all different."""
    sys.path.insert(0, str(ROOT / "tests" / "media"))
    import draw

    folder.mkdir()
    drawn = draw.draw_clip(folder / "drawn.mp4", frames=75, size=(640, 360), gop=50, b_frames=2).read_bytes()
    paths = []
    for number in range(count):
        unlike = b"%08d" % number
        path = folder / f"clip_{number}.mp4"
        path.write_bytes(drawn + (8 + len(unlike)).to_bytes(4, "big") + b"free" + unlike)
        paths.append(str(path))
    return paths


def measure(python: str, way: str, model: Path, clips: list[str]) -> tuple[float, int]:
    """Clips a second of one way, and the tokens of its prompts."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "MMLA_FRAME_CACHE_GB": "0", "HF_HUB_OFFLINE": "1"}
    command = [python, __file__, "--child", way, str(model)]
    done = subprocess.run(
        command, input=json.dumps(clips), capture_output=True, text=True, env=environment, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    measured = json.loads(done.stdout.strip().splitlines()[-1])
    if measured["answers"] != len(clips) - WARM_UP:
        raise RuntimeError(f"{way} gave {measured['answers']} answers")
    return measured["answers"] / measured["seconds"], measured["prompt_tokens"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--lmms_python", metavar="PYTHON", help="interpreter of the environment with lmms-eval")
    args = parser.parse_args()
    from clip_memory import tiny_model

    ways = [("`mmla-hf`, batches of 16", "ours", sys.executable), ("serial loop with JPEGs", "serial", sys.executable)]
    if args.lmms_python:
        ways.append(("lmms-eval 0.7.3 `qwen2_vl`, batch of 1", "lmms", args.lmms_python))
    print("| way | prompt tokens | clips a second | ours to it |\n|---|---:|---:|---:|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        clips = draw_clips(Path(folder) / "clips", args.clips + WARM_UP)
        model = tiny_model(Path(folder) / "model")
        rates = []
        for name, way, python in ways:
            rate, tokens = measure(python, way, model, clips)
            rates.append(rate)
            print(f"| {name} | {tokens} | {rate:.1f} | {rates[0] / rate:.1f} |", flush=True)
    return 0 if all(rates[0] >= 2 * rate for rate in rates[1:]) else 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        sys.exit(child(sys.argv[2], sys.argv[3], json.load(sys.stdin)))
    sys.exit(main())
