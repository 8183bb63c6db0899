from __future__ import annotations

import pytest
import torch

from labelmill.annotators.grounding import deformable

SHAPES = [(7, 11), (4, 6), (2, 3)]


def inputs(batch: int, queries: int, spread: float = 1.3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Random features, points that also lie beyond the edges, and weights."""
    torch.manual_seed(batch * 1000 + queries)
    positions = sum(height * width for height, width in SHAPES)
    value = torch.randn(batch, positions, 2, 8)
    locations = torch.rand(batch, queries, 2, len(SHAPES), 4, 2) * spread - (spread - 1) / 2
    weights = (
        torch.rand(batch, queries, 2, len(SHAPES) * 4).softmax(-1).view(batch, queries, 2, len(SHAPES), 4)
    )
    return value, locations, weights


def reference(value: torch.Tensor, locations: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Transformers' own."""
    from transformers.models.grounding_dino.modeling_grounding_dino import MultiScaleDeformableAttention

    made = MultiScaleDeformableAttention()(value, None, SHAPES, None, locations, weights, 64)
    return torch.as_tensor(made)


@pytest.mark.parametrize("make", [deformable._by_rows, deformable._by_levels])
@pytest.mark.parametrize(("batch", "queries"), [(1, 1), (1, 50), (3, 20)])
def test_it_is_the_same_sum(make: object, batch: int, queries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deformable, "_QUERIES_AT_ONCE", 16)  # several steps, the last one short
    value, locations, weights = inputs(batch, queries)
    found = make(value, SHAPES, locations, weights)  # type: ignore[operator]
    torch.testing.assert_close(found, reference(value, locations, weights), rtol=0, atol=1e-5)


def test_corners_and_far_points() -> None:
    value, _, weights = inputs(1, 5)
    places = torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.5, 0.5], [-9.0, 9.0], [1e9, -1e9]])
    locations = places.view(1, 5, 1, 1, 1, 2).expand(1, 5, 2, 3, 4, 2)
    found = deformable.sample_sum(value, SHAPES, locations, weights)
    torch.testing.assert_close(found, reference(value, locations, weights), rtol=0, atol=1e-5)
    assert found[0, 3:].abs().max() == 0


def test_half_precision_in_float32_out() -> None:
    value, locations, weights = inputs(1, 5)
    found = deformable.sample_sum(value.bfloat16(), SHAPES, locations, weights.bfloat16())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, reference(value, locations, weights), rtol=0, atol=0.05)
