"""A sweep: its grid, its faults, and cells that are finished, fail and go on."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune.cli_sweep import main
from finetune.sweep import (
    CELL_CONFIG,
    LOG,
    PAPER_GRID,
    TRY,
    read_sweep,
    result_of,
    results,
    run_sweep,
    table,
    write_report,
)
from mmla_tasks.errors import UsageError

from .learner import tiny_learner

BASE = {"model": "some/model", "tasks": ["mmla_intent_mintrec_text"], "lora": {"rank": 4, "dropout": 0.1}}


def sweep_file(folder: Path, **keys: Any) -> Path:
    path = folder / "sweep.yaml"
    written = {"config": BASE, "output_dir": str(folder / "out")} | keys
    path.write_text(yaml.safe_dump({key: value for key, value in written.items() if value is not None}))
    return path


def test_the_grid_is_every_combination_over_the_base(tmp_path: Path) -> None:
    grid = {"learning_rate": [1e-4, 1e-3], "lora.rank,lora.alpha": [[8, 16], [32, 64], [128, 256]]}
    cells = read_sweep(sweep_file(tmp_path, grid=grid)).cells
    configs = [cell.config for cell in cells]
    assert [(c.learning_rate, c.lora.rank, c.lora.alpha) for c in configs] == [
        (rate, rank, 2 * rank) for rate in (1e-4, 1e-3) for rank in (8, 32, 128)
    ]
    assert all(c.lora.dropout == 0.1 and c.model == "some/model" for c in configs)
    assert len({cell.folder for cell in cells}) == 6
    assert cells[0].folder == tmp_path / "out" / "learning_rate=0.0001,lora.rank=8,lora.alpha=16"


def test_without_a_grid_the_ranges_of_the_paper_are_swept(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(BASE))
    cells = read_sweep(sweep_file(tmp_path, config="base.yaml")).cells
    assert len(cells) == 4 * 3 * 3
    for key, ends in {"learning_rate": (2e-5, 1e-3), "batch_size": (4, 24), "lora.rank": (8, 128)}.items():
        values = [cell.values[key] for cell in cells]
        assert (min(values), max(values)) == ends
    assert set(PAPER_GRID) == {"learning_rate", "batch_size", "lora.rank,lora.alpha"}


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"grid": {"lerning_rate": [1e-4]}}, "did you mean `learning_rate`?"),
        ({"grid": {"learning_rate": 1e-4, "batch_size": []}}, "the grid has 2 faults"),
        ({"grid": {"lora.rank,lora.alpha": [[8, 16], 32]}}, "each value is a list of 2"),
        ({"grid": {"output_dir": ["a", "b"]}}, "no key of a config: output_dir"),
        ({"grid": []}, "`grid` is no mapping"),
        ({"grid": {"learning_rate": [1e-4, -1.0]}}, "learning_rate=-1.0 is no config"),
        ({"gird": {}}, "did you mean `grid`?"),
        ({"config": None}, "the sweep names no config"),
        ({"config": "absent.yaml"}, "absent.yaml cannot be read"),
    ],
)
def test_faults_are_told_before_anything_is_trained(tmp_path: Path, keys: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError) as error:
        read_sweep(sweep_file(tmp_path, **keys))
    assert says in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_folder_of_another_sweep_is_refused(tmp_path: Path) -> None:
    grid = {"learning_rate": [1e-4]}
    launch = "python -c pass"
    run_sweep(read_sweep(sweep_file(tmp_path, grid=grid, launch=launch)))
    other = read_sweep(sweep_file(tmp_path, grid=grid, launch=launch, config=BASE | {"epochs": 9}))
    with pytest.raises(UsageError, match="holds a cell of another sweep"):
        run_sweep(other)


def test_cells_that_die_are_named_and_do_not_end_the_sweep(tmp_path: Path) -> None:
    grid = {"learning_rate": [1e-4, 1e-3]}
    sweep = read_sweep(sweep_file(tmp_path, grid=grid, launch="python -c \"print('error: no such model'); exit(2)\""))
    seen: list[str] = []
    found = run_sweep(sweep, lambda number, cell, what: seen.append(f"{number} {what.split(' after')[0]}"))
    assert seen == ["1 trains", "1 failed", "2 trains", "2 failed"]
    assert [(r.status, r.fault, r.score) for r in found] == [("failed", "error: no such model", None)] * 2
    report = (tmp_path / "out" / "sweep.md").read_text()
    assert report.count("failed: error: no such model") == 2
    assert all((cell.folder / CELL_CONFIG).is_file() and (cell.folder / LOG).is_file() for cell in sweep.cells)


def test_the_table_shows_the_error_of_the_last_try(tmp_path: Path) -> None:
    def fault(code: str) -> str:
        (tmp_path / "cell.py").write_text(f"import os, sys\n{code}\n")
        launch = f"{sys.executable} {tmp_path / 'cell.py'}"
        return run_sweep(read_sweep(sweep_file(tmp_path, grid={"learning_rate": [1e-4]}, launch=launch)))[0].fault

    assert fault("print('error: no memory', flush=True); exit(2)") == "error: no memory"
    assert fault("print('a line without an end', end='', flush=True); os.kill(os.getpid(), 9)") == (
        "error: ended by signal 9"
    )
    assert fault("exit(3)") == "nothing was printed"
    assert fault("print('ValueError: none'); exit(1)") == "ValueError: none"
    (log,) = (tmp_path / "out").rglob(LOG)
    assert [line for line in log.read_text().splitlines() if line.startswith(TRY)] == [f"{TRY}{n}" for n in range(1, 5)]


def test_a_cell_is_not_finished_before_its_evaluation_is(tmp_path: Path) -> None:
    """Its training is, and its score is shown; the same command tries the evaluation again."""
    cell = tmp_path / "cell.py"
    base = BASE | {"evaluate": {"test": True, "model_args": {"answre": "rank"}}}
    file = sweep_file(
        tmp_path, config=base, grid={"learning_rate": [1e-4]}, launch=f"{sys.executable} {cell} {tmp_path / 'out'}"
    )
    start = "import json, pathlib, sys\nfolder = next(pathlib.Path(sys.argv[1]).glob('*/'))\n"
    record = {"selection": {"value": 0.5, "step": 2}, "steps": 3}
    cell.write_text(
        f"{start}(folder / 'training.json').write_text(json.dumps({record}))\n"
        "print('error: `answre` is no argument')\n"
        "print('error: the evaluation ended with status 2; training is done'); exit(2)\n"
    )
    assert main([str(file)]) == 1
    (failed,) = results(read_sweep(file))
    assert (failed.status, failed.score, failed.fault) == ("failed", 0.5, "error: `answre` is no argument")
    cell.write_text(f"{start}folder /= 'evaluation'; folder.mkdir(); (folder / 'results.json').write_text('{{}}')\n")
    assert main([str(file)]) == 0
    assert [(result.status, result.fault) for result in results(read_sweep(file))] == [("finished", "")]
    cell.write_text("exit(1)")
    assert main([str(file)]) == 0


def test_what_was_not_run_is_said_so(tmp_path: Path) -> None:
    sweep = read_sweep(sweep_file(tmp_path, grid={"learning_rate": [1e-4]}))
    assert [result.status for result in results(sweep)] == ["not run"]
    assert result_of(sweep.cells[0]).fault == ""
    assert table(results(sweep), "acc").row_count == 1
    assert write_report(sweep).read_text().splitlines()[-1] == "| 0.0001 | – | – | – | not run |"


@pytest.mark.slow
def test_a_sweep_trains_goes_on_and_names_what_fails(tmp_path: Path, mmla: Callable[..., Any]) -> None:
    """One cell learns, another's loss is no number; typed again, only the latter is trained."""
    base = {
        "model": str(tiny_learner(tmp_path / "learner")),
        "tasks": ["mmla_sentiment_mosi_text"],
        "modality": "text",
        "data_dir": "sample",
        "adapter": "none",
        "max_steps": 3,
        "max_grad_norm": 1e30,
        "selection": {"every": 3, "rows": 8},
    }
    file = sweep_file(tmp_path, config=base, grid={"learning_rate": [1e30, 1e-3]})
    first = mmla("finetune", "sweep", file)
    assert first.status == 1
    assert "learning_rate=0.001  finished after" in first.out and "learning_rate=1e+30  failed after" in first.out
    best, failed = (tmp_path / "out" / "sweep.md").read_text().splitlines()[-2:]
    record = json.loads((tmp_path / "out" / "learning_rate=0.001" / "training.json").read_text())
    assert best == f"| 0.001 | {record['selection']['value']:.3f} | 3 | 3 | finished |"
    assert "failed: error: " in failed and " is nan at step " in failed.replace("inf", "nan")
    second = mmla("finetune", "sweep", file)
    assert "learning_rate=0.001  finished before" in second.out and "learning_rate=1e+30  trains" in second.out
    assert (tmp_path / "out" / "sweep.md").read_text().splitlines()[-2] == best
