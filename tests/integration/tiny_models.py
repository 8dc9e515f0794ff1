"""Models with random weights and real architectures, small enough for two cores. Remade from a fixed seed.

A `Family` names the real classes of config, processor and its parts; sizes are the only thing that is not real. All
share SmolLM2's tokenizer with the special tokens that each needs, and a chat template in the style of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SEED = 20_250_416
LAYERS = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
TOWER = {**LAYERS, "image_size": 56, "patch_size": 14}
"""Vision tower of a family with frames of one size: 4 x 4 patches."""

IM_START = "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
IM_END = "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"


def parts(video: str = "", image: str = "", text: str = "{{ part['text'] }}") -> str:
    """The body of a message: a string as it is, or its parts in order."""
    return (
        "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
        f"{{% if part['type'] == 'video' %}}{video}{{% elif part['type'] == 'image' %}}{image}"
        f"{{% else %}}{text}{{% endif %}}{{% endfor %}}{{% endif %}}"
    )


QWEN_PARTS = parts("<|vision_start|><|video_pad|><|vision_end|>", "<|vision_start|><|image_pad|><|vision_end|>")
# Images first, each on a line of its own, then the text: LLaVA's templates reorder parts.
LLAVA = (
    "{% for message in messages %}{{ message['role'] | upper }}: "
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'image') %}<image>\n{% endfor %}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'video') %}<video>\n{% endfor %}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'text') %}{{ part['text'] }} {% endfor %}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


@dataclass(frozen=True)
class Family:
    """One architecture: class names of transformers and the arguments that make it small."""

    config: str
    """Name of the config class; its model class is found by `AutoModelForMultimodalLM`."""
    processor: str
    parts: Mapping[str, tuple[str, Mapping[str, Any]]]
    """Part of the processor -> its class name and arguments."""
    template: str
    tokens: tuple[str, ...]
    """Special tokens that the tokenizer lacks."""
    arguments: Callable[[Callable[[str], int]], dict[str, Any]]
    """Arguments of the config from a function token -> id; `text_config` may leave out `LAYERS` and the vocabulary."""
    named_tokens: Mapping[str, str] = field(default_factory=dict)
    """Special tokens that the processor reads as attributes of the tokenizer."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of the processor."""


