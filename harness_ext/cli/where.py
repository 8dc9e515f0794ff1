"""`mmla where`: print the folder of the task YAMLs."""

from __future__ import annotations

from harness_ext.cli.parser import Parser


def main(arguments: list[str]) -> int:
    """Print the folder."""
    from harness_ext.catalogue import yaml_folder

    Parser(prog="mmla where", description=__doc__).parse_args(arguments)
    print(yaml_folder())
    return 0
