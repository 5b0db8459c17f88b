# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Properties of the model that a user would miss."""

import pytest
import torch

from anomalib_mediclip import MediCLIPModel
from anomalib_mediclip.models.mediclip.adapter import ChannelPooling
from anomalib_mediclip.models.mediclip.anomaly_map import AnomalyMapGenerator
from anomalib_mediclip.models.mediclip.builder import build_mediclip
from tests.helpers.official import IMAGE_SIZE, LAYERS, OfficialRun

LITE = {"encoder": "timm/tf_efficientnet_lite0.in1k", "weights": None, "layers": [3, 4, 5], "prompt": "prototype"}


def tiny(official: OfficialRun, **options) -> MediCLIPModel:
    return build_mediclip(official.encoder, **{"layers": LAYERS, "image_size": IMAGE_SIZE} | options)


def test_training_returns_two_probabilities_that_add_up_to_one(official: OfficialRun) -> None:
    probabilities = tiny(official)(torch.rand(2, 3, *IMAGE_SIZE))
    assert probabilities.shape == (2, 2, *IMAGE_SIZE)
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(2, *IMAGE_SIZE))


def test_image_score_is_the_maximum_of_the_map(official: OfficialRun) -> None:
    predictions = tiny(official).eval()(torch.rand(3, 3, *IMAGE_SIZE))
    assert torch.equal(predictions.pred_score, predictions.anomaly_map.amax(dim=(1, 2, 3)))


def test_image_score_is_the_mean_of_the_highest_pixels(official: OfficialRun) -> None:
    predictions = tiny(official, top_fraction=0.05).eval()(torch.rand(3, 3, *IMAGE_SIZE))
    number = round(0.05 * IMAGE_SIZE[0] * IMAGE_SIZE[1])
    highest = predictions.anomaly_map.flatten(1).sort(dim=1, descending=True).values[:, :number]
    torch.testing.assert_close(predictions.pred_score, highest.mean(dim=1))


@pytest.mark.parametrize("top_fraction", [-0.1, 1.1, float("nan")])
def test_a_share_of_pixels_that_is_none_is_refused(official: OfficialRun, top_fraction: float) -> None:
    with pytest.raises(ValueError, match=r"top_fraction=.*: give a share of the pixels in \[0, 1\]"):
        tiny(official, top_fraction=top_fraction)


def test_the_memory_bank_adds_its_z_scores_to_those_of_the_learnt_logits(official: OfficialRun) -> None:
    support, images = (torch.rand(number, 3, *IMAGE_SIZE) for number in (4, 2))
    learnt, joined = tiny(official).eval(), tiny(official, memory_bank=True).eval()
    features = joined.vision_encoder(support)
    joined.memory_bank.remember([features], IMAGE_SIZE, ["a", "b", "c", "d"])
    joined.map_moments.copy_(joined.map_moments_of({}, [features], IMAGE_SIZE))
    own = learnt(support).anomaly_map.logit()
    expected = (learnt(images).anomaly_map.logit() - own.mean()) / own.std(correction=0)
    distances = joined.memory_bank(joined.vision_encoder(images), IMAGE_SIZE)
    expected += torch.nn.functional.interpolate(distances, IMAGE_SIZE, mode="bilinear", align_corners=True)
    torch.testing.assert_close(joined(images).anomaly_map, expected, rtol=1e-4, atol=1e-4)


def test_moments_of_other_weights_are_those_that_a_model_with_them_has(official: OfficialRun) -> None:
    support = [tiny(official).vision_encoder(torch.rand(2, 3, *IMAGE_SIZE))]
    model, other = tiny(official, memory_bank=True), tiny(official, memory_bank=True, seed=1)
    expected = other.map_moments_of({}, support, IMAGE_SIZE)
    assert not torch.allclose(model.map_moments_of({}, support, IMAGE_SIZE), expected)
    torch.testing.assert_close(model.map_moments_of(other.state_dict(), support, IMAGE_SIZE), expected)


def test_inference_does_not_run_the_text_encoder(official: OfficialRun) -> None:
    model = tiny(official).eval()
    model.prompts.forward = lambda: pytest.fail("the text encoder was run")
    model(torch.rand(1, 3, *IMAGE_SIZE))


def test_switching_to_inference_refreshes_the_prompt_features(official: OfficialRun) -> None:
    model = tiny(official).eval()
    before = model.prompt_features.clone()
    model.train()
    with torch.no_grad():
        model.prompts.context.add_(0.5)
    model.eval()
    assert not torch.allclose(before, model.prompt_features)
    torch.testing.assert_close(model.prompt_features, model.prompts())


