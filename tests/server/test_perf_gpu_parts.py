"""The parts of the GPU measurement that need a Triton, run on a CPU: nothing of them is run for the first time on a GPU."""

import pytest

from tests.perf_gpu import Done, run_tiny

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Done:
    return run_tiny(tmp_path_factory.mktemp("gpu-out"), tmp_path_factory.mktemp("gpu-work"), ["server", "llm"])


@pytest.mark.parametrize("part", ["server", "llm"])
def test_a_part_runs_on_a_cpu_and_all_its_checks_hold(done: Done, part: str) -> None:
    assert done.failures(part) == [], done.said[-3000:]
    assert done.records[part]["status"] == "ok"
    assert done.status == 0


def test_profile_gpu_is_held_to_profile_cpus_answers_and_to_its_metrics(done: Done) -> None:
    record = done.records["server"]
    (answers,) = record["tables"]["answers"]
    assert answers["questions"] == 24
    assert answers["score_difference"] <= 3e-3
    (served,) = record["tables"]["served"]
    assert served["questions_per_s"]["median"] > 0
    names = [check["name"] for check in record["checks"]]
    assert "GPU metrics in Triton's /metrics" in names
    assert "nothing is given up" in names


def test_a_language_model_streams_through_rag_and_is_compared_with_itself(done: Done) -> None:
    record = done.records["llm"]
    rows = record["tables"]["streaming"]
    assert [(row["side"], row["clients"]) for row in rows] == [("engine", 1), ("`rag`", 1), ("engine", 2), ("`rag`", 2)]
    for row in rows:
        assert row["answer_tokens"] == 8
        assert row["prompt_tokens"] > 100
        assert row["first_token_ms"]["low"] > 0
    ratios = {(row["what"], row["clients"]) for row in record["tables"]["ratios"]}
    assert {("tokens/s", 1), ("tokens/s", 2), ("first token added, ms", 1)} <= ratios
    same = [check for check in record["checks"] if "the same on both sides" in check["name"]]
    assert [check["ok"] for check in same] == [True]