QWEN_TOKENS = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
QWEN_BOUNDS = {"size": {"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 768}}
SMALL_SQUARE = {"size": {"height": 56, "width": 56}}
SMALL_CROP = {"size": {"shortest_edge": 56}, "crop_size": {"height": 56, "width": 56}}
CLIP_TOWER = {"model_type": "clip_vision_model", **TOWER}
SIGLIP_TOWER = {"model_type": "siglip_vision_model", **TOWER, "vision_use_head": False}


def _qwen_ids(ids: Callable[[str], int]) -> dict[str, int]:
    names = ("vision_start_token_id", "vision_end_token_id", "image_token_id", "video_token_id")
    return dict(zip(names, map(ids, QWEN_TOKENS), strict=True))


def _llava_ids(ids: Callable[[str], int]) -> dict[str, int]:
    return {"image_token_index": ids("<image>"), "video_token_index": ids("<video>")}


def _mrope(sections: list[int], **more: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": sections, **more}}


FAMILIES: dict[str, Family] = {
    "Qwen2-VL": Family(
        "Qwen2VLConfig",
        "Qwen2VLProcessor",
        {
            "image_processor": ("Qwen2VLImageProcessor", QWEN_BOUNDS),
            "video_processor": ("Qwen2VLVideoProcessor", QWEN_BOUNDS),
        },
        IM_START + QWEN_PARTS + IM_END,
        QWEN_TOKENS,
        lambda ids: {
            "text_config": {
                "hidden_size": 128,
                "intermediate_size": 256,
                "initializer_range": 0.02,
                **_mrope([4, 6, 6]),
            },
            "vision_config": {"depth": 2, "embed_dim": 64, "num_heads": 2, "hidden_size": 128, "mlp_ratio": 2},
            **_qwen_ids(ids),
        },
    ),
    "Qwen2.5-VL": Family(
        "Qwen2_5_VLConfig",
        "Qwen2_5_VLProcessor",
        {
            "image_processor": ("Qwen2VLImageProcessor", QWEN_BOUNDS),
            "video_processor": ("Qwen2VLVideoProcessor", QWEN_BOUNDS),
        },
        IM_START + QWEN_PARTS + IM_END,
        QWEN_TOKENS,
        lambda ids: {
            "text_config": _mrope([2, 3, 3]),
            "vision_config": {
                "depth": 2,
                "hidden_size": 64,
                "intermediate_size": 128,
                "num_heads": 2,
                "out_hidden_size": 64,
                "fullatt_block_indexes": [1],
            },
            **_qwen_ids(ids),
        },
    ),
    "Qwen3-VL": Family(
        "Qwen3VLConfig",
        "Qwen3VLProcessor",
        {
            "image_processor": ("Qwen2VLImageProcessor", {**QWEN_BOUNDS, "patch_size": 16}),
            "video_processor": ("Qwen3VLVideoProcessor", QWEN_BOUNDS),
        },
        IM_START + QWEN_PARTS + IM_END,
        QWEN_TOKENS,
        lambda ids: {
            "text_config": {"head_dim": 16, **_mrope([2, 3, 3], mrope_interleaved=True)},
            "vision_config": {
                "depth": 2,
                "hidden_size": 64,
                "intermediate_size": 128,
                "num_heads": 2,
                "out_hidden_size": 64,
                "num_position_embeddings": 256,
                "deepstack_visual_indexes": [0],
            },
            **_qwen_ids(ids),
        },
    ),
    "LLaVA-OneVision": Family(
        "LlavaOnevisionConfig",
        "LlavaOnevisionProcessor",
        {
            "image_processor": ("LlavaOnevisionImageProcessor", {**SMALL_SQUARE, "image_grid_pinpoints": [[56, 56]]}),
            "video_processor": ("LlavaOnevisionVideoProcessor", SMALL_SQUARE),
        },
        IM_START + parts("<video>\n", "<image>\n") + IM_END,
        ("<image>", "<video>"),
        lambda ids: {
            "text_config": {"model_type": "qwen2"},
            "vision_config": SIGLIP_TOWER,
            "image_grid_pinpoints": [[56, 56]],
            **_llava_ids(ids),
        },
        options={"num_image_tokens": 16, "vision_feature_select_strategy": "full"},
    ),
    "LLaVA-NeXT-Video": Family(
        "LlavaNextVideoConfig",
        "LlavaNextVideoProcessor",
        {
            "image_processor": ("LlavaNextImageProcessor", {**SMALL_CROP, "image_grid_pinpoints": [[56, 112]]}),
            "video_processor": ("LlavaNextVideoVideoProcessor", SMALL_CROP),
        },
        LLAVA,
        ("<image>", "<video>"),
        lambda ids: {
            "text_config": {"model_type": "llama"},
            "vision_config": CLIP_TOWER,
            "image_grid_pinpoints": [[56, 112]],
            **_llava_ids(ids),
        },
        options={"patch_size": 14, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1},
    ),
    "VideoLLaMA3": Family(
        "VideoLlama3Config",
        "VideoLlama3Processor",
        {
            "image_processor": ("VideoLlama3ImageProcessor", QWEN_BOUNDS),
            "video_processor": ("VideoLlama3VideoProcessor", QWEN_BOUNDS),
        },
        IM_START + parts("<|video_pad|>\n", "<|image_pad|>\n") + IM_END,
        ("<|image_pad|>", "<|video_pad|>"),
        lambda ids: {
            "text_config": {"model_type": "qwen2"},
            "vision_config": {**LAYERS, "patch_size": 14},
            "image_token_id": ids("<|image_pad|>"),
            "video_token_id": ids("<|video_pad|>"),
        },
    ),
    "SmolVLM": Family(
        "SmolVLMConfig",
        "SmolVLMProcessor",
        {
            "image_processor": (
                "SmolVLMImageProcessor",
                {"size": {"longest_edge": 112}, "max_image_size": {"longest_edge": 56}},
            ),
            "video_processor": (
                "SmolVLMVideoProcessor",
                {
                    "size": {"longest_edge": 112},
                    "max_image_size": {"longest_edge": 56},
                    "video_sampling": {"fps": 1, "max_frames": 64, "video_size": {"longest_edge": 112}},
                },
            ),
        },
        # As in the published checkpoints: no video in it. The processor has another template for that.
        "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}: "
        + parts(image="<image>")
        + "<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}",
        ("<image>", "<video>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>"),
        lambda ids: {
            "text_config": {"model_type": "llama"},
            "vision_config": TOWER,
            "image_token_id": ids("<image>"),
            "scale_factor": 2,
        },
        options={"image_seq_len": 4},
    ),
    "InternVL": Family(
        "InternVLConfig",
        "InternVLProcessor",
        {
            "image_processor": ("GotOcr2ImageProcessor", SMALL_SQUARE),
            "video_processor": ("InternVLVideoProcessor", SMALL_SQUARE),
        },
        IM_START + parts("<video>\n", "<IMG_CONTEXT>\n") + IM_END,
        (),
        lambda ids: {
            "text_config": {"model_type": "qwen2"},
            "vision_config": TOWER,
            "image_token_id": ids("<IMG_CONTEXT>"),
            "image_seq_length": 4,
        },
        named_tokens={
            "start_image_token": "<img>",
            "end_image_token": "</img>",
            "context_image_token": "<IMG_CONTEXT>",
            "video_token": "<video>",
        },
        options={"image_seq_length": 4},
    ),
    "LLaVA-1.5": Family(
        "LlavaConfig",
        "LlavaProcessor",
        {"image_processor": ("CLIPImageProcessor", SMALL_CROP)},
        LLAVA.replace("<video>", ""),
        ("<image>",),
        lambda ids: {
            "text_config": {"model_type": "llama"},
            "vision_config": CLIP_TOWER,
            "image_token_index": ids("<image>"),
        },
        options={"patch_size": 14, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1},
    ),
    "LLaVA-NeXT": Family(
        "LlavaNextConfig",
        "LlavaNextProcessor",
        {
            "image_processor": (
                "LlavaNextImageProcessor",
                {**SMALL_CROP, "image_grid_pinpoints": [[56, 112], [112, 56]]},
            )
        },
        LLAVA.replace("<video>", ""),
        ("<image>",),
        lambda ids: {
            "text_config": {"model_type": "llama"},
            "vision_config": CLIP_TOWER,
            "image_grid_pinpoints": [[56, 112], [112, 56]],
            "image_token_index": ids("<image>"),
        },
        options={"patch_size": 14, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1},
    ),
    "Gemma3": Family(
        "Gemma3Config",
        "Gemma3Processor",
        {"image_processor": ("Gemma3ImageProcessor", SMALL_SQUARE)},
        "{{ bos_token }}{% for message in messages %}<start_of_turn>{{ message['role'] }}\n"
        + parts(image="<start_of_image>", text="{{ part['text'] | trim }}")
        + "<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}",
        ("<start_of_turn>", "<end_of_turn>"),
        lambda ids: {
            "text_config": {
                "head_dim": 16,
                "query_pre_attn_scalar": 16,
                "sliding_window": 200,
                "layer_types": ["sliding_attention", "full_attention"],
            },
            "vision_config": SIGLIP_TOWER,
            "mm_tokens_per_image": 4,
            "boi_token_index": ids("<start_of_image>"),
            "eoi_token_index": ids("<end_of_image>"),
            "image_token_index": ids("<image_soft_token>"),
        },
        named_tokens={
            "image_token": "<image_soft_token>",
            "boi_token": "<start_of_image>",
            "eoi_token": "<end_of_image>",
        },
        options={"image_seq_length": 4},
    ),
}
"""Name as in docs/backends.md -> how to make it small."""


def tiny_model(name: str, folder: Path, tokenizer_from: Path) -> Path:
    """Write a model of one of `FAMILIES`, a few million parameters, with another model's tokenizer; give its folder."""
    if not (folder / "config.json").is_file():
        save(FAMILIES[name], folder, tokenizer_from)
    return folder


def tiny_qwen2_vl(folder: Path, tokenizer_from: Path) -> Path:
    """Write a Qwen2-VL of 8 million parameters, and give its folder."""
    return tiny_model("Qwen2-VL", folder, tokenizer_from)


def tiny_llama(folder: Path, tokenizer_from: Path) -> Path:
    """Write a text model of 3 million parameters with SmolLM2's tokenizer and template, and give its folder."""
    import torch
    import transformers

    if not (folder / "config.json").is_file():
        tokenizer = transformers.AutoTokenizer.from_pretrained(tokenizer_from)
        config = transformers.LlamaConfig(**_text_defaults(tokenizer), tie_word_embeddings=True)
        with torch.random.fork_rng():
            torch.manual_seed(SEED)
            transformers.LlamaForCausalLM(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return folder


def noisy_adapter(base: Path, folder: Path, *, seed: int = 0, rank: int = 4, scale: float = 1.0) -> Path:
    """Write a LoRA adapter of a model's attention layers whose B matrices are noise of this scale; give its folder."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMultimodalLM

    multimodal = type(AutoConfig.from_pretrained(base)) in AutoModelForMultimodalLM._model_mapping
    auto = AutoModelForMultimodalLM if multimodal else AutoModelForCausalLM
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = LoraConfig(r=rank, target_modules=["q_proj", "v_proj"])
        model = get_peft_model(auto.from_pretrained(base, dtype=torch.float32), config)
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=scale)
    model.save_pretrained(folder)
    return folder


def save(family: Family, folder: Path, tokenizer_from: Path, seed: int = SEED) -> None:
    """Write a model of a family with random weights from a seed, its processor and another model's tokenizer."""
    import torch
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(
        tokenizer_from, extra_special_tokens=dict(family.named_tokens)
    )
    tokenizer.add_special_tokens({"additional_special_tokens": list(family.tokens)})
    arguments = family.arguments(tokenizer.convert_tokens_to_ids)
    arguments["text_config"] = {**_text_defaults(tokenizer), **arguments["text_config"]}
    config = getattr(transformers, family.config)(**arguments, tie_word_embeddings=True)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = transformers.AutoModelForMultimodalLM.from_config(config)
        for weight in model.parameters():
            if weight.ndim == 2 and not weight.any():  # Gemma3's way from pictures to text begins as zeros
                torch.nn.init.normal_(weight, std=0.08)
    model.save_pretrained(folder)
    made = {name: getattr(transformers, part)(**kwargs) for name, (part, kwargs) in family.parts.items()}
    processor = getattr(transformers, family.processor)
    processor(**made, tokenizer=tokenizer, chat_template=family.template, **family.options).save_pretrained(folder)


def _text_defaults(tokenizer: Any) -> dict[str, Any]:
    return {
        **LAYERS,
        "num_key_value_heads": 2,
        "initializer_range": 0.08,  # attention so sharp that a wrong position is far above rounding
        "vocab_size": (len(tokenizer) + 63) // 64 * 64,  # padded, as real checkpoints are
        "max_position_embeddings": 4096,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
