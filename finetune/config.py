"""The configuration of a fine-tuning run: one YAML, every key of which is also a flag; all its faults told at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from harness_ext.frame_policy import FramePolicy
from harness_ext.taskfile import Fault
from mmla_tasks.errors import UsageError, suggest

ALL_LINEAR = "all-linear"
"""Every linear layer but the output layer and, unless `train_vision`, the vision tower."""
Weighting = Literal["size", "equal", "temperature"]
"""``size``: as many rows as a dataset has. ``equal``: the same for all. ``temperature``: size ** (1 / temperature),
between the two (1 is ``size``, the limit is ``equal``)."""
DEEPSPEED = ("zero2", "zero2-offload", "zero3", "zero3-offload")


def _refuse_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("must be a number, not true or false")
    return value


def _known_or_file(value: str) -> str:
    if value not in DEEPSPEED and not Path(value).is_file():
        raise ValueError(f"is no file, nor one of {', '.join(DEEPSPEED)}")
    return value


Number = BeforeValidator(_refuse_bool)
Count = Annotated[int, Number, Field(ge=1)]
Share = Annotated[float, Number, Field(ge=0, le=1)]


class Section(BaseModel):
    """Keys that belong together. Unknown ones are faults."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Lora(Section):
    """Low-rank matrices beside the layers of a frozen model."""

    rank: Count = 16
    """Of the matrices: their inner dimension."""
    alpha: Annotated[float, Number, Field(gt=0)] = 32
    """The matrices' product counts ``alpha / rank`` times."""
    dropout: Annotated[float, Number, Field(ge=0, lt=1)] = 0.0
    """Share of an adapter's inputs that are set to 0 in training."""
    targets: str | list[str] = ALL_LINEAR
    """``all-linear`` (all but the output layer and a vision tower that does not learn), or names of layers: a layer is
    meant by the end of its dotted name."""


class Frames(Section):
    """Which frames of a clip are shown: the model arguments of an evaluation, with the same meaning."""

    num_frames: Count | None = None
    fps: Annotated[float, Number, Field(gt=0)] | None = None
    max_frames: Count | None = None
    max_pixels: Annotated[int, Number, Field(ge=0)] | None = None
    video_reader: Literal["pyav", "decord"] | None = None

    @property
    def given(self) -> dict[str, Any]:
        """The arguments that say something, as `--model_args` takes them."""
        return self.model_dump(exclude_none=True)

    @property
    def policy(self) -> FramePolicy:
        """The frame policy.

        Raises:
            UsageError: two arguments exclude each other.
        """
        return FramePolicy.chosen(self.given)


class Mixing(Section):
    """How often each task comes, when there are several."""

    weights: Weighting = "size"
    """In proportion to the rows n of a task, equally, or to ``n ** (1 / temperature)``."""
    temperature: Annotated[float, Number, Field(gt=0)] = 2.0


class Selection(Section):
    """Which checkpoint is kept: the one that answers a part of the dev split best."""

    every: Count = 20
    """Steps between two looks at dev."""
    rows: Count = 150
    """Rows of dev, all tasks together."""
    metric: Literal["acc", "macro_f1"] = "acc"
    patience: Count | None = None
    """Stop after so many looks without a better one; None never stops early."""


class Evaluate(Section):
    """What follows training: the selected model answers the test split."""

    test: bool = False
    model: Literal["mmla-hf", "mmla-vllm"] = "mmla-hf"
    model_args: dict[str, Any] = {}


