# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Behaviour of the generator as a whole."""

import pickle
import random

import numpy as np
import pytest
import torch

from anomalib_mediclip.synthesis import MedicalAnomalyGenerator

TASKS = ("cut_paste", "gauss_intensity", "source")


def picture(channels: int = 1, height: int = 128, width: int = 128, seed: int = 0) -> torch.Tensor:
    """Return a textured bright disc on a black background."""
    rows, columns = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    texture = torch.rand(channels, height, width, generator=torch.Generator().manual_seed(seed))
    return (0.3 + 0.4 * texture + 0.2 * torch.sin(12 * rows)) * (rows**2 + columns**2 < 0.6)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("official", [False, True])
@pytest.mark.parametrize(("channels", "height", "width"), [(1, 64, 64), (3, 224, 224), (1, 300, 200), (3, 32, 96)])
def test_anomalies_change_the_mask_and_nothing_else(task, official, channels, height, width):
    options = {"max_anomalies": 2, "blending": "paste", "feather": True, "shear": True} if official else {}
    generator = MedicalAnomalyGenerator(tasks={task: 1.0}, **options)
    images = torch.stack([picture(channels, height, width, seed) for seed in range(8)])
    generator.set_support_set(list(images))
    before = images.clone()
    changed, masks = generator(images)
    assert torch.equal(images, before)
    assert changed.shape == images.shape
    assert masks.shape == (8, 1, height, width)
    assert masks.dtype == torch.float32
    assert set(masks.unique().tolist()) == {0.0, 1.0}
    assert 0 <= changed.min() <= changed.max() <= 1
    outside = (masks == 0).expand_as(images)
    assert torch.equal(changed[outside], images[outside])
    moved = [(c - i).abs()[m.expand_as(i) > 0].mean() > 0.01 for c, i, m in zip(changed, images, masks, strict=True)]
    assert sum(moved) >= 6


@pytest.mark.parametrize("task", TASKS)
def test_large_image(task):
    image = picture(1, 1024, 1024)
    changed, mask = MedicalAnomalyGenerator(tasks={task: 1.0})(image)
    assert (mask.shape, changed.shape) == (image.shape, image.shape)
    assert 0.005 < mask.mean() < 0.5
    assert torch.equal(changed[mask == 0], image[mask == 0])


def test_identity_leaves_the_image_alone():
    images = torch.stack([picture(3), picture(3, seed=1)])
    changed, masks = MedicalAnomalyGenerator(tasks={"identity": 1.0})(images)
    assert torch.equal(changed, images)
    assert not masks.any()


@pytest.mark.parametrize("task", TASKS)
def test_grey_image_with_three_channels_stays_grey_and_equals_one_channel(task):
    generator = MedicalAnomalyGenerator(tasks={task: 1.0})
    grey, grey_mask = generator(picture())
    colour, colour_mask = generator(picture().expand(3, -1, -1))
    assert torch.equal(colour, grey.expand(3, -1, -1))
    assert torch.equal(colour_mask, grey_mask)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_type_is_kept_and_the_outside_is_exact(dtype):
    image = picture().to(dtype)
    changed, mask = MedicalAnomalyGenerator()(image)
    assert (changed.dtype, mask.dtype) == (dtype, torch.float32)
    assert torch.equal(changed[mask == 0], image[mask == 0])


def test_result_depends_on_the_name_and_not_on_the_batch():
    generator = MedicalAnomalyGenerator(seed=3)
    images = torch.stack([picture(seed=seed) for seed in range(6)])
    generator.set_support_set(list(images))
    names = [f"patient {index}.png" for index in range(6)]
    changed, masks = generator(images, names, epoch=2)
    reverse, reverse_masks = generator(images.flip(0), names[::-1], epoch=2)
    assert torch.equal(reverse.flip(0), changed)
    assert torch.equal(reverse_masks.flip(0), masks)
    for image, name, expected, expected_mask in zip(images, names, changed, masks, strict=True):
        single, mask = pickle.loads(pickle.dumps(generator))(image, [name], epoch=2)
        assert torch.equal(single, expected)
        assert torch.equal(mask, expected_mask)


def test_seed_epoch_and_name_each_change_the_result():
    image = picture()
    reference, _ = MedicalAnomalyGenerator()(image, ["a"], epoch=0)
    others = [
        MedicalAnomalyGenerator(seed=1)(image, ["a"], epoch=0),
        MedicalAnomalyGenerator()(image, ["a"], epoch=1),
        MedicalAnomalyGenerator()(image, ["b"], epoch=0),
    ]
    assert not any(torch.equal(other, reference) for other, _ in others)


def test_global_random_state_is_neither_used_nor_changed():
    generator = MedicalAnomalyGenerator()
    images = torch.stack([picture(seed=seed) for seed in range(4)])
    torch.manual_seed(0)
    first, _ = generator(images)
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    second, _ = generator(images)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])  # noqa: NPY002
    assert random.getstate() == states[2]
    torch.manual_seed(9)
    assert torch.equal(first, second)
    assert torch.equal(generator(images)[0], first)


