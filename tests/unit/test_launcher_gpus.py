"""GPUs are counted as CUDA would show them to the server."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tritonrag.gpus import count_gpus


def make_machine(folder: Path, *, devices: int, driver: int) -> dict[str, Path]:
    (folder / "dev").mkdir()
    (folder / "gpus").mkdir()
    for name in ("null", "nvidiactl", "nvidia-uvm", "nvidia-caps", *(f"nvidia{number}" for number in range(devices))):
        (folder / "dev" / name).touch()
    for number in range(driver):
        (folder / "gpus" / f"0000:{number:02x}:00.0").mkdir()
    return {"devices": folder / "dev", "driver": folder / "gpus"}


@pytest.mark.parametrize(("devices", "driver", "count"), [(0, 0, 0), (4, 4, 4), (0, 2, 2), (1, 8, 1), (12, 12, 12)])
def test_device_files_count_and_the_drivers_list_where_there_are_none(
    tmp_path: Path, devices: int, driver: int, count: int
) -> None:
    assert count_gpus({}, **make_machine(tmp_path, devices=devices, driver=driver)) == count


@pytest.mark.parametrize(
    ("visible", "count"),
    [
        ("", 0),
        ("-1", 0),
        ("0", 1),
        ("3,1", 2),
        (" 0 , 2 ", 2),
        ("0,-1,1", 1),  # CUDA ends at the first that is none
        ("0,9,1", 1),
        ("0,0", 1),
        ("NoDevFiles", 0),
        ("GPU-8932f937-d72c,GPU-5b1c2d3e-aaaa", 2),
        ("MIG-aa,MIG-bb", 2),
        ("0,1,2,3", 4),
    ],
)
def test_cards_that_are_hidden_do_not_count(tmp_path: Path, visible: str, count: int) -> None:
    machine = make_machine(tmp_path, devices=4, driver=4)
    assert count_gpus({"CUDA_VISIBLE_DEVICES": visible}, **machine) == count


def test_naming_cards_where_none_is_makes_none(tmp_path: Path) -> None:
    assert count_gpus({"CUDA_VISIBLE_DEVICES": "0,1"}, **make_machine(tmp_path, devices=0, driver=0)) == 0


@settings(deadline=None)
@given(visible=st.text(alphabet="0123456789,-GPUMI ", max_size=30))
def test_whatever_is_set_never_shows_more_than_there_is(visible: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    machine = make_machine(tmp_path_factory.mktemp("machine"), devices=3, driver=3)
    assert 0 <= count_gpus({"CUDA_VISIBLE_DEVICES": visible}, **machine) <= 3