class Config(Section):
    """One run of `mmla finetune run`."""

    model: str
    """Local folder, GGUF file or Hub id."""
    revision: str | None = None
    tasks: Annotated[list[str], Field(min_length=1)]
    """Task and group names; several leaf tasks are instruction tuning (IT), one is SFT."""
    include_path: list[Path] = []
    """Folders of further task YAMLs."""
    data_dir: str | None = None
    """Data root, or ``sample``; unless given MMLA_DATA_DIR, then what was downloaded."""
    data_revision: str | None = None
    modality: Literal["text+video", "text", "video"] | None = None
    """What the model is shown; unless given, as each task says. With ``text``, `frames` and `train_vision` change
    nothing: one flag makes the text-only run of a config."""
    output_dir: Path = Path("runs/finetune")
    adapter: Literal["lora", "none"] = "lora"
    """``none`` trains the weights of the model itself."""
    lora: Lora = Lora()
    train_vision: bool = False
    """Whether the vision tower and what joins it to the text model learn too."""
    frames: Frames = Frames()
    on_bad_clip: Literal["error", "skip", "text"] = "error"
    """A clip that can't be shown stops the run, is left out, or is asked about without video."""
    learning_rate: Annotated[float, Number, Field(gt=0)] = 1e-4
    """After the warm-up."""
    epochs: Annotated[float, Number, Field(gt=0)] = 1.0
    max_steps: Count | None = None
    """Optimizer steps; goes before `epochs`."""
    batch_size: Count = 8
    """Examples that one process reads at once."""
    gradient_accumulation: Count = 1
    """Batches in a step."""
    warmup_ratio: Share = 0.1
    """Share of all steps in which the learning rate rises."""
    scheduler: Literal["cosine", "linear", "constant", "constant_with_warmup"] = "cosine"
    weight_decay: Annotated[float, Number, Field(ge=0)] = 0.0
    """Of AdamW."""
    max_grad_norm: Annotated[float, Number, Field(gt=0)] = 1.0
    """Longer gradients are scaled down to this."""
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    """``auto``: bfloat16 on a GPU that has it, else float32."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass: less memory, about a third more time."""
    attention: Literal["auto", "flash_attention_2", "sdpa", "eager"] = "auto"
    """``auto``: FlashAttention-2 where it is installed and there is a GPU, else SDPA."""
    deepspeed: Annotated[str, AfterValidator(_known_or_file)] | None = None
    """``zero2``, ``zero2-offload``, ``zero3``, ``zero3-offload``, or a DeepSpeed configuration in JSON."""
    max_length: Count | None = None
    """Tokens of an example; longer ones are an error and never cut. Unless given: what the model's positions reach."""
    workers: Annotated[int, Number, Field(ge=0)] = 2
    """Processes that decode clips and make tensors ahead of the model; texts need none."""
    mixture: Mixing = Mixing()
    selection: Selection = Selection()
    save_every: Count | None = None
    """Steps between two checkpoints to go on from; None as often as `selection.every`."""
    keep_checkpoints: Count = 2
    exclude_test_overlap: bool = False
    """Leave out train rows that stand in test too."""
    seed: Annotated[int, Number, Field(ge=0)] = 0
    report_to: list[Literal["tensorboard", "wandb"]] = []
    trust_remote_code: bool = False
    evaluate: Evaluate = Evaluate()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        """Refuse values that exclude each other."""
        found = [*_contradictions(self)]
        if found:
            raise ValueError("\n".join(found))
        return self

    @property
    def trains_vision(self) -> bool:
        """Whether the vision tower learns: what is never used would have no gradient."""
        return self.train_vision and self.modality != "text"

    @property
    def steps_between_saves(self) -> int:
        """Steps between two checkpoints."""
        return self.save_every or self.selection.every

    def plain(self) -> dict[str, Any]:
        """JSON-plain values, defaults included; ``Config(**plain)`` reverses it."""
        return self.model_dump(mode="json")


def _contradictions(config: Config) -> Iterator[str]:
    """Faults between keys, as ``key: what``."""
    if config.adapter == "none" and config.lora != Lora():
        yield "lora: goes with `adapter: lora`, and `adapter: none` is asked for"
    if config.mixture.temperature != Mixing().temperature and config.mixture.weights != "temperature":
        yield "mixture.temperature: goes with `weights: temperature`"
    try:
        _ = config.frames.policy
    except UsageError as error:
        yield f"frames: {error.what}, {error.details.get('why', '')}"


# ------------------------------------------------------------------------------------------------------- reading


@dataclass(frozen=True)
class ConfigText:
    """A config as written: values, and the line of each key where it stands in a file."""

    values: dict[str, Any]
    path: Path | None = None
    lines: Mapping[str, int] = field(default_factory=dict)
    """Dotted key -> line."""
    faults: tuple[Fault, ...] = ()
    """What is wrong with the text itself."""


def read_config(path: Path | None, flags: Mapping[str, Any] | None = None) -> Config:
    """Read a config file and put flags over it.

    Args:
        path: A YAML; None takes everything from the flags.
        flags: Dotted key -> value, such as ``{"lora.rank": 8}``.

    Raises:
        UsageError: all faults at once, with the line of each that stands in the file.
    """
    return checked(config_text(path, flags))


def checked(text: ConfigText) -> Config:
    """Check a config as written.

    Raises:
        UsageError: all faults at once.
    """
    config, faults = check_text(text)
    if config is None:
        raise faults_error(faults, text.path)
    return config


def check_text(text: ConfigText) -> tuple[Config | None, list[Fault]]:
    """The config, or all faults of it."""
    try:
        config = Config(**text.values)
    except ValidationError as error:
        return None, [*text.faults, *(_fault(one, text) for one in _unfolded(error))]
    return (None, list(text.faults)) if text.faults else (config, [])


