"""A grid of fine-tuning runs, one after the other, and a table of which answers dev best.

A cell of the grid is a run of its own: its config stands in its folder, and `mmla finetune run` trains it in a process
of its own, so that a cell which dies leaves the others and the memory alone. The same sweep, typed again, goes on: what
is finished is not run again, what was interrupted goes on where it stopped, what failed is tried again.
"""

from __future__ import annotations

import itertools
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

from finetune.config import Config, ConfigText, check_text, config_text, known_keys
from finetune.evaluation import ENDED, FOLDER
from harness_ext.run_folder import RESULTS
from harness_ext.training import read_training
from mmla_tasks.errors import UsageError, suggest
from mmla_tasks.root import SAMPLE_NOTE, DataRoot

if TYPE_CHECKING:
    from rich.table import Table

PAPER_GRID: Mapping[str, Sequence[Any]] = {
    "learning_rate": (2e-5, 1e-4, 3e-4, 1e-3),
    "batch_size": (4, 12, 24),
    "lora.rank,lora.alpha": ((8, 16), (32, 64), (128, 256)),
}
"""The ranges that the paper searched, end points included; alpha twice the rank, as in every released config."""

CELL_CONFIG = "cell.yaml"
LOG = "sweep.log"
"""What the cell's processes printed, one try after the other."""
TRY = "--- mmla finetune sweep, try "
"""How the line begins that stands in the log before each try."""
REPORT = "sweep.md"
MODULE = ("harness_ext.cli", "finetune", "run")

Status = Literal["finished", "failed", "not run"]


@dataclass(frozen=True)
class Cell:
    """One point of the grid."""

    values: Mapping[str, Any]
    """Dotted key -> value, of the keys of the grid."""
    config: Config

    @property
    def folder(self) -> Path:
        """The cell's output folder, named by its values."""
        return self.config.output_dir


@dataclass(frozen=True)
class Result:
    """How a cell went."""

    cell: Cell
    status: Status
    score: float | None = None
    """Of the selected checkpoint on dev, 0 to 1."""
    step: int | None = None
    """Of the selected checkpoint."""
    steps: int | None = None
    """Of the whole run."""
    fault: str = ""
    """What a failed cell said last."""


@dataclass(frozen=True)
class Sweep:
    """A grid over one config."""

    cells: Sequence[Cell]
    output_dir: Path
    metric: str
    launch: Sequence[str]
    """The command in front of the module, such as ``torchrun --nproc_per_node 8 -m``."""


def read_sweep(path: Path) -> Sweep:
    """Read a sweep: ``config`` (a file or the keys themselves), ``grid``, ``output_dir``, ``launch``.

    The keys of every cell are checked, so that a fault among them is told before the first one is trained; whether
    model, data and layers are there is seen when a cell is trained.

    Raises:
        UsageError: a key that is not known, a grid that is none, or a cell whose config has faults.
    """
    written = config_text(path).values
    _refuse_unknown(written, path)
    base = _base(written["config"], path.parent)
    grid = _grid(written.get("grid", PAPER_GRID), path)
    output_dir = Path(written.get("output_dir") or base.values.get("output_dir") or "runs/sweep")
    cells = [_cell(base, values, output_dir) for values in _points(grid)]
    launch = shlex.split(written.get("launch") or f"{shlex.quote(sys.executable)} -m")
    return Sweep(cells, output_dir, cells[0].config.selection.metric, launch)


def run_sweep(
    sweep: Sweep, on_cell: Callable[[int, Cell, str], None] = lambda number, cell, what: None
) -> list[Result]:
    """Train every cell that is not finished; the report is written anew after each.

    Args:
        sweep: Its cells are trained in the order of the grid.
        on_cell: Called with the cell's number from 1, the cell, and what happens to it.

    Returns:
        The results, best first.

    Raises:
        UsageError: a cell's folder holds the cell of another sweep.
    """
    for cell in sweep.cells:
        _claim(cell)
    for number, cell in enumerate(sweep.cells, 1):
        if result_of(cell).status == "finished":
            on_cell(number, cell, "finished before")
            continue
        on_cell(number, cell, "trains")
        start = time.monotonic()
        _train(cell, sweep.launch)
        on_cell(number, cell, f"{result_of(cell).status} after {time.monotonic() - start:.0f} s")
        write_report(sweep)
    write_report(sweep)
    return results(sweep)


