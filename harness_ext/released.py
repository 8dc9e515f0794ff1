"""How the released code asks each model family (thuiar/MMLA @ 48efd63), for `--protocol paper`.

Wording, frame rule, token limit, system prompt and decoding differ from family to family there. A family is
recognised by its config; any other model gets the wording that most families share (`COMMON`), and the frames and
decoding of `clean`. Sources: reference/protocol.md sections 1 and 3; where scripts leave something to a model's code,
that code's default, named beside the value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from harness_ext.prompts import VIDEO
from mmla_tasks.errors import UsageError, suggest

# Sic: the inserted dot, no space before "Respond", two before "Only"; text-only models get the same words.
WORDING: Final = (
    "You are presented with a video in which the speaker says: {{ text }}. "
    "Based on the text, video, and audio content, what is the {{ dimension }} of this speaker?\n"
    "The candidate labels for {{ dimension }} are: [{{ labels | join(', ') }}]."
    "Respond in the format: '{{ dimension }}: [label]'.  Only one label should be provided."
)
WORDING_LLAVA: Final = WORDING.replace("  Only", " Only")
WORDING_SWIFT: Final = (
    "You are presented with a video in which the speaker says: {{ text }} "
    "Based on the text, video, and audio content, what is the {{ dimension }} of this speaker?\n"
    "The candidate labels for {{ dimension }} are: [{{ labels | join(', ') }}]. "
    "Respond in the format: '{{ dimension }}: [label]'. Only one label should be provided."
)
"""The jsonl files that MiniCPM-V reads, under `swift infer`; but for IEMOCAP's."""
WORDING_SWIFT_IEMOCAP: Final = (
    "You are presented with a video in which the speaker says: {{ text }}."
    "Based on the text, what is the {{ dimension }} of this speaker?\n"
    "The candidate labels for {{ dimension }} are: [{{ labels | join(', ') }}]. "
    "Respond in the format: '{{ dimension }}: [label]'.Only one label should be provided."
)

UNBOUNDED: Final = 7680 * 4320
"""Pixels per frame where the released code leaves frames as they are: larger ones do not occur."""
GREEDY: Final[Mapping[str, Any]] = {"do_sample": False, "temperature": 0.0}

_LLAMA2_SYSTEM: Final = (
    "<<SYS>>\nYou are a helpful, respectful and honest assistant. Always answer as helpfully as possible, while being "
    "safe.  Your answers should not include any harmful, unethical, racist, sexist, toxic, dangerous, or illegal "
    "content. Please ensure that your responses are socially unbiased and positive in nature.\nIf a question does not "
    "make any sense, or is not factually coherent, explain why instead of answering something not correct. If you "
    "don't know the answer to a question, please don't share false information.\n<</SYS>>"
)
_INTERNLM_SYSTEM: Final = (
    "You are an AI assistant whose name is InternLM (书生·浦语).\n"
    "- InternLM (书生·浦语) is a conversational language model that is developed by Shanghai AI Laboratory "
    "(上海人工智能实验室). It is designed to be helpful, honest, and harmless.\n"
    "- InternLM (书生·浦语) can understand and communicate fluently in the language chosen by the user such as English "
    "and 中文."
)


@dataclass(frozen=True)
class Family:
    """What the released code does with one family of models."""

    name: str
    """Value of ``--released_family``."""
    config: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    """Attributes of a model's config and their values, by which the family is recognised; empty: never."""
    wording: str = WORDING
    """Jinja, without the place of the video."""
    wording_of: Mapping[str, str] = field(default_factory=dict)
    """Datasets that are worded otherwise."""
    after_video: str = ""
    """What stands between the video and the words."""
    underscores: bool = False
    """Whether the dimension is written ``dialogue_act``, in the prompt and in the answer."""
    all_labels: bool = False
    """Whether the prompt for CH-SIMS names `neutral` too."""
    frames: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of `FramePolicy.from_args`; empty: as in `clean`, or a text model."""
    decoding: Mapping[str, Any] = field(default_factory=dict)
    """Overrides of `clean`'s decoding."""
    own_decoding: bool = False
    """Whether the checkpoint's own generation settings (sampling, repetition penalty) apply beneath `decoding`."""
    system: str | None = None
    """System prompt; None: what the chat template does by itself."""
    opening: str | None = None
    """A first turn of the user, whose answer by the model itself stays in the history."""

    def prompt(self, dataset: str, with_video: bool) -> str:
        """The Jinja template for a dataset."""
        words = self.wording_of.get(dataset, self.wording)
        return VIDEO + self.after_video + words if with_video else words

    def dimension(self, dimension: str) -> str:
        """The dimension as this family's prompt writes it."""
        return dimension.replace(" ", "_") if self.underscores else dimension


