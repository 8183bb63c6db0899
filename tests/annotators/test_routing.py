from __future__ import annotations

import numpy as np
import pytest

from labelmill.annotators.config import MatchingConfig
from labelmill.annotators.matching import Matches
from labelmill.annotators.routing import Routed, route

NAN = float("nan")


def routed(
    similarity: float,
    margin: float,
    runner_up: int = 1,
    lambda_: float = 0.5,
    least: float = 0.25,
    band: float = 0.125,
    floor: float | None = None,
) -> tuple[str, str, str]:
    matches = Matches(
        nearest=np.array([0]),
        similarity=np.array([similarity], np.float32),
        runner_up=np.array([runner_up]),
        margin=np.array([margin], np.float32),
        ng_similarity=np.array([NAN], np.float32),
    )
    config = MatchingConfig(margin=least, review_band=band)
    result: Routed = route(matches, ("left", "right"), lambda_, config, floor)
    return result.labels[0], result.routes[0], result.reasons[0]


# Sums of halves, quarters and eighths are exact in float32, so that borders are hit.
@pytest.mark.parametrize(
    ("similarity", "margin", "runner_up", "expected"),
    [
        (0.75, 0.5, 1, ("left", "accepted", "similarity 0.750 >= λ 0.500, leads right by 0.500")),
        (0.5, 0.5, 1, ("left", "accepted", "similarity 0.500 >= λ 0.500, leads right by 0.500")),
        (0.75, 0.25, 1, ("left", "accepted", "similarity 0.750 >= λ 0.500, leads right by 0.250")),
        (0.75, 0.125, 1, ("left", "review", "leads right by 0.125 < margin 0.250")),
        (0.75, 0.0, 1, ("left", "review", "leads right by 0.000 < margin 0.250")),
        (0.75, 0.5, -1, ("left", "accepted", "similarity 0.750 >= λ 0.500, leads an NG template by 0.500")),
        (0.75, 0.125, -1, ("left", "review", "leads an NG template by 0.125 < margin 0.250")),
        (0.75, -0.125, -1, ("NG", "review", "an NG template is nearer by 0.125, less than the margin")),
        (0.75, -0.25, -1, ("NG", "ng", "an NG template is nearer by 0.250")),
        (0.75, NAN, -2, ("left", "accepted", "similarity 0.750 >= λ 0.500")),
        (0.4375, 0.5, 1, ("NG", "review", "similarity 0.438 < λ 0.500, within the band")),
        (0.375, 0.5, 1, ("NG", "review", "similarity 0.375 < λ 0.500, within the band")),
        (0.25, 0.5, 1, ("NG", "ng", "similarity 0.250 < λ 0.500")),
        (-1.0, NAN, -2, ("NG", "ng", "similarity -1.000 < λ 0.500")),
        (NAN, NAN, 1, ("NG", "ng", "similarity nan < λ 0.500")),
    ],
)
def test_eq_3_and_what_goes_to_people(
    similarity: float, margin: float, runner_up: int, expected: tuple[str, str, str]
) -> None:
    assert routed(similarity, margin, runner_up) == expected


def test_without_margin_and_band_nobody_is_asked() -> None:
    assert routed(0.75, 0.0, 1, least=0, band=0)[:2] == ("left", "accepted")
    assert routed(0.4999, 0.5, 1, least=0, band=0)[:2] == ("NG", "ng")
    assert routed(0.75, -0.001, -1, least=0, band=0)[:2] == ("NG", "ng")


@pytest.mark.parametrize(
    ("similarity", "margin", "runner_up", "route"),
    [
        (0.25, 0.5, 1, "review"),
        (0.1875, 0.5, 1, "ng"),
        (0.25, 0.0, 1, "review"),
        (0.25, -0.125, -1, "review"),  # an NG template is nearer, by less than the margin
        (0.25, -0.25, -1, "ng"),
        (0.25, NAN, -2, "review"),
        (NAN, NAN, 1, "ng"),
        (0.75, 0.5, 1, "accepted"),  # above λ nothing changes
        (0.75, -0.25, -1, "ng"),
    ],
)
def test_below_a_lambda_that_nothing_supports(
    similarity: float, margin: float, runner_up: int, route: str
) -> None:
    label, found, reason = routed(similarity, margin, runner_up, floor=0.25)
    assert found == route
    if found == "review":
        assert (label, reason) == ("NG", "similarity 0.250 < λ 0.500, a λ from too few templates")


@pytest.mark.parametrize(("lambda_", "label"), [(-1.0, "left"), (1.0, "NG")])
def test_lambda_at_its_ends(lambda_: float, label: str) -> None:
    assert routed(-0.5, 0.5, 1, lambda_=lambda_)[0] == label


def test_no_regions() -> None:
    empty = np.empty(0, np.float32)
    whole = np.empty(0, np.int64)
    assert route(Matches(whole, empty, whole, empty, empty), ("a",), 0.5, MatchingConfig()) == Routed(
        [], [], []
    )
