# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Encoders of Patch SVDD: dense embeddings against those of single patches, and the layers of the official code."""

import pytest
import torch

from anomalib_mediclip import PatchSVDDModel
from anomalib_mediclip.models.patch_svdd.networks import DirectionClassifier, LargePatchEncoder, SmallPatchEncoder


@pytest.mark.parametrize("strides", [(16, 4), (16, 8), (32, 16), (8, 2)])
def test_dense_embeddings_are_those_of_single_patches(strides) -> None:
    model = PatchSVDDModel((96, 128), embedding_dim=16, strides=strides).double().eval()
    image = torch.rand(1, 3, 96, 128, dtype=torch.float64)
    with torch.no_grad():
        dense_large, dense_small = model.embed_images(image)
        for dense, side, stride in ((dense_large, 64, strides[0]), (dense_small, 32, strides[1])):
            assert dense.shape[2:] == ((96 - side) // stride + 1, (128 - side) // stride + 1)
            for row, column in {(0, 0), (dense.shape[2] - 1, 0), (0, dense.shape[3] - 1), (dense.shape[2] // 2, 1)}:
                top, left = row * stride, column * stride
                patch = image[:, :, top : top + side, left : left + side]
                other = torch.zeros(1, 3, 32 if side == 64 else 64, 32 if side == 64 else 64, dtype=torch.float64)
                pair = (patch, other) if side == 64 else (other, patch)
                expected = model.embed_patches(*pair)[0 if side == 64 else 1]
                torch.testing.assert_close(dense[:, :, row, column], expected, rtol=0, atol=1e-12)


def test_the_encoder_of_large_patches_sees_the_quadrants_in_their_places() -> None:
    model = PatchSVDDModel((128, 128), embedding_dim=8).double()
    patch = torch.rand(1, 3, 64, 64, dtype=torch.float64)
    quadrants = [patch[:, :, r : r + 32, c : c + 32] for r in (0, 32) for c in (0, 32)]
    with torch.no_grad():
        small = torch.stack([model.small_encoder(q)[0, :, 0, 0] for q in quadrants], dim=1).view(1, 8, 2, 2)
        expected = model.large_encoder(small).flatten(1)
        found, _ = model.embed_patches(patch, torch.zeros(1, 3, 32, 32, dtype=torch.float64))
    torch.testing.assert_close(found, expected)


def test_all_patches_in_one_pass_are_embedded_as_one_by_one() -> None:
    model = PatchSVDDModel((128, 128), embedding_dim=8).double()
    large, small = torch.rand(5, 3, 64, 64).double(), torch.rand(7, 3, 32, 32).double()
    with torch.no_grad():
        together = model.embed_patches(large, small)
        alone_large = torch.cat([model.embed_patches(patch[None], small[:1])[0] for patch in large])
        alone_small = torch.cat([model.embed_patches(large[:1], patch[None])[1] for patch in small])
    torch.testing.assert_close(together[0], alone_large)
    torch.testing.assert_close(together[1], alone_small)


def test_encoders_have_the_weights_of_the_official_code() -> None:
    small, large = SmallPatchEncoder(64), LargePatchEncoder(64)
    assert sum(p.numel() for p in small.parameters()) == 360_832
    assert sum(p.numel() for p in large.parameters()) == 41_152
    embedding = small(torch.randn(4, 3, 32, 32) * 100)
    assert embedding.shape == (4, 64, 1, 1)
    assert embedding.abs().max() <= 1


def test_untrained_embeddings_of_different_patches_differ_by_far_more_than_rounding() -> None:
    model = PatchSVDDModel((128, 128))
    with torch.no_grad():
        embeddings = model.embed_patches(torch.rand(50, 3, 64, 64), torch.rand(50, 3, 32, 32))
    assert all(part.std(dim=0).mean() > 0.01 for part in embeddings)


def test_sides_shrink_as_in_the_paper() -> None:
    encoder, sides = SmallPatchEncoder(64), []
    for layer in encoder.convolutions[:-1]:
        layer.register_forward_hook(lambda _, __, output: sides.append(output.shape[-1]))
    encoder(torch.zeros(1, 3, 32, 32))
    assert sides == [15, 13, 11, 9, 7, 5, 3]


def test_a_fixed_readout_keeps_its_normalised_weights_and_learns_the_bias() -> None:
    classifier = DirectionClassifier(8, fixed_readout=True)
    torch.testing.assert_close(classifier.readout.weight.norm(dim=0), torch.ones(128))
    before = classifier.readout.weight.clone()
    optimizer = torch.optim.SGD([p for p in classifier.parameters() if p.requires_grad], lr=1.0)
    torch.nn.functional.cross_entropy(classifier(torch.rand(4, 8), torch.rand(4, 8)), torch.arange(4)).backward()
    optimizer.step()
    assert torch.equal(classifier.readout.weight, before)
    assert classifier.readout.bias.grad is not None
    learning = DirectionClassifier(8, fixed_readout=False)
    assert all(parameter.requires_grad for parameter in learning.parameters())


def test_only_the_difference_of_two_patches_tells_the_direction() -> None:
    classifier = DirectionClassifier(8, fixed_readout=False).double()
    first, second, shift = (torch.rand(3, 8, dtype=torch.float64) for _ in range(3))
    torch.testing.assert_close(classifier(first + shift, second + shift), classifier(first, second))
    same = classifier(first, first)
    torch.testing.assert_close(same, same[:1].expand(3, 8))