def results(sweep: Sweep) -> list[Result]:
    """How every cell went, best first; those without a score last, in the order of the grid."""
    found = [result_of(cell) for cell in sweep.cells]
    return sorted(found, key=lambda result: (result.score is None, -(result.score or 0.0)))


def result_of(cell: Cell) -> Result:
    """How a cell went, by what stands in its folder; one that is to be evaluated is not finished before it is."""
    record, log = read_training(cell.folder), cell.folder / LOG
    if record is None:
        return Result(cell, "failed", fault=_last_words(log)) if log.is_file() else Result(cell, "not run")
    selection = record["selection"]
    finished = Result(cell, "finished", selection["value"], selection["step"], record["steps"])
    if not cell.config.evaluate.test or (cell.folder / FOLDER / RESULTS).is_file():
        return finished
    return replace(finished, status="failed", fault=_last_words(log) if log.is_file() else "not evaluated")


def table(found: Sequence[Result], metric: str) -> Table:
    """The results for a terminal."""
    from rich.table import Table

    shown = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="")
    heads, rows = _columns(found, metric)
    for head in heads:
        shown.add_column(head, justify="left" if head == "" else "right", no_wrap=head != "")
    for row in rows:
        shown.add_row(*row)
    return shown


def notes(sweep: Sweep) -> list[str]:
    """What must stand beside every score."""
    is_sample = any(DataRoot.choose(cell.config.data_dir).is_sample for cell in sweep.cells)
    return [SAMPLE_NOTE] if is_sample else []


def write_report(sweep: Sweep) -> Path:
    """Write the results as Markdown.

    Returns:
        Its path.
    """
    heads, rows = _columns(results(sweep), sweep.metric)
    about = f"Best {sweep.metric} on dev first; fractions are of the rows that selection looks at."
    lines = ["# Sweep", "", *(line for note in notes(sweep) for line in (f"> **{note}**", "")), about, ""]
    for row in [heads, ["---:"] * (len(heads) - 1) + [":---"], *rows]:
        lines.append(f"| {' | '.join(cell.replace('|', '∣') for cell in row)} |")
    path = sweep.output_dir / REPORT
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*lines, ""]), encoding="utf-8")
    return path


# ------------------------------------------------------------------------------------------------------- reading


def _refuse_unknown(written: Mapping[str, Any], path: Path) -> None:
    known = ("config", "grid", "output_dir", "launch")
    unknown = {key: suggest(key, known) or f"known: {', '.join(known)}" for key in written if key not in known}
    if unknown:
        raise UsageError("the sweep has unknown keys", unknown, file=path)
    if "config" not in written:
        raise UsageError("the sweep names no config", file=path, next="config: base.yaml, or the keys of one below it")


def _base(given: Any, folder: Path) -> ConfigText:
    if isinstance(given, Mapping):
        return ConfigText(dict(given))
    return config_text(folder / str(given))


def _grid(given: Any, path: Path) -> dict[str, Sequence[Any]]:
    if not isinstance(given, Mapping) or not given:
        raise UsageError(
            "`grid` is no mapping of keys to lists of values", file=path, next="learning_rate: [1.0e-4, 1.0e-3]"
        )
    faults: dict[str, str] = {}
    for keys, values in given.items():
        names = _names(keys)
        unknown = [name for name in names if name not in known_keys() or name == "output_dir"]
        if unknown:
            faults[keys] = (
                f"no key of a config: {', '.join(unknown)}   {suggest(unknown[0], known_keys()) or ''}".strip()
            )
        elif not isinstance(values, (list, tuple)) or not values:
            faults[keys] = f"a list of values is needed, not {values!r}"
        elif len(names) > 1 and any(not isinstance(v, (list, tuple)) or len(v) != len(names) for v in values):
            faults[keys] = f"each value is a list of {len(names)}, one for each key"
    if faults:
        raise UsageError(f"the grid has {len(faults)} fault{'s' * (len(faults) > 1)}", faults, file=path)
    return dict(given)


