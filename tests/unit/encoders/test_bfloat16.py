# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Frozen modules in bfloat16 and back."""

import pytest
import torch
from torch import nn

from anomalib_mediclip.encoders.bfloat16 import Bfloat16Towers, computing_device, native_bfloat16


def module_of(*values: float) -> nn.Linear:
    module = nn.Linear(len(values), 1, bias=False).requires_grad_(False)
    module.weight.copy_(torch.tensor([values]))
    return module


def test_weights_come_back_bit_for_bit() -> None:
    generator = torch.Generator().manual_seed(0)
    scales = 10.0 ** torch.arange(-40, 38)  # denormal to nearly infinite
    tower = nn.Linear(78, 1000, bias=False).requires_grad_(False)
    tower.weight.copy_(torch.randn(1000, 78, generator=generator) * scales)
    before = tower.weight.clone().view(torch.int32)
    towers = Bfloat16Towers([tower])
    assert tower.weight.dtype == torch.bfloat16
    towers.restore()
    assert torch.equal(tower.weight.view(torch.int32), before)


def test_ties_and_zeros_come_back() -> None:
    values = (0.0, -0.0, 1 + 2**-8, 1 + 3 * 2**-8, -(1 + 2**-8), 1 + 2**-8 - 2**-20, 2 - 2**-23)
    tower = module_of(*values)
    before = tower.weight.clone().view(torch.int32)
    Bfloat16Towers([tower]).restore()
    assert torch.equal(tower.weight.view(torch.int32), before)


def test_no_bfloat16_is_nearer() -> None:
    tower = nn.Linear(100, 100).requires_grad_(False)
    weight = tower.weight.clone()
    Bfloat16Towers([tower])
    assert torch.equal((tower.weight.float() - weight).abs(), (weight.to(torch.bfloat16).float() - weight).abs())


def test_batch_statistics_follow_and_counters_do_not() -> None:
    tower = nn.BatchNorm2d(3).requires_grad_(False)
    towers = Bfloat16Towers([tower])
    assert tower.running_mean.dtype == torch.bfloat16
    assert tower.num_batches_tracked.dtype == torch.int64
    towers.restore()
    assert tower.running_mean.dtype == torch.float32


def test_both_halves_lie_where_the_weight_lay() -> None:
    tower = module_of(1.0, 2.0, 3.0)
    place = tower.weight.untyped_storage().data_ptr()
    towers = Bfloat16Towers([tower])
    assert tower.weight.untyped_storage().data_ptr() == place
    towers.restore()
    assert tower.weight.untyped_storage().data_ptr() == place


def test_layout_of_convolutions_is_kept() -> None:
    tower = nn.Conv2d(3, 5, 3).to(memory_format=torch.channels_last).requires_grad_(False)
    before, layout = tower.weight.clone(), tower.weight.stride()
    towers = Bfloat16Towers([tower])
    assert tower.weight.stride() == layout
    torch.testing.assert_close(tower.weight.float(), before, atol=0, rtol=2**-8)
    towers.restore()
    assert tower.weight.stride() == layout
    assert torch.equal(tower.weight, before)


@pytest.mark.parametrize(("accelerator", "expected"), [("cpu", "cpu"), ("cuda", "cuda"), ("mps", "mps")])
def test_a_named_accelerator_is_the_device(accelerator: str, expected: str) -> None:
    assert computing_device(accelerator) == expected


def test_unknown_devices_are_not_taken_for_native() -> None:
    assert not native_bfloat16("mps")


def test_emulation_on_a_cpu_is_not_native(monkeypatch) -> None:
    for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: False, raising=False)
    assert not native_bfloat16("cpu")
    if torch.backends.mkldnn.is_available():
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True, raising=False)
        assert native_bfloat16("cpu")
