"""Promises of the arithmetic behind an index on GPUs: kinds, bytes, and rows dealt out."""

from itertools import pairwise
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from index_gpu_fakes import WITH_CUVS, WITHOUT_CUVS

from tritonrag_backends.choices import Kind
from tritonrag_backends.index.gpu.device import DeviceKind
from tritonrag_backends.index.gpu.shapes import (
    building_bytes,
    deal,
    device_kind,
    index_bytes,
    shape_of,
    sub_quantizers,
)
from tritonrag_backends.settings import RetrieverSettings

MANY = 1_000_000
DEVICE_KINDS = get_args(DeviceKind)


@pytest.mark.parametrize(
    ("kind", "with_cuvs", "without"),
    [
        ("flat", "flat", "flat"),
        ("sq8", "flat", "flat"),
        ("hnsw", "cagra", "ivf_flat"),
        ("ivf_flat", "ivf_flat", "ivf_flat"),
        ("ivf_sq8", "ivf_flat", "ivf_flat"),
        ("ivf_pq", "ivf_pq", "ivf_pq"),
        ("ivf_rabitq", "ivf_pq", "ivf_pq"),
    ],
)
def test_auto_takes_what_is_nearest_to_the_kind_on_the_disk(kind: Kind, with_cuvs: str, without: str) -> None:
    assert device_kind("auto", kind=kind, rows=MANY, abilities=WITH_CUVS) == with_cuvs
    assert device_kind("auto", kind=kind, rows=MANY, abilities=WITHOUT_CUVS) == without


@pytest.mark.parametrize("kind", get_args(Kind))
@pytest.mark.parametrize("choice", DEVICE_KINDS)
def test_a_kind_that_is_asked_for_is_taken_where_there_is_enough_to_learn_from(choice: DeviceKind, kind: Kind) -> None:
    assert device_kind(choice, kind=kind, rows=MANY, abilities=WITH_CUVS) == choice
    assert device_kind(choice, kind=kind, rows=999, abilities=WITH_CUVS) == "flat"


def test_every_kind_on_the_disk_has_one_on_a_device_and_settings_offer_all_of_those() -> None:
    kinds = {device_kind("auto", kind=kind, rows=MANY, abilities=WITH_CUVS) for kind in get_args(Kind)}
    assert kinds == set(DEVICE_KINDS)
    for kind in ("auto", *DEVICE_KINDS):
        assert RetrieverSettings(gpu_kind=kind).gpu_kind == kind


@pytest.mark.parametrize(
    ("dims", "count"),
    [(384, 96), (768, 96), (1024, 64), (256, 64), (128, 64), (32, 16), (300, 20), (7, 1), (1, 1), (2, 1)],
)
def test_codes_are_as_long_as_faiss_has_kernels_for(dims: int, count: int) -> None:
    assert sub_quantizers(dims) == count


@given(dims=st.integers(1, 4096))
def test_sub_quantizers_divide_the_dimension(dims: int) -> None:
    assert dims % sub_quantizers(dims) == 0


def test_bytes_are_those_of_worked_examples() -> None:
    def size(kind: DeviceKind, *, fp16: bool) -> int:
        return index_bytes(shape_of(kind, rows=MANY, dims=384, fp16=fp16))

    assert size("flat", fp16=True) == 768_000_000
    assert size("flat", fp16=False) == 1_536_000_000
    assert size("cagra", fp16=True) == 768_000_000 + 4 * 64 * MANY
    assert size("ivf_flat", fp16=True) == int(1.5 * MANY * 776) + 4 * 384 * 4_000
    assert size("ivf_pq", fp16=True) == int(1.5 * MANY * 104) + 4 * 384 * 4_000 + 4 * 384 * 256


@given(kind=st.sampled_from(DEVICE_KINDS), rows=st.integers(1, 10**9), dims=st.integers(1, 4096), fp16=st.booleans())
def test_building_takes_no_less_than_what_is_built_and_more_rows_never_take_less(
    kind: DeviceKind, rows: int, dims: int, fp16: bool
) -> None:
    shape, larger = (shape_of(kind, rows=count, dims=dims, fp16=fp16) for count in (rows, rows + 1_000))
    assert 0 < index_bytes(shape) <= building_bytes(shape) <= building_bytes(larger)


SIZES = st.lists(st.integers(1, 10**7), min_size=0, max_size=12)
LOADS = st.lists(st.integers(0, 10**9), min_size=1, max_size=8)


@given(rows=SIZES, loads=LOADS)
def test_every_row_goes_to_one_device_and_cuts_are_at_bytes_of_a_selector(rows: list[int], loads: list[int]) -> None:
    dealt = deal([(count, 768 * count) for count in rows], loads)
    for count, shares in zip(rows, dealt, strict=True):
        assert shares[0].start == 0
        assert shares[-1].stop == count
        assert all(one.stop == other.start for one, other in pairwise(shares))
        assert all(share.start % 8 == 0 and share.start < share.stop for share in shares)
        assert len({share.device for share in shares}) == len(shares)
        assert {share.device for share in shares} <= set(range(len(loads)))


@given(rows=st.lists(st.integers(1_000, 10**7), min_size=1, max_size=12), devices=st.integers(1, 8))
def test_no_device_holds_more_than_its_share_and_one_segments(rows: list[int], devices: int) -> None:
    held = [0] * devices
    for shares in deal([(count, count) for count in rows], [0] * devices):
        for share in shares:
            held[share.device] += share.stop - share.start
    fair = sum(rows) / devices
    assert max(held) <= 2 * fair + 8
    if devices == 1:
        assert held == [sum(rows)]


def test_a_large_segment_is_cut_and_small_ones_go_where_room_is() -> None:
    dealt = deal([(8_000, 8_000), (800, 800), (80, 80)], [0, 0, 0, 0])
    assert [(share.device, share.start, share.stop) for share in dealt[0]] == [
        (0, 0, 2_000),
        (1, 2_000, 4_000),
        (2, 4_000, 6_000),
        (3, 6_000, 8_000),
    ]
    assert len(dealt[1]) == len(dealt[2]) == 1
    assert dealt[1][0].device != dealt[2][0].device


def test_what_devices_hold_already_counts() -> None:
    (shares,) = deal([(100, 100)], [500, 0])
    assert [share.device for share in shares] == [1]
