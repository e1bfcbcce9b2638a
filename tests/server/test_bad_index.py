"""An index that can't be served ends the start with a typed error that says which and what to do, and leaves nothing behind.

`tritonrag serve` finds these before it starts Triton (tests/unit/test_command_preflight.py); here the models find them themselves.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tritonrag.launcher import TritonServer
from tritonrag.triton_command import ServeOptions
from tritonrag_backends.settings import EmbedderSettings, Settings
from tritonrag_client.errors import BadRequestError, InternalError, NotFoundError, RagError


def missing(index: Path) -> Path:
    return index.with_name("nowhere")


def empty(index: Path) -> Path:
    folder = index.with_name("empty")
    folder.mkdir(exist_ok=True)
    return folder


def damaged(index: Path) -> Path:
    folder = index.with_name("damaged")
    shutil.copytree(index, folder, dirs_exist_ok=True)
    (passages,) = folder.glob("segments/*/passages.bin")
    data = bytearray(passages.read_bytes())
    data[len(data) // 2] ^= 1
    passages.write_bytes(data)
    return folder


@pytest.mark.parametrize(
    ("spoil", "error", "named"),
    [
        (missing, NotFoundError, "nowhere"),
        (empty, NotFoundError, "tritonrag index build"),
        (damaged, InternalError, "passages.bin"),
    ],
)
def test_an_index_that_is_not_whole_is_refused(
    index_dir: Path, embedder_dir: Path, spoil: Callable[[Path], Path], error: type[RagError], named: str
) -> None:
    settings = Settings(index=spoil(index_dir), embedder=EmbedderSettings(model=embedder_dir, instances=2))
    refused(settings, error, named)


def test_an_index_of_another_embedding_model_is_refused(index_dir: Path, embedder_dir: Path, tmp_path: Path) -> None:
    other = tmp_path / "other-embedder"
    shutil.copytree(embedder_dir, other)
    manifest = json.loads((other / "embedder.json").read_text())
    manifest |= {"fingerprint": "0" * 64, "name": "some-other-model"}
    (other / "embedder.json").write_text(json.dumps(manifest))
    refused(Settings(index=index_dir, embedder=EmbedderSettings(model=other)), BadRequestError, "some-other-model")


def refused(settings: Settings, error: type[RagError], named: str) -> None:
    triton = TritonServer()
    with triton, pytest.raises(error, match=named) as caught:
        triton.start(ServeOptions(settings=settings, models=("retrieve",)))
    assert "Traceback" not in str(caught.value)
    assert triton.check_left_behind() == []
