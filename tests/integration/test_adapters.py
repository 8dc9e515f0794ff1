"""Several adapters over one loaded base, and what does not fit it; a tiny text model and a tiny video model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness_ext.backends.hf import HFLabelLM
from harness_ext.requests import Request, Response
from mmla_tasks.errors import ModelError
from mmla_tasks.records import Clip

from .asking import FEW_LABELS, answered, request_of
from .tiny_models import noisy_adapter

pytestmark = [
    pytest.mark.slow,
    # transformers and peft warn about their own insides
    pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning"),
]
torch = pytest.importorskip("torch", reason="the extra `hf` is not installed")

TASKS = ("mmla_intent_mintrec", "mmla_emotion_meld")


@pytest.fixture(scope="module")
def folders(tiny_llama: Path, tiny_qwen2_vl: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Kind of model -> folder of two adapters, named after their tasks, over its base in ``base``."""
    made = {}
    for kind, base in (("text", tiny_llama), ("video", tiny_qwen2_vl)):
        made[kind] = tmp_path_factory.mktemp(kind)
        (made[kind] / "base").symlink_to(base)
        for seed, task in enumerate(TASKS):
            noisy_adapter(base, made[kind] / task, seed=seed, rank=4 + 4 * seed)
    return made


def model(folders: Path, peft: str | None = None) -> HFLabelLM:
    given = {"peft": str(folders / peft)} if peft is not None else {}
    return HFLabelLM(str(folders / "base"), dtype="float32", num_frames=2, **given)


def asked(lm: HFLabelLM, kind: str, drawn_clip: Callable[..., Clip]) -> list[Request]:
    """The same three questions for each task, task by task in turn."""
    clips = [{"clip": drawn_clip(n, width=160, height=120, frames=3)} if kind == "video" else {} for n in range(3)]
    texts = ("Oh. Really?", "no way, I would never do that to you", "bye")
    plain = [
        request_of(lm, "MIntRec", text, n, **clip) for n, (text, clip) in enumerate(zip(texts, clips, strict=True))
    ]
    return [replace(request, labels=FEW_LABELS, task=task) for request in plain for task in TASKS]


def said(responses: list[Response]) -> list[Any]:
    return [(str(r), {k: round(v, 4) for k, v in (r.label_scores or {}).items()}) for r in responses]


def alike(some: list[Any], others: list[Any]) -> bool:
    """Whether answers are equal, and label scores to what a batch of another make-up shifts."""
    pairs = list(zip(some, others, strict=True))
    return all(a[0] == b[0] and a[1] == pytest.approx(b[1], abs=1e-3) for a, b in pairs)


@pytest.mark.parametrize("kind", ["text", "video"])
@pytest.mark.parametrize("mode", ["rank", "generate", "constrained"])
def test_each_task_is_answered_by_its_own_adapter(
    folders: dict[str, Path], kind: str, mode: str, drawn_clip: Callable[..., Clip]
) -> None:
    both = model(folders[kind], "")
    requests = asked(both, kind, drawn_clip)
    together = said(answered(both, requests, answer=mode, batch_size=4))
    alone = {task: said(answered(model(folders[kind], task), requests, answer=mode)) for task in TASKS}
    assert alike(together, [alone[request.task][n] for n, request in enumerate(requests)])
    base = said(answered(model(folders[kind]), requests, answer=mode))
    if mode != "constrained":  # few labels leave little to tell models apart by
        assert all(len({str(one[n]) for one in (*alone.values(), base)}) == 3 for n in range(len(requests)))


def test_equal_questions_of_two_tasks_are_asked_of_both_adapters(folders: dict[str, Path]) -> None:
    from harness_ext.session import distinct

    lm = model(folders["text"], "")
    request = replace(request_of(lm, "MIntRec", "Oh."), task=TASKS[0])
    same = [request, replace(request, id="1"), replace(request, task=TASKS[1])]
    assert distinct(same, True, lm.task_identity) == [[0, 1], [2]]


def test_identities_are_those_of_each_task(folders: dict[str, Path]) -> None:
    lm = model(folders["text"], "")
    digests = [lm.task_identity(task)["peft"]["digest"] for task in (*TASKS, TASKS[0] + "_text")]
    assert digests[0] == digests[2] != digests[1]
    assert lm.identity()["peft"] is None and lm.task_identity("mmla_sentiment_mosi") == {}


