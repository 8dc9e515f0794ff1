"""Load any transformers model for `mmla-hf`: a causal LM, or one that takes clips, chosen from config and processor."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from harness_ext.adapters import TRAINING, Adapters
from harness_ext.backends.hf_adapters import AdaptedModel
from harness_ext.messages import ClipsAs, clips_as, tokenizer_of
from harness_ext.ranks import Ranks
from harness_ext.training import refuse_other_base
from mmla_tasks.errors import MissingExtraError, ModelError, suggest

logger = logging.getLogger(__name__)

WEIGHT_SUFFIXES: Final = (".safetensors", ".bin", ".gguf", ".pt", ".pth")
MODEL_SUFFIXES: Final = (*WEIGHT_SUFFIXES, ".json", ".jinja", ".model", ".txt", ".py")
SLICE_BYTES: Final = 1 << 16
SLICES: Final = 16


@dataclass(frozen=True)
class ModelSource:
    """What to load, as the user said it."""

    pretrained: str
    """Local folder, a GGUF file, or Hub id."""
    gguf_file: str | None = None
    revision: str | None = None
    tokenizer: str | None = None
    dtype: str = "auto"
    attn_implementation: str | None = None
    device: str | None = None
    device_map: Any = None
    peft: str | None = None
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        path = Path(self.pretrained)
        if path.suffix == ".gguf" and self.gguf_file is None:
            object.__setattr__(self, "pretrained", str(path.parent))
            object.__setattr__(self, "gguf_file", path.name)

    @property
    def folder(self) -> Path | None:
        """The local folder; None for a Hub id."""
        path = Path(self.pretrained).expanduser()
        return path if path.is_dir() else None

    @property
    def from_pretrained(self) -> dict[str, Any]:
        """Arguments that config, processor and model have in common."""
        where = str(self.folder or self.pretrained)
        args = {"pretrained_model_name_or_path": where, "revision": self.revision, "gguf_file": self.gguf_file}
        return {k: v for k, v in args.items() if v is not None} | {"trust_remote_code": self.trust_remote_code}


@dataclass
class Loaded:
    """A model ready to answer, and what its journal key needs."""

    model: Any
    processor: Any
    """A processor, or the bare tokenizer of a text model."""
    clips_as: ClipsAs | None
    """How model and processor take a clip: as video, as images, or not at all."""
    identity: dict[str, Any] = field(default_factory=dict)
    adapters: Adapters | None = None
    """Those in its layers."""
    adapted: AdaptedModel | None = None
    """Puts one of them into force."""
    own_decoding: dict[str, Any] = field(default_factory=dict)
    """The checkpoint's generation settings, which are not in force: see `_with_clean_generation`."""

    @property
    def tokenizer(self) -> Any:
        """The tokenizer."""
        return tokenizer_of(self.processor)


def load(source: ModelSource) -> Loaded:
    """Load config, processor, model and adapters.

    Raises:
        ModelError: Something is missing, of another kind, or does not fit together.
        MissingExtraError: torch, transformers, peft, gguf or flash-attn is not installed.
    """
    check_packages(source)
    _check_source(source)
    adapters = Adapters.read(source.peft) if source.peft is not None else None
    config = _load_config(source)
    processor = _load_processor(source, config)
    model = _load_model(source, config, processor)
    decoding = own_decoding(getattr(model, "generation_config", None))
    _with_clean_generation(model, tokenizer_of(processor))
    identity = _identity(source, model, config)
    if adapters is not None:
        refuse_other_base(adapters, source.pretrained, identity["digest"])
    adapted = AdaptedModel(model, tokenizer_of(processor), adapters) if adapters is not None else None
    return Loaded(model, processor, clips_as(processor), identity, adapters, adapted, decoding)


