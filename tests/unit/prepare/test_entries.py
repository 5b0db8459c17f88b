# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Layouts: which files are images, with which labels and masks."""

from pathlib import Path

import pytest

from anomalib_mediclip.data import BUSI, BrainMRI
from anomalib_mediclip.prepare.archive import open_archive
from anomalib_mediclip.prepare.entries import Listing, read_entries
from tests.unit.data.small_datasets import save_image, save_mask
from tests.unit.data.test_chexpert import save_miniature
from tests.unit.prepare.small_sources import save_busi, zip_of


def listing_of(source: Path, labels: Path | None = None) -> Listing:
    with open_archive(source) as archive:
        return read_entries(archive, labels)


def labels_of(listing: Listing) -> dict[str, bool]:
    return {str(entry.name.relative_to(listing.root)): entry.is_abnormal for entry in listing.entries}


def test_busi_has_the_images_and_masks_of_its_datamodule(tmp_path: Path) -> None:
    listing = listing_of(save_busi(tmp_path / "busi"))
    pool, test = BUSI(tmp_path / "busi").read_layout()
    expected = {s.image.relative_to(tmp_path / "busi").as_posix(): (s.is_abnormal, s.masks) for s in (*pool, *test)}
    found = {str(e.name): (e.is_abnormal, tuple(tmp_path / "busi" / m for m in e.masks)) for e in listing.entries}
    assert found == expected
    assert listing.layout == "BUSI"
    assert set(listing.unused.values()) == {"mask of an image that is normal or not used"}
    assert len(listing.unused) == 8


@pytest.mark.parametrize("with_top", [True, False])
def test_a_zip_file_with_or_without_a_top_folder_is_the_same_set(tmp_path: Path, with_top: bool) -> None:
    folder = save_busi(tmp_path / "Dataset_BUSI_with_GT")
    packed = listing_of(zip_of(folder, with_top=with_top))
    assert str(packed.root) == ("Dataset_BUSI_with_GT" if with_top else ".")
    assert labels_of(packed) == labels_of(listing_of(folder)) == labels_of(listing_of(tmp_path / "source.zip"))


def test_brain_mri_that_is_packed_twice_is_read_once(tmp_path: Path) -> None:
    for root in (tmp_path, tmp_path / "brain_tumor_dataset"):  # as Kaggle's archive is
        for name in ("no/1 no.jpeg", "no/2 no.jpg", "yes/Y1.JPG"):
            save_image(root / name)
    listing = listing_of(tmp_path)
    assert listing.layout == "BrainMRI"
    assert labels_of(listing) == {"no/1 no.jpeg": False, "no/2 no.jpg": False, "yes/Y1.JPG": True}
    pool, test = BrainMRI(tmp_path).read_layout()
    assert len(listing.entries) == len(pool) + len(test)
    assert sorted(listing.unused.values()) == ["without a label"] * 3


def test_chexpert_has_certain_frontal_images_and_their_patients(tmp_path: Path) -> None:
    listing = listing_of(save_miniature(tmp_path / "chexpert"))
    assert listing.layout == "CheXpert"
    labels = labels_of(listing)
    assert labels["train/patient00001/study1/view1_frontal.jpg"] is False
    assert labels["train/patient00001/study3/view1_frontal.jpg"] is True
    assert "train/patient00200/study1/view1_lateral.jpg" not in labels  # lateral
    assert "train/patient00202/study1/view1_frontal.jpg" not in labels  # uncertain
    assert len(labels) == 12 * 3 + 1 + 2
    assert all(entry.patient == entry.name.parts[1] for entry in listing.entries)


def test_chexpert_without_an_image_of_its_lists_names_it(tmp_path: Path) -> None:
    root = save_miniature(tmp_path / "chexpert")
    (root / "train/patient00003/study1/view1_frontal.jpg").unlink()
    with pytest.raises(FileNotFoundError, match="1 images that the lists name are missing: train/patient00003"):
        listing_of(root)


def test_any_folder_is_labelled_by_its_nearest_folder_normal_or_abnormal(tmp_path: Path) -> None:
    for name in ("normal/a/1.png", "site 2/normal/2.png", "site 2/abnormal/3.png", "other/4.png"):
        save_image(tmp_path / name)
    save_mask(tmp_path / "masks/3_mask.png")
    save_mask(tmp_path / "masks/normal/1.png")
    (tmp_path / "readme.txt").write_text("x")
    listing = listing_of(tmp_path)
    assert labels_of(listing) == {"normal/a/1.png": False, "site 2/normal/2.png": False, "site 2/abnormal/3.png": True}
    assert [list(map(str, entry.masks)) for entry in listing.entries] == [[], ["masks/3_mask.png"], []]
    assert {str(name): reason for name, reason in listing.unused.items()} == {
        "masks/normal/1.png": "mask of an image that is normal or not used",
        "other/4.png": "without a label",
        "readme.txt": "not an image",
    }


def test_a_folder_without_labels_asks_for_them(tmp_path: Path) -> None:
    save_image(tmp_path / "1.png")
    with pytest.raises(ValueError, match=r"nothing says which images are normal\. Give --labels"):
        listing_of(tmp_path)


def test_nothing_to_train_on_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/readme.txt").write_text("x")
    with pytest.raises(ValueError, match=r"holds no images, only readme\.txt"):
        listing_of(tmp_path / "empty")
    save_image(tmp_path / "set/1.png")
    (tmp_path / "labels.csv").write_text("file,label\n1.png,abnormal\n")
    with pytest.raises(ValueError, match="has no normal images"):
        listing_of(tmp_path / "set", tmp_path / "labels.csv")


def test_a_mask_without_an_image_is_named(tmp_path: Path) -> None:
    save_image(tmp_path / "normal/1.png")
    save_mask(tmp_path / "masks/9_mask.png")
    with pytest.raises(ValueError, match=r"mask masks/9_mask\.png has no image"):
        listing_of(tmp_path)


def test_a_table_without_masks_leaves_them_to_their_names(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        save_image(tmp_path / f"set/{number}.png", seed=number)
        save_mask(tmp_path / f"set/{number}_mask.png")
    (tmp_path / "labels.csv").write_text("file,label\n1.png,0\n2.png,1\n")
    listing = listing_of(tmp_path / "set", tmp_path / "labels.csv")
    assert [(str(e.name), list(map(str, e.masks))) for e in listing.entries] == [
        ("1.png", []),
        ("2.png", ["2_mask.png"]),
    ]
    assert sorted(map(str, listing.unused)) == ["1_mask.png", "3.png", "3_mask.png"]
