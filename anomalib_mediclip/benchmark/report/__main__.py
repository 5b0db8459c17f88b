# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Command line of the report: ``python -m anomalib_mediclip.benchmark.report FOLDER --published paper_table1.csv``."""

from pathlib import Path

from jsonargparse import ArgumentParser

from anomalib_mediclip.benchmark.report.page import write_report


def build_parser() -> ArgumentParser:
    """Return the parser; its arguments are those of :func:`write_report`."""
    parser = ArgumentParser(
        prog="python -m anomalib_mediclip.benchmark.report",
        description="Write report.html, report.md, significance.csv and tables/<metric>.csv for a benchmark that has "
        "been run, or for the part of it that has.",
    )
    parser.add_argument("folder", type=Path, help="Folder that the benchmark wrote; holds results.csv and scores/.")
    parser.add_argument(
        "--published",
        type=Path,
        nargs="+",
        default=[],
        metavar="CSV",
        help="Figures to show beside ours, such as docs/results/paper_table1.csv: columns data, k_shot, model, metric, "
        "mean, std; in percent.",
    )
    parser.add_argument("--output", type=Path, help="Folder to write to. Default: the folder itself.")
    parser.add_argument(
        "--no_pictures",
        dest="pictures",
        action="store_false",
        help="Leave the heat maps out: for data sets whose images must not be passed on.",
    )
    return parser


def main() -> None:
    """Write the report and print where it is."""
    parser = build_parser()
    try:
        print(f"wrote {write_report(**parser.parse_args().as_dict())}")
    except (OSError, ValueError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
