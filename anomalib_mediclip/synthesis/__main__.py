# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Command line of the contact sheet: ``python -m anomalib_mediclip.synthesis FOLDER --output sheet.png``."""

from pathlib import Path

from jsonargparse import ArgumentParser

from anomalib_mediclip.synthesis.contact_sheet import write_contact_sheet, write_task_sheet
from anomalib_mediclip.synthesis.generator import MedicalAnomalyGenerator


def build_parser() -> ArgumentParser:
    """Return the parser: where to read and write, and the arguments of the generator."""
    parser = ArgumentParser(
        prog="python -m anomalib_mediclip.synthesis",
        description="Draw a contact sheet of synthetic anomalies: for each image the original, the image with an "
        "anomaly, and the outline of its mask.",
    )
    parser.add_argument("folder", type=Path, help="Folder of normal images.")
    parser.add_argument("--output", type=Path, default=Path("synthesis.png"), help="PNG file to write.")
    parser.add_argument("--number", type=int, default=12, help="Number of samples.")
    parser.add_argument(
        "--by_task",
        action="store_true",
        help="Draw a row for every image, with an anomaly of every task, as the paper's Figure 2. Without it, each "
        "sample has one anomaly, of the task that a training would paint.",
    )
    parser.add_argument("--image_size", type=int, default=224, help="Height and width in pixels.")
    parser.add_class_arguments(MedicalAnomalyGenerator)
    return parser


def main() -> None:
    """Write the contact sheet and print where it is."""
    parser = build_parser()
    arguments = parser.parse_args().as_dict()
    sheet = {name: arguments.pop(name) for name in ("folder", "output", "number", "image_size")}
    by_task = arguments.pop("by_task")
    try:
        generator = MedicalAnomalyGenerator(**arguments)
        if by_task:
            tasks = [task for task, share in generator.tasks.items() if share > 0]
            generators = {task: MedicalAnomalyGenerator(**{**arguments, "tasks": {task: 1.0}}) for task in tasks}
            print(f"wrote {write_task_sheet(**sheet, generators=generators)}")
        else:
            print(f"wrote {write_contact_sheet(**sheet, generator=generator)}")
    except (OSError, ValueError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
