# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Training on real anomalies of miniatures of MVTec AD and VisA, and testing on the shipped set."""

import logging
import re
from pathlib import Path

import pytest
import torch
import yaml
from anomalib.models import Patchcore
from torchvision.transforms.v2 import RandomHorizontalFlip

from anomalib_mediclip import AuxiliaryData, SimpleNet
from tests.conftest import REPOSITORY
from tests.integration.test_cli import LITE, anomalib
from tests.integration.test_training import assert_same, checkpoint_of, engine, learnt, tiny_model
from tests.unit.data.small_datasets import save_industrial


def specification(class_path: str, root: Path) -> dict:
    return {"class_path": class_path, "init_args": {"root": str(root)}}


@pytest.fixture
def mvtec(tmp_path: Path) -> dict:
    return specification("anomalib.data.MVTecAD", save_industrial(tmp_path / "mvtec", ("bottle", "cable")))


def auxiliary_data(auxiliary: dict, sample_data: Path, **options) -> AuxiliaryData:
    medical = specification("anomalib_mediclip.MedicalFolder", sample_data)
    return AuxiliaryData(auxiliary, medical, **{"k_shot": 4, "train_batch_size": 4} | options)


def losses_of(model) -> list[float]:
    """Note the losses of all steps."""
    found: list[float] = []
    checked = model.checked_loss
    model.checked_loss = lambda loss, *arguments: (found.append(loss.item()), checked(loss, *arguments))[1]
    return found


@pytest.mark.parametrize("views", [50, None])
def test_visa_reduces_the_loss_and_the_medical_set_is_tested(official, sample_data, tmp_path, views) -> None:
    save_industrial(tmp_path / "visa" / "visa_pytorch", ("candle", "pcb1"), "bad", suffix="")
    data = auxiliary_data(specification("anomalib.data.Visa", tmp_path / "visa"), sample_data)
    model = tiny_model(official, views=views, memory_bank=True)
    losses = losses_of(model)
    (metrics,) = engine(tmp_path, epochs=12).train(model, datamodule=data)
    assert len(losses) == 12 * 3
    assert sum(losses[-3:]) < 0.9 * sum(losses[:3])
    assert set(metrics) == {"image_AUROC", "image_F1Score", "pixel_AUROC", "pixel_F1Score"}
    assert model.training_record["data"]["auxiliary"] == "Visa (candle, pcb1)"
    assert len(model.model.memory_bank.images) == 4, "the bank holds the medical support set"


def test_steps_learn_from_the_true_masks(official, sample_data, tmp_path, mvtec) -> None:
    """Encoded once or batch by batch, an image and its mask stay together."""
    seen = {}
    for views in (50, None):
        model = tiny_model(official, views=views)
        original = model.loss.forward
        shares: list[float] = []

        def watched(maps, masks, original=original, shares=shares):
            shares.extend(masks.float().mean(dim=(1, 2)).tolist())
            return original(maps, masks)

        model.loss.forward = watched
        engine(tmp_path / str(views), epochs=1).fit(model, datamodule=auxiliary_data(mvtec, sample_data))
        seen[views] = shares
    assert len(seen[None]) == len(seen[50]) == 10
    assert sum(share == 0 for share in seen[None]) == 4, "the normal images of the two categories"
    assert seen[50] == pytest.approx(seen[None], abs=0.03), "on every fourth pixel, in the same order"
    assert sorted(seen[None])[4:] == pytest.approx([(16 / 48) ** 2] * 6, rel=0.1)


def test_a_run_is_reproducible_and_resumes_to_the_same_bits(official, sample_data, tmp_path, mvtec) -> None:
    def run(folder: str, epochs: int, checkpoint: Path | None = None):
        model = tiny_model(official)
        data = auxiliary_data(mvtec, sample_data)
        engine(tmp_path / folder, epochs).fit(model, datamodule=data, ckpt_path=checkpoint)
        return learnt(model)

    whole = run("whole", 3)
    run("first", 1)
    assert_same(whole, run("second", 3, checkpoint_of(tmp_path / "first")))


def test_resuming_with_other_auxiliary_images_warns(official, sample_data, tmp_path, mvtec, caplog) -> None:
    engine(tmp_path / "first", 1).fit(tiny_model(official), datamodule=auxiliary_data(mvtec, sample_data))
    mvtec["init_args"]["category"] = "cable"
    data = auxiliary_data(mvtec, sample_data)
    with caplog.at_level(logging.WARNING):
        engine(tmp_path / "second", 2).fit(
            tiny_model(official), datamodule=data, ckpt_path=checkpoint_of(tmp_path / "first")
        )
    assert "resumed with other auxiliary images" in caplog.text


def test_augmented_images_have_several_views(official, sample_data, tmp_path, mvtec, caplog) -> None:
    data = auxiliary_data(mvtec, sample_data, train_augmentations=RandomHorizontalFlip())
    with caplog.at_level(logging.INFO):
        engine(tmp_path, 3).fit(tiny_model(official, views=3), datamodule=data)
    assert "Encoded 3 views of each of 10 images" in caplog.text


@pytest.mark.parametrize("model", [lambda: SimpleNet("timm/resnet18", None, image_size=(64, 64)), Patchcore])
def test_models_that_learn_from_normal_images_are_refused(model, sample_data, tmp_path, mvtec) -> None:
    model = Patchcore(backbone="resnet18", pre_trained=False) if model is Patchcore else model()
    with pytest.raises(ValueError, match=rf"{type(model).__name__} learns from normal images.*train MediCLIP"):
        engine(tmp_path).fit(model, datamodule=auxiliary_data(mvtec, sample_data))


def test_mvtec_through_the_stock_command(sample_data: Path, tmp_path: Path, mvtec: dict) -> None:
    init_args = {
        "k_shot": 4,
        "auxiliary": mvtec,
        "medical": specification("anomalib_mediclip.MedicalFolder", sample_data),
    }
    data = {"class_path": "anomalib_mediclip.AuxiliaryData", "init_args": init_args}
    (tmp_path / "data.yaml").write_text(yaml.safe_dump(data))
    options = [*LITE, "--data", tmp_path / "data.yaml", "--trainer.max_epochs", 8]
    result = anomalib("train", *options, folder=tmp_path)
    assert result.returncode == 0, result.stderr[-3000:]
    assert "trains on 10 images of MVTecAD (bottle, cable), 6 with anomalies" in result.stderr
    for metric in ("image_AUROC", "pixel_AUROC"):
        assert re.search(rf"{metric}\s*│\s*[01]\.\d+", result.stdout)
    checkpoint = checkpoint_of(tmp_path)
    assert torch.load(checkpoint, weights_only=True)["training_record"]["data"]["auxiliary_images"] == 10
    tested = anomalib("test", "--model", "MediCLIP", "--ckpt_path", checkpoint, *options[2:4], folder=tmp_path)
    assert tested.returncode == 0, tested.stderr[-3000:]


def test_the_shipped_configuration_is_valid() -> None:
    shipped = yaml.safe_load((REPOSITORY / "configs" / "data" / "auxiliary.yaml").read_text())
    data = AuxiliaryData(**shipped["init_args"])
    assert (data.auxiliary.name, data.medical.name, data.medical.k_shot) == ("MVTecAD", "BUSI", 16)
