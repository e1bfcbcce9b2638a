"""The parts of the GPU measurement that need no Triton, run on a CPU: nothing of them is run for the first time on a GPU."""

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from tests.perf_gpu import Done, run_tiny

from tritonrag_backends.embedding.format import ENCODER_FILE


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gpu-work")


@pytest.fixture(scope="module")
def done(work: Path, tmp_path_factory: pytest.TempPathFactory) -> Done:
    return run_tiny(tmp_path_factory.mktemp("gpu-out"), work, ["encoder", "faiss"])


@pytest.mark.parametrize("part", ["encoder", "faiss"])
def test_a_part_runs_on_a_cpu_and_all_its_checks_hold(done: Done, part: str) -> None:
    assert done.failures(part) == [], done.said[-3000:]
    record = done.records[part]
    assert (record["status"], record["device"], record["scale"], record["card"]) == ("ok", "cpu", "tiny", None)
    assert record["checks"]
    assert done.status == 0


def test_every_runtime_of_the_encoder_is_held_to_the_cpus_vectors_and_the_roofline(done: Done) -> None:
    tables = done.records["encoder"]["tables"]
    runtimes = {row["runtime"] for row in tables["parity"]}
    assert len(runtimes) == 2
    assert any(name.startswith("ONNX Runtime") for name in runtimes)
    assert any(name.startswith("torch fp32") for name in runtimes)
    assert {row["runtime"] for row in tables["speed"]} == runtimes
    assert {(row["tokens"], row["batch"]) for row in tables["speed"]} == {(16, 1), (16, 4), (32, 1), (32, 4)}
    for row in tables["speed"]:
        assert row["of_roof"] > 0
        assert row["sequences_per_s"]["low"] <= row["sequences_per_s"]["median"] <= row["sequences_per_s"]["high"]
    names = [check["name"] for check in done.records["encoder"]["checks"]]
    assert all(any(runtime in name for name in names if "least cosine" in name) for runtime in runtimes)


def test_every_kind_is_measured_and_its_filters_let_nothing_through(done: Done) -> None:
    tables = done.records["faiss"]["tables"]
    assert [row["kind"].split()[0] for row in tables["kinds"]] == ["flat", "ivf_flat", "ivf_pq", "cagra"]
    assert {row["rows"] for row in tables["kinds"]} == {4_000}
    for row in tables["kinds"]:
        assert {f"batch_{batch}" for batch in (1, 32, 1024)} <= row.keys()
        assert row["bytes"] > 0
    filters = tables["filters"]
    assert {row["kind"] for row in filters} == {"flat", "ivf_flat", "ivf_pq", "cagra"}
    assert {round(row["share"], 1) for row in filters} == {0.5, 0.3}
    assert all(row["not_allowed"] == 0 for row in filters)
    assert [row["recall_at_10"] for row in filters if row["kind"] == "flat"] == [1.0, 1.0]


def test_figures_of_a_cpu_make_no_page(done: Done) -> None:
    assert "Not run yet" in done.page
    assert "texts/s" not in done.page


def break_graph(path: Path) -> None:
    """Zero one matrix of weights, as an exporter's mistake or a damaged copy might."""
    model = onnx.load(path)
    matrix = [
        one for one in model.graph.initializer if len(one.dims) == 2 and one.data_type == onnx.TensorProto.FLOAT16
    ][-1]
    matrix.CopyFrom(numpy_helper.from_array(np.zeros(matrix.dims, np.float16), matrix.name))
    onnx.save(model, path)


def test_a_check_that_fails_fails_the_run_and_the_other_part_is_done(done: Done, work: Path, tmp_path: Path) -> None:
    assert done.status == 0
    embedder = tmp_path / "embedder"
    shutil.copytree(work / "embedder", embedder)
    break_graph(embedder / ENCODER_FILE)
    wrong = run_tiny(tmp_path / "out", work, ["encoder", "faiss"], "--embedder", embedder)
    assert wrong.status == 1
    assert wrong.records["encoder"]["status"] == "failed"
    assert [one for one in wrong.failures("encoder") if "least cosine" in one and "ONNX Runtime" in one]
    assert not [one for one in wrong.failures("encoder") if "torch" in one]
    assert wrong.records["faiss"]["status"] == "ok"
