"""`mmla data verify`: compare texts and clips with what is known of them: counts, ids, labels, digests.

Digests of clips are those that `mmla data download` noted; clips that came another way are looked up only. Exit status:
0 everything is as it should be, 1 something is not (each is listed, with the command that mends it).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from harness_ext.cli.data import add_data_dir, data_folder
from harness_ext.cli.parser import Parser
from harness_ext.session import on_this_root


def main(arguments: list[str]) -> int:
    """Verify, and list what is not as it should be."""
    parser = Parser(
        prog="mmla data verify",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("datasets", metavar="DATASET", nargs="*", help="folders such as MELD; those present by default")
    add_data_dir(parser)
    args = parser.parse_args(arguments)

    from harness_ext.downloads import chosen
    from harness_ext.holdings import verified
    from mmla_tasks.errors import UsageError

    root = data_folder(args.data_dir)
    datasets = chosen(args.datasets)
    if not args.datasets:
        datasets = [name for name in datasets if (root / name).is_dir()]
    if not datasets:
        raise UsageError(f"{root} holds no dataset", next="mmla data download, or another --data_dir")
    faults = 0
    with _progress() as on_clip:
        for dataset in datasets:
            found = list(verified(root, dataset, on_clip))
            faults += len(found)
            print(f"{dataset:<17} {_counted(found) if found else 'as it should be'}")
            for fault in found:
                print(f"  {fault.what}\n    {on_this_root(fault.mend, args.data_dir)}")
    return 1 if faults else 0


def _counted(faults: Sequence[object]) -> str:
    return f"{len(faults)} fault{'s' * (len(faults) > 1)}"


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar while digests are made; nothing where nobody watches a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal, transient=True) as bars:
        bar = bars.add_task("digests", total=None)
        yield lambda dataset, done, total: bars.update(bar, description=dataset, completed=done, total=total)
