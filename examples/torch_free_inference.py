# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0
"""Heat map from an exported model, without torch: pip install openvino numpy pillow.

python examples/torch_free_inference.py model.xml|model.onnx image.png heat_map.png
"""

import re
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import openvino
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image, ImageOps


def read(path: str) -> np.ndarray:
    """Read RGB in [0, 1], (1, 3, H, W), by the rules of docs/inputs.md, or refuse what Pillow reads wrongly."""
    stored = Image.open(BytesIO(Path(path).read_bytes()))
    deep, alpha = stored.mode.startswith(("I", "F")), stored.has_transparency_data
    if (deep and stored.format == "TIFF") or (not deep and re.search(r";16[BLN]", str(stored.tile))):
        msg = f"{path}: convert deep TIFF and 16-bit colour to PNG with 8 bits, or 16 bits of grey"
        raise ValueError(msg)
    image = ImageOps.exif_transpose(stored)
    if alpha and image.convert("RGBA").getchannel("A").getextrema()[1]:
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image.convert("RGBA"))
    pixels = np.asarray(image, dtype=np.float64) if deep else np.asarray(image.convert("RGB"), dtype=np.float32) / 255
    pixels = np.atleast_3d(stretch(pixels) if deep else pixels).astype(np.float32)
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)).transpose(2, 0, 1)[None])


def stretch(pixels: np.ndarray) -> np.ndarray:
    """Map deep grey to [0, 1], whatever single defective pixels hold."""
    low, high = np.quantile(pixels, (0.001, 0.999)) + np.diff(np.quantile(pixels, (0.001, 0.999))) * (-1, 1)
    sound = pixels[(pixels >= low) & (pixels <= high)] if high > low else pixels
    median = np.median(sliding_window_view(np.pad(pixels, 1, "symmetric"), (3, 3)), axis=(2, 3))
    pixels = np.where((pixels < sound.min()) | (pixels > sound.max()), median, pixels)
    return np.clip((pixels - sound.min()) / max(np.ptp(sound), 1e-9), 0, 1)


def draw(image: np.ndarray, anomaly_map: np.ndarray) -> Image.Image:
    """Colour an image from blue (normal) over green (the threshold, 0.5) to red (anomalous)."""
    heat = Image.fromarray(anomaly_map[0, 0]).resize(image.shape[:1:-1], Image.Resampling.BILINEAR)
    colours = [np.interp(heat, (0, 0.5, 1), stops) for stops in ((0, 0, 1), (0, 1, 0), (1, 0, 0))]
    return Image.fromarray(np.uint8(255 * (0.6 * image[0] + 0.4 * np.stack(colours)).transpose(1, 2, 0)))


if __name__ == "__main__":
    try:
        model, source, target = sys.argv[1:]
        predicted = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(read(source))
        draw(read(source), predicted["anomaly_map"]).save(target)
        np.save(f"{target}.npy", predicted["anomaly_map"])
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        sys.exit(f"{str(error).strip().splitlines()[-1]}\n\n{__doc__}")
    label = ("normal", "anomalous")[predicted["pred_label"].item()]
    print(f"score {predicted['pred_score'].item():.4f}, {label}; wrote {target} and {target}.npy")
