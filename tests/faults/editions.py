"""What each version of an index answers, told without Triton by the index library and the engine, and when it could be answered."""

import asyncio
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from tests.faults.load import GRACE_S, QUESTIONS
from tests.faults.steady import DEADLINE_S, MAX_TOKENS, Asked, Said
from tritonrag_backends.embedding.encoder import Encoder
from tritonrag_backends.generation.engine import Prompt, Sampling
from tritonrag_backends.generation.extractive import ExtractiveEngine
from tritonrag_backends.index import Index, Query
from tritonrag_backends.settings import RetrieverSettings
from tritonrag_client.contract import InputType, Passage

SAME_SCORE: Final = 1e-3
CITED: Final = re.compile(r"(\S.*?) \[(\d+)\]")
Written = tuple[str, str]  # an answer's text, and how it ended


@dataclass(frozen=True, slots=True, kw_only=True)
class Right:
    """The right answer to a question."""

    ids: tuple[int, ...]
    scores: tuple[float, ...]
    passages: tuple[Passage, ...]
    written: Written


class Edition:
    """One version of an index, and what it answers to each of QUESTIONS."""

    def __init__(self, index: Index, encoder: Encoder, *, written: Written | None = None) -> None:
        """`written` is what the engine writes, whatever it is asked; None: the extractive engine does."""
        self.version: Final = index.version
        vectors, k = encoder.encode(QUESTIONS).vectors, RetrieverSettings().num_passages
        asked = zip(QUESTIONS, vectors, strict=True)
        queries = [Query(embedding=vector, text=question, num_passages=k) for question, vector in asked]
        self.right: Final = dict[str, Right]()
        for question, hits in zip(QUESTIONS, index.search(queries), strict=True):
            passages = tuple(Passage.from_json(data) for data in index.passages(hits.passage_ids))
            self.right[question] = Right(
                ids=tuple(hits.passage_ids.tolist()),
                scores=tuple(hits.scores.tolist()),
                passages=passages,
                written=written or asyncio.run(_extracted(encoder, question, passages)),
            )

    def difference(self, question: str, said: Said) -> str:
        """What is not as this version has it; "" where everything is."""
        right = self.right[question]
        if said.version not in {None, self.version}:
            return f"version {said.version}"
        if (said.ids, said.passages) != (right.ids, right.passages):
            return f"passages {said.ids} instead of {right.ids}, or their texts"
        if not np.allclose(said.scores, right.scores, rtol=0, atol=SAME_SCORE):
            return f"scores {said.scores} instead of {right.scores}"
        written = said.text, said.finish_reason
        if said.version is None and not _same_text(written, right.written):
            return f"{written} instead of {right.written}"
        return ""

    def differs(self, other: "Edition") -> bool:
        """Whether the sources of every question's answer tell the two apart."""
        pairs = [(self.right[question], other.right[question]) for question in QUESTIONS]
        return all((one.ids, one.passages) != (two.ids, two.passages) for one, two in pairs)


@dataclass(slots=True, kw_only=True)
class Stay:
    """A time, of time.monotonic, in which an edition could be answered from; before and after it none may be."""

    edition: Edition
    from_s: float = -math.inf
    until_s: float = math.inf

    def covers(self, asked: Asked) -> bool:
        return self.from_s <= asked.ended_s and asked.began_s <= self.until_s


def faults(asked: Iterable[Asked], stays: Sequence[Stay]) -> list[str]:
    """Requests that failed, went on past their deadline, or have an answer that is not wholly one edition's of their time."""
    found = [(one, _fault(one, [stay.edition for stay in stays if stay.covers(one)])) for one in asked]
    return [
        f"{one.way} {one.question!r} at {one.began_s:.2f} to {one.ended_s:.2f} s: {fault}"
        for one, fault in found
        if fault
    ]


def _fault(one: Asked, editions: Sequence[Edition]) -> str:
    if one.said is None:
        return one.error
    if one.ended_s - one.began_s > DEADLINE_S + GRACE_S:
        return "late"
    if one.said.degraded:
        return one.said.degraded
    if stray := [cited for cited in CITED.findall(one.said.text) if not _is_quoted(cited, one.said.passages)]:
        return f"not in the passages that they cite: {stray}"
    differences = [edition.difference(one.question, one.said) for edition in editions]
    return "" if "" in differences else f"right for none of the versions that were there: {differences}"


def _is_quoted(cited: tuple[str, str], passages: Sequence[Passage]) -> bool:
    sentence, number = cited[0], int(cited[1])
    return number <= len(passages) and sentence in " ".join(passages[number - 1].text.split())


def _same_text(one: Written, other: Written) -> bool:
    """Sentences in any order: it hangs on the best score alone, which differs a little in other company."""
    (text, finish_reason), (wanted, wanted_reason) = one, other
    pieces, wanted_pieces = sorted(CITED.findall(text)), sorted(CITED.findall(wanted))
    return finish_reason == wanted_reason and (pieces == wanted_pieces if wanted_pieces else text == wanted)


async def _extracted(encoder: Encoder, question: str, passages: tuple[Passage, ...]) -> Written:
    async def embed(asked: str, sentences: Sequence[str]) -> np.ndarray[Any, Any]:
        kinds: list[InputType] = ["query"]
        kinds.extend("passage" for _ in sentences)
        return encoder.encode([asked, *sentences], input_type=kinds).vectors

    prompt, sampling = Prompt(question=question, passages=passages), Sampling(max_tokens=MAX_TOKENS)
    deltas = [delta async for delta in ExtractiveEngine(embed).generate(prompt, sampling)]
    return "".join(delta.text for delta in deltas), deltas[-1].finish_reason or ""
