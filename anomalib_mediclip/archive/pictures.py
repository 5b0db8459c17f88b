# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Pictures of the images with the highest scores, and a page that shows them in this order."""

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from tqdm import tqdm

from anomalib_mediclip.archive.plan import Plan
from anomalib_mediclip.archive.predictors import Predictor
from anomalib_mediclip.atomic import write_whole, written_beside
from anomalib_mediclip.prediction.pictures import draw_prediction

PICTURES = "pictures"


def write_pictures(plan: Plan, rows: Sequence[dict[str, str]], predictor: Predictor) -> Path:
    """Predict images once more, this time with their maps, and draw them.

    Args:
        plan (Plan): Plan.
        rows (Sequence[dict[str, str]]): Their rows, the highest score first.
        predictor (Predictor): Model.

    Returns:
        Path: The page ``index.html``.

    Raises:
        OSError: If they cannot be written.
    """
    folder = plan.output / PICTURES
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.png"):
        old.unlink()
    shown = []
    for rank, row in enumerate(tqdm(rows, "pictures", leave=False, delay=3), start=1):
        name = f"{rank:06d}.png"
        try:
            picture = draw_prediction(predictor.predict(Path(row["file"])))
        except Exception as error:  # it could be read before, and is gone or changed now
            shown.append(row | {"rank": rank, "picture": "", "reason": str(error)})
            continue
        with written_beside(folder / name) as unfinished:
            picture.save(unfinished, compress_level=1)
        shown.append(row | {"rank": rank, "picture": name})
    loader = FileSystemLoader(Path(__file__).parent)
    template = Environment(loader=loader, undefined=StrictUndefined, autoescape=True).get_template("index.html.jinja")
    page = folder / "index.html"
    write_whole(page, template.render(rows=shown, plan=plan))
    return page
