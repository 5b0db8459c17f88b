# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Files damaged at random: whatever is in them, they are read or refused, and no other error or memory comes of it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

COUNT = 2400
SCRIPT = """
import resource, sys, warnings
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
from PIL import Image

from anomalib_mediclip.io import ImageFileError, read_header, read_image, slices_of
from tests.helpers.volumes import make_dicom, make_nifti

folder, count = Path(sys.argv[1]), int(sys.argv[2])
warnings.simplefilter("ignore")
random = np.random.default_rng(0)
grey = random.integers(0, 4000, (24, 20)).astype(np.uint16)
volume = random.integers(0, 900, (9, 8, 7)).astype(np.int16)
Image.fromarray(grey.astype(np.uint8)).save(folder / "a.png")
Image.fromarray(grey).save(folder / "deep.png")
made = [folder / "a.png", folder / "deep.png"]
made += [make_dicom(folder / "a.dcm", grey, WindowCenter=900, WindowWidth=300), make_dicom(folder / "b.dcm", volume)]
made += [make_nifti(folder / "a.nii", volume), make_nifti(folder / "a.nii.gz", volume.astype(np.float32))]
names = ("MR_small_RLE", "MR_small_jp2klossless", "MR_small_jpeg_ls_lossless", "SC_rgb_jpeg_gdcm", "JPGExtended",
         "SC_rgb_small_odd_jpeg", "examples_palette", "image_dfl", "rtdose_rle", "SC_ybr_full_422_uncompressed")
lossless = pydicom.dcmread(made[2])
lossless.PixelData = pydicom.encaps.encapsulate([imagecodecs.ljpeg_encode(grey, bitspersample=12)])
lossless["PixelData"].VR, lossless.file_meta.TransferSyntaxUID = "OB", pydicom.uid.JPEGLosslessSV1
lossless.save_as(folder / "c.dcm")
made.append(folder / "c.dcm")
shipped = Path(pydicom.__file__).parent / "data" / "test_files"
seeds = [path.read_bytes() for path in (*made, *(shipped / f"{name}.dcm" for name in names))]


def damaged(content: bytes) -> bytes:
    data = bytearray(content)
    # most of what can go wrong is in headers
    places = len(data) if random.random() < 0.3 else min(len(data), 1500)
    match random.integers(5):
        case 0:
            return bytes(data[: random.integers(len(data))])
        case 1:
            place = random.integers(places)
            data[place:place] = random.bytes(int(random.integers(1, 20)))
        case 2:
            place = random.integers(places)
            del data[place : place + int(random.integers(1, 20))]
        case _:
            for place in random.integers(places, size=random.choice([1, 1, 2, 8])):
                data[place] = random.choice([0, 1, 0x7F, 0x80, 0xFF, int(random.integers(256))])
    return bytes(data)


for seed in seeds:  # load what is loaded once
    (folder / "x").write_bytes(seed)
    read_image(slices_of(folder / "x")[-1])
base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
refused = 0
for index in range(count):
    path = folder / f"{index % 50}"
    path.write_bytes(damaged(seeds[index % len(seeds)]))
    try:
        slices = slices_of(path)
        for one in {slices[0], slices[-1]}:
            size = read_header(one).size
            image = read_image(one)
            assert image.shape[1:] == size and 0 <= image.min() and image.max() <= 1, (index, size, image.shape)
    except (ImageFileError, FileNotFoundError) as error:
        assert str(path) in str(error), (index, error)
        refused += 1
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print("RESULT", refused, (peak - base) // 1024)
"""


@pytest.mark.slow
def test_damaged_files_are_read_or_refused(tmp_path: Path) -> None:
    process = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path), str(COUNT)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        check=False,
    )
    assert process.returncode == 0, process.stderr[-3000:]
    refused, megabytes = map(int, process.stdout.split("RESULT")[1].split())
    assert COUNT / 4 < refused < COUNT
    assert megabytes < 500
