# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Multi-task anomaly synthesis (paper, section 2.4).

Paper: "MediCLIP: Adapting CLIP for Few-shot Medical Image Anomaly Detection", https://arxiv.org/abs/2405.11315.

Each image gets one task: CutPaste, GaussIntensityChange or Source. Every random draw is keyed by seed, epoch and image
name and by nothing else, so that a result depends neither on the batch nor on workers, devices or global random state.
(In the official implementation each worker repeats its draws in every epoch.)
"""

from collections.abc import Sequence
from typing import Literal, TypedDict, get_args

import numpy as np
import torch
from torchvision.transforms import v2

from anomalib_mediclip.seeds import number_of
from anomalib_mediclip.synthesis import cut_paste, intensity, source
from anomalib_mediclip.synthesis.arguments import (
    check_choice,
    check_image,
    check_names,
    check_not_negative,
    check_tasks,
)
from anomalib_mediclip.synthesis.cut_paste import Blending
from anomalib_mediclip.synthesis.masks import (
    Array,
    Mask,
    Size,
    bounding_box,
    draw_corner,
    draw_perlin_mask,
    draw_shape,
    find_foreground,
    shape_mask,
    window,
)
from anomalib_mediclip.synthesis.sampling import Spline
from anomalib_mediclip.synthesis.source import AlphaDistribution

CutPasteLabel = Literal["mask", "changed"]
IntensityNoise = Literal["raw", "normalised"]

MAXIMUM_SPLINES = 64  # support images kept as splines, of 0.5 MB each at 224 x 224 pixels

PAPER_TASKS = {"cut_paste": 1.0, "gauss_intensity": 1.0, "source": 1.0}


class SynthesisOptions(TypedDict, total=False):
    """Keyword arguments of `MedicalAnomalyGenerator` except the seed, as plain data."""

    tasks: dict[str, float] | None
    max_anomalies: int
    blending: Blending
    cut_paste_label: CutPasteLabel
    intensity_noise: IntensityNoise
    feather: bool
    alpha_distribution: AlphaDistribution
    shear: bool
    foreground: bool


class MedicalAnomalyGenerator(v2.Transform):
    """Paint synthetic anomalies on normal images.

    The defaults are the paper's; each option names what the official implementation does instead.

    Args:
        tasks (dict[str, float] | None): Relative frequency of each task: ``cut_paste``, ``gauss_intensity``, ``source``
            and ``identity`` (the image unchanged). None stands for the first three, equally often. The official code
            uses all four, equally often.
        max_anomalies (int): 1, or 2 for one or two anomalies with probability 1/2 each (official code).
        blending (Blending): How CutPaste blends its patch: Poisson image editing, or a hard ``paste`` (official code).
        cut_paste_label (CutPasteLabel): What CutPaste labels: the ``mask``, or the pixels that were ``changed`` by at
            least one of 256 grey levels, softly (official code).
        intensity_noise (IntensityNoise): Noise of GaussIntensityChange as filtered (``raw``), or ``normalised`` to
            [0, 1] (official code).
        feather (bool): Soften the edge of GaussIntensityChange (official code).
        alpha_distribution (AlphaDistribution): Whether alpha of Source or its logarithm (official code) is uniform.
        shear (bool): Shear the ellipses and rectangles of Source (official code).
        foreground (bool): Place anomalies so that at least half of the mask lies on anatomy, where possible. The paper
            leaves this open; the official code ignores the foreground.
        seed (int): Seed of all random draws, from 0 upwards.

    Raises:
        ValueError: If an argument has none of the values above.

    Example:
        >>> generator = MedicalAnomalyGenerator(tasks={"source": 1.0}, seed=1)
        >>> images = torch.rand(2, 3, 224, 224)
        >>> abnormal, masks = generator(images, names=["patient_1.png", "patient_2.png"], epoch=0)
        >>> abnormal.shape, masks.shape
        (torch.Size([2, 3, 224, 224]), torch.Size([2, 1, 224, 224]))
    """

    def __init__(
        self,
        tasks: dict[str, float] | None = None,
        max_anomalies: int = 1,
        blending: Blending = "poisson",
        cut_paste_label: CutPasteLabel = "mask",
        intensity_noise: IntensityNoise = "raw",
        feather: bool = False,
        alpha_distribution: AlphaDistribution = "uniform",
        shear: bool = False,
        foreground: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.tasks = dict(PAPER_TASKS if tasks is None else tasks)
        check_tasks(self.tasks)
        check_choice("max_anomalies", max_anomalies, (1, 2))
        check_choice("blending", blending, get_args(Blending))
        check_choice("cut_paste_label", cut_paste_label, get_args(CutPasteLabel))
        check_choice("intensity_noise", intensity_noise, get_args(IntensityNoise))
        check_choice("alpha_distribution", alpha_distribution, get_args(AlphaDistribution))
        check_not_negative("seed", seed)
        self.max_anomalies = max_anomalies
        self.blending = blending
        self.cut_paste_label = cut_paste_label
        self.intensity_noise = intensity_noise
        self.feather = feather
        self.alpha_distribution = alpha_distribution
        self.shear = shear
        self.foreground = foreground
        self.seed = seed
        self.support_set: list[torch.Tensor] = []
        self._splines: dict[tuple[int, tuple[int, ...]], Spline] = {}

    def set_support_set(self, images: Sequence[torch.Tensor]) -> None:
        """Set the images that CutPaste cuts from; while there are none it cuts from the image itself.

        Args:
            images (Sequence[torch.Tensor]): Float images ``(C, H, W)`` with 1 or 3 channels, values in [0, 1]. Those of
                another size than the image to change are resized to it.

        Raises:
            ValueError: If an image has another shape, type or range.
        """
        for image in images:
            check_image(image, dimensions=(3,))
        self.support_set = [image.detach().float().cpu() for image in images]
        self._splines = {}

    def draw_task(self, name: str, epoch: int = 0) -> str:
        """Tell which task `forward` uses for an image.

        Args:
            name (str): Name of the image.
            epoch (int): Number of the epoch, from 0 upwards.

        Returns:
            str: One of ``cut_paste``, ``gauss_intensity``, ``source`` and ``identity``.
        """
        return self._choose_task(self._random_generator(name, epoch))

    def forward(
        self,
        image: torch.Tensor,
        names: Sequence[str] | None = None,
        epoch: int = 0,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Paint anomalies on one image or on each image of a batch.

        Args:
            image (torch.Tensor): Float image ``(C, H, W)`` or batch ``(B, C, H, W)`` with 1 or 3 channels, sides from
                32 pixels upwards, values in [0, 1]. It is not modified.
            names (Sequence[str] | None): Name of each image, which with seed and epoch determines the anomaly. None
                stands for "0", "1" and so on.
            epoch (int): Number of the epoch, from 0 upwards.

        Returns:
            tuple[torch.Tensor, torch.Tensor]: Image of the same shape, type and device, and float32 mask ``(1, H, W)``
                or ``(B, 1, H, W)``, 0 or 1 (soft only with ``cut_paste_label="changed"``).

        Raises:
            ValueError: If the image has another shape, type or range, or names or epoch do not fit.
        """
        check_image(image, dimensions=(3, 4))
        check_not_negative("epoch", epoch)
        batch = image.detach() if image.ndim == 4 else image.detach()[None]
        names = check_names(names, len(batch))
        changed = batch.clone()
        labels = torch.stack([self._change(single, name, epoch) for single, name in zip(changed, names, strict=True)])
        masks = labels[:, None].to(image.device, torch.float32)
        return (changed, masks) if image.ndim == 4 else (changed[0], masks[0])

    def _change(self, image: torch.Tensor, name: str, epoch: int) -> torch.Tensor:
        """Paint anomalies on one image ``(C, H, W)``, in place, and return their label ``(H, W)``."""
        rng = self._random_generator(name, epoch)
        changed, region, label = self._paint(self._choose_task(rng), _to_array(image), rng)
        box = bounding_box(region)
        result = torch.from_numpy(changed[box]).permute(2, 0, 1).to(image)
        inside = torch.from_numpy(region[box]).to(image.device)
        # Outside the region the very values of the image are kept, whatever its type.
        part = image[:, box[0], box[1]]
        part.copy_(torch.where(inside, result, part))
        return torch.from_numpy(label)

    def _paint(self, task: str, image: Array, rng: np.random.Generator) -> tuple[Array, Mask, Array | Mask]:
        """Return an image ``(H, W, C)`` with anomalies, where they are and their label, both ``(H, W)``."""
        region = np.zeros(image.shape[:2], dtype=bool)
        if task == "identity":
            return image, region, region
        paint = {"cut_paste": self._cut_paste, "gauss_intensity": self._change_intensity, "source": self._deform}[task]
        foreground = find_foreground(image) if self.foreground else None
        changed = image
        for _ in range(int(rng.integers(self.max_anomalies)) + 1):
            changed, mask, corner = paint(changed, foreground, rng)
            region[window(corner, mask)] |= mask
        soft = task == "cut_paste" and self.cut_paste_label == "changed"
        return changed, region, cut_paste.changed_label(image, changed, region) if soft else region

    def _cut_paste(self, image: Array, foreground: Mask | None, rng: np.random.Generator) -> tuple[Array, Mask, Size]:
        size = image.shape[0], image.shape[1]
        mask = draw_perlin_mask(rng, size, cut_paste.PATCH_SIDES)
        corner = draw_corner(rng, mask, size, foreground)
        cut = cut_paste.draw_patch_cut(rng, max(len(self.support_set), 1))
        patch = cut_paste.cut_patch(self._source(cut.source, image), cut, (mask.shape[0], mask.shape[1]), mask)
        return cut_paste.paste_patch(image, patch, mask, corner, self.blending), mask, corner

    def _source(self, index: int, image: Array) -> Spline:
        """Return a support image in the size of the image to change, or that image while there are none."""
        if not self.support_set:
            return Spline(image)
        key = index, image.shape
        if key not in self._splines:
            source = Spline(cut_paste.match_source(_to_array(self.support_set[index]), image))
            if len(self._splines) >= MAXIMUM_SPLINES:
                return source
            self._splines[key] = source
        return self._splines[key]

    def _change_intensity(
        self, image: Array, foreground: Mask | None, rng: np.random.Generator
    ) -> tuple[Array, Mask, Size]:
        size = image.shape[0], image.shape[1]
        mask = draw_perlin_mask(rng, size, intensity.PATCH_SIDES)
        corner = draw_corner(rng, mask, size, foreground)
        change = intensity.draw_intensity_change(rng, size)
        noise = intensity.smooth_noise(change.noise, change.noise_sigma, self.intensity_noise == "normalised")
        weights = intensity.feather_mask(mask, change.feather_sigma) if self.feather else mask.astype(np.float32)
        result, patch = image.copy(), window(corner, mask)
        result[patch] = intensity.change_intensity(image[patch], weights, noise[patch], change.gamma)
        return result, mask, corner

    def _deform(self, image: Array, foreground: Mask | None, rng: np.random.Generator) -> tuple[Array, Mask, Size]:
        size = image.shape[0], image.shape[1]
        shape = draw_shape(rng, size, self.shear)
        mask = shape_mask(shape)
        corner = draw_corner(rng, mask, size, foreground)
        deformation = source.draw_deformation(rng, mask, self.alpha_distribution)
        result, patch = image.copy(), window(corner, mask)
        result[patch] = source.deform(image[patch], mask, source.source_mapping(shape, mask, deformation))
        return result, mask, corner

    def _random_generator(self, name: str, epoch: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, epoch, number_of(name)])

    def _choose_task(self, rng: np.random.Generator) -> str:
        weights = np.array(list(self.tasks.values()), dtype=np.float64)
        return str(rng.choice(list(self.tasks), p=weights / weights.sum()))


def _to_array(image: torch.Tensor) -> Array:
    """Convert to ``(H, W, C)`` with one channel if all are identical, which saves two thirds of the work."""
    pixels = image.float().cpu().numpy()
    identical = all(np.array_equal(pixels[0], channel) for channel in pixels[1:])
    return (pixels[:1] if identical else pixels).transpose(1, 2, 0)
