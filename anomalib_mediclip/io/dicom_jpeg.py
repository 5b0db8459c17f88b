# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Decoder of lossless JPEG and of JPEG with 12 bits for pydicom, on imagecodecs.

pydicom knows others: GDCM, which ends the whole process at some damaged files, and libjpeg of pylibjpeg, under the GPL.
"""

from typing import Any

import imagecodecs
import numpy as np
from pydicom.pixels import get_decoder
from pydicom.uid import JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1

NAME = "imagecodecs"
UNSAFE = ("gdcm",)  # decoders that are not used

DECODER_DEPENDENCIES = dict.fromkeys((JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1), (NAME,))


def is_available(uid: str) -> bool:
    """Tell pydicom whether a transfer syntax is decoded here.

    Args:
        uid (str): Transfer syntax.

    Returns:
        bool: Whether it is one of ``DECODER_DEPENDENCIES``.
    """
    return uid in DECODER_DEPENDENCIES


def decode_frame(src: bytes, runner: Any) -> bytearray:
    """Decode a frame, as pydicom calls its decoders.

    Args:
        src (bytes): Encoded frame.
        runner (DecodeRunner): What pydicom knows of the image; gets the size of the decoded numbers.

    Returns:
        bytearray: Decoded pixels, channels last.

    Raises:
        NotImplementedError: If colours may have been transformed, which only lossless JPEG excludes.
    """
    if runner.samples_per_pixel > 1 and runner.transfer_syntax == JPEGExtended12Bit:
        msg = "JPEG Extended in colour is decoded elsewhere"
        raise NotImplementedError(msg)
    pixels = np.asarray(imagecodecs.jpeg8_decode(src))
    runner.set_option("bits_allocated", 8 * pixels.dtype.itemsize)
    runner.set_option("planar_configuration", 0)
    spare = 8 * pixels.dtype.itemsize - runner.bits_stored
    if runner.pixel_representation == 1 and spare > 0:  # the sign is the highest of the stored bits
        signed = pixels.astype(f"i{pixels.dtype.itemsize}")
        pixels = (signed << spare) >> spare
    return bytearray(pixels.tobytes())


def plugins_of(syntax: str) -> tuple[str, ...]:
    """List the decoders of pydicom that are used, with that of this module.

    Args:
        syntax (str): Transfer syntax of encapsulated pixels.

    Returns:
        tuple[str, ...]: Names; none if there is no decoder.

    Raises:
        NotImplementedError: If pydicom does not know the transfer syntax.
    """
    decoder = get_decoder(syntax)
    if is_available(syntax) and NAME not in decoder.available_plugins:
        decoder.add_plugin(NAME, (__name__, "decode_frame"))
    return tuple(name for name in decoder.available_plugins if name not in UNSAFE)
