"""`mmla data status`: what is there of texts and clips, how much room it and the caches take, and what to do next."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from harness_ext.cli.data import add_data_dir, data_folder
from harness_ext.cli.parser import Parser
from harness_ext.session import on_this_root

if TYPE_CHECKING:
    from harness_ext.caches import CacheUse
    from harness_ext.holdings import Holding


def main(arguments: list[str]) -> int:
    """Print the state of the data root."""
    parser = Parser(prog="mmla data status", description=__doc__, allow_abbrev=False)
    parser.add_argument("datasets", metavar="DATASET", nargs="*", help="folders such as MELD; all twelve by default")
    add_data_dir(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object")
    args = parser.parse_args(arguments)

    from harness_ext.caches import caches
    from harness_ext.downloads import chosen
    from harness_ext.holdings import holding

    root = data_folder(args.data_dir)
    holdings = [holding(root, dataset) for dataset in chosen(args.datasets)]
    used = caches()
    print(_as_json(root, holdings, used) if args.json else "\n".join(_lines(root, holdings, used, args.data_dir)))
    return 0


def _as_json(root: Path, holdings: Sequence[Holding], used: Sequence[CacheUse]) -> str:
    value = {
        "root": str(root),
        "datasets": [{**asdict(one), "rows": one.rows, "clips": one.clips} for one in holdings],
        "caches": [{**asdict(one), "path": str(one.path)} for one in used],
    }
    return json.dumps(value, indent=1, ensure_ascii=False)


def _lines(root: Path, holdings: Sequence[Holding], used: Sequence[CacheUse], data_dir: str | None) -> Iterator[str]:
    from rich.filesize import decimal

    yield f"data root   {root}{'' if root.is_dir() else '   (not there yet)'}"
    yield f"{'':<17} {'train':>13} {'dev':>11} {'test':>11}   {'clips':>15} {'size':>9}   licence"
    for one in holdings:
        splits = " ".join(_split(one, name, width) for name, width in (("train", 13), ("dev", 11), ("test", 11)))
        clips = f"{one.clips:,}/{one.rows:,}" if one.rows else "–"
        size = decimal(one.clip_bytes) if one.clip_bytes else "–"
        yield f"{one.dataset:<17} {splits}   {clips:>15} {size:>9}   {one.licence}"
    yield from _faults(holdings)
    steps = [f"  {one.dataset:<17} {on_this_root(one.next_step, data_dir)}" for one in holdings if one.next_step]
    yield from ["next", *steps] if steps else ["all texts and clips are there      mmla doctor probes the clips"]
    yield f"caches      {used[0].path.parent}   (may be deleted at any time)"
    for cache in used:
        bound = f" of at most {decimal(cache.bound)}" if cache.bound else ""
        yield f"  {cache.what:<17} {decimal(cache.bytes)}{bound}   {cache.path.name}"


def _split(one: Holding, name: str, width: int) -> str:
    split = one.splits[name]
    if split.fault:
        return f"{'unreadable':>{width}}"
    if split.rows is None:
        return f"{'–':>{width}}"
    return f"{f'{split.rows:,}' + (f' of {split.known_rows:,}' if split.is_off else ''):>{width}}"


def _faults(holdings: Sequence[Holding]) -> Iterator[str]:
    for one in holdings:
        for name, split in one.splits.items():
            if split.fault:
                yield f"{one.dataset}/{name}.tsv: {split.fault}"
