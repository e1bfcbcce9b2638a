"""Promises of postings: what was put in comes out, in order, whatever its size, and damage is told by the file's name."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tritonrag_backends.index import postings_writer
from tritonrag_backends.index.postings import Postings
from tritonrag_backends.index.postings_writer import PostingsWriter, merge_postings
from tritonrag_client.errors import InternalError

Rows = Sequence[Mapping[bytes, int]]

KEYS = st.binary(min_size=1, max_size=3)
ROWS = st.lists(st.dictionaries(KEYS, st.integers(1, 70_000), max_size=6), max_size=12)


@pytest.fixture(params=[2_000_000, 3], ids=["one-block", "many-blocks"], autouse=True)
def _block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postings_writer, "BLOCK", request.param)


def write(folder: Path, rows: Rows, *, counts: bool = True) -> Postings:
    writer = PostingsWriter(folder, "x", counts=counts)
    for row, keys in enumerate(rows):
        writer.add(row, keys if counts else set(keys))
    writer.finish()
    return Postings.open(folder, "x", rows=len(rows), counts=counts)


def contents(postings: Postings, *, counts: bool = True) -> list[tuple[bytes, list[tuple[int, int]]]]:
    """Every key with its (row, count); count 1 where there are none."""
    return [
        (
            postings.key(i),
            [
                (int(row), int(count))
                for row, count in zip(
                    postings.rows_of(i), postings.counts_of(i) if counts else [1] * postings.size_of(i), strict=True
                )
            ],
        )
        for i in range(len(postings))
    ]


def expected(
    rows: Mapping[int, Mapping[bytes, int]], *, counts: bool = True
) -> list[tuple[bytes, list[tuple[int, int]]]]:
    keys = sorted({key for bears in rows.values() for key in bears})
    return [
        (key, [(row, min(bears[key], 65_535) if counts else 1) for row, bears in sorted(rows.items()) if key in bears])
        for key in keys
    ]


@settings(max_examples=60, deadline=None)
@given(rows=ROWS, counts=st.booleans())
def test_what_was_written_is_read(tmp_path_factory: pytest.TempPathFactory, rows: Rows, counts: bool) -> None:
    folder = tmp_path_factory.mktemp("written")
    postings = write(folder, rows, counts=counts)
    assert contents(postings, counts=counts) == expected(dict(enumerate(rows)), counts=counts)
    names = {"x.keys.bin", "x.key_offsets.npy", "x.starts.npy", "x.rows.npy"} | ({"x.counts.npy"} if counts else set())
    assert {path.name for path in folder.iterdir()} == names


@settings(max_examples=60, deadline=None)
@given(rows=ROWS, low=st.binary(max_size=3), high=st.binary(max_size=3))
def test_keys_are_found_one_by_one_and_by_range(
    tmp_path_factory: pytest.TempPathFactory, rows: Rows, low: bytes, high: bytes
) -> None:
    postings = write(tmp_path_factory.mktemp("found"), rows)
    keys = sorted({key for bears in rows for key in bears})
    for key in [*keys, low, high]:
        assert postings.find(key) == (keys.index(key) if key in keys else None)
    span = postings.span(low, high)
    assert [postings.key(i) for i in span] == [key for key in keys if low <= key < high]
    assert postings.rows_between(span).tolist() == [row for i in span for row in postings.rows_of(i)]


def test_more_keys_than_are_held_in_memory_are_found(tmp_path: Path) -> None:
    numbers = list(range(0, 2_000, 2))
    postings = write(tmp_path, [{b"%05d" % i: 1} for i in numbers])
    assert [postings.find(b"%05d" % i) for i in range(2_000)] == [i // 2 if i % 2 == 0 else None for i in range(2_000)]
    for low in range(0, 2_000, 7):
        span = postings.span(b"%05d" % low, b"%05d" % (low + 601))
        assert (span.start, span.stop) == (-(-low // 2), min(-(-(low + 601) // 2), 1_000))


def test_rows_that_bear_nothing_are_no_rows_of_any_key(tmp_path: Path) -> None:
    assert len(write(tmp_path, [{}, {}])) == 0
    assert contents(write(tmp_path, [{}, {b"a": 2}, {}])) == [(b"a", [(1, 2)])]


def test_counts_stop_at_the_most_that_16_bits_hold(tmp_path: Path) -> None:
    assert contents(write(tmp_path, [{b"a": 65_535, b"b": 65_536, b"c": 10**6}])) == [
        (key, [(0, 65_535)]) for key in (b"a", b"b", b"c")
    ]


def test_a_writer_that_is_closed_unfinished_leaves_nothing(tmp_path: Path) -> None:
    writer = PostingsWriter(tmp_path, "x", counts=False)
    writer.add(0, [b"a"])
    writer.close()
    writer.close()
    assert list(tmp_path.iterdir()) == []


def test_rows_come_in_order(tmp_path: Path) -> None:
    writer = PostingsWriter(tmp_path, "x", counts=False)
    writer.add(3, [b"a"])
    with pytest.raises(AssertionError):
        writer.add(3, [b"b"])
    writer.close()


@settings(max_examples=60, deadline=None)
@given(parts=st.lists(ROWS, max_size=4), counts=st.booleans(), data=st.data())
def test_merged_postings_are_those_written_from_the_rows_that_are_left(
    tmp_path_factory: pytest.TempPathFactory, parts: list[Rows], counts: bool, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("merged")
    sources, left = [], {}
    for number, rows in enumerate(parts):
        kept = data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows)))
        row_map = np.full(len(rows), -1, np.int64)
        row_map[kept] = np.arange(len(left), len(left) + sum(kept))
        left.update({int(row_map[i]): rows[i] for i in np.flatnonzero(kept)})
        place = folder / str(number)
        place.mkdir()
        sources.append((write(place, rows, counts=counts), row_map))
    merge_postings(sources, folder, "m", counts=counts)
    merged = Postings.open(folder, "m", rows=len(left), counts=counts)
    assert contents(merged, counts=counts) == expected(left, counts=counts)


@pytest.mark.parametrize("part", ["keys.bin", "key_offsets.npy", "starts.npy", "rows.npy", "counts.npy"])
@pytest.mark.parametrize("damage", ["missing", "empty", "longer", "shorter", "another type", "no array"])
def test_files_that_do_not_fit_are_told_by_name(tmp_path: Path, part: str, damage: str) -> None:
    write(tmp_path, [{b"a": 1, b"b": 2}, {b"b": 3}])
    path = tmp_path / f"x.{part}"
    if damage == "missing":
        path.unlink()
    elif damage == "empty" or (damage == "no array" and part != "keys.bin"):
        path.write_bytes(b"" if damage == "empty" else b"no array")
    elif part == "keys.bin":
        path.write_bytes(path.read_bytes()[:-1] if damage == "shorter" else path.read_bytes() + b"x")
    else:
        array = np.load(path)
        longer = np.append(array, array[-1:] + 1)
        np.save(path, {"longer": longer, "shorter": array[:-1], "another type": array.astype(np.float32)}[damage])
    with pytest.raises(InternalError, match=r"x\.(keys|key_offsets|starts|rows|counts)\.") as raised:
        Postings.open(tmp_path, "x", rows=2, counts=True)
    assert "damaged" in raised.value.message


@pytest.mark.parametrize("offsets", [[1, 2, 3], [0, 2, 2], [0, 3, 2], [0, 1, 99], [[0, 1, 2]], []])
@pytest.mark.parametrize("part", ["key_offsets", "starts"])
def test_offsets_that_do_not_rise_from_0_are_refused(tmp_path: Path, part: str, offsets: list[int]) -> None:
    write(tmp_path, [{b"a": 1, b"b": 1}, {b"a": 1}])
    np.save(tmp_path / f"x.{part}.npy", np.asarray(offsets, np.int64))
    with pytest.raises(InternalError, match="damaged"):
        Postings.open(tmp_path, "x", rows=2, counts=True)
