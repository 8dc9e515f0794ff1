"""Every task, modality and answer mode with one video model: 108 answers of a tiny Qwen2-VL that is loaded once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning"),
]


@pytest.fixture(scope="module")
def model(tiny_qwen2_vl: Path) -> Any:
    from transformers import Qwen2VLForConditionalGeneration

    from harness_ext.backends.hf_load import load_processor

    return Qwen2VLForConditionalGeneration.from_pretrained(tiny_qwen2_vl), load_processor(str(tiny_qwen2_vl))
