"""All instances of the retriever together fit the cores."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tritonrag_backends.models.threads import ThreadPlan, allowed_cores, count_instances, plan_threads


@given(instances=st.integers(1, 256), cores=st.integers(1, 256))
def test_automatic_threads_share_out_half_of_the_cores(instances: int, cores: int) -> None:
    plan = plan_threads(0, instances=instances, cores=cores)
    assert plan.threads >= 1
    assert plan.threads == 1 or plan.threads * instances <= cores / 2 < (plan.threads + 1) * instances
    assert not plan.too_many


@pytest.mark.parametrize(("wanted", "too_many"), [(1, False), (4, False), (5, True), (64, True)])
def test_what_is_asked_for_is_done_and_known_to_be_too_much(wanted: int, too_many: bool) -> None:
    plan = plan_threads(wanted, instances=2, cores=8)
    assert plan == ThreadPlan(threads=wanted, instances=2, cores=8)
    assert plan.too_many is too_many


def test_one_thread_is_never_too_many() -> None:
    assert not plan_threads(1, instances=9, cores=2).too_many


@pytest.mark.parametrize(
    ("groups", "count"),
    [
        ([], 1),
        ([{"kind": "KIND_CPU", "count": 3, "gpus": []}], 3),
        ([{"kind": "KIND_GPU", "count": 2, "gpus": [0, 1, 2]}, {"kind": "KIND_CPU"}], 7),
    ],
)
def test_instances_are_counted_over_groups_and_gpus(groups: list[dict[str, object]], count: int) -> None:
    assert count_instances(json.dumps({"name": "retriever", "instance_group": groups})) == count


def test_instances_of_a_model_without_groups_are_one() -> None:
    assert count_instances("{}") == 1


@pytest.mark.parametrize(("quota", "cores"), [("max 100000", 8), ("150000 100000", 2), ("50000 100000", 1), ("", 8)])
def test_a_containers_cpu_limit_counts(quota: str, cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    (tmp_path / "cpu.max").write_text(quota)
    assert allowed_cores(tmp_path / "cpu.max") == cores


def test_without_a_limit_the_affinity_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 5})
    assert allowed_cores(tmp_path / "nothing") == 3
