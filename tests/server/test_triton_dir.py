"""An installed Triton, laid out as NVIDIA's images lay it out, serves like the wheel's."""

from pathlib import Path

import pytest

from tests.server import toy
from tritonrag.launcher import TritonServer
from tritonrag.triton_command import ServeOptions
from tritonrag.triton_parts import find_triton, find_wheel


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The wheel's parts, put together as /opt/tritonserver is."""
    wheel, folder = find_wheel(), tmp_path / "opt/tritonserver"
    for part in ("bin", "backends/python"):
        (folder / part).mkdir(parents=True)
    (folder / "bin/tritonserver").symlink_to(wheel.tritonserver)
    (folder / "lib").symlink_to(wheel.libraries)
    (folder / "caches").symlink_to(wheel.caches)
    files = (part for part in wheel.python_backend.iterdir() if part.is_file())
    for part in (*files, wheel.stub):
        (folder / "backends/python" / part.name).symlink_to(part)
    return folder


def test_an_installed_triton_is_started_from_its_folder_and_leaves_nothing_in_it(
    installed: Path, tmp_path: Path
) -> None:
    before = sorted(installed.rglob("*"))
    repository = toy.make_repository(tmp_path / "repository")
    server = TritonServer()
    with server:
        running = server.start(ServeOptions(model_repository=repository, models=("wait",), triton_dir=installed))
        program = Path(f"/proc/{running.pid}/cmdline").read_bytes().split(b"\0")[0]
        assert Path(program.decode()) == find_triton(installed).tritonserver
        assert toy.sleep_for(running.http_url, 0.0) == 0.0
    assert server.check_left_behind() == []
    assert sorted(installed.rglob("*")) == before
