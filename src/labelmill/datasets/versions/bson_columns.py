"""BSON made column by column: rows of a table as documents, without a Python object for every value.

Layout as in the BSON specification 1.1 (https://bsonspec.org/spec.html). An element is its type, its name
and its value; a document is its length, its elements and a zero byte. Here an element of many rows is a
list of parts, each the same bytes for all rows or an Arrow array of one value a row, and Arrow joins them.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Element: TypeAlias = list[bytes | pa.Array]

_NOTHING = pa.scalar(b"", pa.binary())
_DOUBLE, _STRING, _DOCUMENT, _ARRAY, _OBJECT_ID, _BOOLEAN, _NULL, _INT32, _INT64 = (
    bytes([kind]) for kind in (0x01, 0x02, 0x03, 0x04, 0x07, 0x08, 0x0A, 0x10, 0x12)
)


def constant(name: str, value: Any) -> Element:
    """An element that is the same in every row."""
    import bson

    return [bson.encode({name: value})[4:-1]]


def strings(name: str, column: pa.Array) -> Element:
    """Text, or null."""
    data = column.cast(pa.binary())
    lengths = np.asarray(pc.fill_null(pc.binary_length(data), 0).to_numpy(zero_copy_only=False))
    value: Element = [fixed((lengths + 1).astype("<i4")), data, b"\0"]
    return _or_null(_STRING, name, value, column.is_valid())


def doubles(name: str, column: pa.Array) -> Element:
    """Numbers as float64; null where they are null or not a number."""
    values = np.asarray(column.to_numpy(zero_copy_only=False), dtype="<f8")
    return _or_null(_DOUBLE, name, [fixed(values)], pa.array(~np.isnan(values)))


def integers(name: str, column: pa.Array) -> Element:
    """Whole numbers, none null: int32 where all of them fit."""
    values = np.asarray(column.to_numpy(zero_copy_only=False), dtype="<i8")
    small = values.astype("<i4")
    if np.array_equal(small, values):
        return [_head(_INT32, name), fixed(small)]
    return [_head(_INT64, name), fixed(values)]


def booleans(name: str, column: pa.Array) -> Element:
    """True or false, none null."""
    values = np.asarray(column.to_numpy(zero_copy_only=False), dtype=np.uint8)
    return [_head(_BOOLEAN, name), fixed(values)]


def object_ids(name: str, data: bytes) -> Element:
    """Ids of 12 bytes each, one after another."""
    return [_head(_OBJECT_ID, name), fixed(np.frombuffer(data, np.uint8).reshape(-1, 12))]


def points(name: str, values: npt.NDArray[np.float64]) -> Element:
    """Arrays of as many numbers each, shape (rows, less than 10)."""
    rows, count = values.shape
    parts: Element = []
    for number in range(count):
        parts += [_head(_DOUBLE, str(number)), fixed(values[:, number].astype("<f8"))]
    return [_head(_ARRAY, name), documents([parts], rows)]


def embedded(name: str, elements: list[Element], rows: int) -> Element:
    """A document within the document."""
    return [_head(_DOCUMENT, name), documents(elements, rows)]


def singles(name: str, column: pa.Array) -> Element:
    """Arrays of one text each."""
    return [_head(_ARRAY, name), documents([strings("0", column)], len(column))]


def lists(name: str, inner: pa.Array, cuts: npt.NDArray[np.int64]) -> Element:
    """Arrays of documents.

    Args:
        name: Of the element.
        inner: The documents of all rows, one row's after another's.
        cuts: Where each row's begin, and the end; shape (rows + 1,).
    """
    number = np.arange(len(inner)) - np.repeat(cuts[:-1], np.diff(cuts))
    keys = (
        pa.array(number).cast(pa.string()).cast(pa.binary())
    )  # BSON's arrays are documents with keys 0, 1 …
    parts = _join([_DOCUMENT, keys, b"\0", inner], len(inner))
    rows = pa.ListArray.from_arrays(pa.array(cuts, pa.int32()), parts)
    return [_head(_ARRAY, name), _closed(pc.binary_join(rows, _NOTHING))]


def documents(elements: list[Element], rows: int) -> pa.Array:
    """The documents, one a row, as binary."""
    return _closed(_join([part for element in elements for part in element], rows))


def fixed(values: npt.NDArray[Any]) -> pa.Array:
    """Rows of as many bytes each, as binary; shape (rows, ...)."""
    data = np.ascontiguousarray(values)
    width = data.nbytes // max(1, len(data))
    offsets = (np.arange(len(data) + 1) * width).astype(np.int32)
    return pa.BinaryArray.from_buffers(
        pa.binary(), len(data), [None, pa.py_buffer(offsets), pa.py_buffer(data)]
    )


def _head(kind: bytes, name: str) -> bytes:
    return kind + name.encode() + b"\0"


def _or_null(kind: bytes, name: str, value: Element, valid: pa.Array) -> Element:
    if pc.all(valid, min_count=0).as_py():
        return [_head(kind, name), *value]
    if not pc.any(valid, min_count=0).as_py():
        return [_head(_NULL, name)]
    filled: Element = [
        part if isinstance(part, bytes) else pc.fill_null(part, pa.scalar(b"", pa.binary())) for part in value
    ]
    whole = _join([_head(kind, name), *filled], len(valid))
    return [pc.if_else(valid, whole, pa.scalar(_head(_NULL, name), pa.binary()))]


def _closed(body: pa.Array) -> pa.Array:
    lengths = np.asarray(pc.binary_length(body).to_numpy(zero_copy_only=False))
    return _join([fixed((lengths + 5).astype("<i4")), body, b"\0"], len(body))


def _join(parts: Element, rows: int) -> pa.Array:
    """Put the parts of each row together; what is the same in all rows and adjacent is joined once."""
    merged: Element = []
    for part in parts:
        if isinstance(part, bytes) and merged and isinstance(merged[-1], bytes):
            merged[-1] += part
        else:
            merged.append(part)
    if not any(isinstance(part, pa.Array) for part in merged):
        return pa.array([b"".join(part for part in merged if isinstance(part, bytes))] * rows, pa.binary())
    arguments = [pa.scalar(part, pa.binary()) if isinstance(part, bytes) else part for part in merged]
    return pc.binary_join_element_wise(*arguments, _NOTHING)
