"""`mmla doctor` over drawn clips against probing them bare, in two threads of one process.

Bare in two ways: the same probes, and what a short script would do, PyAV's own packets and no more (which does not see
that a file is cut short). All are processes of their own, from start to end, in turn; nothing is known of the clips at
the start of each round. The doctor also lists, compares and prints, and reads every file in a process that may crash
without harm.

    python benchmarks/doctor_cost.py [--clips 2004] [--rounds 3]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROBES = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from harness_ext.video.probing import probe_file

with ThreadPoolExecutor(2) as pool:
    print(len(list(pool.map(probe_file, map(str, sorted(Path(sys.argv[1]).glob("*/video/*.mp4")))))))
"""
SCRIPT = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import av

def probe(path):
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        packets = [packet for packet in container.demux(stream) if packet.size]
        return len(packets), stream.width, stream.height, float(stream.average_rate)

with ThreadPoolExecutor(2) as pool:
    print(len(list(pool.map(probe, sorted(Path(sys.argv[1]).glob("*/video/*.mp4"))))))
"""


def main() -> None:
    """Draw, measure in turn, print both medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--clips", type=int, default=2004, help="a multiple of 12")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = drawn(args.clips // 12, Path(folder))
        probes, script, first, again = [], [], [], []
        for number in range(args.rounds):
            cache = Path(folder) / f"cache-{number}"
            probes.append(seconds([sys.executable, "-c", PROBES, str(root)], cache))
            script.append(seconds([sys.executable, "-c", SCRIPT, str(root)], cache))
            doctor = [sys.executable, "-m", "harness_ext.cli", "doctor", "--data_dir", str(root), "--workers", "2"]
            first.append(seconds(doctor, cache))
            again.append(seconds(doctor, cache))
    print(f"{args.clips} drawn clips, medians of {args.rounds} rounds, seconds of whole processes")
    print(f"mmla doctor         {statistics.median(first):.2f}")
    for name, bare in (("the same probes", probes), ("PyAV alone", script)):
        ratio = statistics.median(one / other for one, other in zip(first, bare, strict=True))
        print(f"{name:<19} {statistics.median(bare):.2f}   mmla doctor takes {ratio:.2f} times as long")
    print(f"mmla doctor again   {statistics.median(again):.2f}   nothing has changed")


def drawn(rows: int, folder: Path) -> Path:
    """A data root with `rows` drawn clips in each of the twelve datasets."""
    from harness_ext.catalogue import packaged_labels
    from mmla_tasks.root import DataRoot

    os.environ["MMLA_CACHE_DIR"] = str(folder / "drawn")
    sample = DataRoot.choose(f"sample:{rows}")
    for name in packaged_labels():
        dataset = sample.dataset(name, labels_of=packaged_labels, with_clips=True)
    return dataset.clips.parent.parent


def seconds(command: list[str], cache: Path) -> float:
    """Wall time of a command that ends well."""
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "MMLA_CACHE_DIR": str(cache)})
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