def _names(keys: str) -> list[str]:
    """The keys that a line of the grid sets together, such as ``lora.rank,lora.alpha``."""
    return [name.strip() for name in str(keys).split(",")]


def _points(grid: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    axes = [
        [dict(zip(names, value if len(names) > 1 else [value], strict=True)) for value in values]
        for names, values in ((_names(keys), values) for keys, values in grid.items())
    ]
    for chosen in itertools.product(*axes):
        yield {key: value for part in chosen for key, value in part.items()}


def _cell(base: ConfigText, values: Mapping[str, Any], output_dir: Path) -> Cell:
    name = ",".join(f"{key}={value}" for key, value in values.items()).replace("/", "_")
    text = config_text(None, _dotted(base.values) | dict(values) | {"output_dir": output_dir / name})
    config, faults = check_text(text)
    if config is None:
        what = "; ".join(f"{fault.what} {fault.hint}".strip() for fault in faults)
        raise UsageError(f"the cell {name} is no config that can be trained", why=what, base=base.path)
    return Cell(values, config)


def _dotted(values: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Nested keys with dots, so that the grid's stand beside their neighbours."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and key not in ("model_args",):
            flat |= _dotted(value, f"{before}{key}.")
        else:
            flat[f"{before}{key}"] = value
    return flat


# ------------------------------------------------------------------------------------------------------- training


def _claim(cell: Cell) -> None:
    """Write the cell's config into its folder, or find the same one there."""
    path = cell.folder / CELL_CONFIG
    text = yaml.safe_dump(cell.config.plain(), sort_keys=False, allow_unicode=True)
    if path.is_file() and path.read_text(encoding="utf-8") != text:
        raise UsageError(
            f"the folder {cell.folder} holds a cell of another sweep",
            why=f"its {CELL_CONFIG} differs from what this sweep says",
            next="give this sweep another output_dir, or remove the folder",
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _train(cell: Cell, launch: Sequence[str]) -> None:
    path = cell.folder / LOG
    number = 1 + sum(line.startswith(TRY) for line in _lines(path)) if path.is_file() else 1
    with path.open("ab", buffering=0) as log:
        log.write(f"{TRY}{number}\n".encode() if number == 1 else f"\n{TRY}{number}\n".encode())
        command = [*launch, *MODULE, str(cell.folder / CELL_CONFIG)]
        trained = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        try:
            trained.wait()
        except KeyboardInterrupt:
            trained.wait()  # Ctrl-C reached it too: it saves where it is
            raise
        except BaseException:
            trained.terminate()
            trained.wait()
            raise
        if trained.returncode < 0:  # it could say nothing itself
            log.write(f"\nerror: ended by signal {-trained.returncode}\n".encode())


def _last_words(log: Path) -> str:
    """What the last try said: its error, that of the evaluation before the one that reports it; else the last line."""
    lines = _lines(log)
    tries = [number for number, line in enumerate(lines) if line.startswith(TRY)]
    said = lines[tries[-1] + 1 :] if tries else lines
    errors = [line for line in said if line.startswith("error:")]
    causes = [line for line in errors if not line.startswith(f"error: {ENDED}")]
    return (causes or errors or said or ["nothing was printed"])[-1]


def _lines(log: Path) -> list[str]:
    text = log.read_text(encoding="utf-8", errors="replace")
    return [line.strip() for line in text.splitlines() if line.strip()]


# ------------------------------------------------------------------------------------------------------- showing


def _columns(found: Sequence[Result], metric: str) -> tuple[list[str], list[list[str]]]:
    keys = list(found[0].cell.values)
    heads = [*keys, f"dev {metric}", "at step", "steps", ""]
    return heads, [_row(result, keys) for result in found]


def _row(result: Result, keys: Sequence[str]) -> list[str]:
    values = [f"{value:g}" if isinstance(value, float) else str(value) for value in map(result.cell.values.get, keys)]
    score = "–" if result.score is None else f"{result.score:.3f}"
    said = f"{result.status}: {result.fault}" if result.fault else result.status
    counts = ["–" if count is None else f"{count:,}" for count in (result.step, result.steps)]
    return [*values, score, *counts, said]
