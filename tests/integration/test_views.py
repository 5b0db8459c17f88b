# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Painted views: encoded once before the first step, and visited in a new order again and again."""

import logging
import re
from collections import Counter
from pathlib import Path

import pytest
import torch
from lightning import Callback
from torchvision.transforms.v2 import RandomHorizontalFlip

from anomalib_mediclip.models.components.feature_cache import FeatureCache
from anomalib_mediclip.models.mediclip.loss import dice_loss, focal_loss
from anomalib_mediclip.models.mediclip.painted_views import PaintedViews, sampled
from tests.integration.test_training import (
    assert_same,
    checkpoint_of,
    engine,
    learnt,
    sample_datamodule,
    tiny_model,
)

SHOTS = 8


class Look(Callback):
    """Looks at the model when its first step begins, with the painted views at hand."""

    def __init__(self, look) -> None:
        self._look = look

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        if not trainer.global_step:
            self._look(pl_module, batch)


def encoded_in_training(model) -> list[int]:
    """Note how many images the encoder gets at a time outside of validation."""
    sizes: list[int] = []
    encoder = model.model.vision_encoder
    encoder.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])) if model.training else None)
    return sizes


def fitted(model, root: Path, folder: Path, epochs: int = 2, checkpoint: Path | None = None, **options):
    data = options.pop("data", {})
    engine(folder, epochs, **options).fit(model, datamodule=sample_datamodule(root, **data), ckpt_path=checkpoint)
    return model


def test_no_step_runs_the_encoder(official, sample_data, tmp_path) -> None:
    model = tiny_model(official, views=5)
    sizes = encoded_in_training(model)
    fitted(model, sample_data, tmp_path, epochs=7)
    assert sum(sizes) == 5 * SHOTS


def test_a_run_encodes_what_its_epochs_need_only(official, sample_data, tmp_path) -> None:
    model = tiny_model(official, views=25)
    sizes = encoded_in_training(model)
    fitted(model, sample_data, tmp_path / "short", epochs=2)
    assert sum(sizes) == 2 * SHOTS
    resumed = tiny_model(official, views=25)
    sizes = encoded_in_training(resumed)
    fitted(resumed, sample_data, tmp_path / "resumed", epochs=5, checkpoint=checkpoint_of(tmp_path / "short"))
    assert sum(sizes) == 3 * SHOTS
    whole = fitted(tiny_model(official, views=25), sample_data, tmp_path / "whole", epochs=5)
    assert_same(learnt(whole), learnt(resumed))


@pytest.mark.parametrize(
    ("limit", "needed"), [({"max_steps": 3}, 2), ({"max_time": {"seconds": 1}}, 4), ({"max_steps": 99, "epochs": 3}, 3)]
)
def test_a_run_limited_by_steps_or_time_encodes_what_it_may_need(
    official, sample_data, tmp_path, limit, needed
) -> None:
    model = tiny_model(official, views=4)
    sizes = encoded_in_training(model)
    fitted(model, sample_data, tmp_path, **{"epochs": -1} | limit)
    assert sum(sizes) == needed * SHOTS


def test_without_views_every_epoch_paints_and_encodes(official, sample_data, tmp_path) -> None:
    model, epochs = tiny_model(official, views=None), Counter[int]()
    sizes, generate = encoded_in_training(model), model.anomaly_generator.forward
    model.anomaly_generator.forward = lambda image, names, epoch: (
        epochs.update({epoch: len(names)}) or generate(image, names, epoch)
    )
    fitted(model, sample_data, tmp_path, epochs=3)
    assert epochs == {0: SHOTS, 1: SHOTS, 2: SHOTS}
    assert sum(sizes) == 3 * SHOTS


def test_views_are_what_the_generator_paints_and_the_encoder_sees(official, sample_data, tmp_path) -> None:
    model, seen = tiny_model(official, views=2), []

    def look(module, batch) -> None:
        features, masks = module._painted(batch, batch.image, 0)
        names = [Path(path).name for path in batch.image_path]
        for index, path in enumerate(batch.image_path):
            view = module._painted.view_of(path, 0)
            image, mask = module.anomaly_generator(batch.image[index : index + 1], [names[index]], view)
            assert torch.equal(sampled(mask[0, 0]), masks[index])
            for block, expected in zip(features, module.model.vision_encoder(image), strict=True):
                torch.testing.assert_close(block[index], expected[0], rtol=1e-3, atol=1e-3)
            seen.append(view)

    fitted(model, sample_data, tmp_path, epochs=1, callbacks=[Look(look)])
    assert len(seen) == 4


