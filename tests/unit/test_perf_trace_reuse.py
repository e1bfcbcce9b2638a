"""What a KV cache has already: never more than there is, and whatever the layout, the same tokens are sent."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tritonrag_client.errors import BadRequestError
from tritonrag_perf.trace.kv_cache import BlockNames, PrefixCache
from tritonrag_perf.trace.layouts import LAYOUTS
from tritonrag_perf.trace.prompt_reuse import OWN, Reuse, measure_reuse
from tritonrag_perf.trace.requests import Part, Trace, TracedRequest

SIZE = 4


def parts_of(kind: str, most: int, ids: int = 5) -> st.SearchStrategy[list[Part]]:
    """The same id has the same length, as in a trace."""
    drawn = st.lists(st.integers(0, ids - 1), max_size=most, unique=True)
    return drawn.map(lambda found: [Part(kind=kind, id=id_, tokens=1 + 3 * id_) for id_ in found])


requests = st.builds(
    lambda system, passages, history, question: TracedRequest(
        arrival_s=0.0,
        session="s",
        answer_tokens=5,
        parts=(*system, *passages, *history, *question, Part(kind="rest", id=question[0].id, tokens=2)),
    ),
    parts_of("system", 3),
    parts_of("passage", 5, 8),
    parts_of("history", 2),
    parts_of("question", 1).filter(bool),
)
traces = st.lists(requests, min_size=1, max_size=12).map(lambda made: Trace(requests=tuple(made)))
caches = st.none() | st.integers(SIZE, 40 * SIZE)


def measured(trace: Trace, cache_tokens: int | None = None) -> dict[str, Reuse]:
    record = measure_reuse(trace, cache_tokens=(cache_tokens,), block_tokens=SIZE)
    return {row.layout: row for row in record.rows}


def prompt(*tokens: int) -> tuple[Part, ...]:
    return tuple(Part(kind="passage", id=id_, tokens=length) for id_, length in enumerate(tokens))


@given(traces, caches)
def test_no_more_is_used_again_than_there_was_before(trace: Trace, cache_tokens: int | None) -> None:
    later = trace.prompt_tokens - trace.requests[0].prompt_tokens
    for row in measured(trace, cache_tokens).values():
        assert 0 <= row.reused_tokens <= later
        assert row.speed_up >= 1


@given(traces, caches)
def test_a_bounded_cache_has_never_more_than_an_unbounded_one(trace: Trace, cache_tokens: int | None) -> None:
    bounded, unbounded = measured(trace, cache_tokens), measured(trace)
    assert all(bounded[name].reused_tokens <= unbounded[name].reused_tokens for name in LAYOUTS)


@given(traces)
def test_every_layout_sends_each_part_once_and_the_question_last(trace: Trace) -> None:
    for make in LAYOUTS.values():
        layout = make()
        for request in trace.requests:
            arranged = layout.arrange(request)
            assert sorted(part.key for part in arranged) == sorted(part.key for part in request.parts)
            assert [part.kind for part in arranged[-2:]] == ["question", "rest"]


@given(traces, st.data())
def test_no_layout_knows_what_comes_later(trace: Trace, data: st.DataObject) -> None:
    until = data.draw(st.integers(1, len(trace.requests)))
    for make in LAYOUTS.values():
        whole, cut = make(), make()
        first = [whole.arrange(request) for request in trace.requests][:until]
        assert first == [cut.arrange(request) for request in trace.requests[:until]]


@given(traces, st.randoms(use_true_random=False))
def test_only_ranks_make_the_order_of_found_passages_matter(trace: Trace, rng: object) -> None:
    shuffled = Trace(requests=tuple(_shuffled(request, rng) for request in trace.requests))
    for name in ("canonical", "popular", "followed"):
        assert measured(trace)[name] == _like(measured(shuffled)[name], measured(trace)[name])


def _shuffled(request: TracedRequest, rng: object) -> TracedRequest:
    passages = list(request.of("passage"))
    rng.shuffle(passages)  # type: ignore[attr-defined]
    parts = (*request.of("system"), *passages, *request.of("history", "web", "question", "rest"))
    return TracedRequest(arrival_s=0.0, session="s", answer_tokens=5, parts=parts)


def _like(row: Reuse, other: Reuse) -> Reuse:
    """The row, but for what compares it with the trace's own layout, which does depend on ranks."""
    fields = {name: getattr(row, name) for name in Reuse.__slots__}
    return Reuse(**{**fields, "of_own": other.of_own, "speed_up_of_own": other.speed_up_of_own})


@given(requests)
def test_the_same_prompt_again_is_used_again_but_for_the_block_with_its_last_token(request: TracedRequest) -> None:
    blocks = (request.prompt_tokens - 1) // SIZE
    rows = measured(Trace(requests=(request, request)))
    assert rows[OWN].reused_tokens == blocks * SIZE


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        (prompt(8, 8, 4), 16),  # all the same: the last block is computed for the sake of its last token
        (prompt(8, 8, 5), 20),
        (prompt(8, 6, 9), 12),  # differs in the middle of a block
        (prompt(7, 8, 9), 4),
        (tuple(reversed(prompt(8, 8, 4))), 0),
    ],
)
def test_a_prefix_is_used_again_in_whole_blocks(second: Sequence[Part], expected: int) -> None:
    names, cache = BlockNames(size=SIZE), PrefixCache()
    assert cache.use(names.of(prompt(8, 8, 5))) == 0
    assert SIZE * cache.use(names.of(second)) == expected


def test_what_was_used_least_recently_is_forgotten_first() -> None:
    cache = PrefixCache(4)
    assert [cache.use(blocks) for blocks in ((1, 2), (3, 4), (1, 2), (5, 6))] == [0, 0, 2, 0]
    assert cache.use((1, 2)) == 2
    assert cache.use((3, 4)) == 0
    assert len(cache) == 4


def test_a_prompt_that_does_not_fit_leaves_its_beginning() -> None:
    cache = PrefixCache(2)
    assert cache.use((1, 2, 3, 4)) == 0
    assert cache.use((1, 2, 3, 4)) == 2


@pytest.mark.parametrize("tokens", [0, SIZE - 1])
def test_a_cache_without_room_for_a_block_is_refused(tokens: int) -> None:
    trace = Trace(requests=(TracedRequest(arrival_s=0, session="s", answer_tokens=1, parts=prompt(3)),))
    with pytest.raises(BadRequestError, match=f"holds {tokens} tokens"):
        measure_reuse(trace, cache_tokens=(tokens,), block_tokens=SIZE)


def test_a_block_without_tokens_is_refused() -> None:
    with pytest.raises(BadRequestError, match="a block has 0 tokens"):
        BlockNames(size=0)
