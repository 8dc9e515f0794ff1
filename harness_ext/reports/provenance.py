"""How a run was made: command, versions, digests, frames, decoding, timings, and what the released code does else."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from harness_ext.reports.console import time_line
from harness_ext.reports.run_files import Run
from harness_ext.training import origin
from harness_ext.usage import usage_line


@dataclass(frozen=True)
class Fact:
    """One thing about a run."""

    name: str
    value: str
    code: bool = False
    """Whether it was typed or is a digest, and is to be set as such."""


def made(run: Run) -> Iterator[Fact]:
    """Everything a reader needs to make the run again, in the order of its making."""
    facts, config = run.facts, run.results["config"]
    if config.get("command"):
        yield Fact("command", config["command"], code=True)
    yield Fact("finished", run.results.get("date", ""))
    yield Fact("model", _plain(facts["model"]))
    for block in facts.get("training", ()):
        if made_of := origin(block):
            yield Fact("trained on", made_of)
    yield Fact("answers", facts["answer"])
    yield Fact("protocol", " as for ".join(filter(None, (facts["protocol"], facts.get("released_family")))))
    yield Fact("modality", ", ".join(dict.fromkeys(block["modality"] for block in run.tasks.values())))
    if facts.get("label_order"):
        yield Fact("labels in the prompt", facts["label_order"])
    if facts.get("repeats"):
        yield Fact("repeats", f"{facts['repeats']['count']}. {facts['repeats']['of_all']}")
    yield from _prompt(run)
    yield Fact("frames", _frames(facts))
    for settings, tasks in _decoding(facts):
        yield Fact("decoding" if tasks is None else f"decoding of {tasks}", settings)
    yield Fact("seeds", ", ".join(f"{n} {config[f'{n}_seed']}" for n in _SEEDS if config.get(f"{n}_seed") is not None))
    yield Fact("data", _data(facts))
    yield Fact("versions", ", ".join(f"{name} {version}" for name, version in facts["versions"].items()))
    if facts.get("usage"):
        yield Fact("usage", usage_line(facts["usage"]))
    if timings := run.results["timings"]:  # a merged run has none of its own
        yield Fact("time", time_line(timings, timings["total"]).removeprefix("time "))


_SEEDS = ("random", "numpy", "torch", "fewshot")


def _prompt(run: Run) -> Iterator[Fact]:
    template, config = run.facts["chat_template"], run.results["config"]
    if template.get("sha256"):
        yield Fact("chat template", f"SHA-256 {template['sha256']}", code=True)
    else:
        yield Fact("chat template", "applied" if template["applied"] else "none")
    if config.get("system_instruction"):
        yield Fact("system prompt", config["system_instruction"])
    shots = sorted({str(run.results.get("n-shot", {}).get(task, 0)) for task in run.tasks})
    yield Fact("few-shot examples", ", ".join(shots))


def _frames(facts: Mapping[str, Any]) -> str:
    policy = facts["frame_policy"]
    return f"{_plain(policy)}; bad clips: {facts['on_bad_clip']}" if policy else "none shown"


def _decoding(facts: Mapping[str, Any]) -> Iterator[tuple[str, str | None]]:
    """Settings, and the tasks that have them where tasks differ."""
    groups: dict[str, list[str]] = {}
    for task, settings in facts["decoding"].items():
        groups.setdefault(json.dumps(settings, sort_keys=True), []).append(task)
    for text, tasks in groups.items():
        settings = json.loads(text)
        yield (
            ", ".join(f"{key} {json.dumps(value)}" for key, value in settings.items()),
            (", ".join(tasks) if len(groups) > 1 else None),
        )


def _data(facts: Mapping[str, Any]) -> str:
    root = facts["data"]["root"]
    if not root:
        return "files beside the task YAMLs"
    revision = f" @ {root['revision']}" if root.get("revision") else ""
    return f"{root['given']} ({root['kind']}){revision}"


def _plain(values: Mapping[str, Any]) -> str:
    shown = {key: value for key, value in values.items() if value not in (None, [], {}, "")}
    return ", ".join(f"{key} {_plain(v) if isinstance(v, Mapping) else v}" for key, v in shown.items())


def protocol_deltas(run: Run) -> Iterator[str]:
    """What this run does otherwise than the released code, of the numbered list in docs/protocol.md."""
    facts = run.facts
    if facts["protocol"] == "paper":
        yield "asked as the released code asks; what could not be followed stands among the notes at the top"
        if facts["answer"] != "generate":
            yield f"answers: {facts['answer']}; the released code reads free text"
        return
    yield "wording says what is shown; the released one speaks of audio and video to every model"
    yield "no dot is put after the utterance, and spaces are one each"
    if any(block["dataset"] == "CH-SIMSv2.0" for block in run.tasks.values()):
        yield "the prompt of CH-SIMSv2.0 names all three labels; the released one leaves out neutral, 12 % of the rows"
    yield "answers are parsed by the clean rule; metrics named released_* are those of the released rule"
    if any("video" in block["modality"] for block in run.tasks.values()):
        yield "frames by the policy below, each once; the released code has a rule for every family of models"
    if any(block["modality"] == "video" for block in run.tasks.values()):
        yield "video alone is asked; the released code always shows the text"
    yield "decoding is greedy with 64 new tokens unless said otherwise; the released code samples for some families"
    yield "no system prompt is added; the released code gives some families one"
    yield "macro averages run over the declared labels; released ones over labels that occur, unparsed ones too"
    if facts["answer"] != "generate":
        yield f"answers: {facts['answer']}; the released code reads free text"
