# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Grid of heat maps like the paper's Figure 3, as small pictures within the page."""

import base64
import io
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image

from anomalib_mediclip.drawing import GREEN, arrange_columns, heat_map, outline

WIDTH = 176  # pixels of a picture, less where many models share a row
ROW_WIDTH = 1060  # pixels of all pictures of a row
QUALITY = 80  # of JPEG
OPACITY = 0.45  # of the heat map over the image
HIGHEST = 99.9  # percentile of the maps, which has the last of the colours; their median has the first


@dataclass(frozen=True)
class Grid:
    """Pictures of one data set.

    Attributes:
        name (str): Data set.
        columns (list[str]): Titles of the columns.
        rows (list[tuple[str, str, list[str]]]): For every image: name, ``anomalous`` or ``normal``, and its pictures as
            data URIs, one for every column.
        picture (Image.Image): The whole grid as one picture.
        k_shot (int): Size of the support set of the maps.
        seed (int): Seed of the maps.
    """

    name: str
    columns: list[str]
    rows: list[tuple[str, str, list[str]]]
    k_shot: int
    seed: int
    picture: Image.Image


def draw_grid(name: str, examples: dict[str, np.ndarray], models: list[str]) -> Grid:
    """Draw a row for every image: the image, the outline of its ground truth, and each model's map over it.

    The image as a model reconstructs it stands before its map.

    A model's colours run from the median to the 99.9th percentile of its maps of the shown images: scores of different
    models have no common scale, and what lies below the median is ground. The ground truth is left out where no image
    has any.

    Args:
        name (str): Data set.
        examples (dict[str, np.ndarray]): ``names``, ``labels``, ``images`` ``(N, H, W, 3)`` uint8, ``masks``
            ``(N, H, W)``, a map ``map:<model>`` ``(N, h, w)`` for every model, ``reconstruction:<model>``
            ``(N, h, w, 3)`` uint8 for models that reconstruct, ``k_shot`` and ``seed``.
        models (list[str]): Models in the order of the columns; those without a map are left out.

    Returns:
        Grid: Pictures.
    """
    shown = [model for model in models if f"map:{model}" in examples]
    height, width = examples["images"].shape[1:3]
    reconstructing = [model for model in shown if f"reconstruction:{model}" in examples]
    picture_width = min(WIDTH, ROW_WIDTH // (2 + len(shown) + len(reconstructing)))
    size = (picture_width, round(picture_width * height / width))
    images = [cv2.resize(image, size, interpolation=cv2.INTER_AREA) for image in examples["images"]]
    columns = {"image": images}
    if examples["masks"].any():
        columns["ground truth"] = [
            outline(image, mask, GREEN, smooth=True) for image, mask in zip(images, examples["masks"], strict=True)
        ]
    for model in shown:
        if model in reconstructing:
            columns[f"{model}: reconstruction"] = [
                cv2.resize(image, size, interpolation=cv2.INTER_LINEAR) for image in examples[f"reconstruction:{model}"]
            ]
        maps = _scale(examples[f"map:{model}"].astype(np.float32))
        columns[model] = [
            heat_map(image, anomaly_map, OPACITY, OPACITY) for image, anomaly_map in zip(images, maps, strict=True)
        ]
    rows = [
        (str(image), "anomalous" if label else "normal", [_data_uri(column[index]) for column in columns.values()])
        for index, (image, label) in enumerate(zip(examples["names"], examples["labels"], strict=True))
    ]
    picture = arrange_columns(columns, [f"{label}: {image}" for image, label, _ in rows])
    return Grid(name, list(columns), rows, int(examples["k_shot"]), int(examples["seed"]), picture)


def _scale(maps: np.ndarray) -> np.ndarray:
    """Scale one model's maps to [0, 1]."""
    low, high = np.percentile(maps, (50, HIGHEST))
    scaled: np.ndarray = np.clip((maps - low) / max(high - low, np.finfo(np.float32).tiny), 0, 1)
    return scaled


def _data_uri(picture: np.ndarray) -> str:
    """Return a picture as a JPEG within a URI."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