def load_processor(pretrained: str, **how: Any) -> Any:
    """Load the processor of a model, or the tokenizer of a text model, without its weights.

    Args:
        pretrained: Local folder, GGUF file or Hub id.
        **how: Other fields of `ModelSource`, such as ``revision``.

    Raises:
        ModelError: It is not there.
        MissingExtraError: torch or transformers is not installed.
    """
    source = ModelSource(pretrained, **how)
    check_packages(source)
    _check_source(source)
    return _load_processor(source, _load_config(source))


def load_config(pretrained: str, **how: Any) -> Any:
    """Load the config of a model; arguments as for `load_processor`.

    Raises:
        ModelError: It is not there.
        MissingExtraError: torch or transformers is not installed.
    """
    source = ModelSource(pretrained, **how)
    check_packages(source)
    _check_source(source)
    return _load_config(source)


# ---- before anything heavy ---------------------------------------------------------------------------------------


def check_packages(source: ModelSource) -> None:
    """Say which package is missing before the first import fails in the middle of another library."""
    from importlib.util import find_spec

    needed = ["torch", "transformers", *(["peft"] if source.peft else []), *(["gguf"] if source.gguf_file else [])]
    for package in needed:
        if find_spec(package) is None:
            raise MissingExtraError(package, extra="hf", purpose="mmla-hf")


def _check_source(source: ModelSource) -> None:
    if source.folder is None and _looks_like_path(source.pretrained):
        raise ModelError(
            f"There is no model folder {source.pretrained}",
            next="pretrained= takes a local folder, a GGUF file or a Hub id such as Qwen/Qwen2-VL-7B-Instruct",
        )
    if source.folder is not None and source.gguf_file is not None:
        _check_file(source.folder, source.gguf_file, "GGUF file")
    elif source.folder is not None:
        _check_file(source.folder, "config.json", "model")


def _looks_like_path(name: str) -> bool:
    """A Hub id has at most one slash and starts with neither a dot, a tilde nor a slash."""
    return name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name or name.endswith(".gguf")


def _check_file(folder: Path, name: str, what: str) -> None:
    if not (folder / name).is_file():
        there = ", ".join(sorted(p.name for p in folder.iterdir())[:8]) if folder.is_dir() else "no such folder"
        raise ModelError(f"The {what} in {folder} cannot be loaded: {name} is not there", found=there or "nothing")


# ---- config, processor, model ------------------------------------------------------------------------------------


@contextmanager
def _saying(what: str, source: ModelSource) -> Iterator[None]:
    """Turn whatever a library raises inside into a `ModelError` that says which thing of which model it was."""
    try:
        yield
    except ImportError as error:
        if "flash" in str(error).lower():
            raise MissingExtraError("flash_attn", extra="flash-attn", purpose="flash attention") from error
        raise ModelError(f"The {what} of {source.pretrained} needs a package", why=_first_line(error)) from error
    except (OSError, ValueError, RuntimeError, KeyError, AttributeError, TypeError) as error:
        remote = "trust_remote_code" in str(error)
        raise ModelError(
            f"The {what} of {source.pretrained} cannot be loaded",
            why=_first_line(error),
            next="add trust_remote_code=True to --model_args if you trust its code" if remote else None,
        ) from error


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"


def _load_config(source: ModelSource) -> Any:
    from transformers import AutoConfig

    with _saying("config", source):
        return AutoConfig.from_pretrained(**source.from_pretrained)


def _load_processor(source: ModelSource, config: Any) -> Any:
    """The processor of a model that has one, else the tokenizer."""
    from transformers import AutoProcessor, AutoTokenizer

    own_tokenizer = {**source.from_pretrained, "pretrained_model_name_or_path": source.tokenizer}
    if not _is_multimodal(config):
        with _saying("tokenizer", source):
            return _ready(
                AutoTokenizer.from_pretrained(**(own_tokenizer if source.tokenizer else source.from_pretrained))
            )
    with _saying("processor", source):
        processor = AutoProcessor.from_pretrained(**source.from_pretrained)
        if source.tokenizer:
            processor.tokenizer = AutoTokenizer.from_pretrained(**own_tokenizer)
    if tokenizer_of(processor) is processor:
        raise ModelError(
            f"The model {source.pretrained} takes images or video but comes without a processor",
            next="copy preprocessor_config.json and its kin from the model it was made from",
        )
    return _ready(processor)


