"""Made-up documents and questions about them, by which the versions of a changing index can be told apart."""

import json
import random
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from tritonrag_backends.index import Query, parse_filter
from tritonrag_backends.index.writer import NewPassage
from tritonrag_client.contract import Mode, Passage

TENANTS: Final = (None, None, None, "red", "blue")
LANGUAGES: Final = ("en", "de", "fi")
_SYLLABLES: Final = ("ba", "ke", "li", "mo", "nu", "ra", "se", "ti", "vo", "zu")
_WORDS: Final = tuple(a + b + c for a in _SYLLABLES for b in _SYLLABLES for c in _SYLLABLES)
_FILTERS: Final[tuple[dict[str, Any] | None, ...]] = (
    None,
    None,
    {"lang": "en"},
    {"year": {"gte": 2010, "lt": 2020}},
    {"lang": {"in": ["de", "fi"]}, "draft": False},
    {"or": [{"year": 2001}, {"not": {"draft": False}}]},
    {"lang": "xx"},  # nothing has it
)
_MODES: Final[tuple[Mode, ...]] = ("dense", "lexical", "hybrid")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MadeDocument:
    """A document's passages and their vectors FP32 [n, dim]."""

    id: str
    tenant: str | None
    passages: list[NewPassage]
    vectors: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Row:
    """One question of a request, as it is sent; empty texts and None stand for what is not asked for."""

    embedding: npt.NDArray[np.float32]
    text: str
    num_passages: int
    tenant: str
    filter: str
    mode: Mode

    @property
    def query(self) -> Query:
        """What the index library is asked."""
        return Query(
            embedding=self.embedding,
            text=self.text,
            num_passages=self.num_passages,
            tenant=self.tenant or None,
            filter=parse_filter(self.filter) if self.filter else None,
            mode=self.mode,
        )


def make_document(number: int, *, revision: int, dim: int) -> MadeDocument:
    """One of the documents; another revision says something else under the same id."""
    draw = random.Random(f"document {number} {revision}")  # noqa: S311 - repeatable, not secret
    owner = random.Random(f"owner {number}").choice(TENANTS)  # noqa: S311
    uri = f"made/{number}.txt"
    metadata = {"lang": draw.choice(LANGUAGES), "year": 2000 + draw.randrange(26), "draft": draw.random() < 0.2}  # noqa: PLR2004
    passages = []
    for start in range(0, 1000 * draw.randint(1, 2), 1000):
        text = _text(draw, draw.randint(12, 40))
        passage = Passage(
            text=text, title=_text(draw, 2), uri=uri, start=start, end=start + len(text), metadata=metadata
        )
        passages.append(NewPassage(document=uri, tenant=owner, passage=passage))
    vectors = np.stack([_vector(draw, dim) for _ in passages])
    return MadeDocument(id=uri, tenant=owner, passages=passages, vectors=vectors)


def make_requests(count: int, *, dim: int, most_rows: int = 6) -> list[list[Row]]:
    """Requests of 1 to `most_rows` questions each; modes, tenants, filters and numbers of passages mixed."""
    draw = random.Random("requests")  # noqa: S311
    return [[_row(draw, dim) for _ in range(draw.randint(1, most_rows))] for _ in range(count)]


def _row(draw: random.Random, dim: int) -> Row:
    wanted = draw.choice(_FILTERS)
    return Row(
        embedding=_vector(draw, dim),
        text=_text(draw, draw.randint(1, 5)),
        num_passages=draw.randint(1, 12),
        tenant=draw.choice(TENANTS) or "",
        filter="" if wanted is None else json.dumps(wanted),
        mode=draw.choice(_MODES),
    )


def _text(draw: random.Random, words: int) -> str:
    """Words of which some are much more frequent than others."""
    return " ".join(_WORDS[int(len(_WORDS) * draw.random() ** 3)] for _ in range(words))


def _vector(draw: random.Random, dim: int) -> npt.NDArray[np.float32]:
    """A unit vector near one of twenty centres."""
    centre = np.random.default_rng(draw.randrange(20)).normal(size=dim)
    values = centre + 0.7 * np.random.default_rng(draw.randrange(2**32)).normal(size=dim)
    return np.asarray(values / np.linalg.norm(values), np.float32)
