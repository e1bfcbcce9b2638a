"""Layouts: what of them our own prompts have, and how those that learn put passages in order."""

import re
from collections.abc import Sequence
from typing import Literal

import pytest

from tritonrag_backends.prompting.builder import PromptBuilder
from tritonrag_backends.prompting.template import PromptTemplate
from tritonrag_client.contract import Passage, Turn
from tritonrag_perf.trace.layouts import LAYOUTS, Layout
from tritonrag_perf.trace.requests import Part, TracedRequest

RULES, HISTORY, QUESTION = "system-0", "history-0", "question-7"


def request(passages: Sequence[int], *, system: Sequence[int] = (0,)) -> TracedRequest:
    kinds = {"system": system, "passage": passages, "history": (0,), "question": (7,), "rest": (7,)}
    parts = tuple(Part(kind=kind, id=id_, tokens=9) for kind, ids in kinds.items() for id_ in ids)
    return TracedRequest(arrival_s=0.0, session="s", answer_tokens=1, parts=parts)


def passages_of(layout: Layout, *asked: Sequence[int]) -> list[int]:
    """The order of the last one's passages."""
    arranged: tuple[Part, ...] = ()
    for passages in asked:
        arranged = layout.arrange(request(passages))
    return [part.id for part in arranged if part.kind == "passage"]


@pytest.mark.parametrize(("order", "layout"), [("canonical", "canonical"), ("rank", "rank")])
@pytest.mark.parametrize("passages", [(3, 1, 2), (9,), (), (5, 4, 30, 2)])
def test_the_layout_is_what_our_prompts_have(
    order: Literal["canonical", "rank"], layout: str, passages: tuple[int, ...]
) -> None:
    builder = PromptBuilder(
        PromptTemplate.load("default"), count_tokens=lambda _: 1, context_tokens=None, order=order, fence_key=b"key"
    )
    built = builder.build(
        question=QUESTION,
        passages=[Passage(text=f"passage-{id_}", title="", uri="u", start=0, end=9) for id_ in passages],
        passage_ids=passages,
        history=[Turn(role="user", content=HISTORY), Turn(role="assistant", content="Yes.")],
        max_tokens=1,
    )
    rules, *_ = built.messages
    sent = f"{RULES} " + "\n".join(message.content for message in built.messages)
    assert rules.content.startswith("You answer questions")  # what is the same in all prompts comes first
    learnt = LAYOUTS[layout]()
    learnt.arrange(request(passages))  # from now on the rules are known to be what is the same
    arranged = [f"{part.kind}-{part.id}" for part in learnt.arrange(request(passages)) if part.kind != "rest"]
    assert re.findall(r"(?:system|passage|history|question)-\d+", sent) == arranged


def test_what_changes_of_a_system_prompt_goes_behind_the_history() -> None:
    layout = LAYOUTS["rank"]()
    layout.arrange(request((4,), system=(0, 100, 1)))
    arranged = layout.arrange(request((4,), system=(0, 101, 1)))
    assert [(part.kind, part.id) for part in arranged] == [
        ("system", 0),
        ("system", 1),
        ("passage", 4),
        ("history", 0),
        ("system", 101),
        ("question", 7),
        ("rest", 7),
    ]


def test_the_traces_own_layout_changes_nothing() -> None:
    asked = request((4, 2), system=(0, 100))
    assert LAYOUTS["trace"]().arrange(asked) == asked.parts


def test_popular_passages_come_first() -> None:
    assert passages_of(LAYOUTS["popular"](), (5, 9), (9, 2), (2, 9, 5, 7)) == [9, 2, 5, 7]


def test_a_way_that_was_gone_is_gone_again_even_past_a_passage_that_became_more_popular() -> None:
    asked = ((1, 2), (1, 2), (2, 3), (2, 4), (2, 5))  # 2 has become more popular than 1
    assert passages_of(LAYOUTS["popular"](), *asked, (1, 2)) == [2, 1]
    assert passages_of(LAYOUTS["followed"](), *asked, (1, 2, 8))[:2] == [2, 1]
    assert passages_of(LAYOUTS["followed"](), (1, 2), (1, 2), (2, 3), (1, 2, 8)) == [1, 2, 8]
