"""`mmla finetune check CONFIG`: list every fault of a config at once, and print one example with its masked labels."""

from __future__ import annotations

from finetune.config import config_text, faults_error
from finetune.flags import keys_help, read_arguments


def main(arguments: list[str]) -> int:
    """Check; nothing is trained, and no weights are read.

    Raises:
        UsageError: the config has faults.
    """
    if "-h" in arguments or "--help" in arguments:
        print(f"usage: mmla finetune check [CONFIG.yaml] [--key value ...]\n\n{__doc__}\n\nkeys:\n{keys_help()}")
        raise SystemExit(0)
    path, flags = read_arguments(arguments)
    from finetune.checking import check

    checked = check(config_text(path, flags))
    for line in (checked.shown, *checked.facts):
        if line:
            print(line)
    if checked.faults:
        raise faults_error(checked.faults, path)
    print("the config is in order")
    return 0
