# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""The AUROC of more scores than are kept."""

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch

from anomalib_mediclip.evaluation import AUROC, auroc, exact_auroc
from anomalib_mediclip.evaluation.auroc import _ExactAUROC
from anomalib_mediclip.evaluation.rank_summary import sort_, summarise, summary_auroc, thin

Block = tuple[torch.Tensor, torch.Tensor]


def lesions(generator: torch.Generator, block: int, count: int) -> Block:
    """Probabilities as a trained model gives them: most pixels near 0, a twentieth anomalous, much overlap."""
    labels = torch.rand(count, generator=generator) < 0.05
    return (torch.randn(count, generator=generator) + 1.5 * labels - 3).sigmoid(), labels


def normal_images_first(generator: torch.Generator, block: int, count: int) -> Block:
    scores, labels = lesions(generator, block, count)
    return scores, labels & (block >= 4)


def within_a_millionth(generator: torch.Generator, block: int, count: int) -> Block:
    scores, labels = lesions(generator, block, count)
    return 0.5 + scores * 1e-6, labels


def ties_at_the_ends(generator: torch.Generator, block: int, count: int) -> Block:
    scores, labels = lesions(generator, block, count)
    return (4 * scores - 1).clamp(0, 1), labels


def narrowing(generator: torch.Generator, block: int, count: int) -> Block:
    """Every block falls between the points that the blocks before it left."""
    scores, labels = lesions(generator, block, count)
    return 0.5 + (scores.double() - 0.05) * 10.0**-block, labels


def far_logits(generator: torch.Generator, block: int, count: int) -> Block:
    scores, labels = lesions(generator, block, count)
    return torch.sinh(40 * (scores - 0.1)), labels


CASES = [lesions, normal_images_first, within_a_millionth, ties_at_the_ends, narrowing, far_logits]


def blocks(case: Callable[[torch.Generator, int, int], Block], number: int, count: int) -> list[Block]:
    generator = torch.Generator().manual_seed(0)
    return [case(generator, block, count) for block in range(number)]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("size", [64, 1024])
def test_error_stays_within_the_stated_bound(case, size: int) -> None:
    drawn = blocks(case, 8, 20_000)
    summary = torch.empty(0, 3, dtype=torch.float64)
    for scores, labels in drawn:
        summary = thin(torch.cat([summary, summarise(scores, labels, size)]), size)
        assert len(summary) <= size + 1
    scores, labels = (torch.cat(parts) for parts in zip(*drawn, strict=True))
    assert summary[:, 1].sum() == (~labels).sum()
    assert summary[:, 2].sum() == labels.sum()
    assert summary_auroc(summary).item() == pytest.approx(exact_auroc(scores, labels).item(), abs=2 * (8 + 2) / size)


def test_a_summary_moves_less_than_its_share_past_any_score() -> None:
    scores, labels = lesions(torch.Generator().manual_seed(1), 0, 50_000)
    for summary in (summarise(scores, labels, 256), thin(summarise(scores, labels, 2**20), 256)):
        for column, values in ((1, scores[~labels]), (2, scores[labels])):
            kept = torch.cat([torch.zeros(1), summary[:, column].cumsum(0)])
            summarised = kept[torch.searchsorted(summary[:, 0].float(), scores, right=True)]
            exact = torch.searchsorted(values.sort().values, scores, right=True)
            assert (summarised - exact).min() >= 0
            assert (summarised - exact).max() < 2 / 256 * len(values)