def _is_multimodal(config: Any) -> bool:
    """Whether transformers, or the checkpoint's own code, has a class for text and images or video."""
    from transformers import AutoModelForMultimodalLM

    remote = getattr(config, "auto_map", None) or {}
    names = ("AutoModelForImageTextToText", "AutoModelForMultimodalLM", "AutoModelForVision2Seq")
    return type(config) in AutoModelForMultimodalLM._model_mapping or any(name in remote for name in names)


def _ready(processor: Any) -> Any:
    """Batches are padded on the left, so that every answer begins at the same column."""
    tokenizer = tokenizer_of(processor)
    tokenizer.padding_side = "left"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    return processor


def _load_model(source: ModelSource, config: Any, processor: Any) -> Any:
    import transformers

    multimodal = tokenizer_of(processor) is not processor
    auto = transformers.AutoModelForMultimodalLM if multimodal else transformers.AutoModelForCausalLM
    optional = {"attn_implementation": source.attn_implementation, "device_map": source.device_map}
    options = {k: v for k, v in optional.items() if v is not None}
    _hide_bars_in_logs()
    with _saying("model", source):
        model, info = auto.from_pretrained(
            **source.from_pretrained, dtype=_dtype(source.dtype), output_loading_info=True, **options
        )
        if source.device_map is None:
            model.to(source.device or _default_device())
    if missing := sorted(info.get("missing_keys", ())):
        logger.warning("%s has no weights for %d tensors, such as %s", source.pretrained, len(missing), missing[0])
    return model.eval()


def _hide_bars_in_logs() -> None:
    """Transformers draws bars for the loading of weights also where nobody watches."""
    import sys

    import transformers

    if not sys.stderr.isatty():
        transformers.utils.logging.disable_progress_bar()


def _dtype(name: Any) -> Any:
    import torch

    known = ("auto", "float32", "bfloat16", "float16", "float64")
    if name == "auto" or isinstance(name, torch.dtype):
        return name
    if name not in known:
        raise ModelError(f"Unknown dtype '{name}'", known=", ".join(known), hint=suggest(str(name), known))
    return getattr(torch, name)


def _default_device() -> str:
    """The GPU if there is one; of several processes on a machine, each takes its own."""
    import torch

    if not torch.cuda.is_available():
        return "cpu"
    ranks = Ranks.of_environment()
    if ranks.count == 1:
        return "cuda"
    torch.cuda.set_device(ranks.local_index % torch.cuda.device_count())  # kernels of others look at no tensor
    return f"cuda:{torch.cuda.current_device()}"


def load_generation(pretrained: str, config: Any, **how: Any) -> Any:
    """The checkpoint's own generation settings, as a loaded model has them; arguments as for `load_processor`."""
    from transformers import GenerationConfig

    source = ModelSource(pretrained, **how)
    try:
        return GenerationConfig.from_pretrained(str(source.folder or pretrained), revision=source.revision)
    except OSError:  # there is no such file
        return GenerationConfig.from_model_config(config)


def empty_model(pretrained: str, **how: Any) -> Any:
    """A model without its weights, on the meta device; arguments as for `load_processor`.

    Raises:
        ModelError: Its config is not there, or transformers has no class for it.
        MissingExtraError: torch or transformers is not installed.
    """
    import torch
    import transformers

    source = ModelSource(pretrained, **how)
    config = load_config(pretrained, **how)
    kind = transformers.AutoModelForMultimodalLM if _is_multimodal(config) else transformers.AutoModelForCausalLM
    with _saying("model", source), torch.device("meta"):
        return kind.from_config(config, trust_remote_code=source.trust_remote_code)


