"""Our server beside the peers: asked by both of Triton's endpoints with their client, it finds what exact search finds."""

from pathlib import Path

import psutil

from tritonrag_backends.settings import Settings
from tritonrag_perf.corpus import questions_of_index
from tritonrag_perf.peers.checking import Oracle
from tritonrag_perf.peers.contenders import OurContender
from tritonrag_perf.peers.export import export
from tritonrag_perf.peers.running import Plan, run


def test_our_server_is_measured_and_exact_by_grpc_and_by_http(settings: Settings, tmp_path: Path) -> None:
    before = children()
    export(settings.index, settings.embedder.model, tmp_path / "data", kind="flat")
    texts = questions_of_index(settings.index, count=8, seed=1).texts
    contender = OurContender.of(settings.index, settings.embedder.model)
    plan = Plan(questions=texts, k=3, clients=(1, 4), rounds=1, warm_up_s=0.2, seconds=0.5)
    results = run([contender], Oracle(tmp_path / "data", texts, 3), plan, lambda _: None)
    assert not results.failures
    names = ["tritonrag grpc", "tritonrag http"]
    assert [one.endpoint for one in results.qualities] == names
    assert all(one.checked.exact_share == 1 for one in results.qualities)
    assert [(one.endpoint, one.clients) for one in results.samples] == [(n, c) for c in (1, 4) for n in names]
    assert all(one.answers > 0 and one.server_cpu_ms > 0 for one in results.samples)
    assert all(one.memory_bytes > 2**20 for one in results.starts)
    assert children() <= before


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children(recursive=True)}
