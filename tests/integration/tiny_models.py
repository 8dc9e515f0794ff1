"""Models with random weights and real architectures, small enough for two cores. Remade from a fixed seed."""

from __future__ import annotations

from pathlib import Path

QWEN2_VL_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
VISION_TOKENS = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")


def tiny_qwen2_vl(folder: Path, tokenizer_from: Path) -> Path:
    """Write a Qwen2-VL of 8 million parameters with another model's tokenizer, and give its folder."""
    if not (folder / "config.json").is_file():
        _save(folder, tokenizer_from)
    return folder


def _save(folder: Path, tokenizer_from: Path) -> None:
    import torch
    from transformers import (
        AutoTokenizer,
        Qwen2VLForConditionalGeneration,
        Qwen2VLImageProcessor,
        Qwen2VLProcessor,
        Qwen2VLVideoProcessor,
    )

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_from)
    tokenizer.add_special_tokens({"additional_special_tokens": list(VISION_TOKENS)})
    with torch.random.fork_rng():
        torch.manual_seed(20_250_416)
        model = Qwen2VLForConditionalGeneration(_config(tokenizer))
    model.save_pretrained(folder)
    bounds = {"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 768}
    Qwen2VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=bounds),
        video_processor=Qwen2VLVideoProcessor(size=bounds),
        tokenizer=tokenizer,
        chat_template=QWEN2_VL_TEMPLATE,
    ).save_pretrained(folder)


def _config(tokenizer: object) -> object:
    from transformers import Qwen2VLConfig

    ids = dict(zip(VISION_TOKENS, tokenizer.convert_tokens_to_ids(list(VISION_TOKENS)), strict=True))
    return Qwen2VLConfig(
        text_config={
            "vocab_size": (len(tokenizer) + 63) // 64 * 64,  # padded, as real checkpoints are
            "hidden_size": 128,
            "intermediate_size": 256,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 4096,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [4, 6, 6]},
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config={"depth": 2, "embed_dim": 64, "num_heads": 2, "hidden_size": 128, "mlp_ratio": 2},
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        tie_word_embeddings=True,
    )
