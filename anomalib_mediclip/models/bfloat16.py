# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Frozen encoders in bfloat16: where that is worth it, and how they come back to their float32 weights."""

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

    The 32 bits of a weight are split: the upper half, rounded, is the bfloat16 weight; the lower half is set aside on
    the CPU. Both together take the memory of the weight itself, and no file need be read again.

    Args:
        towers (Sequence[nn.Module]): Modules, changed in place.

    Example:
        >>> tower = nn.Linear(4, 4)
        >>> before = tower.weight.detach().clone()
        >>> towers = Bfloat16Towers([tower])
        >>> tower.weight.dtype
        torch.bfloat16
        >>> towers.restore()
        >>> torch.equal(tower.weight, before)
        True
    """

    def __init__(self, towers: Sequence[nn.Module]) -> None:
        self._towers = list(towers)
        self._lower: list[dict[str, torch.Tensor]] = []
        for tower in self._towers:
            lower = {}
            for name, tensor in _tensors(tower).items():
                if tensor.dtype == torch.float32:
                    tensor.data, lower[name] = _split(tensor.data)
            self._lower.append(lower)

    def restore(self) -> None:
        """Give the modules their float32 weights back."""
        for tower, lower in zip(self._towers, self._lower, strict=True):
            for name, tensor in _tensors(tower).items():
                if name in lower:
                    tensor.data = _join(tensor.data, lower.pop(name))


def _tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    """Return parameters and buffers by name."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def _split(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Split float32 into the nearest bfloat16 (ties away from zero) and the lower 16 bits, a signed number."""
    bits = weight.view(torch.int32)
    upper = ((bits + 0x8000) >> 16).to(torch.int16)
    return upper.view(torch.bfloat16), bits.to(torch.int16).cpu()


def _join(upper: torch.Tensor, lower: torch.Tensor) -> torch.Tensor:
    """Undo :func:`_split`, on the device of the upper half."""
    bits = (upper.view(torch.int16).to(torch.int32) << 16) + lower.to(upper.device, torch.int32)
    return bits.view(torch.float32)