def test_encoder_is_frozen_and_stays_in_evaluation_mode() -> None:
    model = build_mediclip(**LITE).train()
    statistics = model.vision_encoder.tower.bn1.running_mean.clone()
    model(torch.rand(2, 3, 224, 224)).sum().backward()
    assert torch.equal(statistics, model.vision_encoder.tower.bn1.running_mean)
    assert all(parameter.grad is None for parameter in model.vision_encoder.parameters())
    assert all(adapter.weight.grad is not None for adapter in model.adapters)


@pytest.mark.parametrize("aggregation", ["probability", "similarity"])
def test_mixed_precision_does_not_tie_the_scores(official: OfficialRun, aggregation: str) -> None:
    model = tiny(official, aggregation=aggregation).eval()
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        anomaly_map = model(torch.rand(2, 3, *IMAGE_SIZE)).anomaly_map
    assert anomaly_map.dtype == torch.float32
    assert anomaly_map.unique().numel() > 0.9 * anomaly_map.numel()


def test_blocks_after_the_last_tapped_one_are_removed(official: OfficialRun) -> None:
    assert len(tiny(official, layers=[1, 2]).vision_encoder.tower.transformer.resblocks) == 2


def test_layer_maps_differ(official: OfficialRun) -> None:
    """A family of CLIP detectors was published with identical maps for all its layers."""
    first, second, third = tiny(official).vision_encoder(torch.rand(1, 3, *IMAGE_SIZE))
    assert not torch.allclose(first, second, atol=1e-2)
    assert not torch.allclose(second, third, atol=1e-2)


def test_positional_embedding_is_resized_and_quick_gelu_kept_at_another_size(official: OfficialRun) -> None:
    model = tiny(official, image_size=(84, 84))
    assert model.vision_encoder(torch.rand(1, 3, 84, 84))[0].shape[-2:] == (6, 6)
    activations = {type(block.mlp.gelu).__name__ for block in model.vision_encoder.tower.transformer.resblocks}
    assert activations == {"QuickGELU"}


def test_openai_weights_get_quick_gelu_whatever_the_architecture_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """``ViT-L-14`` with OpenAI's weights must not be built with GELU: open_clip only warns."""
    import open_clip

    from anomalib_mediclip.encoders.weights import create_clip

    asked = {}
    monkeypatch.setattr(open_clip, "create_model", lambda *_, **options: asked.update(options) or torch.nn.Identity())
    create_clip("ViT-L-14", "openai", (448, 448))
    assert asked["force_quick_gelu"] is True
    create_clip("ViT-L-14", "laion2b_s32b_b82k", (224, 224))
    assert asked["force_quick_gelu"] is False


def test_open_clip_resnet_taps_its_stages() -> None:
    model = build_mediclip("RN50", weights=None, layers=[1, 3], prompt="prototype")
    assert model.vision_encoder.channels == [256, 1024]
    assert [tuple(f.shape[1:]) for f in model.vision_encoder(torch.rand(1, 3, 64, 64))] == [(256, 16, 16), (1024, 4, 4)]


def test_handcrafted_prompts_learn_the_adapters_only(official: OfficialRun) -> None:
    model = tiny(official, prompt="handcrafted")
    learnt = {name.split(".")[0] for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert learnt == {"adapters"}
    assert model(torch.rand(1, 3, *IMAGE_SIZE)).shape == (1, 2, *IMAGE_SIZE)


def test_no_adapter_pools_the_channels(official: OfficialRun) -> None:
    pooled = ChannelPooling(4, 2)(torch.tensor([1.0, 3.0, 5.0, 7.0]).view(1, 4, 1, 1)).flatten()
    torch.testing.assert_close(pooled, torch.tensor([2.0, 6.0]))
    model = tiny(official, adapter="none")
    assert not any(parameter.requires_grad for parameter in model.adapters.parameters())


def test_same_seed_same_initial_weights_and_global_generator_untouched(official: OfficialRun) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, second, other = tiny(official, seed=1), tiny(official, seed=1), tiny(official, seed=2)
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(first.prompts.context, second.prompts.context)
    assert torch.equal(first.adapters[0].weight, second.adapters[0].weight)
    assert not torch.equal(first.prompts.context, other.prompts.context)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"encoder": "ViT-X-99"}, ["ViT-X-99", "list_models"]),
        ({"encoder": "timm/no_such_net", "prompt": "prototype"}, ["no_such_net", "timm"]),
        ({"encoder": "ViT-B-32", "weights": "no_such_tag"}, ["no_such_tag", "openai"]),
        ({**LITE, "weights": "no/such/file.pth"}, ["no/such/file.pth", "pretrained"]),
        ({**LITE, "layers": [3, 6]}, ["[3, 6]", "1 to 5"]),
        ({**LITE, "layers": [0, 1]}, ["[0, 1]", "1 to 5"]),
        ({**LITE, "layers": []}, ["[]", "1 to 5"]),
        ({**LITE, "prompt": "learnable"}, ["no text tower", "prototype"]),
        ({**LITE, "adapter": "mlp"}, ["mlp", "linear"]),
        ({**LITE, "temperature": 0.0}, ["temperature=0.0"]),
        ({**LITE, "encoder": "timm/swin_tiny_patch4_window7_224", "layers": [2]}, ["swin_tiny", "convolutional"]),
        (
            {**LITE, "encoder": "timm/vit_tiny_patch16_224", "layers": [2], "image_size": (96, 96)},
            ["vit_tiny", "(96, 96)"],
        ),
        ({"encoder": "RN50", "weights": None, "layers": [1], "image_size": (224, 160)}, ["(224, 160)", "square"]),
        ({"encoder": "convnext_base", "weights": None, "layers": [1], "prompt": "prototype"}, ["TimmModel", "timm/"]),
        ({**LITE, "aggregation": "max"}, ["max", "probability"]),
    ],
)
def test_wrong_options_are_named(options: dict, words: list[str]) -> None:
    with pytest.raises(ValueError) as error:
        build_mediclip(**options)
    for word in words:
        assert word in str(error.value)


