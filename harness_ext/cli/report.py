"""`mmla report`: a finished run as a page that opens offline, and as Markdown, JSON, LaTeX and figures."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from pathlib import Path

from harness_ext.cli.parser import Parser
from mmla_tasks.errors import UsageError

EPILOG = """\
examples:
  mmla report runs/qwen2vl
  mmla report runs/qwen2vl runs/qwen2vl-text runs/qwen2vl-video --output reports/qwen2vl
  mmla report runs/qwen2vl --bundle qwen2vl.zip

Several runs are of one model that was shown text and video, text alone, video alone: the report then says what video
adds. Two models are set side by side by mmla compare.
"""
DEFAULT_THUMBNAILS = 20


def main(arguments: list[str]) -> int:
    """Write a report and name its files."""
    from harness_ext.cli.run import relative
    from harness_ext.reports import hub_files
    from harness_ext.reports.bundle import opened_run
    from harness_ext.reports.report import ReportOptions, write_report

    args = _parser().parse_args(arguments)
    if args.thumbnails < 0:
        raise UsageError(f"--thumbnails {args.thumbnails} is no number of rows", next="leave it out to show no frames")
    folder = args.output or _beside(args.runs[0])
    options = ReportOptions(args.method, args.with_texts, args.thumbnails, args.i_have_the_rights, args.bundle)
    with ExitStack() as stack:
        runs = [stack.enter_context(opened_run(path)) for path in args.runs]
        written = write_report(runs, folder, options, announce=lambda line: print(line, flush=True))
        print("wrote " + ", ".join(relative(path) for path in written))
        hub_files.handle(args, runs, print)
    return 0


def _beside(run: Path) -> Path:
    """The folder ``report`` in a run folder, or beside a bundle."""
    return run.with_name(f"{run.stem}-report") if run.is_file() else run / "report"


def _parser() -> argparse.ArgumentParser:
    from harness_ext.reports import hub_files
    from mmla_tasks.published import METHODS

    parser = Parser(
        prog="mmla report",
        description="Write a report of a finished run: one page that opens offline, Markdown, JSON, LaTeX, figures.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        "runs",
        nargs="+",
        type=Path,
        metavar="RUN",
        help="run folder or bundle; several: one model in several modalities",
    )
    add("--output", type=Path, metavar="FOLDER", help="where the files go (default: RUN/report)")
    add(
        "--method",
        choices=METHODS,
        help="published rows to stand beside (default: the run's own method)",
    )
    add("--with_texts", action="store_true", help="show the utterances in the table of samples")
    add(
        "--thumbnails",
        nargs="?",
        type=int,
        const=DEFAULT_THUMBNAILS,
        default=0,
        metavar="N",
        help=f"show frames of the first N rows of each task (N: {DEFAULT_THUMBNAILS} unless given)",
    )
    add("--i_have_the_rights", action="store_true", help="you may pass on texts and frames of IEMOCAP and MOSI")
    add("--bundle", type=Path, metavar="FILE", help="also pack what somebody needs to verify the run, as a ZIP file")
    hub_files.add_arguments(parser)
    return parser