def test_the_loss_on_every_fourth_pixel_is_that_of_the_whole_map(official, sample_data, tmp_path) -> None:
    model, pairs = tiny_model(official, image_size=(224, 224)), []

    def look(module, batch) -> None:
        features, masks = module._painted(batch, batch.image, 0)
        whole = [
            module.anomaly_generator(image, [Path(path).name], module._painted.view_of(path, 0))[1][0]
            for image, path in zip(batch.image, batch.image_path, strict=True)
        ]
        assert masks.shape == (4, 56, 56)
        for labels in (masks, torch.stack(whole)):
            maps = module.model.head(features, labels.shape[-2:])
            pairs.append((focal_loss(maps, labels).item(), dice_loss(maps[:, 1], labels).item()))

    fitted(model, sample_data, tmp_path, epochs=1, callbacks=[Look(look)])
    assert pairs[0] == pytest.approx(pairs[1], rel=0.05)


def test_every_view_is_visited_once_in_a_round_and_orders_differ() -> None:
    names = {"/data/a.png": "a.png", "/data/b.png": "b.png"}
    views = PaintedViews(names, views=7, seed=3, cache=FeatureCache(Path()))
    rounds = {
        (path, number): tuple(views.view_of(path, 7 * number + epoch) for epoch in range(7))
        for path in names
        for number in range(4)
    }
    assert all(sorted(order) == list(range(7)) for order in rounds.values())
    assert len(set(rounds.values())) == len(rounds)
    other = PaintedViews(names, views=7, seed=4, cache=FeatureCache(Path()))
    assert [other.view_of("/data/a.png", epoch) for epoch in range(7)] != list(rounds["/data/a.png", 0])


def test_views_in_a_file_give_the_weights_of_views_in_memory(official, sample_data, tmp_path) -> None:
    held: list[int] = []

    def look(module, batch) -> None:
        folder = str(module.trainer.default_root_dir)
        maps = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
        held.append(sum(folder in line and line.endswith("(deleted)") for line in maps))

    inside = learnt(fitted(tiny_model(official), sample_data, tmp_path / "memory", callbacks=[Look(look)]))
    model = tiny_model(official, cache_limit=0)
    assert_same(inside, learnt(fitted(model, sample_data, tmp_path / "file", callbacks=[Look(look)])))
    assert held == [0, 1]
    maps = Path("/proc/self/maps").read_text(encoding="utf-8")
    assert not [line for line in maps.splitlines() if str(tmp_path) in line]


def test_resumed_run_ends_in_the_weights_of_an_uninterrupted_one(official, sample_data, tmp_path) -> None:
    whole = learnt(fitted(tiny_model(official), sample_data, tmp_path / "whole", epochs=5))
    fitted(tiny_model(official), sample_data, tmp_path / "cut", epochs=2)
    checkpoint = checkpoint_of(tmp_path / "cut")
    resumed = fitted(tiny_model(official), sample_data, tmp_path / "resumed", epochs=5, checkpoint=checkpoint)
    assert_same(whole, learnt(resumed))


@pytest.mark.parametrize(("started", "resumed"), [(3, 4), (3, None), (None, 3)])
def test_resuming_with_other_views_is_refused_with_both(official, sample_data, tmp_path, started, resumed) -> None:
    fitted(tiny_model(official, views=started), sample_data, tmp_path / "cut", epochs=1)
    checkpoint = checkpoint_of(tmp_path / "cut")
    words = [f"views {'null' if views is None else views}" for views in (started,)]
    with pytest.raises(ValueError) as error:
        fitted(tiny_model(official, views=resumed), sample_data, tmp_path / "resumed", 2, checkpoint)
    assert f"started with --model.{words[0]}, and is resumed with {'null' if resumed is None else resumed}" in str(
        error.value
    )
    model = tiny_model(official, views=resumed)  # which may be tested with it
    assert (
        engine(tmp_path).test(model, datamodule=sample_datamodule(sample_data), ckpt_path=checkpoint)[0]["image_AUROC"]
        >= 0
    )


