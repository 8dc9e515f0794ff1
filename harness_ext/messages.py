"""A prompt with one `<video>` place and its frames -> chat messages, the rendered prompt, a model's tensors.

Shared by the transformers backend and by `finetune`. Everything family-specific is asked of the processor: its chat
template, its video or image token, its declared arguments. `processor` means a transformers processor or a bare
tokenizer.

A model that reads only images is shown a clip's frames in order. How many they are is known after decoding, so its
final prompts keep the literal `<video>`, which becomes that many images when the tensors are made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal

from mmla_tasks.errors import ModelError

if TYPE_CHECKING:
    from harness_ext.video import Frames

VIDEO: Final = "<video>"
"""The one place in a prompt where the clip belongs."""
AREA_EDGE: Final = 4096
"""`size["longest_edge"]` above this is a number of pixels per frame (Qwen2-VL and kin), below it a side length."""

Message = Mapping[str, Any]
ClipsAs = Literal["video", "images"]
"""What a processor makes of a clip."""


def tokenizer_of(processor: Any) -> Any:
    """The tokenizer inside a processor; a tokenizer gives itself."""
    return getattr(processor, "tokenizer", None) or processor


def clips_as(processor: Any) -> ClipsAs | None:
    """How the processor reads a clip: as video, else as its frames in order, or not at all."""
    if _has(processor, "video_processor", "video_token"):
        return "video"
    return "images" if _has(processor, "image_processor", "image_token") else None


def _has(processor: Any, *names: str) -> bool:
    return all(getattr(processor, name, None) is not None for name in names)


def chat_messages(messages: Sequence[Message], clip: str = "video") -> list[dict[str, Any]]:
    """Split string contents into the parts that processors' chat templates read, the clip where `<video>` stood.

    Args:
        messages: Role and string content each.
        clip: Type of the clip's part, ``video`` or ``image``.

    >>> chat_messages([{"role": "user", "content": "<video>Who?"}])
    [{'role': 'user', 'content': [{'type': 'video'}, {'type': 'text', 'text': 'Who?'}]}]
    """
    return [{**message, "content": _parts(message["content"], clip)} for message in messages]


def _parts(content: str, clip: str) -> list[dict[str, str]]:
    before, video, after = content.partition(VIDEO)
    parts = [{"type": "text", "text": before}, {"type": clip}, {"type": "text", "text": after}]
    return [part for part in parts if part.get("text") or (video and part["type"] == clip)] or parts[:1]


def has_chat_template(processor: Any) -> bool:
    """Whether prompts can be rendered as a chat."""
    return bool(_template_owner(processor).chat_template)


def _template_owner(processor: Any) -> Any:
    """A processor's own template knows where video goes; some leave it to their tokenizer."""
    return processor if getattr(processor, "chat_template", None) else tokenizer_of(processor)


def template_text(processor: Any, template: str | None = None) -> str | None:
    """The Jinja text of the chat template, by name where a model has several.

    Raises:
        ModelError: No template has this name.
    """
    found = _template_owner(processor).chat_template
    if isinstance(found, Mapping):
        name = template or "default"
        if name not in found:
            raise ModelError(f"The model has no chat template '{name}'", known=", ".join(sorted(found)))
        return str(found[name])
    return found if found is None else str(found)


def render_chat(
    processor: Any,
    messages: Sequence[Message],
    add_generation_prompt: bool = True,
    template: str | None = None,
    **template_args: Any,
) -> str:
    """Render a chat as the final prompt.

    Where `<video>` stood is then the processor's own video token; where it reads only images, `<video>` itself.

    Args:
        processor: A processor or a tokenizer.
        messages: Role and string content each; at most one holds `<video>`.
        add_generation_prompt: End where the model's answer begins. Otherwise an assistant's last message is left open.
        template: Name of the template, for models that have several.
        **template_args: Further variables of the template, such as ``enable_thinking``.

    Raises:
        ModelError: There is no chat template, or it refuses the messages.
    """
    if template_text(processor, template) is None:
        raise ModelError("The model has no chat template", next="--no_chat_template asks it with plain prompts")
    leave_open = not add_generation_prompt and messages[-1]["role"] == "assistant"
    options = {"add_generation_prompt": add_generation_prompt, "continue_final_message": leave_open, **template_args}
    as_images = clips_as(processor) == "images"
    rendered = _render_parts(processor, chat_messages(messages, "image" if as_images else "video"), template, options)
    if rendered is None:
        plain = [{**message, "content": place_video(processor, message["content"])} for message in messages]
        return _render(processor, plain, template, options)
    shows_clip = any(VIDEO in message["content"] for message in messages)
    return rendered.replace(processor.image_token, VIDEO) if as_images and shows_clip else rendered


