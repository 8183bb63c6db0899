"""Value, groups and the contact sheet."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import Ridge

from labelmill.annotators.review.contact_sheet import CELL_PX, contact_sheet, notice
from labelmill.annotators.review.grouping import MAX_MEMBERS, group
from labelmill.annotators.review.priority import (
    NOVELTY,
    RIDGE,
    SCALE,
    TEMPERATURE,
    Evidence,
    lot,
    values,
)


def unit(*degrees: float) -> np.ndarray:
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def expected(lead: float, nearest: float, far: float) -> float:
    near = 1 / (1 + np.exp(lead / SCALE))
    return float((1 - NOVELTY) * (near + far) / 2 + NOVELTY * (1 - nearest) / 2)


def far(row: np.ndarray, label: str, evidence: Evidence) -> float:
    """By scikit-learn's ridge regression."""
    names = sorted({*evidence.labels, label, "NG"})
    told = np.array([[name == other for other in names] for name in evidence.labels], float)
    fit = Ridge(alpha=RIDGE).fit(evidence.rows.astype(float), told)
    likely = np.exp(fit.predict(row.astype(float))[0] / TEMPERATURE)
    return float(1 - likely[names.index(label)] / likely.sum())


TEMPLATES = Evidence(unit(0, 90), ("a", "b"))
COS = {degrees: float(np.cos(np.radians(degrees))) for degrees in (10, 30, 60, 80)}


@pytest.mark.parametrize(
    ("degrees", "label", "threshold", "lead", "nearest"),
    [
        (30, "a", -1.0, COS[30] - COS[60], COS[30]),  # the margin
        (30, "b", -1.0, COS[60] - COS[30], COS[30]),  # the wrong label
        (30, "a", 0.8, COS[30] - 0.8, COS[30]),  # λ is the nearer rival
        (30, "NG", 0.9, 0.9 - COS[30], COS[30]),  # below λ
        (45, "a", -1.0, 0.0, np.sqrt(0.5)),  # in the middle
    ],
)
def test_value_follows_the_lead_over_the_nearest_rival(
    degrees: float, label: str, threshold: float, lead: float, nearest: float
) -> None:
    (value,) = values(unit(degrees), [label], TEMPLATES, threshold)
    doubt = far(unit(degrees), label, TEMPLATES)
    assert value == pytest.approx(expected(lead, nearest, doubt), abs=1e-6)


def test_lambda_stands_for_ng_until_there_is_evidence_of_it() -> None:
    row = unit(30)
    told = Evidence(np.concatenate([TEMPLATES.rows, unit(170)]), ("a", "b", "NG"))
    doubt = far(row, "a", told)
    (value,) = values(row, ["a"], told, 0.8)  # with the templates alone, λ would be the nearer rival
    assert value == pytest.approx(expected(COS[30] - COS[60], COS[30], doubt), abs=1e-6)


def test_what_many_decisions_have_in_common_counts() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(400, 12)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    truth = np.where(rows[:, 0] > 0, "a", "b")
    told = Evidence(rows[:200], tuple(truth[:200].tolist()))  # more rows than dimensions
    value = values(rows[200:], ["a"] * 200, told, -1.0)
    wrong = truth[200:] != "a"
    assert value[wrong].mean() > value[~wrong].mean() + 0.3
    one = values(rows[200:201], ["a"], told, -1.0)[0]
    cosines = rows[:200] @ rows[200]
    sides = [float(cosines[truth[:200] == name].max()) for name in ("a", "b")]
    doubt = far(rows[200:201], "a", told)
    assert one == pytest.approx(expected(sides[0] - sides[1], max(sides), doubt), abs=1e-5)


def test_a_decided_neighbour_settles_or_contradicts() -> None:
    row = unit(40)
    before = values(row, ["a"], TEMPLATES, -1.0)[0]
    agreeing = Evidence(np.concatenate([TEMPLATES.rows, unit(41)]), ("a", "b", "a"))
    against = Evidence(np.concatenate([TEMPLATES.rows, unit(41)]), ("a", "b", "b"))
    assert values(row, ["a"], agreeing, -1.0)[0] < before < values(row, ["a"], against, -1.0)[0]


def test_without_evidence_everything_is_new() -> None:
    nothing = Evidence(np.zeros((0, 2), np.float32), ())
    assert values(unit(0, 90), ["a", "NG"], nothing, 0.5) == pytest.approx(
        [expected(-1.5, -1.0, 0.5), expected(1.5, -1.0, 0.5)], abs=1e-6
    )