def test_prompts_that_do_not_fit_are_refused(official: OfficialRun) -> None:
    with pytest.raises(ValueError, match="longer than the 77 tokens"):
        tiny(official, abnormal_tokens=["lesion " * 80])
    with pytest.raises(ValueError, match="context_length=0"):
        tiny(official, context_length=0)
    with pytest.raises(ValueError, match="at least one entry"):
        tiny(official, normal_tokens=[])


def test_weights_that_cannot_be_downloaded_say_what_to_do_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    import open_clip

    def no_network(*_, **__) -> None:
        msg = "Failed to download weights for tag 'openai': connection refused"
        raise RuntimeError(msg)

    monkeypatch.setattr(open_clip, "create_model", no_network)
    with pytest.raises(RuntimeError, match="Without a network: download the weights on another machine"):
        build_mediclip("ViT-B-32")


def test_files_that_are_no_state_dict_are_named(tmp_path) -> None:
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "ViT-B-32.pt")
    with pytest.raises(ValueError, match=r"ViT-B-32.pt could not be read .* Hugging Face repository"):
        build_mediclip("ViT-B-32-quickgelu", weights=str(tmp_path / "ViT-B-32.pt"))


def test_text_sequence_is_cut_after_the_longest_prompt_exactly(official: OfficialRun) -> None:
    prompts = tiny(official).prompts
    assert prompts.embeddings.shape[1] < 20
    full = tiny(official, causal_text=False).prompts
    full.text_encoder.attention_mask = torch.full((77, 77), float("-inf")).triu_(1)
    assert full.embeddings.shape[1] == 77
    torch.testing.assert_close(prompts(), full(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("aggregation", ["probability", "similarity"])
def test_lengths_divided_out_late_give_the_maps_and_gradients_of_unit_vectors(aggregation: str) -> None:
    generator = AnomalyMapGenerator(0.07, aggregation)
    prompts = torch.nn.functional.normalize(torch.randn(2, 16, generator=torch.Generator().manual_seed(0)), dim=1)
    late, early = (
        [
            (9 * torch.randn(2, 16, side, side, generator=torch.Generator().manual_seed(side))).requires_grad_()
            for side in (8, 4)
        ]
        for _ in range(2)
    )
    maps = generator(late, prompts, (32, 32))
    unit = generator([torch.nn.functional.normalize(features, dim=1) for features in early], prompts, (32, 32))
    torch.testing.assert_close(maps, unit, atol=1e-6, rtol=0)
    for probabilities in (maps, unit):
        probabilities[:, 1].square().mean().backward()
    for first, second in zip(late, early, strict=True):
        torch.testing.assert_close(first.grad, second.grad, atol=1e-7, rtol=1e-4)


def test_a_feature_of_length_zero_is_no_anomaly_and_gives_no_nan() -> None:
    features = torch.zeros(1, 4, 2, 2, requires_grad=True)
    maps = AnomalyMapGenerator()([features], torch.eye(4)[:2], (2, 2))
    assert torch.equal(maps, torch.full((1, 2, 2, 2), 0.5))
    maps[:, 1].sum().backward()
    assert features.grad.isfinite().all()