def test_a_task_without_adapter_is_not_answered_by_the_base(folders: dict[str, Path]) -> None:
    lm = model(folders["text"], "")
    with pytest.raises(ModelError, match="has no adapter for 1 of the tasks"):
        answered(lm, [request_of(lm, "MELD", "Hi.")])


def test_an_adapter_of_more_layers_is_refused(folders: dict[str, Path], tiny_llama: Path, tmp_path: Path) -> None:
    """Every layer that is there has the right size: PEFT leaves the rest out with a warning."""
    config = json.loads((tiny_llama / "config.json").read_text())
    shutil.copytree(tiny_llama, tmp_path / "base", ignore=shutil.ignore_patterns("*.safetensors"))
    for layers, adapter in ((1, tmp_path / "shallow"), (3, tmp_path / "deep")):
        (tmp_path / "base" / "config.json").write_text(json.dumps({**config, "num_hidden_layers": layers}))
        from transformers import AutoConfig, AutoModelForCausalLM

        AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(tmp_path / "base")).save_pretrained(
            tmp_path / "base"
        )
        noisy_adapter(tmp_path / "base", adapter)
    with pytest.raises(ModelError, match=r"deep belongs to another base: it has weights that no layer takes"):
        HFLabelLM(str(tiny_llama), dtype="float32", peft=str(tmp_path / "deep"))
    with pytest.raises(ModelError, match=r"shallow belongs to another base: it has no weights for"):
        HFLabelLM(str(tiny_llama), dtype="float32", peft=str(tmp_path / "shallow"))


def test_an_adapter_of_another_base_of_the_same_size_is_refused_by_its_record(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copytree(folders["text"] / TASKS[0], tmp_path / "a")
    record = {"method": "SFT", "base": {"pretrained": "org/other", "digest": "0" * 64}}
    (tmp_path / "a" / "training.json").write_text(json.dumps(record))
    with pytest.raises(ModelError, match="belong to another base than") as fault:
        HFLabelLM(str(folders["text"] / "base"), dtype="float32", peft=str(tmp_path / "a"))
    assert "trained on org/other" in str(fault.value)


def test_a_run_says_how_its_adapters_were_trained(
    folders: dict[str, Path], mmla: Callable[..., Any], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(folders["text"] / TASKS[0], tmp_path / "a")
    record = {"method": "SFT", "base": {}, "steps": 4, "selection": {"step": 3, "metric": "acc", "value": 0.5}}
    (tmp_path / "a" / "training.json").write_text(json.dumps(record))
    command = (
        "run", "--model", "mmla-hf", "--model_args", f"pretrained={folders['text'] / 'base'},peft={tmp_path / 'a'}",
        "--tasks", f"{TASKS[0]}_text", "--data_dir", "sample", "--limit", 4, "--answer", "rank", "--run_dir", run,
    )  # fmt: skip
    ran = mmla(*command)
    assert ran.status == 0, ran.err
    words = "SFT, LoRA rank 4, selected at step 3 of 4 by dev acc 50.0 %"
    facts = json.loads((run / "results.json").read_text())["mmla"]
    assert facts["method"] == "sft" and facts["training"][0]["selection"] == record["selection"]
    assert facts["model"]["peft"] == facts["training"][0]["adapter"]
    assert words in ran.out and words in (run / "scorecard.md").read_text()
    assert mmla("verify", run, "--data_dir", "sample").status == 0
    assert mmla("report", run).status == 0 and words in (run / "report" / "report.html").read_text()
    false = json.loads((run / "results.json").read_text())
    false["mmla"]["method"] = "it"
    shutil.copytree(run, tmp_path / "false")
    (tmp_path / "false" / "results.json").write_text(json.dumps(false))
    untrue = mmla("verify", tmp_path / "false", "--data_dir", "sample")
    assert untrue.status == 1 and 'method: "it" recorded' in untrue.out, untrue.out
    bundle = tmp_path / "bundle.zip"
    assert mmla("report", run, "--bundle", bundle).status == 0
    assert mmla("verify", bundle, "--data_dir", "sample").status == 0
    again = mmla(*command)
    assert "4 answers found" in again.out + again.err
