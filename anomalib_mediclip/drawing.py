# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Outlines, heat maps and captions on pictures, for predictions, contact sheets and reports alike.

Pictures are uint8 RGB arrays ``(H, W, 3)``. anomalib's ``visualization.image.functional`` draws outlines of one pixel
only, cannot let the opacity of a map follow its values, and its palette is jet. torchvision's
``draw_segmentation_masks`` fills masks, and its ``make_grid`` leaves out the margins of a single picture.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import cv2
import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.ft2font import FT2Font
from PIL import Image, ImageDraw, ImageFont

Picture = npt.NDArray[np.uint8]
Colour = tuple[int, int, int]

PALETTE = "turbo"
BACKGROUND: Colour = (24, 24, 24)
INK: Colour = (235, 235, 235)
GREEN: Colour = (64, 255, 96)  # of the ground truth
RED: Colour = (255, 64, 64)  # of a prediction
YELLOW: Colour = (255, 210, 0)  # of a synthetic anomaly

GAP = 4  # pixels between the pictures of a grid
COLUMN_NAME_HEIGHT = 24
ROW_NAME_WIDTH = 180
GRID_FONT_SIZE = 13


def outline(
    picture: Picture, mask: npt.NDArray[Any], colour: Colour, thickness: int = 1, smooth: bool = False
) -> Picture:
    """Draw the outline of a mask, holes included.

    Args:
        picture (Picture): Picture.
        mask (np.ndarray): Mask ``(h, w)``, of any size; above 0.5 is inside.
        colour (Colour): Colour of the line.
        thickness (int, optional): Thickness of the line in pixels. Defaults to ``1``.
        smooth (bool, optional): Whether to soften the steps of the line, which mixes its colour with the picture's.
            Defaults to ``False``.

    Returns:
        Picture: Copy of the picture with the outline.
    """
    inside = (np.asarray(mask) > 0.5).astype(np.uint8)
    resized = cv2.resize(inside, picture.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    contours, _ = cv2.findContours(resized, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    line = cv2.LINE_AA if smooth else cv2.LINE_8
    return np.asarray(cv2.drawContours(picture.copy(), contours, -1, colour, thickness, line), dtype=np.uint8)


def heat_map(picture: Picture, values: npt.NDArray[Any], lowest: float, highest: float) -> Picture:
    """Lay a map over a picture, more opaque where it is higher.

    Args:
        picture (Picture): Picture.
        values (np.ndarray): Map ``(h, w)`` in [0, 1], of any size.
        lowest (float): Opacity where the map is 0.
        highest (float): Opacity where the map is 1.

    Returns:
        Picture: Picture with the map over it.
    """
    resized = cv2.resize(values.astype(np.float32), picture.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    opacity = (lowest + (highest - lowest) * resized)[..., None]
    return np.rint((1 - opacity) * picture + opacity * colours(resized)).astype(np.uint8)


def colours(values: npt.NDArray[Any]) -> Picture:
    """Map values in [0, 1], of any shape, to colours of the palette."""
    return np.asarray(mpl.colormaps[PALETTE](values, bytes=True)[..., :3])


def colour_scale(steps: int = 9) -> str:
    """Return the palette as a gradient of CSS, from the lowest value at the left to the highest.

    Args:
        steps (int, optional): Number of colours. Defaults to ``9``.

    Returns:
        str: Value of a property such as ``background``.
    """
    palette = mpl.colormaps[PALETTE](np.linspace(0, 1, steps))
    return f"linear-gradient(to right, {', '.join(mpl.colors.to_hex(colour) for colour in palette)})"


def write_caption(
    draw: ImageDraw.ImageDraw, place: tuple[float, float], text: str, size: int, width: int, anchor: str = "la"
) -> None:
    """Write a line, shortened from its beginning to fit.

    Characters that no font here has are written as escapes of Python.

    Args:
        draw (ImageDraw.ImageDraw): Canvas.
        place (tuple[float, float]): Position in pixels of the point that ``anchor`` names.
        text (str): Text.
        size (int): Size of the font in pixels.
        width (int): Largest width in pixels.
        anchor (str, optional): Pillow's anchor of the text. Defaults to ``"la"``: left and top.
    """
    text, font = _drawable(text, size)
    while draw.textlength(text, font) > width and len(text) > 4:
        text = "..." + text[4:]
    draw.text(place, text, fill=INK, font=font, anchor=anchor)


def _drawable(text: str, size: int) -> tuple[str, ImageFont.FreeTypeFont | ImageFont.ImageFont]:
    """Return a text that a font can draw, and the font: Pillow's own has little more than ASCII."""
    if text.isascii() and text.isprintable():
        return text, ImageFont.load_default(size)
    path = f"{mpl.get_data_path()}/fonts/ttf/DejaVuSans.ttf"
    known = _characters(path)
    drawable = (
        character
        if character.isprintable() and ord(character) in known
        else character.encode("unicode_escape").decode()
        for character in text
    )
    return "".join(drawable), ImageFont.truetype(path, size)


@cache
def _characters(font: str) -> frozenset[int]:
    """Return the code points that a font draws."""
    return frozenset(FT2Font(font).get_charmap())


def arrange_columns(columns: Mapping[str, Sequence[Picture]], row_names: Sequence[str] = ()) -> Image.Image:
    """Place pictures on a grid, under the names of their columns and beside those of their rows.

    Args:
        columns (Mapping[str, Sequence[Picture]]): Pictures ``(H, W, 3)`` of one size by column, as many in each.
        row_names (Sequence[str], optional): Name of every row. Defaults to ``()``: none.

    Returns:
        Image.Image: RGB picture.
    """
    height, width = next(iter(columns.values()))[0].shape[:2]
    margin = ROW_NAME_WIDTH if row_names else 0
    rows = len(next(iter(columns.values())))
    size = (margin + len(columns) * (width + GAP) + GAP, COLUMN_NAME_HEIGHT + rows * (height + GAP))
    grid = Image.new("RGB", size, BACKGROUND)
    draw = ImageDraw.Draw(grid)
    for column, (name, pictures) in enumerate(columns.items()):
        left = margin + GAP + column * (width + GAP)
        write_caption(draw, (left + width / 2, COLUMN_NAME_HEIGHT / 2), name, GRID_FONT_SIZE, width, anchor="mm")
        for row, picture in enumerate(pictures):
            grid.paste(Image.fromarray(picture), (left, COLUMN_NAME_HEIGHT + row * (height + GAP)))
    for row, name in enumerate(row_names):
        middle = COLUMN_NAME_HEIGHT + row * (height + GAP) + height / 2
        write_caption(draw, (GAP, middle), name, GRID_FONT_SIZE, margin - 2 * GAP, anchor="lm")
    return grid