def layer_shapes(config: Any) -> dict[str, tuple[int, ...]]:
    """Layer name -> shape of its weight, for a model of this config without its weights.

    Empty where transformers has no class for it.
    """
    import torch
    import transformers

    kind = transformers.AutoModelForMultimodalLM if _is_multimodal(config) else transformers.AutoModelForCausalLM
    if type(config) not in kind._model_mapping:
        return {}
    with torch.device("meta"):
        model = kind.from_config(config)
    weights = ((name, getattr(module, "weight", None)) for name, module in model.named_modules())
    return {name: tuple(weight.shape) for name, weight in weights if weight is not None}


def own_decoding(own: Any) -> dict[str, Any]:
    """What a checkpoint's generation settings say about choosing tokens."""
    said = {} if own is None else own.to_diff_dict()
    names = ("do_sample", "temperature", "top_p", "top_k", "repetition_penalty")
    return {name: said[name] for name in names if said.get(name) is not None}


def end_tokens(own: Any, tokenizer: Any) -> list[int]:
    """Token ids that end an answer: those of the generation settings, and the tokenizer's own, which comes first."""
    ends = getattr(own, "eos_token_id", None)
    found = [ends] if isinstance(ends, int) else list(ends or [])
    return list(dict.fromkeys([*([] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]), *found]))


def _with_clean_generation(model: Any, tokenizer: Any) -> None:
    """Keep only the end tokens of the checkpoint's generation settings.

    `generate` fills whatever a call leaves open from the checkpoint's own file: its temperature, its top_k, its
    repetition penalty, which punishes labels named in the prompt.
    """
    from transformers import GenerationConfig

    model.generation_config = GenerationConfig(
        eos_token_id=end_tokens(getattr(model, "generation_config", None), tokenizer) or None,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
    )


# ---- identity ----------------------------------------------------------------------------------------------------


def _identity(source: ModelSource, model: Any, config: Any) -> dict[str, Any]:
    """JSON-plain: what distinguishes the answers of two runs, as far as the model goes."""
    return {
        "pretrained": source.pretrained,
        "class": type(model).__name__,
        "revision": getattr(config, "_commit_hash", None) or source.revision,
        "gguf_file": source.gguf_file,
        "tokenizer": source.tokenizer,
        "digest": folder_digest(source.folder, source.gguf_file) if source.folder else None,
        "dtype": str(model.dtype).removeprefix("torch."),
        "attn_implementation": getattr(config.get_text_config(), "_attn_implementation", None)
        or getattr(model.config, "_attn_implementation", None),
        "peft": None,
    }


def folder_digest(folder: Path | None, only: str | None = None) -> str | None:
    """Digest of a model folder in well under a second, whatever its size.

    SHA-256 over name, size and `SLICES` evenly spaced slices of 64 KiB of every model file, in order of name; a file of
    up to 1 MiB is thereby read whole. Slices all over a weight file tell fine-tuned weights from their base, which the
    first megabyte (often frozen embeddings) would not. Times and paths do not count, nor how it was trained: a copied
    folder is the same model.

    Args:
        folder: The folder; what is not there has no digest.
        only: Name of the one file that counts (a GGUF file).
    """
    if folder is None or not folder.is_dir():
        return None
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.name == only if only else path.suffix in MODEL_SUFFIXES and path.name != TRAINING:
            digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
            for piece in _slices(path):
                digest.update(piece)
    return digest.hexdigest()


def _slices(path: Path) -> Iterator[bytes]:
    size = path.stat().st_size
    with path.open("rb") as file:
        for i in range(SLICES):
            file.seek(
                max(size - SLICE_BYTES, 0) * i // (SLICES - 1) if size > SLICES * SLICE_BYTES else i * SLICE_BYTES
            )
            yield file.read(SLICE_BYTES)
