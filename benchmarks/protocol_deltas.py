"""What each delta between `clean` and `--protocol paper` does to a real small model on real texts.

SmolLM2-135M-Instruct, float32, chat template, the first rows of two test splits: a partial set, no benchmark scores.
One delta at a time against `clean`: how many answers change, and accuracy. Prompts are compared with ranked labels,
which answer every row; token limit, sampling and system prompt with free text.

    MMLA_DATA_DIR=... python benchmarks/protocol_deltas.py [ROWS]      # about 25 minutes for 40 rows on one core
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from harness_ext import evaluate
from harness_ext.catalogue import Catalogue
from harness_ext.models import smollm2_folder
from harness_ext.prompts import PROMPT_TEXT
from harness_ext.released import WORDING, WORDING_SWIFT, family_named

ROWS = int(sys.argv[1]) if len(sys.argv) > 1 else 40
TASKS = ("mmla_emotion_meld_text", "mmla_sentiment_chsims2_text")
LLAMA3 = family_named("llama3")

PROMPTS = {
    "wording: “text, video, and audio content”": WORDING_SWIFT,
    "dot after the utterance": PROMPT_TEXT.replace("{{ text }}", "{{ text }}."),
    "spaces before “Respond” and “Only”": PROMPT_TEXT.replace("]. R", "].R").replace(" Only", "  Only"),
    "the three together": WORDING,
    "two labels (CH-SIMS)": PROMPT_TEXT.replace("{{ labels | join(', ') }}", "positive, negative"),
}
DECODING: dict[str, dict[str, Any]] = {
    "256 new tokens": {"gen_kwargs": {"max_gen_toks": 256}},
    "sampling as for Llama-3": {"gen_kwargs": {k: v for k, v in LLAMA3.decoding.items() if k != "max_gen_toks"}},
    "system prompt as for Llama-3": {"system_instruction": LLAMA3.system},
}


def answers(task: str, prompt: str, answer: str, **options: Any) -> list[dict[str, Any]]:
    """Rows of a task that asks with `prompt`: gold, parsed label, released parse."""
    config = Catalogue.load().files[task].config
    with tempfile.TemporaryDirectory() as folder:
        keys = ("dataset", "dimension", "labels")
        own = {"task": "own", **{k: config[k] for k in keys}, "modality": "text", "prompt_text": prompt}
        text = yaml.safe_dump(own, allow_unicode=True) + "class: !function harness_ext.task.LabelTask\n"
        (Path(folder) / "own.yaml").write_text(text, encoding="utf-8")
        results = evaluate(
            "mmla-hf", "own", include_path=folder, answer=answer, limit=ROWS, batch_size=8,
            model_args={"pretrained": str(smollm2_folder()), "dtype": "float32"}, **options,
        )  # fmt: skip
    return [
        {"gold": row["target"].split(": ")[1], "label": row["answer"]["label"], "released": row["answer"]["released"]}
        for row in results["samples"]["own"]
    ]


def line(what: str, task: str, mode: str, clean: list[dict[str, Any]], other: list[dict[str, Any]], key: str) -> str:
    changed = sum(a["label"] != b[key] for a, b in zip(clean, other, strict=True))
    before, after = (
        100 * sum(r[k] == r["gold"] for r in rows) / len(rows) for rows, k in ((clean, "label"), (other, key))
    )
    dataset = Catalogue.load().files[task].config["dataset"]
    return f"| {what} | {dataset} | {mode} | {changed} of {len(clean)} | {before:.1f} | {after:.1f} |"


def main() -> None:
    """Print the table, line by line."""
    print("| delta | dataset | answers | changed | acc clean | acc with it |\n|---|---|---|---:|---:|---:|")
    for task in TASKS:
        ranked = answers(task, PROMPT_TEXT, "rank")
        for what, prompt in PROMPTS.items():
            if "CH-SIMS" not in what or "chsims" in task:
                print(line(what, task, "rank", ranked, answers(task, prompt, "rank"), "label"), flush=True)
        free = answers(task, PROMPT_TEXT, "generate")
        print(line("released parsing", task, "generate", free, free, "released"), flush=True)
        for what, options in DECODING.items():
            print(
                line(what, task, "generate", free, answers(task, PROMPT_TEXT, "generate", **options), "label"),
                flush=True,
            )


if __name__ == "__main__":
    main()
