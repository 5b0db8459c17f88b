# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Patches, sizes and numbers of parameters of SQUID, and its in-painting block."""

import pytest
import torch

from anomalib_mediclip import SQUIDModel
from anomalib_mediclip.models.squid.inpainting import InpaintingBlock, neighbours
from anomalib_mediclip.models.squid.networks import Decoder, Encoder, split, stitch


def parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_patches_of_an_image_follow_each_other_row_by_row() -> None:
    images = torch.rand(3, 2, 6, 10)
    patches = split(images)
    assert patches.shape == (12, 2, 3, 5)
    for image in range(3):
        for place, (top, left) in enumerate(((0, 0), (0, 5), (3, 0), (3, 5))):
            assert torch.equal(patches[4 * image + place], images[image, :, top : top + 3, left : left + 5])


def test_splitting_and_stitching_undo_each_other() -> None:
    images, patches = torch.rand(2, 3, 8, 4), torch.rand(8, 3, 4, 2)
    assert torch.equal(stitch(split(images)), images)
    assert torch.equal(split(stitch(patches)), patches)


def test_networks_have_the_parameters_of_the_official_code() -> None:
    with torch.device("meta"):
        model = SQUIDModel()
    parts = {name: parameters(part) for name, part in model.named_children()}
    assert parts["inpainting"] == 19_027_712
    assert parts["teacher"] == 3_875_073
    assert parts["student"] == 3_875_073 + 9_830_400
    assert parts["discriminator"] == 681_921
    assert parameters(model) - parts["discriminator"] == 44_469_506
    assert parameters(model.student.memories) == 4 * 200 * (4096 + 8192)
    assert model.inpainting.queues.slots.numel() == 4 * 200 * 2048


def test_levels_of_encoder_and_decoder_have_the_sizes_of_the_official_code() -> None:
    encoder, decoder = Encoder(4), Decoder(4)
    features, skips = encoder(torch.rand(8, 1, 64, 32))
    assert features.shape == (8, 64, 4, 2)
    assert [skip.shape for skip in skips] == [(8, 32, 8, 4), (8, 16, 16, 8)]
    images, levels = decoder(features, skips)
    assert images.shape == (2, 1, 128, 64)
    assert [level.shape for level in levels] == [(8, 32, 8, 4), (8, 16, 16, 8), (2, 8, 64, 32), (2, 4, 128, 64)]
    assert 0 < images.min() < images.max() < 1


def test_neighbours_of_a_patch_are_all_others_and_zeros() -> None:
    patches = 1 + torch.rand(2, 4, 3)
    found = neighbours(patches)
    for image in range(2):
        for place in range(4):
            rows = sorted(found[image, place].tolist())
            others = sorted(patches[image, other].tolist() for other in range(4) if other != place)
            assert rows == [[0.0] * 3] * 5 + others


def block(shortcut: float) -> InpaintingBlock:
    torch.manual_seed(0)
    return InpaintingBlock(16, (2, 2), slots=6, top_k=2, shortcut=shortcut)


def test_a_shortcut_of_none_leaves_the_features_and_one_of_all_is_the_evaluation() -> None:
    features = torch.rand(8, 16, 2, 2)
    evaluated, _ = block(0.95).eval()(features)
    assert not torch.isclose(evaluated, features).any(dim=1).all()
    assert torch.equal(block(0.0).eval()(features, torch.Generator())[0], features)
    assert torch.equal(block(1.0).eval()(features, torch.Generator())[0], evaluated)
    half = block(0.5).eval()(features, torch.Generator().manual_seed(1))[0]
    of_features, of_evaluated = ((half == part).all(dim=1) for part in (features, evaluated))
    assert (of_features ^ of_evaluated).all()
    assert 4 < of_features.sum() < 28  # of 32 positions


def test_queries_are_those_that_the_queues_were_asked() -> None:
    module, asked = block(0.95).eval(), []
    module.queues.register_forward_pre_hook(lambda _, inputs: asked.append(inputs[0]))
    _, queries = module(torch.rand(8, 16, 2, 2))
    assert queries.shape == (2, 4, 16)
    assert torch.equal(asked[0], queries)


def test_what_a_patch_becomes_depends_on_its_place() -> None:
    module = block(1.0).eval()
    module.queues.slots.copy_(module.queues.slots[:1].expand(4, -1, -1).clone())  # all places remember the same
    same = torch.rand(1, 16, 2, 2).expand(4, -1, -1, -1)
    with torch.no_grad():
        inpainted, _ = module(same)
        module.code.zero_()
        without, _ = module(same)
    assert len({tuple(patch.flatten().tolist()) for patch in inpainted}) == 4
    torch.testing.assert_close(without, without[:1].expand(4, -1, -1, -1))


@pytest.mark.parametrize("width", [2, 4, 6])
def test_small_widths_can_be_built(width) -> None:
    model = SQUIDModel((64, 96), width, slots=8).eval()
    assert model.reconstruct(torch.rand(1, 3, 64, 96)).shape == (1, 1, 64, 96)
