# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Frozen encoders in bfloat16, on hardware that multiplies it natively, and back in their float32 weights."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn


def computing_device(accelerator: Any) -> str:
    """Return the kind of device that Lightning will compute on.

    Args:
        accelerator (Any): Lightning's option of that name: a name, ``"auto"``, or ``None``.

    Returns:
        str: ``"cuda"``, ``"mps"``, ``"cpu"``, or the name as it was given.

    Example:
        >>> computing_device("cpu")
        'cpu'
    """
    if accelerator not in (None, "auto", "gpu"):
        return str(accelerator)
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def native_bfloat16(device: str) -> bool:
    """Tell whether a kind of device multiplies bfloat16 matrices in hardware.

    Emulated, bfloat16 is several times slower than float32.

    Args:
        device (str): ``"cuda"``, ``"cpu"``, or another kind, of which nothing is assumed.

    Returns:
        bool: For a CPU, whether it has AMX or AVX512-BF16.
    """
    if device == "cuda":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    # torch has no public name for these that its older versions know
    probes = (getattr(torch.cpu, f"_is_{name}_supported", bool) for name in ("amx_tile", "avx512_bf16"))
    return device == "cpu" and torch.backends.mkldnn.is_available() and any(probe() for probe in probes)


class Bfloat16Towers:
    """Frozen modules turned to bfloat16, from which their float32 weights can be had back bit for bit.

    The 32 bits of a weight are split: the upper half, rounded, is the bfloat16 weight; the lower half is set aside.
    Both lie where the weight lay, so nothing is allocated and no file need be read again. A module that moves to
    another device takes the upper halves with it only.

    Args:
        towers (Sequence[nn.Module]): Modules, changed in place.

    Example:
        >>> tower = nn.Linear(4, 4).requires_grad_(False)
        >>> before = tower.weight.clone()
        >>> towers = Bfloat16Towers([tower])
        >>> tower.weight.dtype
        torch.bfloat16
        >>> towers.restore()
        >>> torch.equal(tower.weight, before)
        True
    """

    def __init__(self, towers: Sequence[nn.Module]) -> None:
        self._towers = list(towers)
        self._memory = [
            {name: _split(tensor) for name, tensor in _tensors(tower).items() if tensor.dtype == torch.float32}
            for tower in self._towers
        ]

    def restore(self) -> None:
        """Give the modules their float32 weights back."""
        for tower, memory in zip(self._towers, self._memory, strict=True):
            tensors = _tensors(tower)
            for name in list(memory):
                _join(tensors[name], memory.pop(name))


def _tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    """Return parameters and buffers by name."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def _split(weight: torch.Tensor) -> torch.Tensor:
    """Make a float32 tensor the nearest bfloat16 (ties away from zero), and return the memory it lay in."""
    memory = weight.data.as_strided((weight.numel(),), (1,))  # in whatever order the dimensions lie
    bits, halves = memory.view(torch.int32), memory.view(torch.int16)
    upper, lower = ((bits + 0x8000) >> 16).to(torch.int16), bits.to(torch.int16)  # lower as a signed number
    halves[: len(upper)], halves[len(upper) :] = upper, lower
    weight.data = halves[: len(upper)].view(torch.bfloat16).as_strided(weight.shape, weight.stride())
    return memory


def _join(weight: torch.Tensor, memory: torch.Tensor) -> None:
    """Undo :func:`_split`."""
    upper, lower = memory.view(torch.int16).to(torch.int32).chunk(2)
    memory.view(torch.int32).copy_((upper << 16) + lower)
    weight.data = memory.as_strided(weight.shape, weight.stride()).to(weight.device)
