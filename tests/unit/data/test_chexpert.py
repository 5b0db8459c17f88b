# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""CheXpert, on a miniature."""

import re
from pathlib import Path

import pandas as pd
import pytest

from anomalib_mediclip.data import CheXpert
from anomalib_mediclip.data.chexpert import FINDINGS
from tests.unit.data.small_datasets import save_image

PATIENTS = 12


def save_miniature(root: Path, prefix: str = "CheXpert-v1.0-small") -> Path:
    """Write lists of 12 normal patients with two studies each, 12 abnormal ones, and images that must not be used."""
    rows = []
    for patient in range(1, PATIENTS + 1):
        rows += [make_row(patient, study, "No Finding") for study in (1, 2)]
        rows.append(make_row(100 + patient, 1, "Edema"))
    rows += [
        make_row(1, 3, "Edema"),  # the same patient fell ill
        make_row(200, 1, "No Finding", view="Lateral"),
        make_row(201, 1, "Support Devices"),
        make_row(202, 1, "Edema", value=-1.0),
    ]
    valid = [make_row(300, 1, "No Finding", split="valid"), make_row(301, 1, "Fracture", split="valid")]
    for name, table in (("train", rows), ("valid", valid)):
        for number, row in enumerate(table):
            save_image(root / row["Path"], number)
            row["Path"] = f"{prefix}/{row['Path']}"
        pd.DataFrame(table).to_csv(root / f"{name}.csv", index=False)
    return root


def make_row(
    patient: int,
    study: int,
    finding: str,
    view: str = "Frontal",
    value: float = 1.0,
    split: str = "train",
) -> dict[str, object]:
    path = f"{split}/patient{patient:05d}/study{study}/view1_{view.lower()}.jpg"
    findings = dict.fromkeys(("No Finding", "Support Devices", *FINDINGS))
    return {"Path": path, "Frontal/Lateral": view, **findings, finding: value}


def patients(images: list[Path]) -> list[str]:
    return [re.search(r"patient\d+", str(image)).group() for image in images]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return save_miniature(tmp_path / "renamed")


def test_patients_are_disjoint(root: Path) -> None:
    pool, test = CheXpert(root).read_layout()
    pool_patients = patients([sample.image for sample in pool])
    assert not set(pool_patients) & set(patients([sample.image for sample in test]))
    assert len(pool_patients) >= PATIENTS - 1, "every other normal image belongs to the pool"
    for is_abnormal, count in ((False, 6), (True, 14)):
        tested = patients([sample.image for sample in test if sample.is_abnormal == is_abnormal])
        assert len(tested) == len(set(tested)) == count


def test_only_certain_frontal_findings_count(root: Path) -> None:
    pool, test = CheXpert(root).read_layout()
    used = patients([sample.image for sample in (*pool, *test)])
    assert not {"patient00200", "patient00201", "patient00202"} & set(used)


def test_test_set_ignores_the_seed_of_the_user(root: Path) -> None:
    first, second = CheXpert(root, k_shot=4, seed=1), CheXpert(root, k_shot=4, seed=2)
    first.setup()
    second.setup()
    assert first.test_data.samples.image_path.tolist() == second.test_data.samples.image_path.tolist()
    assert first.support_set != second.support_set


def test_root_above_the_lists(tmp_path: Path) -> None:
    folder = save_miniature(tmp_path / "CheXpert-v1.0-small")
    assert CheXpert(tmp_path).read_layout() == CheXpert(folder).read_layout()


def test_missing_column_is_named(root: Path) -> None:
    pd.read_csv(root / "valid.csv").drop(columns="Edema").to_csv(root / "valid.csv", index=False)
    with pytest.raises(ValueError, match=r"valid\.csv lacks the columns Edema"):
        CheXpert(root).read_layout()


def test_missing_list_tells_what_was_found(root: Path) -> None:
    (root / "valid.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"expected train\.csv, valid\.csv.*found train, train\.csv, valid"):
        CheXpert(root).read_layout()


def test_missing_images_are_listed(root: Path) -> None:
    image = next((root / "train").rglob("*101/*/*.jpg"))
    image.unlink()
    with pytest.raises(FileNotFoundError, match=r"1 files .*patient00101"):
        CheXpert(root, k_shot=2).setup()
