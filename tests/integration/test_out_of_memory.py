"""Memory that really runs out: a process that may not grow answers all the same, and as one with plenty does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="the size of a process is read from /proc and bounded"),
]

CHILD = """
import json, logging, resource, sys
from harness_ext.backends.hf import HFLabelLM
from harness_ext.requests import Request

logging.basicConfig()
lm = HFLabelLM(sys.argv[1], dtype="float32", device="cpu", answer=sys.argv[2], batch_size="auto", max_batch_tokens=10**6)
settings = {"max_gen_toks": 2, "do_sample": False, "until": []}
texts = [("joy " + "abcdefgh"[n % 8] + " ") * (300 + n) for n in range(48)]
asked = [Request("t", str(n), text, ("joy", "fear"), "emotion:", settings) for n, text in enumerate(texts)]
lm._bound.prompts = 1
one_by_one = dict(lm.answer(asked))
lines = open("/proc/self/status").read().splitlines()
now = next(int(line.split()[1]) for line in lines if line.startswith("VmSize")) << 10
resource.setrlimit(resource.RLIMIT_AS, [now + (200 << 20)] * 2)
lm._bound.prompts = None
found = dict(lm.answer(asked))
print(json.dumps([[answers[n] for n in range(len(asked))] for answers in (one_by_one, found)]))
"""


@pytest.mark.parametrize("mode", ["generate", "rank"])
def test_auto_halves_its_batches_and_goes_on(tiny_qwen2_vl: Path, mode: str) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", CHILD, str(tiny_qwen2_vl), mode]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    one_by_one, found = json.loads(done.stdout.splitlines()[-1])
    assert 1 <= done.stderr.count("out of memory") <= 6
    assert "sequence of its own" not in done.stderr  # what does not fit says nothing about the model
    assert found == one_by_one
    assert len(set(found)) > 1
