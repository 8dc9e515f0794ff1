"""The embedded sample: rows from templates and short clips drawn by code. No score on it means anything.

`rows` makes ids, texts and labels, `draw` makes clips, `cache` puts both into a data root in the Hub layout, once.
Importing this package loads neither PyAV nor Pillow.
"""

from __future__ import annotations

from mmla_tasks.sample.cache import sample_root
from mmla_tasks.sample.rows import SAMPLE_NOTE, rows_asked_for

__all__ = ["SAMPLE_NOTE", "rows_asked_for", "sample_root"]
