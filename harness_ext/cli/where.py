"""`mmla where`: print the folder of the task YAMLs."""

from __future__ import annotations

import argparse


def main(arguments: list[str]) -> int:
    """Print the folder."""
    from harness_ext.catalogue import yaml_folder

    argparse.ArgumentParser(prog="mmla where", description=__doc__).parse_args(arguments)
    print(yaml_folder())
    return 0
