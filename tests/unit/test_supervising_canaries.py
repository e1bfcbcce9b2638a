"""What a canary asks, and what its answer says of the stage."""

import json

import pytest

from tritonrag.supervising.canaries import STAGES, canaries_of, canary_of, verdict_of


def error(text: str) -> bytes:
    return json.dumps({"error": text}).encode()


def test_there_is_a_canary_for_each_stage_that_is_loaded_and_for_nothing_else() -> None:
    assert set(canaries_of(["rag", "retrieve", "embedder", "other"])) == {"embedder", "retrieve"}


@pytest.mark.parametrize("stage", STAGES)
def test_a_canary_has_one_id_and_asks_for_little(stage: str) -> None:
    canary = canary_of(stage)
    assert canary.path.startswith(f"/v2/models/{stage}/")
    assert canary.body["id"]
    assert len(json.dumps(canary.body)) < 400


def test_the_generators_canary_makes_no_language_model_work() -> None:
    body = canary_of("generator").body
    assert body["stop"] is True
    assert "text_input" not in body


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (200, b"{}", "alive"),
        (404, error("not_found: no generation runs under the request id 'x'; it may have ended already"), "alive"),
        (400, error("bad_request: stop needs the id of the request"), "alive"),
        (503, error("overloaded: 256 questions wait already; try again later"), "alive"),
        (429, error("Exceeds maximum queue size"), "alive"),
        (503, error("[request id: a] Exceeds maximum queue size"), "alive"),
        (400, error("unexpected inference input 'text_input' for model 'retrieve'"), "alive"),
        (500, error("internal: the retrieve failed on this request; the server's log tells why"), "failing"),
        (503, error("unavailable: an instance of the generator does not say whether it runs this"), "failing"),
        (500, error("in ensemble 'retrieve', internal: no"), "failing"),
        (500, error("Failed to process the request(s): what"), "failing"),
        (500, b"<html>", "failing"),
        (500, error("Stub process 'retrieve_0_0' is not healthy."), "dead"),
        (400, error("Request for unknown model: 'retrieve' has no available versions"), "dead"),
        (404, error("Request for unknown model: 'retrieve' is not found"), "dead"),
        (500, error("in ensemble 'rag', Stub process 'retrieve_0_0' is not healthy."), "dead"),
    ],
)
def test_only_answers_that_a_running_model_can_give_count_as_life(status: int, body: bytes, kind: str) -> None:
    verdict = verdict_of(status, body)
    assert verdict.kind == kind
    assert bool(verdict.reason) is (kind != "alive")


def test_what_triton_says_of_a_failure_is_kept_apart_from_what_may_be_told() -> None:
    says = "Failed to process the request(s), message: ValueError: no; At: /home/somebody/model.py(4)"
    verdict = verdict_of(500, error(says))
    assert verdict.reason == "its canary fails with status 500"
    assert says in verdict.detail
