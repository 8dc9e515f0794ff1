"""A prompt with one `<video>` place and its frames -> chat messages, the rendered prompt, a model's tensors.

Shared by the transformers backend and by `finetune`. Everything family-specific is asked of the processor: its chat
template, its video token, its declared arguments. `processor` means a transformers processor or a bare tokenizer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from mmla_tasks.errors import ModelError

if TYPE_CHECKING:
    from harness_ext.video import Frames

VIDEO: Final = "<video>"
"""The one place in a prompt where the clip belongs."""
AREA_EDGE: Final = 4096
"""`size["longest_edge"]` above this is a number of pixels per frame (Qwen2-VL and kin), below it a side length."""

Message = Mapping[str, Any]


def tokenizer_of(processor: Any) -> Any:
    """The tokenizer inside a processor; a tokenizer gives itself."""
    return getattr(processor, "tokenizer", None) or processor


def takes_video(processor: Any) -> bool:
    """Whether the processor has a part that reads video."""
    return getattr(processor, "video_processor", None) is not None


def chat_messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Split string contents into the parts that processors' chat templates read, the clip where `<video>` stood.

    >>> chat_messages([{"role": "user", "content": "<video>Who?"}])
    [{'role': 'user', 'content': [{'type': 'video'}, {'type': 'text', 'text': 'Who?'}]}]
    """
    return [{**message, "content": _parts(message["content"])} for message in messages]


def _parts(content: str) -> list[dict[str, str]]:
    before, video, after = content.partition(VIDEO)
    parts = [{"type": "text", "text": before}, {"type": "video"}, {"type": "text", "text": after}]
    return [part for part in parts if part.get("text") or (video and part["type"] == "video")] or parts[:1]


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
    """Render a chat as the final prompt, with the processor's own video token where `<video>` stood.

    Args:
        processor: A processor or a tokenizer.
        messages: Role and string content each; at most one holds `<video>`.
        add_generation_prompt: End where the model's answer begins. Otherwise an assistant's last message is left open.
        template: Name of the template, for models that have several.
        **template_args: Further variables of the template, such as ``enable_thinking``.

    Raises:
        ModelError: There is no chat template, or it refuses the messages.
    """
    text = template_text(processor, template)
    if text is None:
        raise ModelError("The model has no chat template", next="--no_chat_template asks it with plain prompts")
    leave_open = not add_generation_prompt and messages[-1]["role"] == "assistant"
    options = {"add_generation_prompt": add_generation_prompt, "continue_final_message": leave_open, **template_args}
    owner = _template_owner(processor)
    if owner is not tokenizer_of(processor):
        rendered = _render(owner, chat_messages(messages), text, options)
        if "'type': '" not in rendered:  # a template that prints the parts instead of reading them wants strings
            return rendered
    return _render(owner, _plain_messages(processor, messages), text, options)


def _plain_messages(processor: Any, messages: Sequence[Message]) -> list[dict[str, Any]]:
    return [{**message, "content": place_video(processor, message["content"])} for message in messages]


def _render(owner: Any, messages: list[dict[str, Any]], text: str, options: dict[str, Any]) -> str:
    import jinja2

    try:
        return str(owner.apply_chat_template(messages, chat_template=text, tokenize=False, **options))
    except jinja2.TemplateError as error:
        raise ModelError(
            "The model's chat template refuses the messages",
            why=str(error),
            next="leave out the system prompt if there is one, or ask without the template: --no_chat_template",
        ) from error


def place_video(processor: Any, prompt: str) -> str:
    """Put the processor's own video token where `<video>` stands; a prompt for a text model is left as it is."""
    token = getattr(processor, "video_token", None)
    return prompt.replace(VIDEO, token, 1) if token else prompt


def model_inputs(
    processor: Any,
    prompts: Sequence[str],
    frames: Sequence[Frames] | None = None,
    *,
    chat: bool,
    max_pixels: int | None = None,
) -> dict[str, Any]:
    """Turn final prompts, and the frames of each, into left-padded tensors. Nothing is ever truncated.

    Args:
        processor: A processor or a tokenizer.
        prompts: B final prompts.
        frames: One clip's frames per prompt; None asks without video.
        chat: Whether a chat template made the prompts; then it also wrote the special tokens, and none are added.
        max_pixels: The frame policy's bound per frame, see `video_size`.

    Returns:
        ``input_ids`` and ``attention_mask`` int64 [B, L], and what else the model's forward takes.

    Raises:
        ModelError: A prompt has no place or several places for its video.
    """
    text_options = {"padding": True, "padding_side": "left", "add_special_tokens": not chat}
    if frames is None:
        return dict(tokenizer_of(processor)(list(prompts), return_tensors="pt", **text_options))
    placed = [place_video(processor, prompt) for prompt in prompts]
    _check_places(processor, placed)
    made = processor(
        text=placed,
        videos=[clip.frames_THWC for clip in frames],
        text_kwargs=text_options,
        videos_kwargs=_video_options(processor.video_processor, frames, max_pixels),
        common_kwargs={"return_tensors": "pt"},
    )
    return dict(made)


def _check_places(processor: Any, prompts: Sequence[str]) -> None:
    token = getattr(processor, "video_token", None)
    for prompt in prompts:
        if token is not None and (places := prompt.count(token)) != 1:
            raise ModelError(
                f"A prompt has {places} places for its video, not one",
                video_token=token,
                prompt=prompt if len(prompt) < 400 else prompt[:400] + " ...",
            )


def _video_options(video_processor: Any, frames: Sequence[Frames], max_pixels: int | None) -> dict[str, Any]:
    """Arguments that pin what a release may change: ready frames, their times, the pixel bounds."""
    from harness_ext.video import frames_metadata

    options: dict[str, Any] = {
        "do_sample_frames": False,
        "video_metadata": [frames_metadata(clip) for clip in frames],
        "input_data_format": "channels_last",  # not guessed: a clip one to three pixels high would be misread
    }
    if size := video_size(video_processor, max_pixels):
        options["size"] = size
    if "cap_pixels_per_frame" in getattr(video_processor.valid_kwargs, "__annotations__", {}):
        options["cap_pixels_per_frame"] = True  # as the reference code of Qwen2-VL does; the default is in flux
    return options


def video_size(video_processor: Any, max_pixels: int | None = None) -> dict[str, int]:
    """The `size` argument, always said explicitly: defaults for pixel bounds change between transformers releases.

    Most processors resize to a fixed size, which stays. Those of Qwen2-VL's kind keep a frame between two numbers of
    pixels, ``shortest_edge`` and ``longest_edge``. Their lower bound (100,352 pixels where a checkpoint says nothing)
    enlarges smaller frames: a 160x120 frame becomes 392x280 and costs 70 tokens per frame instead of 12. That is the
    model's own reference behaviour and stays too, unless `max_pixels` is below it: then it would undo what the user
    asked for, and the lower bound comes down to `max_pixels`.
    """
    size = {k: v for k, v in dict(getattr(video_processor, "size", None) or {}).items() if v is not None}
    if max_pixels and size.get("longest_edge", 0) > AREA_EDGE and "shortest_edge" in size:
        size["shortest_edge"] = min(size["shortest_edge"], max_pixels)
    return size
