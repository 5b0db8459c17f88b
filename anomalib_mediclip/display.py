# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""How DICOM and NIfTI are shown: window and plane, which all processes of a run share through the environment."""

import math
import os
from typing import Any, Literal, get_args

WINDOW_VARIABLE = "ANOMALIB_MEDICLIP_WINDOW"
PLANE_VARIABLE = "ANOMALIB_MEDICLIP_SLICE_PLANE"

Plane = Literal["axial", "coronal", "sagittal"]
PLANES: tuple[Plane, ...] = get_args(Plane)

# Windows for CT by name: centre and width in Hounsfield units (https://radiopaedia.org/articles/windowing-ct).
PRESETS = {
    "brain": (40.0, 80.0),
    "lung": (-600.0, 1500.0),
    "bone": (480.0, 2500.0),
    "soft_tissue": (50.0, 400.0),
    "liver": (60.0, 150.0),
}


def chosen_window() -> tuple[float, float] | None:
    """Return the window that the user has chosen for grey DICOM and NIfTI.

    Returns:
        tuple[float, float] | None: Value shown black and value shown white, in the unit of the file after rescaling
            (Hounsfield units in CT); None if each file decides.

    Raises:
        ValueError: If the environment holds no window.
    """
    given = os.environ.get(WINDOW_VARIABLE)
    return _limits(given, WINDOW_VARIABLE) if given else None


def chosen_preset() -> str | None:
    """Return the name of the preset that the user has chosen, None for any other window."""
    given = os.environ.get(WINDOW_VARIABLE)
    return given if given in PRESETS else None


def set_window(window: str) -> None:
    """Choose the window, for this process and those that it starts.

    Args:
        window (str): Name of a preset (see ``PRESETS``), ``"CENTRE,WIDTH"``, or ``""`` to let each file decide.

    Raises:
        ValueError: If it is none of these.

    Example:
        >>> set_window("brain")
        >>> chosen_window()
        (0.0, 80.0)
        >>> set_window("")
    """
    if not window:
        os.environ.pop(WINDOW_VARIABLE, None)
        return
    _limits(window, "--window")
    os.environ[WINDOW_VARIABLE] = window


def slice_plane() -> Plane:
    """Return the plane in which the slices of a NIfTI volume lie.

    Returns:
        Plane: The one set, or ``"axial"``.

    Raises:
        ValueError: If the environment holds no plane.
    """
    given = os.environ.get(PLANE_VARIABLE, PLANES[0])
    for plane in PLANES:
        if given == plane:
            return plane
    msg = f"{PLANE_VARIABLE}={given}: give one of {', '.join(PLANES)}"
    raise ValueError(msg)


def set_slice_plane(plane: str) -> None:
    """Choose the plane of slices of NIfTI volumes, for this process and those that it starts.

    Args:
        plane (str): ``"axial"``, ``"coronal"`` or ``"sagittal"``.

    Raises:
        ValueError: If it is no plane.
    """
    if plane not in PLANES:
        msg = f"--slice_plane {plane}: give one of {', '.join(PLANES)}"
        raise ValueError(msg)
    os.environ[PLANE_VARIABLE] = plane


def describe_display() -> dict[str, Any]:
    """Describe window and plane in plain data, for the records of a run.

    Returns:
        dict[str, Any]: ``window`` (as given, or None if each file decides), ``window_low`` and ``window_high`` (values
            shown black and white, or None), and ``slice_plane``.

    Example:
        >>> describe_display()["slice_plane"]
        'axial'
    """
    low, high = chosen_window() or (None, None)
    return {
        "window": os.environ.get(WINDOW_VARIABLE) or None,
        "window_low": low,
        "window_high": high,
        "slice_plane": slice_plane(),
    }


def _limits(window: str, name: str) -> tuple[float, float]:
    """Return the values that a window shows black and white."""
    try:
        centre, width = PRESETS[window] if window in PRESETS else map(float, window.split(","))
    except ValueError:
        centre, width = math.nan, math.nan
    if not (math.isfinite(centre) and math.isfinite(width) and width > 0):
        presets = ", ".join(PRESETS)
        msg = f"{name} {window}: give a preset ({presets}) or CENTRE,WIDTH with a width above 0, such as 40,80"
        raise ValueError(msg)
    return centre - width / 2, centre + width / 2
