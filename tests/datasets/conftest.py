"""What the tests of the review queue share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.review_bench import make_review_line
from tests.review_case import Case, Make
from tests.review_people import Annotator

from labelmill.annotators.review.server import LabelStudioServer


@pytest.fixture
def make(tmp_path: Path, label_studio: LabelStudioServer, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Makes annotated cases: `make(images=3, review="{...}")`."""
    monkeypatch.setenv("LABELMILL_SERVICES", str(label_studio.root.parent))

    def made(
        images: int = 3, review: str = "{group_similarity: 1.01}", seed: int = 0, name: str = "line"
    ) -> Case:
        file = make_review_line(tmp_path / name, images, review=review, seed=seed)
        case = Case(file, label_studio)
        case.annotate()
        return case

    return made


@pytest.fixture(scope="session")
def people(label_studio: LabelStudioServer) -> Iterator[list[Annotator]]:
    """Three annotators."""
    access = label_studio.access()
    assert access is not None
    three = [Annotator(access, name) for name in ("ann", "bob", "cid")]
    yield three
    for person in three:
        person.client.close()
