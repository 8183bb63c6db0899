"""Pictures of the review page: addresses, groups, buckets; and what is asked, without any server."""

from __future__ import annotations

from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pytest

from labelmill.annotators.review.config import MediaConfig, ReviewConfig
from labelmill.annotators.review.decisions import DECISIONS, Verdicts
from labelmill.annotators.templates import TemplateBank
from labelmill.datasets import tables
from labelmill.datasets.media import MediaStore
from labelmill.datasets.review.pictures import Pictures, Served, encode_jpeg, mirror, serve
from labelmill.datasets.review.queue import Material, best_templates, choose
from labelmill.errors import ReviewError

DIGEST = "ab" + "0" * 62


@pytest.mark.parametrize("digest", ["", "../../etc/passwd", DIGEST[:-1] + "/", DIGEST.upper(), DIGEST + "0"])
def test_only_pictures_of_the_media_store_have_an_address(digest: str) -> None:
    served = Served(prefix="s3://bucket/line/")
    assert served.address(DIGEST) == f"s3://bucket/line/ab/{DIGEST}.jpg"
    with pytest.raises(ReviewError, match="no picture of the workspace"):
        served.address(digest)


def test_a_bucket_gets_what_it_lacks_in_one_go(tmp_path: Path) -> None:
    media = MediaStore(tmp_path / "media")
    digests = [media.put(bytes([number]) * 100) for number in range(3)]
    bucket = "memory://crops/line"
    assert mirror(bucket, media, [*digests, digests[0]]) == 3
    assert mirror(bucket, media, digests) == 0
    digests.append(media.put(b"new"))
    assert mirror(bucket, media, digests) == 1
    files = fsspec.filesystem("memory").find("/crops/line")
    assert sorted(Path(file).stem for file in files) == sorted(digests)
    assert serve(MediaConfig(bucket=bucket), media, None) == Served(f"{bucket}/", bucket=bucket)


def test_a_bucket_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ReviewError, match="cannot mirror pictures to nosuch://b"):
        mirror("nosuch://b", MediaStore(tmp_path), [DIGEST])


def test_pictures_are_made_once(tmp_path: Path) -> None:
    media = MediaStore(tmp_path / "media")
    template = tmp_path / "t.jpg"
    template.write_bytes(encode_jpeg(np.full((20, 30, 3), 90, np.uint8)))
    pictures = Pictures(media, [template])
    crops = [media.put(encode_jpeg(np.full((9, 9, 3), number, np.uint8))) for number in (10, 200)]
    made = [pictures.template(0), pictures.sheet(crops), pictures.sheet(crops[:1]), pictures.notice("none")]
    assert made == [
        pictures.template(0),
        pictures.sheet(crops),
        pictures.sheet(crops[:1]),
        pictures.notice("none"),
    ]
    assert len({*made}) == 4
    assert all(media.path(digest).exists() for digest in made)
    with pytest.raises(ReviewError, match="cannot be read"):
        pictures.sheet([*crops, DIGEST])


def material(degrees: list[float], routes: list[str]) -> Material:
    """Crops on a circle between the templates of class a (0°) and b (90°)."""
    angles = np.radians(degrees)
    rows = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    count = len(degrees)
    columns = {field.name: pa.nulls(count, field.type) for field in tables.REGIONS}
    columns |= {
        "region_id": pa.array([f"r{number}" for number in range(count)]),
        "label": pa.array(["a" if degree < 45 else "b" for degree in degrees]),
        "nearest": pa.array(["a" if degree < 45 else "b" for degree in degrees]),
        "runner_up": pa.array(["b" if degree < 45 else "NG" for degree in degrees]),
        "route": pa.array(routes),
    }
    bank = TemplateBank(("a", "b"), np.eye(2, dtype=np.float32), np.array([0, 1]))
    return Material(pa.table(columns), {}, rows, bank, 0.0)


def verdicts(**labels: str) -> Verdicts:
    return Verdicts(DECISIONS.empty_table(), labels=labels)


ALONE = ReviewConfig(group_similarity=1.01, audit_share=0)


def asked(found: Material, said: Verdicts, review: ReviewConfig, open_: tuple[str, ...] = ()) -> list[str]:
    chosen = choose(found, said, review, dict.fromkeys(open_, ()), open_)
    return [f"r{ask.row}" for ask in chosen]


def test_the_closest_call_comes_first_and_decided_ones_not_at_all() -> None:
    found = material([10, 44, 62, 30, 46], ["review"] * 4 + ["accepted"])
    assert asked(found, verdicts(), ALONE) == ["r1", "r3", "r2", "r0"]
    assert asked(found, verdicts(r1="a"), ALONE) == ["r2", "r3", "r0"]  # r2 is nearer to an a than to a b now


def test_a_decision_moves_its_neighbours() -> None:
    found = material([10, 14, 60], ["review"] * 3)
    assert asked(found, verdicts(), ALONE)[0] == "r2"
    # Someone said that the crop at 10° is a b: its neighbour is the most doubtful now.
    assert asked(found, verdicts(r0="b"), ALONE)[0] == "r1"


def test_a_full_queue_keeps_what_is_open() -> None:
    found = material([10, 44, 62, 30], ["review"] * 4)
    review = ALONE.model_copy(update={"max_queue": 2})
    assert asked(found, verdicts(), review) == ["r1", "r3"]
    assert asked(found, verdicts(), review, open_=("r0",)) == ["r1", "r0"]


def test_a_share_of_the_rest_is_audited_once_and_for_all() -> None:
    found = material([10.0] * 2000, ["accepted", "ng"] * 1000)
    review = ReviewConfig(audit_share=0.05)
    chosen = choose(found, verdicts(), review, {}, [])
    assert 70 <= len(chosen) <= 130
    assert all(ask.audit and not ask.members for ask in chosen)
    assert chosen == choose(found, verdicts(), review, {}, [])
    assert asked(found, verdicts(), ALONE) == []


def test_groups_are_offered_with_the_leader_that_has_a_task() -> None:
    found = material([44, 43, 10], ["review"] * 3)
    review = ALONE.model_copy(update={"group_similarity": 0.99})
    (first, *_) = choose(found, verdicts(), review, {}, [])
    assert (first.row, first.members) == (0, (1,))
    found_again = choose(found, verdicts(), review, {"r1": []}, ["r1"])
    assert [(ask.row, ask.members) for ask in found_again if ask.members] == [(1, (0,))]


def test_the_best_template_of_each_of_two_classes() -> None:
    found = material([10, 80], ["review"] * 2)
    assert best_templates(found, [0, 1]) == [(0, 1), (1, -1)]  # there is no NG template
    assert best_templates(found, []) == []