def test_tasks_follow_their_weights_whatever_their_sum():
    generator = MedicalAnomalyGenerator(tasks={"cut_paste": 6.0, "source": 2.0, "identity": 0.0})
    drawn = [generator.draw_task(str(index)) for index in range(400)]
    assert 270 < drawn.count("cut_paste") < 330
    assert drawn.count("cut_paste") + drawn.count("source") == 400


def test_paper_draws_its_three_tasks_equally_often():
    generator = MedicalAnomalyGenerator()
    drawn = [generator.draw_task(str(index)) for index in range(600)]
    assert all(160 < drawn.count(task) < 240 for task in TASKS)


def test_draw_task_tells_what_forward_does():
    generator = MedicalAnomalyGenerator(tasks={"identity": 1.0, "gauss_intensity": 1.0})
    for epoch in range(10):
        _, mask = generator(picture(), ["x"], epoch=epoch)
        assert mask.any() == (generator.draw_task("x", epoch) != "identity")


def test_cut_paste_cuts_from_the_support_set():
    generator = MedicalAnomalyGenerator(tasks={"cut_paste": 1.0}, blending="paste")
    image = torch.full((1, 96, 96), 0.2)
    assert torch.equal(generator(image)[0], image)  # cut from itself: nothing changes
    generator.set_support_set([torch.full((3, 80, 120), 0.9)])
    changed, mask = generator(image)
    assert changed[mask > 0] == pytest.approx(0.9)


def test_changed_label_leaves_out_what_stayed_the_same():
    image = torch.full((1, 96, 96), 0.2)
    options = {"tasks": {"cut_paste": 1.0}, "blending": "paste"}
    assert not MedicalAnomalyGenerator(cut_paste_label="changed", **options)(image)[1].any()
    assert MedicalAnomalyGenerator(cut_paste_label="mask", **options)(image)[1].any()


@pytest.mark.parametrize("task", TASKS)
def test_anomalies_are_placed_on_the_foreground(task):
    images = torch.stack([picture(height=224, width=224, seed=seed) for seed in range(24)])
    shares = {}
    for foreground in (True, False):
        _, masks = MedicalAnomalyGenerator(tasks={task: 1.0}, foreground=foreground)(images)
        shares[foreground] = ((masks > 0) & (images > 0.05)).sum((1, 2, 3)) / masks.sum((1, 2, 3))
    assert shares[True].min() >= 0.5
    assert shares[False].min() < 0.5


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_constant_images_are_accepted(task, level):
    changed, mask = MedicalAnomalyGenerator(tasks={task: 1.0})(torch.full((3, 64, 64), level))
    assert torch.isfinite(changed).all()
    assert mask.any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tasks": {"sorce": 1.0}}, "sorce.*cut_paste"),
        ({"tasks": {"source": -1.0, "cut_paste": 1.0}}, "negative"),
        ({"tasks": {"source": float("nan")}}, "nan"),
        ({"tasks": {"source": 0.0}}, "at least one"),
        ({"tasks": {}}, "at least one"),
        ({"max_anomalies": 3}, "max_anomalies=3"),
        ({"blending": "seamless"}, "blending='seamless'.*poisson"),
        ({"cut_paste_label": "soft"}, "cut_paste_label='soft'"),
        ({"intensity_noise": "white"}, "intensity_noise='white'"),
        ({"alpha_distribution": "log"}, "alpha_distribution='log'"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_invalid_options_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        MedicalAnomalyGenerator(**arguments)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.zeros(64, 64), r"\(64, 64\).*\(C, H, W\)"),
        (torch.zeros(2, 64, 64), "1 or 3 channels"),
        (torch.zeros(0, 3, 64, 64), r"\(0, 3, 64, 64\)"),
        (torch.zeros(1, 8, 64), "at least 32"),
        (torch.zeros(1, 64, 64, dtype=torch.uint8), "uint8.*255"),
        (torch.full((1, 64, 64), 200.0), "200.*scale"),
        (torch.full((1, 64, 64), -1.0), "-1.*scale"),
        (torch.full((1, 64, 64), float("nan")), "nan"),
    ],
)
def test_invalid_images_are_named(image, message):
    with pytest.raises(ValueError, match=message):
        MedicalAnomalyGenerator()(image)
    if image.ndim == 3:
        with pytest.raises(ValueError, match=message):
            MedicalAnomalyGenerator().set_support_set([image])


@pytest.mark.parametrize("names", [["a"], ["a", "b", "c"], "ab"])
def test_each_image_needs_a_name(names):
    with pytest.raises(ValueError, match=r"names=.*2 image"):
        MedicalAnomalyGenerator()(torch.zeros(2, 1, 64, 64), names)


def test_epoch_must_not_be_negative():
    with pytest.raises(ValueError, match="epoch=-1"):
        MedicalAnomalyGenerator()(torch.zeros(1, 64, 64), epoch=-1)