def faults_error(faults: Sequence[Fault], path: Path | None) -> UsageError:
    """One error of all faults, in the order of lines."""
    ordered = sorted(faults, key=lambda fault: fault.line)
    count = "1 fault" if len(ordered) == 1 else f"{len(ordered)} faults"
    width = max(len(fault.where) for fault in ordered)
    body = [f"{f.where:<{width}}   {f.what}{'   ' + f.hint if f.hint else ''}" for f in ordered]
    return UsageError(f"the config has {count}", file=path, faults="\n".join(body))


def config_text(path: Path | None, flags: Mapping[str, Any] | None = None) -> ConfigText:
    """Read a config file without checking its values.

    Raises:
        UsageError: it cannot be read, or is no mapping.
    """
    values, lines, faults = ({}, {}, []) if path is None else _read(path)
    for key, value in (flags or {}).items():
        _put(values, key, value)
        lines.pop(key, None)
    return ConfigText(values, path, lines, tuple(faults))


def _put(values: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key."""
    *sections, last = key.split(".")
    for section in sections:
        inner = values.get(section)
        values[section] = values = dict(inner) if isinstance(inner, dict) else {}
    values[last] = value


def _read(path: Path) -> tuple[dict[str, Any], dict[str, int], list[Fault]]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the config {path} cannot be read", why=error) from None
    try:
        node = yaml.compose(text, yaml.SafeLoader)
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}" if mark else "line 1"
        raise faults_error([Fault(where, f"not YAML: {getattr(error, 'problem', error)}")], path) from None
    if not isinstance(values, dict) or not isinstance(node, yaml.MappingNode):
        raise faults_error([Fault("line 1", "a config is a mapping of keys, such as `model: ...`")], path)
    lines: dict[str, int] = {}
    return values, lines, list(_find_lines(node, "", lines))


def _find_lines(node: yaml.MappingNode, at: str, lines: dict[str, int]) -> Iterator[Fault]:
    """Fill in the line of every dotted key; a key given twice is a fault."""
    for key_node, value in node.value:
        key, line = f"{at}{key_node.value}", key_node.start_mark.line + 1
        if key in lines:
            yield Fault(f"line {line}", f"`{key}` is given twice", f"first on line {lines[key]}")
        lines[key] = line
        if isinstance(value, yaml.MappingNode):
            yield from _find_lines(value, f"{key}.", lines)


def _unfolded(error: ValidationError) -> Iterator[tuple[str, str, str]]:
    """(dotted key, kind, what) of each fault."""
    for one in error.errors():
        if one["loc"]:
            places = [str(part) for part in one["loc"] if isinstance(part, int) or _is_key(str(part))]
            yield ".".join(places), one["type"], str(one["msg"])
        else:
            for line in str(one["msg"]).removeprefix("Value error, ").split("\n"):
                key, _, what = line.partition(": ")
                yield key, "value_error", what


def _is_key(part: str) -> bool:
    """Whether a part of pydantic's place is a key, and not the name of one kind of a union."""
    return part.replace("_", "").isidentifier() and part not in ("str", "int", "float", "bool", "none")


def _fault(found: tuple[str, str, str], text: ConfigText) -> Fault:
    key, kind, what = found
    where = f"line {text.lines[key]}" if key in text.lines else _place(key, text)
    if kind == "extra_forbidden":
        return Fault(where, f"unknown key `{key}`", suggest(key, known_keys()) or "")
    if kind == "missing":
        return Fault("line 1" if text.path else "flags", f"the key `{key}` is missing")
    return Fault(where, f"`{key}`: {what.removeprefix('Value error, ')}", _given(key, text))


def _place(key: str, text: ConfigText) -> str:
    """The line of the nearest section or list around a key, else that it is no key of the file."""
    section = key.rpartition(".")[0]
    if not section:
        return "flags"
    return f"line {text.lines[section]}" if section in text.lines else _place(section, text)


def _given(key: str, text: ConfigText) -> str:
    value: Any = text.values
    for part in key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return ""
        value = value[part]
    return f"given: {value!r}"


def known_keys() -> list[str]:
    """Every dotted key, sections included."""
    keys: list[str] = []
    for name, info in Config.model_fields.items():
        keys.append(name)
        if isinstance(info.annotation, type) and issubclass(info.annotation, Section):
            keys.extend(f"{name}.{inner}" for inner in info.annotation.model_fields)
    return keys
