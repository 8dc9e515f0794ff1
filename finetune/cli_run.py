"""`mmla finetune run CONFIG`: train, select, save, evaluate. The same command goes on where it stopped."""

from __future__ import annotations

import sys
from typing import Any

from finetune.config import Config, read_config
from finetune.flags import keys_help, read_arguments
from harness_ext.ranks import Ranks
from mmla_tasks.errors import MmlaError


def main(arguments: list[str]) -> int:
    """Run; every process of a launcher comes here."""
    if "-h" in arguments or "--help" in arguments:
        print(f"usage: mmla finetune run [CONFIG.yaml] [--key value ...]\n\n{__doc__}\n\nkeys:\n{keys_help()}")
        raise SystemExit(0)
    path, flags = read_arguments(arguments)
    config = read_config(path, flags)
    from rich.console import Console

    from finetune.progress import RunReporter
    from finetune.run import run

    console = Console(stderr=False)
    try:
        record = run(config, RunReporter(console))
    except MmlaError as error:
        _name_process(error)
        raise
    except KeyboardInterrupt as error:
        error.add_note(_saved(config))
        raise
    if Ranks.of_environment().is_first:
        for line in closing_lines(record, config.output_dir):
            console.print(line, highlight=False)
    if config.evaluate.test:
        from finetune.evaluation import evaluate
        from finetune.output import Output

        trained = Output(config.output_dir, config, {}).selected
        evaluate(config, trained, lambda line: console.print(line, highlight=False, soft_wrap=True))
    return 0


def _saved(config: Config) -> str:
    from finetune.output import Output

    last = Output(config.output_dir, config, {}).last_checkpoint()
    return f"saved: {last}; the same command goes on from there" if last else "nothing was saved yet"


def _name_process(error: MmlaError) -> None:
    """Only the first process's errors are printed for all; an error of another one says whose it is."""
    ranks = Ranks.of_environment()
    if not ranks.is_first:
        print(f"error on process {ranks.index} of {ranks.count}: {error}", file=sys.stderr)


def closing_lines(record: dict[str, Any], folder: Any) -> list[str]:
    """What a finished run says."""
    selection = record["selection"]
    start = next((look for look in selection["looks"] if look["step"] == 0), None)
    where = "adapter" if record["config"]["adapter"] == "lora" else "model"
    was = f", {100 * start[selection['metric']]:.1f} % before training" if start else ""
    lines = [
        f"selected: step {selection['step']:,} of {record['steps']:,}, "
        f"{selection['metric']} {100 * selection['value']:.1f} % on {selection['rows']} rows of dev{was}",
        f"{record['method']}: {folder}/{where}   record: {folder}/training.json   curve: {folder}/curve.png",
    ]
    lines += record.get("notes", [])
    bad = record["bad_clips"]
    if bad["train"] or bad["dev"]:
        lines.append(f"bad clips: {len(bad['train'])} in train, {len(bad['dev'])} in dev ({bad['policy']})")
    return lines
