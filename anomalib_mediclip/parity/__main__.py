# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Command line of the parity report: ``python -m anomalib_mediclip.parity --config parity.yaml``."""

import logging
import sys

from jsonargparse import ArgumentParser

from anomalib_mediclip.parity.report import write_parity_report


def build_parser() -> ArgumentParser:
    """Return the parser; its arguments are those of :func:`write_parity_report`."""
    parser = ArgumentParser(
        prog="python -m anomalib_mediclip.parity",
        description="Export a checkpoint in every format, run them all on the same images, and report size, speed and "
        "differences of each as parity.md and parity.csv.",
    )
    parser.add_argument("--config", action="config", help="YAML file with any of the arguments, see configs/export.")
    parser.add_function_arguments(write_parity_report, fail_untyped=False, sub_configs=True)
    return parser


def main() -> None:
    """Write the report, print it, and end with status 1 if a format failed."""
    parser = build_parser()
    arguments = parser.instantiate_classes(parser.parse_args()).as_dict()
    arguments.pop("config")
    logging.getLogger("anomalib").setLevel(logging.WARNING)
    try:
        path, failed = write_parity_report(**arguments)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    print(f"{path.read_text(encoding='utf-8')}\nwrote {path} and {path.with_suffix('.csv')}")
    if failed:
        sys.exit(f"failed: {', '.join(failed)}; see the last column")


if __name__ == "__main__":
    main()
