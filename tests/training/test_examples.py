"""A training example asks exactly what evaluation asks, and its loss is about the answer and its end alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from finetune.collator import IGNORED, Collator, Rows
from finetune.config import Config
from finetune.examples import examples_of, tasks_of
from harness_ext.backends.hf import HFLabelLM

from .learner import tiny_learner

pytestmark = pytest.mark.slow

ROWS = 3
"""Of each task."""


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory) -> HFLabelLM:
    folder = tiny_learner(tmp_path_factory.mktemp("learner"))
    return HFLabelLM(str(folder), dtype="float32", answer="rank", num_frames=2, max_pixels=112 * 112)


def evaluation_requests(lm: HFLabelLM, task: Any, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The requests that lm-eval's own evaluator sends to the backend for the first test rows."""
    from lm_eval.evaluator import evaluate

    seen: list[Any] = []
    answer = lm.answer
    monkeypatch.setattr(lm, "deterministic", False)  # or equal questions are asked once
    monkeypatch.setattr(lm, "answer", lambda requests: (seen.extend(requests), answer(requests))[1])
    evaluate(lm=lm, task_dict={task.spec.task: task}, limit=ROWS, apply_chat_template=True, fewshot_as_multiturn=True)
    monkeypatch.undo()
    return seen


@pytest.mark.parametrize("modality", ["text", "text+video"])
def test_prompt_tokens_are_those_of_evaluation(lm: HFLabelLM, modality: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = tasks_of(Config(model="any", tasks=["mmla"], data_dir="sample", modality=modality))  # type: ignore[arg-type]
    assert len(tasks) == 12
    for task in tasks.values():
        documents = list(task.split("test").documents)[:ROWS]
        examples = examples_of(lm, task, documents)
        rows = Rows(lm, examples, "error", None)
        asked = evaluation_requests(lm, task, monkeypatch)
        assert sorted(request.id for request in asked) == sorted(document["id"] for document in documents)
        for request in asked:
            place = next(n for n, example in enumerate(examples) if example.request.id == request.id)
            assert examples[place].request == request
            evaluated = lm.tensors_of(request)
            assert evaluated is not None
            row = rows[place]
            answer = examples[place].answer
            trained = row.inputs["input_ids"][0].tolist()
            assert trained[: -len(answer)] == evaluated.inputs["input_ids"][0].tolist()
            assert trained[-len(answer) :] == list(answer)
            shown = set(evaluated.inputs) - {"input_ids", "attention_mask", "mm_token_type_ids"}
            assert bool(shown) == (modality != "text")
            for name in shown:
                assert row.inputs[name].equal(evaluated.inputs[name])


def test_the_answer_is_what_ranking_scores_and_ends_the_turn(lm: HFLabelLM) -> None:
    tasks = tasks_of(Config(model="any", tasks=["mmla"], data_dir="sample", modality="text"))
    for task in tasks.values():
        for document in list(task.split("train").documents)[:ROWS]:
            (example,) = examples_of(lm, task, [document])
            tokens = lm._tokens_of(example.request)
            own = tokens.own[tokens.labels.index(document["label"])]
            assert example.answer == (*tokens.prefix, *own, lm.tokenizer.convert_tokens_to_ids("<|im_end|>"))
            assert lm.tokenizer.decode(example.answer[:-1]) == task.doc_to_target(document)


def test_only_answers_are_labelled(lm: HFLabelLM) -> None:
    task = next(
        iter(tasks_of(Config(model="any", tasks=["mmla_intent_mintrec"], data_dir="sample", modality="text")).values())
    )
    examples = examples_of(lm, task, list(task.split("train").documents)[:6])
    rows = Rows(lm, examples, "error", None)
    batch = Collator(0)([rows[n] for n in range(6)])
    ids, labels = batch["tensors"]["input_ids"], batch["labels"]
    width = labels.shape[1]
    assert (labels[:, 0] == IGNORED).all()
    for n, example in enumerate(examples):
        said = labels[n][labels[n] != IGNORED].tolist()
        assert tuple(said) == example.answer
        assert ids[n, -len(said) :].tolist() == said and width > len(said)
        assert not batch["tensors"]["attention_mask"][n, : ids.shape[1] - rows[n].length].any()


def test_a_bad_clip_is_treated_as_in_evaluation(lm: HFLabelLM, tmp_path: Path) -> None:
    from mmla_tasks.errors import ClipError

    config = Config(model="any", tasks=["mmla_sentiment_mosi"], data_dir="sample", on_bad_clip="skip")
    (task,) = tasks_of(config).values()
    documents = [dict(document) for document in list(task.split("test").documents)[:3]]
    torn = tmp_path / "torn.mp4"
    torn.write_bytes(Path(documents[1]["clip"]["path"]).read_bytes()[:2000])
    documents[1]["clip"] = {**documents[1]["clip"], "path": str(torn), "size": 2000}
    examples = examples_of(lm, task, documents)
    name = f"{task.spec.task} id {documents[1]['id']}"

    stopped = Collator(0)([Rows(lm, examples, "error", None)[n] for n in range(3)])
    assert isinstance(stopped["fault"], ClipError) and documents[1]["id"] in str(stopped["fault"])

    skipped = Collator(0)([Rows(lm, examples, "skip", None)[n] for n in range(3)])
    assert skipped["bad_clips"] == [name] and (skipped["labels"][1] == IGNORED).all()
    assert skipped["labels"][0].max() > 0 and len(skipped["tensors"]["input_ids"]) == 3

    as_text = Collator(0)([Rows(lm, examples, "text", None)[n] for n in range(3)])
    assert as_text["bad_clips"] == [name] and as_text["labels"][1].max() > 0
    assert len(as_text["tensors"]["video_grid_thw"]) == 2


def test_a_too_long_example_is_named(lm: HFLabelLM) -> None:
    from mmla_tasks.errors import ModelError

    (task,) = tasks_of(Config(model="any", tasks=["mmla_intent_mintrec"], data_dir="sample", modality="text")).values()
    (example,) = examples_of(lm, task, list(task.split("train").documents)[:1])
    fault = Rows(lm, [example], "error", 20)[0]
    assert isinstance(fault, ModelError) and example.name in str(fault) and "20 tokens" in str(fault)