def _render_parts(
    processor: Any, messages: list[dict[str, Any]], template: str | None, options: Mapping[str, Any]
) -> str | None:
    """Render messages of parts; None where the template wants strings."""
    if _template_owner(processor) is tokenizer_of(processor):
        return None
    rendered = _render(processor, messages, template, options)
    return None if "'type': '" in rendered else rendered  # it printed the parts instead of reading them


def _render(processor: Any, messages: list[dict[str, Any]], template: str | None, options: Mapping[str, Any]) -> str:
    import jinja2

    # A processor may have a second template for messages with video: unless one is named, it chooses.
    named = template_text(processor, template) if template else None
    try:
        owner = _template_owner(processor)
        return str(owner.apply_chat_template(messages, chat_template=named, tokenize=False, **options))
    except jinja2.TemplateError as error:
        raise ModelError(
            "The model's chat template refuses the messages",
            why=str(error),
            next="leave out the system prompt if there is one, or ask without the template: --no_chat_template",
        ) from error


def place_video(processor: Any, prompt: str) -> str:
    """Put the processor's own video token where `<video>` stands; without one the prompt is left as it is."""
    return prompt.replace(VIDEO, processor.video_token, 1) if clips_as(processor) == "video" else prompt


def image_places(processor: Any, count: int, *, chat: bool, template: str | None = None) -> str:
    """Image tokens for `count` images in a row, as the chat template parts them; without one, each with its newline.

    Args:
        processor: A processor that reads images.
        count: Number of images.
        chat: Whether a chat template makes the prompts.
        template: Name of the template, for models that have several.

    Raises:
        ModelError: The template writes something else between images than between the first two.
    """
    token: str = processor.image_token
    one, two, three = (_images_alone(processor, n, template) if chat else None for n in (1, 2, 3))
    if one is None or two is None:
        return (token + "\n") * count
    between = two.split(token)[1] if two.count(token) == 2 else ""
    if one.replace(token, between.join([token] * 3)) != three:
        raise ModelError(
            "The model's chat template numbers images, or parts them unevenly: a clip's frames have no one place",
            rendered=three,
            next="--no_chat_template asks with plain prompts",
        )
    return between.join([token] * count)


def _images_alone(processor: Any, count: int, template: str | None) -> str | None:
    parts = [*[{"type": "image"}] * count, {"type": "text", "text": "Who?"}]
    options = {"add_generation_prompt": True}
    return _render_parts(processor, [{"role": "user", "content": parts}], template, options)