def test_values_do_not_depend_on_the_block() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(5000, 3)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    labels = ["a" if number % 3 else "NG" for number in range(5000)]
    evidence = Evidence(rows[:7], ("a", "b", "NG", "a", "b", "NG", "a"))
    whole = values(rows, labels, evidence, 0.3)
    assert whole[4900:] == pytest.approx(values(rows[4900:], labels[4900:], evidence, 0.3))
    assert ((whole >= 0) & (whole <= 1)).all()


def test_evidence_must_be_named() -> None:
    with pytest.raises(ValueError, match="evidence rows must be"):
        Evidence(unit(0), ())


def test_lots_are_drawn_once_and_evenly() -> None:
    drawn = [lot(f"region-{number}", 0) for number in range(2000)]
    assert drawn == [lot(f"region-{number}", 0) for number in range(2000)]
    assert abs(np.mean(drawn) - 0.5) < 0.03
    assert drawn[0] != lot("region-0", 1)


ROWS = unit(0, 2, 90, 92, 45)


@pytest.mark.parametrize(
    ("labels", "order", "prior", "alone", "groups"),
    [
        ("aaaaa", [0, 1, 2, 3, 4], {}, [], {0: [1], 2: [3], 4: []}),
        ("aaaaa", [1, 0, 3, 2, 4], {}, [], {1: [0], 3: [2], 4: []}),  # who comes first leads
        ("abaaa", [0, 1, 2, 3, 4], {}, [], {0: [], 1: [], 2: [3], 4: []}),  # one label a group
        ("aaaaa", [0, 1, 2, 3, 4], {1: [], 0: []}, [], {1: [], 0: [], 2: [3], 4: []}),  # tasks stay
        ("aaaaa", [0, 1, 2, 3, 4], {1: [0], 3: []}, [], {1: [0], 3: [2], 4: []}),  # and so do their groups
        (
            "abaaa",
            [0, 1, 2, 3, 4],
            {1: [0, 4]},
            [],
            {1: [], 0: [], 2: [3], 4: []},
        ),  # what fits no more leaves
        ("aaaaa", [0, 1, 2, 3, 4], {}, [0], {0: [], 1: [], 2: [3], 4: []}),
        ("aaaaa", [0, 1, 2, 3, 4], {0: [1]}, [0], {0: [], 1: [], 2: [3], 4: []}),
        ("aaaaa", [0, 1, 2, 3, 4], {0: [1]}, [1], {0: [], 1: [], 2: [3], 4: []}),
    ],
)
def test_groups(
    labels: str, order: list[int], prior: dict[int, list[int]], alone: list[int], groups: dict[int, list[int]]
) -> None:
    assert group(ROWS, labels, order, similarity=0.99, prior=prior, alone=alone) == groups


def test_a_group_is_no_larger_than_its_picture() -> None:
    rows = np.repeat(unit(0), 60, axis=0)
    groups = group(rows, ["a"] * 60, range(60), similarity=0.9)
    assert [len(members) for members in groups.values()] == [
        MAX_MEMBERS,
        MAX_MEMBERS,
        60 - 2 * (MAX_MEMBERS + 1) - 1,
    ]


@given(st.integers(0, 10_000), st.floats(0.5, 1.0))
def test_every_crop_is_asked_about_exactly_once(seed: int, similarity: float) -> None:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 400))
    rows = rng.normal(size=(count, 3)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    labels = [str(label) for label in rng.integers(0, 3, count)]
    order = rng.permutation(count).tolist()
    leaders = order[: count // 5]
    prior = dict.fromkeys(leaders, order[-3:])
    groups = group(rows, labels, order, similarity=similarity, prior=prior, alone=order[5:9])
    assert sorted([*groups, *(m for members in groups.values() for m in members)]) == list(range(count))
    assert set(leaders) <= set(groups)
    assert group(rows, labels, order[::-1], similarity=similarity, prior=groups, alone=order[5:9]) == groups
    for leader, members in groups.items():
        assert all(labels[member] == labels[leader] for member in members)
        assert all(rows[member] @ rows[leader] >= similarity - 1e-5 for member in members)


def test_a_contact_sheet_shows_every_crop() -> None:
    crops = [np.full((10 + number, 30, 3), 10 * number, np.uint8) for number in range(7)]
    sheet = contact_sheet(crops)
    assert sheet.shape == (3 * (CELL_PX + 4) + 4, 3 * (CELL_PX + 4) + 4, 3)
    assert sheet.dtype == np.uint8
    assert notice("none").shape == (CELL_PX, 3 * CELL_PX, 3)
