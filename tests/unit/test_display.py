# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Windows and planes that the user chooses."""

import os

import pytest

from anomalib_mediclip.display import chosen_window, describe_display, set_slice_plane, set_window, slice_plane


@pytest.mark.parametrize(
    ("window", "limits"),
    [
        ("brain", (0, 80)),
        ("lung", (-1350, 150)),
        ("bone", (-770, 1730)),
        ("soft_tissue", (-150, 250)),
        ("liver", (-15, 135)),
        ("40,80", (0, 80)),
        ("-600, 1500.0", (-1350, 150)),
    ],
)
def test_windows(window: str, limits: tuple[float, float]) -> None:
    set_window(window)
    assert chosen_window() == limits
    described = describe_display()
    assert (described["window"], described["window_low"], described["window_high"]) == (window, *limits)


def test_without_a_choice_each_file_decides() -> None:
    assert chosen_window() is None
    assert slice_plane() == "axial"
    assert describe_display() == {"window": None, "window_low": None, "window_high": None, "slice_plane": "axial"}
    set_window("brain")
    set_window("")
    assert chosen_window() is None


@pytest.mark.parametrize("window", ["heart", "40", "40,0", "40,-5", "nan,80", "40,inf", "1,2,3", ","])
def test_wrong_windows_are_refused_and_change_nothing(window: str) -> None:
    with pytest.raises(ValueError, match=r"give a preset \(brain, .*\) or CENTRE,WIDTH"):
        set_window(window)
    assert "ANOMALIB_MEDICLIP_WINDOW" not in os.environ


def test_planes() -> None:
    set_slice_plane("sagittal")
    assert slice_plane() == describe_display()["slice_plane"] == "sagittal"
    with pytest.raises(ValueError, match="give one of axial, coronal, sagittal"):
        set_slice_plane("oblique")
