"""The Markdown score card of a run: a function of its results alone, without dates or timings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from importlib import resources
from typing import Any

import jinja2

from harness_ext.reports.console import interval, number, spread
from harness_ext.reports.table import averages, bad_clips, notes, published_heading, rows
from harness_ext.training import origin
from mmla_tasks.published import source


def score_card(results: Mapping[str, Any]) -> str:
    """Lay results out as Markdown."""
    text: str = _template().render(
        model=_model_name(results),
        notes=notes(results),
        rows=list(rows(results)),
        averages=averages(results),
        left_out=results["mmla"]["left_out"],
        bad_clips=bad_clips(results),
        policy=results["mmla"]["on_bad_clip"],
        made=list(_made(results)),
        tasks=results["mmla"]["tasks"],
        published_heading=published_heading(results),
        published_source=source(),
        number=number,
        interval=interval,
        spread=spread,
        repeats=results["mmla"].get("repeats"),
        percent=lambda value: number(None if value is None else 100 * value),
        outcomes=_outcomes,
    )
    return text


@lru_cache(maxsize=1)
def _template() -> jinja2.Template:
    text = resources.files("harness_ext.reports").joinpath("scorecard.md.j2").read_text(encoding="utf-8")
    # Cells may hold anything a model or a path is named: keep them from breaking the table.
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, finalize=_cell, trim_blocks=False)
    return environment.from_string(text)


def _cell(value: Any) -> Any:
    return value.replace("|", "\\|").replace("\n", " ") if isinstance(value, str) else value


def _model_name(results: Mapping[str, Any]) -> str:
    config = results["config"]
    name = config["model_args"].get("pretrained") or results["mmla"]["model"].get("name")
    return f"{name} ({config['model']})" if name else str(config["model"])


def _made(results: Mapping[str, Any]) -> list[tuple[str, str]]:
    block, config = results["mmla"], results["config"]
    decoding = {json.dumps(d, sort_keys=True) for d in block["decoding"].values()}
    data = block["data"]["root"]
    shown = {
        "command": config["command"] and f"`{config['command']}`",
        "model": _plain(block["model"]),
        "trained on": "; ".join(filter(None, map(origin, block.get("training", ())))) or None,
        "answers": block["answer"],
        "protocol": " as for ".join(filter(None, (block["protocol"], block.get("released_family")))),
        "system prompt": config["system_instruction"],
        "modality": block["modality"],
        "labels": block.get("label_order"),
        "repeats": _repeats(block.get("repeats")),
        "chat template": "applied" if block["chat_template"]["applied"] else "none",
        "few-shot examples": ", ".join(sorted({str(results["n-shot"].get(task, 0)) for task in block["tasks"]})),
        "frames": _plain(block["frame_policy"]) if block["frame_policy"] else None,
        "decoding": "; ".join(sorted(decoding)),
        "data": f"{data['given']} ({data['kind']})" if data else "files beside the task YAMLs",
        "versions": _plain(block["versions"]),
    }
    return [(name, str(value)) for name, value in shown.items() if value is not None]


def _repeats(block: Mapping[str, Any] | None) -> str | None:
    if block is None:
        return None
    orders = list(dict.fromkeys(block["label_orders"]))
    return f"{block['count']}, labels {', '.join(orders)}, torch seeds {', '.join(map(str, block['torch_seeds']))}"


def _plain(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items() if value not in (None, [], {}))


def _outcomes(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items() if count and name != "matched") or "none"