COMMON: Final = Family("common")
"""Every model without released settings of its own."""

FAMILIES: Final = (
    Family(
        "qwen2-vl",
        {"model_type": ("qwen2_vl",)},
        frames={"rule": "released_linspace", "num_frames": 4, "max_pixels": 360 * 420},
        decoding={"max_gen_toks": 128},
        own_decoding=True,
    ),
    Family(
        "llava",  # LLaVA-Video and LLaVA-OneVision; the system prompt is that of the conversation qwen_1_5
        {"model_type": ("llava_onevision", "llava_qwen")},
        wording=WORDING_LLAVA,
        all_labels=True,
        frames={"rule": "released_linspace", "num_frames": 4, "max_pixels": UNBOUNDED},
        decoding={"max_gen_toks": 1024, **GREEDY},
        system="You are a helpful assistant.",
    ),
    Family(
        "videollama2",
        {"model_type": ("videollama2", "videollama2_mistral", "videollama2_mixtral")},
        after_video="\n",
        frames={"rule": "released_midpoint", "num_frames": 8, "max_pixels": UNBOUNDED},
        decoding={"max_gen_toks": 2048, **GREEDY},
        system=_LLAMA2_SYSTEM,
    ),
    Family(
        "minicpm-v",
        {"model_type": ("minicpmv",)},
        wording=WORDING_SWIFT,
        wording_of={"IEMOCAP": WORDING_SWIFT_IEMOCAP},
        underscores=True,
        all_labels=True,
        frames={"rule": "released_stride", "fps": 1, "max_frames": 64, "max_pixels": UNBOUNDED},
        decoding={"max_gen_toks": 2048},
        own_decoding=True,
    ),
    Family(
        "qwen2",
        {"model_type": ("qwen2",)},
        decoding={"max_gen_toks": 1024},
        own_decoding=True,
        system="You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
    ),
    Family(
        "llama3",  # of the llama type are many models; these are Llama 3's own sizes, not those of 3.1 and 3.2
        {"model_type": ("llama",), "vocab_size": (128_256,), "max_position_embeddings": (8192,)},
        decoding={
            "max_gen_toks": 256,
            "do_sample": True,
            "temperature": 0.6,
            "top_p": 0.9,
            "top_k": 50,  # transformers' default while the scripts were written
        },
        system="You are a pirate chatbot who always responds in pirate speak!",  # sic
    ),
    Family(
        "internlm2.5",  # decoding and system prompt: defaults of the model's own `chat`
        {"model_type": ("internlm2",)},
        decoding={"max_gen_toks": 1024, "do_sample": True, "temperature": 0.8, "top_p": 0.8, "top_k": 50},
        system=_INTERNLM_SYSTEM,
        opening="hello",
    ),
)


def family_of(config: Any) -> Family:
    """The family that a model's config belongs to; `COMMON` where there is none."""
    fits = (f for f in FAMILIES if all(getattr(config, key, None) in allowed for key, allowed in f.config.items()))
    return next(fits, COMMON)


def family_named(name: str) -> Family:
    """The family of this name.

    Raises:
        UsageError: There is none.
    """
    families = {family.name: family for family in (*FAMILIES, COMMON)}
    if name not in families:
        raise UsageError(
            f"released_family `{name}` is not known", hint=suggest(name, families), known=", ".join(families)
        )
    return families[name]