def model_inputs(
    processor: Any,
    prompts: Sequence[str],
    frames: Sequence[Frames] | None = None,
    *,
    chat: bool,
    template: str | None = None,
    max_pixels: int | None = None,
) -> dict[str, Any]:
    """Turn final prompts, and the frames of each, into left-padded tensors. Nothing is ever truncated.

    Args:
        processor: A processor or a tokenizer.
        prompts: B final prompts.
        frames: One clip's frames per prompt, of every clip the same number T: some processors stack clips to
            [B, T, ...]. None asks without video.
        chat: Whether a chat template made the prompts; then it also wrote the special tokens, and none are added.
        template: Name of that template, for models that have several.
        max_pixels: The frame policy's bound per frame, see `frame_size`.

    Returns:
        ``input_ids`` and ``attention_mask`` int64 [B, L], and what else the model's forward takes.

    Raises:
        ModelError: A prompt has no place or several places for its video.
    """
    text_options = {"padding": len(prompts) > 1, "padding_side": "left", "add_special_tokens": not chat}
    if frames is None:
        return dict(tokenizer_of(processor)(list(prompts), return_tensors="pt", **text_options))
    if clips_as(processor) == "images":
        _check_places(prompts, VIDEO, processor.image_token)
        shown = {len(clip): image_places(processor, len(clip), chat=chat, template=template) for clip in frames}
        clips = {
            "text": [text.replace(VIDEO, shown[len(clip)]) for text, clip in zip(prompts, frames, strict=True)],
            "images": [list(clip.frames_THWC) for clip in frames],
            "images_kwargs": _image_options(processor, max_pixels),
        }
    else:
        placed = [place_video(processor, prompt) for prompt in prompts]
        _check_places(placed, processor.video_token)
        clips = {
            "text": placed,
            "videos": [clip.frames_THWC for clip in frames],
            "videos_kwargs": _video_options(processor, frames, max_pixels),
        }
    return dict(processor(**clips, text_kwargs=text_options, common_kwargs={"return_tensors": "pt"}))


def token_counts(processor: Any, prompts: Sequence[str], *, chat: bool, at_once: int = 1024) -> list[int]:
    """Tokens of each final prompt, one for its video's place.

    Args:
        processor: A processor or a tokenizer.
        prompts: Any number.
        chat: As for `model_inputs`.
        at_once: How many are tokenised in one call.
    """
    tokenizer = tokenizer_of(processor)
    slices = (list(prompts[n : n + at_once]) for n in range(0, len(prompts), at_once))
    return [len(ids) for some in slices for ids in tokenizer(some, add_special_tokens=not chat)["input_ids"]]


def _check_places(prompts: Sequence[str], *tokens: str) -> None:
    for prompt in prompts:
        if (places := sum(prompt.count(token) for token in tokens)) != 1:
            raise ModelError(
                f"A prompt has {places} places for its video, not one",
                place=" or ".join(tokens),
                prompt=prompt if len(prompt) < 400 else prompt[:400] + " ...",
            )


def _image_options(processor: Any, max_pixels: int | None) -> dict[str, Any]:
    """The pixel bounds, and what is not to be guessed: an image one to three pixels high would be misread."""
    size = frame_size(processor, max_pixels)
    return {"input_data_format": "channels_last", **({"size": size} if size else {})}


def _video_options(processor: Any, frames: Sequence[Frames], max_pixels: int | None) -> dict[str, Any]:
    """Arguments that pin what a release may change: ready frames, their times, the pixel bounds."""
    from harness_ext.video import frames_metadata

    options: dict[str, Any] = {
        "do_sample_frames": False,
        "video_metadata": [frames_metadata(clip) for clip in frames],
        **_image_options(processor, max_pixels),
    }
    if "cap_pixels_per_frame" in getattr(processor.video_processor.valid_kwargs, "__annotations__", {}):
        options["cap_pixels_per_frame"] = True  # as the reference code of Qwen2-VL does; the default is in flux
    return options


def frame_size(processor: Any, max_pixels: int | None = None) -> dict[str, int]:
    """The `size` argument, always said explicitly: defaults for pixel bounds change between transformers releases.

    Most processors resize to a fixed size, which stays. Those of Qwen2-VL's kind keep a frame between two numbers of
    pixels, ``shortest_edge`` and ``longest_edge``. Their lower bound (100,352 pixels where a checkpoint says nothing)
    enlarges smaller frames: a 160x120 frame becomes 392x280 and costs 70 tokens per frame instead of 12. That is the
    model's own reference behaviour and stays too, unless `max_pixels` is below it: then it would undo what the user
    asked for, and the lower bound comes down to `max_pixels`.
    """
    reads = processor.video_processor if clips_as(processor) == "video" else processor.image_processor
    size = {k: v for k, v in dict(getattr(reads, "size", None) or {}).items() if v is not None}
    if max_pixels and size.get("longest_edge", 0) > AREA_EDGE and "shortest_edge" in size:
        size["shortest_edge"] = min(size["shortest_edge"], max_pixels)
    return size
