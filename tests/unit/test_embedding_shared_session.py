"""One copy of the weights for all processes of a server."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tiny_embedders import write_tiny_bert

from tritonrag_backends.embedding.encoder import Encoder
from tritonrag_backends.run_dir import RUN_DIR
from tritonrag_export.embedder.exporter import export_embedder

TEXTS = ["abc", "d", "a b c d"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "embedder"
    export_embedder(write_tiny_bert(tmp_path / "tiny"), folder)
    return folder


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    run = tmp_path / "run"
    run.mkdir()
    monkeypatch.setenv(RUN_DIR, str(run))
    return run


def packed(run: Path) -> list[Path]:
    return sorted(path for path in run.iterdir() if path.is_dir())


def is_mapped(path: Path) -> bool:
    return str(path) in Path("/proc/self/maps").read_text()


@pytest.mark.parametrize("precision", ["int8", "fp32"])
def test_the_vectors_are_those_of_weights_of_its_own_and_the_weights_are_mapped(
    folder: Path, run: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    shared = Encoder.open(folder, precision=precision)  # type: ignore[arg-type]
    (made,) = packed(run)
    assert is_mapped(made / "weights.bin")
    monkeypatch.delenv(RUN_DIR)
    own = Encoder.open(folder, precision=precision)  # type: ignore[arg-type]
    assert np.array_equal(shared.encode(TEXTS).vectors, own.encode(TEXTS).vectors)


def test_those_that_open_at_once_and_those_that_come_later_use_what_one_has_made(folder: Path, run: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        encoders = list(pool.map(Encoder.open, [folder] * 4))
    (made,) = packed(run)
    written_ns = (made / "weights.bin").stat().st_mtime_ns
    encoders.append(Encoder.open(folder))
    assert packed(run) == [made]
    assert (made / "weights.bin").stat().st_mtime_ns == written_ns
    vectors = [encoder.encode(TEXTS).vectors for encoder in encoders]
    assert all(np.array_equal(one, vectors[0]) for one in vectors)


def test_another_model_in_the_same_place_is_not_taken_for_the_old_one(folder: Path, run: Path, tmp_path: Path) -> None:
    before = Encoder.open(folder).encode(TEXTS).vectors
    weights = load_file(tmp_path / "tiny" / "model.safetensors")
    weights["encoder.layer.0.output.dense.weight"] *= -1
    save_file(weights, tmp_path / "tiny" / "model.safetensors")
    export_embedder(tmp_path / "tiny", folder)
    after = Encoder.open(folder).encode(TEXTS).vectors
    assert len(packed(run)) == 2
    assert not np.allclose(before, after, atol=1e-3)


def test_a_folder_that_takes_no_file_costs_memory_and_nothing_else(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "full").touch()
    monkeypatch.setenv(RUN_DIR, str(tmp_path / "full"))
    assert Encoder.open(folder).encode(TEXTS).vectors.shape == (3, 32)
    assert "weights of its own" in caplog.text