def test_few_different_scores_are_summarised_without_loss() -> None:
    """Scores of an 8-bit model tie heavily; a grid over [0, 1] would lose them too if they were close together."""
    drawn = [(scores.mul(100).round() * 2**-30, labels) for scores, labels in blocks(lesions, 4, 10_000)]
    summary = thin(torch.cat([summarise(*block) for block in drawn]), 128)
    scores, labels = (torch.cat(parts) for parts in zip(*drawn, strict=True))
    assert summary_auroc(summary) == exact_auroc(scores, labels)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_metric_is_within_1e_4_above_the_limit(case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auroc, "EXACT_LIMIT", 2**21 - 1)
    drawn = blocks(case, 6, 2**21)
    metric = _ExactAUROC()
    for scores, labels in drawn:
        metric.update(scores, labels)
        assert sum(map(len, metric.scores)) == 0
    expected = exact_auroc(*(torch.cat(parts) for parts in zip(*drawn, strict=True)))
    assert metric.compute().item() == pytest.approx(expected.item(), abs=1e-4)


def test_metric_is_exact_up_to_the_limit_and_collects_again_after_a_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, labels = lesions(torch.Generator().manual_seed(2), 0, 5000)
    monkeypatch.setattr(auroc, "EXACT_LIMIT", 5000)
    metric = _ExactAUROC()
    for _ in range(2):
        for part in (slice(0, 3000), slice(3000, 5000)):
            metric.update(scores[part], labels[part])
        assert not len(metric.summary[0])
        assert metric.compute() == exact_auroc(scores, labels).float()
        metric.update(scores[:1], labels[:1])
        assert len(metric.summary[0])
        metric.reset()


def test_sorting_without_an_order_gives_what_torch_gives() -> None:
    values = torch.tensor([0.0, float("inf"), -1.5, -0.0, 1e-45, -float("inf")])
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        assert torch.equal(sort_(values.to(dtype, copy=True)), values.to(dtype).sort().values)


def test_summarised_metric_refuses_nan_and_warns_of_one_class(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(auroc, "EXACT_LIMIT", 3)
    metric = _ExactAUROC()
    metric.update(torch.rand(4), torch.zeros(4))
    assert metric.compute().isnan()
    assert "4 normal and 0 anomalous" in caplog.text
    with pytest.raises(ValueError, match="1 of 4 scores are NaN"):
        metric.update(torch.tensor([0.1, float("nan"), 0.2, 0.3]), torch.ones(4))


PROCESS = """
import sys, torch
from anomalib.data import ImageBatch
from anomalib_mediclip.evaluation import AUROC, auroc

auroc.EXACT_LIMIT = 5000
rank = int(sys.argv[1])
torch.distributed.init_process_group("gloo", init_method=f"file://{sys.argv[2]}", rank=rank, world_size=2)
generator = torch.Generator().manual_seed(rank)
metric = AUROC(fields=["anomaly_map", "gt_mask"])
for _ in range(3 if rank else 1):
    masks = torch.rand(2, 40, 40, generator=generator) < 0.1
    maps = torch.randn(2, 40, 40, generator=generator) + masks
    metric.update(ImageBatch(image=torch.zeros(2, 3, 40, 40), anomaly_map=maps, gt_mask=masks))
assert len(metric.summary[0]) == (6400 if rank else 0), metric.summary[0].shape
print(repr(metric.compute().item()))
"""


@pytest.mark.slow
def test_processes_join_what_they_have_whether_it_is_summarised_or_not(tmp_path) -> None:
    command = [sys.executable, "-c", PROCESS]
    pair = [subprocess.Popen([*command, str(rank), tmp_path / "store"], stdout=subprocess.PIPE) for rank in (0, 1)]
    values = [float(process.communicate(timeout=600)[0].split()[-1]) for process in pair]
    maps, masks = [], []
    for rank in (0, 1):
        generator = torch.Generator().manual_seed(rank)
        for _ in range(3 if rank else 1):
            masks.append(torch.rand(2, 40, 40, generator=generator) < 0.1)
            maps.append(torch.randn(2, 40, 40, generator=generator) + masks[-1])
    expected = exact_auroc(torch.cat(maps).flatten(), torch.cat(masks).flatten()).item()
    assert values[0] == values[1] == pytest.approx(expected, abs=1e-6)


def test_metric_keeps_its_name() -> None:
    assert AUROC(fields=["anomaly_map", "gt_mask"], prefix="pixel_").name == "pixel_AUROC"
