"""A trace is read as it is, in the order of arrival, and what is wrong in it is named."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.trace_made import NO_HISTORY, length_of, line, tokens_of, write_trace

from tritonrag_client.errors import BadRequestError, NotFoundError
from tritonrag_perf.trace.reading import LENGTH_FILES, read_trace

REQUESTS = [line(5, 1, [3, 4]), line(9, 2), line(7, 1, [4, 3, 8], history=[901, 902], web_search=[950])]


def test_requests_come_in_the_order_of_their_arrival(tmp_path: Path) -> None:
    trace = read_trace(write_trace(tmp_path, REQUESTS))
    assert [request.arrival_s for request in trace.requests] == [5, 7, 9]
    assert [request.session for request in trace.requests] == ["s5", "s7", "s9"]
    assert trace.answer_tokens == 60


def test_a_prompt_has_the_parts_of_the_trace_with_their_lengths_and_together_its_length(tmp_path: Path) -> None:
    trace = read_trace(write_trace(tmp_path, REQUESTS))
    request = trace.requests[1]
    assert [(part.kind, part.id) for part in request.parts] == [
        ("system", 700),
        ("system", 10_007),
        ("passage", 4),
        ("passage", 3),
        ("passage", 8),
        ("history", 901),
        ("history", 902),
        ("web", 950),
        ("question", 1),
        ("rest", 1),
    ]
    assert [part.tokens for part in request.of("passage")] == [54, 53, 58]
    assert request.question.tokens == length_of("user_input", 1)
    assert [r.prompt_tokens for r in trace.requests] == [tokens_of(REQUESTS[i]) for i in (0, 2, 1)]
    assert trace.estimated == ()


def test_repeats_and_popularity_are_counted(tmp_path: Path) -> None:
    trace = read_trace(write_trace(tmp_path, [*REQUESTS, line(11, 5, [3, 3])]))
    assert trace.repeats == 1
    assert trace.passage_uses == {3: 3, 4: 2, 8: 1}  # a request that names a passage twice used it once


def test_lengths_that_no_file_gives_are_estimated_and_a_prompt_keeps_its_length(tmp_path: Path) -> None:
    trace = read_trace(write_trace(tmp_path, REQUESTS, only_needed=True))
    assert trace.estimated == ("system", "history", "web")
    assert [r.prompt_tokens for r in trace.requests] == [tokens_of(REQUESTS[i]) for i in (0, 2, 1)]
    plain, long, _ = trace.requests
    template_and_no_history = 8 + length_of("history", NO_HISTORY)
    assert [part.tokens for part in plain.of("system")] == [512, 40 + template_and_no_history]
    assert [part.tokens for part in plain.of("history")] == [0]
    beyond = 2 * 11 + 100 - 11  # what its history and web search have more than no history
    assert sum(part.tokens for part in long.of("history", "web")) == beyond
    assert {part.tokens for part in long.of("history", "web")} == {beyond // 3}


@pytest.mark.parametrize("name", ["0_trace.jsonl", "2_passages.jsonl", "4_user_input.jsonl"])
def test_a_missing_file_is_named(name: str, tmp_path: Path) -> None:
    write_trace(tmp_path, REQUESTS)
    (tmp_path / name).unlink()
    with pytest.raises(NotFoundError, match=name):
        read_trace(tmp_path)


def test_a_trace_without_requests_is_refused(tmp_path: Path) -> None:
    write_trace(tmp_path, REQUESTS)
    (tmp_path / "0_trace.jsonl").write_text("\n")
    with pytest.raises(BadRequestError, match="holds no request"):
        read_trace(tmp_path)


def _without(name: str) -> Callable[[dict[str, Any]], object]:
    return lambda request: request.pop(name)


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (_without("session_id"), "session_id"),
        (_without("hash_ids"), "hash_ids"),
        (lambda r: r.update(timestamp="-1"), "timestamp"),
        (lambda r: r.update(timestamp=7), "timestamp"),
        (lambda r: r.update(input_length=True), "input_length"),
        (lambda r: r.update(input_length=-4), "input_length"),
        (lambda r: r.update(colour="red"), "colour"),
        (lambda r: r["hash_ids"].update(user_input=[1, 2]), "user_input"),
        (lambda r: r["hash_ids"].update(user_input=[]), "user_input"),
        (lambda r: r["hash_ids"].update(passages_ids=["3"]), "passages_ids"),
        (lambda r: r["hash_ids"].pop("history"), "history"),
        (lambda r: r.update(input_length=10), "its parts have"),
    ],
)
def test_what_is_wrong_in_a_request_is_named_with_its_line(
    spoil: Callable[[dict[str, Any]], object], named: str, tmp_path: Path
) -> None:
    write_trace(tmp_path, REQUESTS)
    path = tmp_path / "0_trace.jsonl"
    first, second, *others = path.read_text().splitlines()
    spoilt = json.loads(second)
    spoil(spoilt)
    path.write_text("\n".join([first, json.dumps(spoilt), *others]))
    with pytest.raises(BadRequestError, match=named) as caught:
        read_trace(tmp_path)
    assert "line 2" in caught.value.message


@pytest.mark.parametrize("text", ["{", "[]", "\udcff"])
def test_a_line_that_is_no_object_is_refused(text: str, tmp_path: Path) -> None:
    write_trace(tmp_path, REQUESTS)
    (tmp_path / "0_trace.jsonl").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(BadRequestError, match=r"0_trace\.jsonl"):
        read_trace(tmp_path)


@pytest.mark.parametrize("name", sorted(LENGTH_FILES.values()))
def test_an_id_without_a_length_is_named(name: str, tmp_path: Path) -> None:
    write_trace(tmp_path, REQUESTS)
    path = tmp_path / name
    path.write_text("\n".join(path.read_text().splitlines()[1:]) or "\n")
    with pytest.raises(BadRequestError, match="whose length no file gives"):
        read_trace(tmp_path)


def test_two_lengths_of_one_id_are_refused(tmp_path: Path) -> None:
    write_trace(tmp_path, REQUESTS)
    with (tmp_path / "2_passages.jsonl").open("a") as file:
        file.write('{"passage_id": 3, "token_length": 1}\n')
    with pytest.raises(BadRequestError, match="id 3 a second length"):
        read_trace(tmp_path)
