"""Where a region goes: accepted, to people, or NG, and why."""

from __future__ import annotations

from dataclasses import dataclass

from labelmill.annotators.config import MatchingConfig
from labelmill.annotators.matching import Matches

ACCEPTED, REVIEW, NG_ROUTE = "accepted", "review", "ng"
NG = "NG"
"""The label of a region that matches no class (no good)."""


@dataclass(frozen=True, slots=True)
class Routed:
    """What routing says of each region.

    Attributes:
        labels: A class, or NG (LRIAR, eq. 3).
        routes: `accepted`, `review` or `ng`.
        reasons: Why, for people.
    """

    labels: list[str]
    routes: list[str]
    reasons: list[str]


def route(
    matches: Matches,
    classes: tuple[str, ...],
    lambda_: float,
    config: MatchingConfig,
    review_floor: float | None = None,
) -> Routed:
    """Label and route regions.

    The label follows LRIAR, eq. 3: the nearest class if its similarity is at least λ, else NG; a nearer NG
    template makes it NG too. What is close to a border of that decision goes to people.

    Args:
        matches: Similarities, from `match`.
        classes: Class names.
        lambda_: λ, resolved.
        config: The least margin and the width of the review band.
        review_floor: From this similarity up to λ, too, crops go to people unless an NG template is nearer by
            the margin: the templates do not say where λ should be.
    """
    labels: list[str] = []
    routes: list[str] = []
    reasons: list[str] = []
    for nearest, similarity, runner_up, margin in zip(
        matches.nearest.tolist(),
        matches.similarity.tolist(),
        matches.runner_up.tolist(),
        matches.margin.tolist(),
        strict=True,
    ):
        rival = "an NG template" if runner_up == -1 else classes[runner_up] if runner_up >= 0 else ""
        lead = f"leads {rival} by {margin:.3f}" if rival else ""
        if not similarity >= lambda_:  # also where the similarity is no number
            label = NG
            near = similarity >= lambda_ - config.review_band
            unsure = review_floor is not None and similarity >= review_floor and not margin <= -config.margin
            chosen = REVIEW if near or unsure else NG_ROUTE
            note = ", within the band" if near else ", a λ from too few templates" if unsure else ""
            reason = f"similarity {similarity:.3f} < λ {lambda_:.3f}{note}"
        elif margin < 0:
            label = NG
            near = margin > -config.margin
            chosen = REVIEW if near else NG_ROUTE
            reason = f"an NG template is nearer by {-margin:.3f}" + (", less than the margin" if near else "")
        elif margin < config.margin:
            label, chosen = classes[nearest], REVIEW
            reason = f"{lead} < margin {config.margin:.3f}"
        else:
            label, chosen = classes[nearest], ACCEPTED
            reason = f"similarity {similarity:.3f} >= λ {lambda_:.3f}" + (f", {lead}" if lead else "")
        labels.append(label)
        routes.append(chosen)
        reasons.append(reason)
    return Routed(labels, routes, reasons)
