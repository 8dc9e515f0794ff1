"""`mmla report`: a finished run as one page that opens offline, and as Markdown, JSON, a LaTeX table and figures."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from harness_ext.reports.bundle import is_bundle, write_bundle
from harness_ext.reports.comparison import signed
from harness_ext.reports.figures import pictures
from harness_ext.reports.modality import ModalityReport, in_order, modality_report
from harness_ext.reports.picture import Picture
from harness_ext.reports.report_data import RunReport, Score, run_report
from harness_ext.reports.run_files import Run
from harness_ext.reports.sample_table import CUT, packed, sample_columns
from harness_ext.reports.thumbnails import thumbnails
from harness_ext.rights import datasets_of, require_rights
from mmla_tasks.comparison import Difference
from mmla_tasks.errors import RunFolderError, UsageError
from mmla_tasks.published import Method
from mmla_tasks.scorers import METRICS

Announce = Callable[[str], None]


@dataclass(frozen=True)
class ReportOptions:
    """What a report holds besides scores."""

    method: Method | None = None
    """Of the published rows that stand beside; else what the run tells, see `table.published_method`."""
    with_texts: bool = False
    """Whether the table of samples shows the utterances."""
    thumbnails: int = 0
    """Rows of each task whose frames are shown."""
    rights: bool = False
    """Whether the user may pass on texts and frames of restricted datasets."""
    bundle: Path | None = None
    """File for whoever verifies the run."""


def write_report(
    runs: Sequence[Run], folder: Path, options: ReportOptions | None = None, announce: Announce = lambda line: None
) -> list[Path]:
    """Write a report of one model: of one run, or of one in several modalities.

    Args:
        runs: Finished runs. Of several, the first in the order of `MODALITIES` is described in full.
        folder: Made when missing; files of an earlier report are replaced.
        options: What else it holds.
        announce: Told what is being done.

    Returns:
        The files, the page first.

    Raises:
        UsageError: Runs that do not belong together, or restricted texts without the right to pass them on.
        RunFilesError: Samples are missing or damaged.
        MissingExtraError: matplotlib is not installed.
        RunFolderError: The folder cannot be written.
    """
    options = options or ReportOptions()
    runs = in_order(runs)
    _require_rights(runs[0], options)
    announce("measuring: intervals, classes, calibration")
    reports = [run_report(run, options.method) for run in runs]
    modality = modality_report(runs, [report.tasks for report in reports])
    announce("drawing figures")
    drawn = list(pictures(reports[0], modality))
    strips = thumbnails(runs[0], options.thumbnails, announce) if options.thumbnails else {}
    samples = sample_columns(runs[0], reports[0], with_texts=options.with_texts, thumbnails=strips)
    announce("writing")
    try:
        return list(_write(folder, runs[0], reports[0], modality, drawn, samples, options))
    except OSError as error:
        raise RunFolderError(
            "the report cannot be written", file=folder, why=error.strerror or error, next="name another --output"
        ) from None


def _require_rights(run: Run, options: ReportOptions) -> None:
    if options.with_texts and is_bundle(run):
        raise UsageError("--with_texts: a bundle holds no texts", next="report the run folder that it was made of")
    if options.with_texts or options.thumbnails:
        what = "a report with " + ("utterances" if options.with_texts else "frames")
        require_rights(datasets_of(run.facts), what, options.rights)


def _write(
    folder: Path,
    run: Run,
    report: RunReport,
    modality: ModalityReport | None,
    drawn: Sequence[Picture],
    samples: Mapping[str, Any],
    options: ReportOptions,
) -> Iterator[Path]:
    figures = folder / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    shown: dict[str, Any] = {"report": report, "modality": modality, "pictures": {p.name: p for p in drawn}}
    yield _put(folder / "report.html", html_page(**shown, samples=samples))
    yield _put(folder / "report.md", _render("report.md.j2", **shown))
    yield _put(folder / "report.json", json.dumps(_plain(report, modality), indent=1, ensure_ascii=False) + "\n")
    yield _put(folder / "table.tex", _render("report.tex.j2", **shown))
    for picture in drawn:
        picture.write(figures)
    yield figures
    if options.bundle:
        yield write_bundle(run, options.bundle)


def _put(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8", newline="\n")
    return path


def _plain(report: RunReport, modality: ModalityReport | None) -> dict[str, Any]:
    return {**report.to_dict(), "modalities": asdict(modality) if modality else None}


# ── laying out ────────────────────────────────────────────────────────────────────────────────────────────────────


def html_page(
    report: RunReport, modality: ModalityReport | None, pictures: Mapping[str, Picture], samples: Mapping[str, Any]
) -> str:
    """One page with everything in it; it asks the network for nothing, and its policy would not let it."""
    script = _part("report.js")
    return _render(
        "report.html.j2",
        report=report,
        modality=modality,
        pictures=pictures,
        samples=packed(samples),
        has_texts="text" in samples,
        has_frames=bool(samples["frames"]),
        sample_count=len(samples["id"]),
        cut=CUT,
        style=Markup(_part("report.css")),
        script=Markup(script),
        # The one script that may run: whatever a model said cannot become another.
        script_digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


@lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_part),
        autoescape=lambda name: bool(name and name.endswith(".html.j2")),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": percent,
        "interval": interval,
        "points": points,
        "chance": chance,
        "cell": _cell,
        "tex": _tex,
    }
    environment.globals |= {"METRICS": METRICS, "inline": lambda picture: Markup(picture.inline)}
    return environment


def _render(name: str, **values: Any) -> str:
    return _environment().get_template(name).render(**values)


def _part(name: str) -> str:
    return resources.files("harness_ext.reports").joinpath(name).read_text(encoding="utf-8")


def percent(value: float | Score | None) -> str:
    """Such as ``64.6``, or ``64.6 ± 1.2`` of a score with repeats; a dash for what cannot be said."""
    if isinstance(value, Score):
        spread = "" if value.sd is None else f" ± {100 * value.sd:.1f}"
        return percent(value.value) + spread
    return "–" if value is None or value != value else f"{100 * value:.1f}"


def interval(value: Score | tuple[float, float]) -> str:
    """Such as ``63.9–65.4``."""
    low, high = (value.low, value.high) if isinstance(value, Score) else value
    return f"{100 * low:.1f}–{100 * high:.1f}"


def points(difference: Difference) -> str:
    """A difference with its interval, such as ``+1.8 (−0.3 to +3.9)``."""
    return "{} ({} to {})".format(*map(signed, (difference.value, *difference.interval)))


def chance(p: float) -> str:
    """A p-value."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _cell(value: Any) -> str:
    """Text inside a Markdown table: whatever a path or a model is named, it stays one cell."""
    return str(value).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


_TEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "%": r"\%", "&": r"\&", "#": r"\#", "_": r"\_", "$": r"\$",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "–": "--", "±": r"$\pm$", "−": "$-$", "\n": " ",
}  # fmt: skip


def _tex(value: Any) -> str:
    return "".join(_TEX.get(sign, sign) for sign in str(value))
