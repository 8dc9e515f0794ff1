"""The argument parser of every verb."""

from __future__ import annotations

import argparse
from typing import NoReturn

from mmla_tasks.errors import UsageError, suggest


class Parser(argparse.ArgumentParser):
    """Argparse whose faults look like all others."""

    def error(self, message: str) -> NoReturn:
        """Raise a `UsageError` that names the flag meant."""
        hint = None
        if message.startswith("unrecognized arguments: "):
            flag = message.removeprefix("unrecognized arguments: ").split()[0].split("=")[0]
            hint = suggest(flag, [name for action in self._actions for name in action.option_strings])
        raise UsageError(message, hint=hint, next=f"{self.prog} --help")
