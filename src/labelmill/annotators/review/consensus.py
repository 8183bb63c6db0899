"""What several annotators say together, and how far they agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from labelmill.annotators.review.label_config import NOT_SURE


def settle(votes: Mapping[str, str]) -> tuple[str | None, float | None]:
    """The common answer of a region's annotators.

    "not sure" abstains, unless everybody says so. A class needs more than half of those who chose one.

    Args:
        votes: Annotator to answer.

    Returns:
        The answer, or None while the annotators disagree; and the share of those who did not abstain that
        gave it (the largest share while they disagree), None with fewer than two annotators.
    """
    said = Counter(answer for answer in votes.values() if answer != NOT_SURE)
    if not said:
        return (NOT_SURE if votes else None), None
    (answer, count), total = said.most_common(1)[0], said.total()
    agreement = count / total if total > 1 else None
    return (answer if 2 * count > total else None), agreement


def alpha(votes: Sequence[Mapping[str, str]]) -> float | None:
    """Krippendorff's alpha (nominal) over all regions, computed by the `krippendorff` library.

    1 is perfect agreement, 0 is what chance gives; "not sure" is no answer. Source: Krippendorff, *Content
    Analysis* (2004), ch. 11.

    Args:
        votes: For each region, annotator to answer.

    Returns:
        Alpha, or None where it is not defined: no region with two annotators, or one single answer overall.

    Raises:
        MissingDependencyError: The library is not installed.
    """
    spoken = [{person: said for person, said in vote.items() if said != NOT_SURE} for vote in votes]
    shared = [vote for vote in spoken if len(vote) > 1]
    answers = sorted({answer for vote in shared for answer in vote.values()})
    if not shared or len(answers) < 2:
        return None
    import numpy as np

    try:
        import krippendorff
    except ImportError as error:
        from labelmill.errors import MissingDependencyError

        raise MissingDependencyError(
            "krippendorff is not installed", do="pip install 'labelmill[review]'"
        ) from error

    people = sorted({person for vote in shared for person in vote})
    data = np.full((len(people), len(shared)), np.nan)
    for column, vote in enumerate(shared):
        for person, answer in vote.items():
            data[people.index(person), column] = answers.index(answer)
    return float(krippendorff.alpha(reliability_data=data, level_of_measurement="nominal"))
