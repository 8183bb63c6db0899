from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import bson
import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from labelmill.datasets.versions.bson_columns import (
    booleans,
    constant,
    documents,
    doubles,
    embedded,
    integers,
    lists,
    object_ids,
    points,
    singles,
    strings,
)

NOW = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)

ROW = st.fixed_dictionaries(
    {
        "text": st.none() | st.text(max_size=20),
        "number": st.none() | st.floats(allow_nan=False),
        "count": st.integers(-(2**63), 2**63 - 1) | st.integers(-5, 5),
        "yes": st.booleans(),
        "id": st.binary(min_size=12, max_size=12),
        "box": st.tuples(*[st.floats(0, 1)] * 4),
        "parts": st.integers(0, 12),
    }
)


@given(st.lists(ROW, max_size=8))
def test_rows_are_what_bson_itself_writes(rows: list[dict[str, Any]]) -> None:
    count = len(rows)
    column = {name: [row[name] for row in rows] for name in ("text", "number", "count", "yes")}
    text = pa.array(column["text"], pa.string())
    cuts = np.concatenate([[0], np.cumsum([row["parts"] for row in rows])]).astype(np.int64)
    inner = documents([integers("n", pa.array(np.arange(cuts[-1])))], int(cuts[-1]))
    boxes = np.array([row["box"] for row in rows], dtype=np.float64).reshape(-1, 4)
    made = documents(
        [
            object_ids("_id", b"".join(row["id"] for row in rows)),
            strings("text", text),
            doubles("number", pa.array(column["number"], pa.float64())),
            integers("count", pa.array(column["count"], pa.int64())),
            booleans("yes", pa.array(column["yes"], pa.bool_())),
            points("box", boxes),
            singles("tags", text),
            embedded("inside", [constant("_cls", "X"), strings("text", text)], count),
            lists("parts", inner, cuts),
            constant("now", NOW),
            constant("none", None),
        ],
        count,
    )
    assert len(made) == count
    for row, (data, first, last) in enumerate(zip(made.to_pylist(), cuts[:-1], cuts[1:], strict=True)):
        given_row = rows[row]
        expected = {
            "_id": bson.ObjectId(given_row["id"]),
            "text": given_row["text"],
            "number": given_row["number"],
            "count": given_row["count"],
            "yes": given_row["yes"],
            "box": list(given_row["box"]),
            "tags": [given_row["text"]],
            "inside": {"_cls": "X", "text": given_row["text"]},
            "parts": [{"n": number} for number in range(first, last)],
            "now": NOW.replace(tzinfo=None),
            "none": None,
        }
        assert bson.decode(data) == expected
        if all(abs(number) < 2**31 for number in column["count"]):  # else one long makes all of a column long
            assert data == bson.encode(expected)


def test_not_a_number_is_null() -> None:
    (data,) = documents([doubles("x", pa.array([float("nan")]))], 1).to_pylist()
    assert bson.decode(data) == {"x": None}


def test_text_with_zero_bytes_and_other_alphabets() -> None:
    words = ["a\0b", "schön 手", "", None, "x" * 1000]
    made = documents([strings("w", pa.array(words))], len(words))
    assert [bson.decode(data)["w"] for data in made.to_pylist()] == words


def test_a_slice_of_a_column() -> None:
    words = pa.array(["a", "bb", None, "dddd"]).slice(1, 2)
    made = documents([strings("w", words)], 2)
    assert [bson.decode(data)["w"] for data in made.to_pylist()] == ["bb", None]
