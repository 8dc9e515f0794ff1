"""The eleven stages of docs/tour.md, with `mmla-echo` and a drawn clip. Read it beside the page."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness_ext.backends.echo import EchoLM
from harness_ext.catalogue import Catalogue
from harness_ext.results import sample_rows
from harness_ext.run import RunOptions, load_tasks, run
from mmla_tasks.documents import Dataset
from mmla_tasks.root import DataRoot

NAME = "mmla_emotion_meld"


def test_one_sample_from_yaml_to_score_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # 1 task: a short YAML says dataset, dimension and labels
    file = Catalogue.load().files[NAME]
    assert file.config["dataset"] == "MELD" and len(file.config["labels"]) == 7
    options = RunOptions(model="mmla-echo", tasks=[NAME], data_dir="sample", limit=1, model_args={"rule": "gold"})
    task = load_tasks([NAME], options)["tasks"][NAME]

    # 2 document: a row of the TSV
    document = task.eval_docs[0]
    assert set(document) == {"id", "text", "label", "clip"} and document["label"] in task.spec.labels
    assert isinstance(task.dataset_files, Dataset) and task.root == DataRoot.choose("sample")

    # 3 prompt: one place for the video
    prompt = task.doc_to_text(document)
    assert prompt.startswith("<video>You are presented with a video") and document["text"] in prompt

    # 4 clip: a reference; nothing is opened
    clip = task.doc_to_image(document)
    assert clip == document["clip"] and Path(clip["path"]).is_file()

    # 5 request: carried by lm-eval's instance
    instance = task.construct_requests(document, prompt, metadata=(NAME, 0, 1))
    request = instance.request
    assert request.clip == clip and request.answer_forms[0] == "emotion: neutral"
    assert request.gen_kwargs == {
        "until": [], "do_sample": False, "temperature": 0.0, "max_gen_toks": 64, "repetition_penalty": 1.0,
    }  # fmt: skip

    # 6 frames: the only place that opens a video
    from harness_ext import video
    from harness_ext.frame_policy import FramePolicy

    frames = video.decode(clip, FramePolicy.from_args(), who=NAME)
    assert frames.frames_THWC.shape[0] == 4 and frames.frames_THWC.dtype == "uint8"
    assert frames.fingerprint["indices"] == list(frames.indices)

    # 7 model input is the backend's; 8 raw answer
    echo = EchoLM(rule="gold")
    ((_, response),) = echo.answer([request])
    assert response == f"emotion: {document['label']}" and echo.history == [request]

    # 9 label
    (answer,) = task._filters[0].filters[0]().apply([[response]], [document])
    assert (answer, answer.outcome, answer.rule) == (document["label"], "matched", "form")

    # 10 score: pairs, then corpus numbers
    values = task.process_results(document, [answer])
    assert values["acc"] == 1.0 and values["macro_f1"] == (document["label"], document["label"])
    assert task.aggregation()["macro_recall"]([values["macro_recall"]]) == pytest.approx(1 / 7)

    # 11 report
    outcome = run(RunOptions(**{**vars(options), "run_dir": tmp_path}))
    assert {p.name for p in outcome.written} == {"results.json", "samples", "scorecard.md"}
    assert outcome.samples[NAME][0]["filtered_resps"] == [document["label"]]
    assert "sample data, not a benchmark score" in (tmp_path / "scorecard.md").read_text()
    assert list(sample_rows([])) == []
