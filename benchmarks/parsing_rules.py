"""How often the clean and the released rule read one answer differently: over files of recorded model answers.

python benchmarks/parsing_rules.py FOLDER      # FOLDER/<dataset>.jsonl with rows {"response": ...}
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from harness_ext.catalogue import Catalogue
from mmla_tasks.answers import parse_answer


def main() -> None:
    """Print the table."""
    configs = {str(f.config["dataset"]): f.config for f in Catalogue.load().files.values() if not f.is_group}
    print("| dataset | answers | read differently |\n|---|---:|---:|")
    for file in sorted(Path(sys.argv[1]).glob("*.jsonl")):
        config = configs[file.stem]
        responses = [json.loads(line)["response"] for line in file.read_text(encoding="utf-8").splitlines()]
        answers = [parse_answer(text, config["labels"], dimension=config["dimension"]) for text in responses]
        print(f"| {file.stem} | {len(answers)} | {sum(str(a) != a.released for a in answers)} |")


if __name__ == "__main__":
    main()
