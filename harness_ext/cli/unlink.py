"""`mmla unlink`: take away what `mmla link` made."""

from __future__ import annotations

from harness_ext.cli.parser import Parser


def main(arguments: list[str]) -> int:
    """Leave lm-eval's tasks folder as it was before `mmla link`."""
    from harness_ext.cli.link import link_folder, unlink

    Parser(prog="mmla unlink", description=__doc__).parse_args(arguments)
    folder = link_folder()
    if not folder.exists():
        print(f"nothing is linked: {folder} is not there")
        return 0
    count, stays = unlink(folder)
    print(f"{count} links are gone from {folder}")
    for path in stays:
        print(f"not made by mmla link, so it stays: {path}")
    return 0
