# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0
"""Heat map from an exported model, without torch: pip install openvino numpy pillow.

python examples/torch_free_inference.py model.xml|model.onnx image.png heat_map.png
"""

import sys

import numpy as np
import openvino
from PIL import Image


def read(path: str) -> np.ndarray:
    """Read RGB in [0, 1], (1, 3, H, W); what is deeper than 8 bits is stretched from its minimum to its maximum."""
    image = Image.open(path)
    deep = image.mode.startswith(("I", "F"))
    pixels = np.atleast_3d(np.asarray(image if deep else image.convert("RGB"), dtype=np.float32))
    pixels = (pixels - pixels.min()) / max(np.ptp(pixels), 1e-9) if deep else pixels / 255
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)).transpose(2, 0, 1)[None])


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
