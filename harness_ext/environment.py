"""Numbers that environment variables hold: bounds of this machine, which change no answer."""

from __future__ import annotations

import math
import os

from mmla_tasks.errors import UsageError


def number_from_environment(name: str, default: float, unit: str, *, zero: str | None = None) -> float:
    """The number that a variable holds; `default` where it is not set.

    Args:
        name: The variable.
        default: Its value unless set.
        unit: Of the number, for the error.
        zero: What 0 is set for, such as ``to keep no frames``; None where it must be above 0.

    Raises:
        UsageError: It holds no such number.
    """
    given = os.environ.get(name)
    if not given:
        return default
    try:
        number = float(given)
    except ValueError:
        number = math.nan
    if 0 < number < math.inf or (number == 0 and zero):
        return number
    raise UsageError(
        f"{name}={given} can't be used",
        why=f"it must be a number of {unit}" + ("" if zero else " above 0"),
        next=f"leave it out for {default:g}" + (f", or set 0 {zero}" if zero else ""),
    )
