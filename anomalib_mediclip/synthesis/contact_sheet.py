# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Contact sheet: a picture to judge by eye whether synthetic anomalies suit the images at hand."""

from collections.abc import Mapping
from itertools import cycle, islice
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torchvision.transforms.v2.functional import resize

from anomalib_mediclip.drawing import BACKGROUND, YELLOW, Picture, arrange_columns, outline, write_caption
from anomalib_mediclip.io import find_images, read_image
from anomalib_mediclip.synthesis.generator import MedicalAnomalyGenerator

SAMPLES_PER_ROW = 2
MARGIN = 12
GAP = 3
CAPTION_HEIGHT = 28
FONT_SIZE = 16


def write_contact_sheet(
    folder: Path,
    output: Path,
    generator: MedicalAnomalyGenerator,
    number: int = 12,
    image_size: int = 224,
) -> Path:
    """Draw images, their synthetic anomalies and the outline of the masks side by side.

    Args:
        folder (Path): Folder of normal images; the first ones in natural order are used, except masks
            (``*_mask*``), which BUSI keeps beside its images.
        output (Path): PNG file to write.
        generator (MedicalAnomalyGenerator): Generator; the images become its support set.
        number (int): Number of samples. If there are fewer images they are used again, as in the next epoch.
        image_size (int): Height and width to which the images are resized, in pixels.

    Returns:
        Path: The file written.

    Raises:
        ValueError: If ``number`` is below 1 or the folder holds no images.
    """
    paths, images = _read_images(folder, number, image_size)
    generator.set_support_set(images)
    samples = [
        draw_sample(generator, image, path.name, epoch=index // len(paths))
        for index, (path, image) in enumerate(islice(cycle(zip(paths, images, strict=True)), number))
    ]
    output.parent.mkdir(parents=True, exist_ok=True)
    _arrange(samples).save(output, format="PNG")
    return output


def write_task_sheet(
    folder: Path,
    output: Path,
    generators: Mapping[str, MedicalAnomalyGenerator],
    number: int = 4,
    image_size: int = 224,
) -> Path:
    """Draw a row for every image, with an anomaly of every task and its outline, as the paper's Figure 2.

    Args:
        folder (Path): Folder of normal images, see :func:`write_contact_sheet`.
        output (Path): PNG file to write.
        generators (Mapping[str, MedicalAnomalyGenerator]): A generator for every task, by the name of the task; the
            images become their support set.
        number (int): Largest number of images.
        image_size (int): Height and width to which the images are resized, in pixels.

    Returns:
        Path: The file written.

    Raises:
        ValueError: If ``number`` is below 1 or the folder holds no images.
    """
    paths, images = _read_images(folder, number, image_size)
    columns = {"image": [_to_picture(image) for image in images]}
    for task, generator in generators.items():
        generator.set_support_set(images)
        painted = [generator(image, names=[path.name]) for path, image in zip(paths, images, strict=True)]
        columns[task] = [outline(_to_picture(abnormal), mask[0].numpy(), YELLOW) for abnormal, mask in painted]
    output.parent.mkdir(parents=True, exist_ok=True)
    arrange_columns(columns).save(output, format="PNG")
    return output


def _read_images(folder: Path, number: int, image_size: int) -> tuple[list[Path], list[torch.Tensor]]:
    """Read the first images of a folder, without masks."""
    if number < 1:
        msg = f"number={number}: ask for at least one sample"
        raise ValueError(msg)
    paths = [path for path in find_images(folder) if "_mask" not in path.stem][:number]
    if not paths:
        msg = f"{folder} holds no images: pass a folder of normal images"
        raise ValueError(msg)
    images = [resize(read_image(path), [image_size, image_size], antialias=True).clamp(0, 1) for path in paths]
    return paths, images


def draw_sample(generator: MedicalAnomalyGenerator, image: torch.Tensor, name: str, epoch: int) -> Image.Image:
    """Draw one image, the image with an anomaly, and the same with the outline of its mask, under a caption.

    Args:
        generator (MedicalAnomalyGenerator): Generator of the anomaly.
        image (torch.Tensor): RGB image ``(3, H, W)`` in [0, 1].
        name (str): Name of the image.
        epoch (int): Number of the epoch.

    Returns:
        Image.Image: RGB picture of three tiles in a row.
    """
    abnormal, mask = generator(image, names=[name], epoch=epoch)
    original, changed = _to_picture(image), _to_picture(abnormal)
    height, width = original.shape[:2]
    picture = Image.new("RGB", (3 * width + 2 * GAP, height + CAPTION_HEIGHT), BACKGROUND)
    for column, tile in enumerate((original, changed, outline(changed, mask[0].numpy(), YELLOW))):
        picture.paste(Image.fromarray(tile), (column * (width + GAP), CAPTION_HEIGHT))
    caption = f"{generator.draw_task(name, epoch)}: {name}"
    write_caption(ImageDraw.Draw(picture), (0, CAPTION_HEIGHT / 2), caption, FONT_SIZE, picture.width, anchor="lm")
    return picture


def _arrange(samples: list[Image.Image]) -> Image.Image:
    """Place pictures of one size on a grid with margins."""
    width, height = (side + MARGIN for side in samples[0].size)
    columns = min(SAMPLES_PER_ROW, len(samples))
    rows = -(-len(samples) // columns)
    sheet = Image.new("RGB", (columns * width + MARGIN, rows * height + MARGIN), BACKGROUND)
    for index, sample in enumerate(samples):
        row, column = divmod(index, columns)
        sheet.paste(sample, (MARGIN + column * width, MARGIN + row * height))
    return sheet


def _to_picture(image: torch.Tensor) -> Picture:
    picture: Picture = (image * 255).round().byte().permute(1, 2, 0).contiguous().numpy()
    return picture