@pytest.mark.parametrize("views", [0, -3, True, 2.5])
def test_a_number_of_views_that_paints_nothing_is_refused(official, views) -> None:
    with pytest.raises(ValueError, match=rf"views={views}: use a whole number from 1"):
        tiny_model(official, views=views)


def test_a_disk_without_space_says_how_much_is_needed_and_what_would_fit(
    official, sample_data, tmp_path, monkeypatch
) -> None:
    class Usage:
        free = 600_000

    monkeypatch.setattr("shutil.disk_usage", lambda folder: Usage)
    model = tiny_model(official, views=20, cache_limit=0)
    with pytest.raises(OSError, match=r"20 views of each of 8 images take \d+ MB") as error:
        fitted(model, sample_data, tmp_path, epochs=30)
    assert re.search(r"has 1 MB free.*give --model.views [1-9]\d?, or give --model.views null", str(error.value))


def test_features_that_are_not_numbers_name_the_image(official, sample_data, tmp_path) -> None:
    model, calls = tiny_model(official), []
    encoder = model.model.vision_encoder
    encode = encoder.forward

    def broken(images):
        features = encode(images)
        calls.append(len(images))
        features[1][5] = float("nan")
        return features

    encoder.forward = broken
    data = sample_datamodule(sample_data)
    data.setup()
    with pytest.raises(FloatingPointError) as error:
        fitted(model, sample_data, tmp_path)
    assert data.support_set[5].name in str(error.value)
    assert model._painted is None  # nothing is kept of a run that failed


def test_augmentations_that_change_images_make_every_view_another(official, sample_data, tmp_path) -> None:
    reads: Counter[str] = Counter()
    model = tiny_model(official, views=4)
    support_image = model.support_image
    model.support_image = lambda index: reads.update([str(index)]) or support_image(index)
    fitted(model, sample_data, tmp_path / "same", epochs=4)
    assert set(reads.values()) == {1}
    reads.clear()
    data = {"train_augmentations": RandomHorizontalFlip()}
    fitted(model, sample_data, tmp_path / "varied", epochs=4, data=data)
    assert set(reads.values()) == {1 + 4}  # once for CutPaste to cut from


class Reader(Callback):
    """Reads metrics of validation, so that every epoch has some."""


def test_validation_images_are_encoded_once_where_every_epoch_predicts_them(official, sample_data, tmp_path) -> None:
    def run(folder: str) -> tuple[int, float]:
        model, count = tiny_model(official), []
        model.model.vision_encoder.register_forward_pre_hook(
            lambda module, inputs: None if model.training else count.append(len(inputs[0]))
        )
        fitted(model, sample_data, tmp_path / folder, epochs=4, callbacks=[Reader()])
        return sum(count), model.post_processor.image_threshold.item()

    images, threshold = run("once")
    assert images == SHOTS + 2 * SHOTS  # clean and painted
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FeatureCache, "claim", lambda self, size: size > 1e9)
        anew, expected = run("anew")
    assert anew == 4 * images
    assert threshold == expected


def test_the_log_says_what_was_encoded(official, sample_data, tmp_path, caplog) -> None:
    with caplog.at_level(logging.INFO):
        fitted(tiny_model(official), sample_data, tmp_path, epochs=3)
    assert "Encoded 3 views of each of 8 images" in caplog.text


def test_a_progress_bar_says_what_takes_long(official, sample_data, tmp_path, capsys, monkeypatch) -> None:
    titles = []
    monkeypatch.setattr(
        "anomalib_mediclip.models.components.feature_cache.tqdm",
        lambda **options: titles.append((options["desc"], options["disable"])) or Silent(),
    )
    fitted(tiny_model(official), sample_data, tmp_path / "shown", epochs=1, enable_progress_bar=True)
    fitted(tiny_model(official), sample_data, tmp_path / "hidden", epochs=1, enable_progress_bar=False)
    assert titles == [("encoding 8 images", False), (None, True)]


class Silent:
    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def update(self, number: int) -> None:
        pass
