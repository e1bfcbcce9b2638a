"""Orders in which the parts of a prompt can stand. None of them knows a request before it comes.

`trace`: as the trace has it, with what changes from request to request (a piece of the system prompt holds the time) before the
passages. All others put what changes behind: system, passages, history, then the changing pieces, then the question. They differ in
the order of the passages: `rank`, best first, and `canonical`, by id, are what `prompting.builder` sends (TRITONRAG_PROMPT_ORDER);
`popular` puts those first that were used most so far; `followed` those with which most prompts that began the same way went on.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Protocol

from tritonrag_perf.trace.requests import Key, Part, TracedRequest

PassageOrder = Callable[[Sequence[Part]], Sequence[Part]]


class Layout(Protocol):
    """Puts one request after the other in order, in the order in which they come."""

    def arrange(self, request: TracedRequest) -> tuple[Part, ...]:
        """All its parts."""
        ...


class AsTraced:
    """The trace's own order."""

    def arrange(self, request: TracedRequest) -> tuple[Part, ...]:
        """As they are."""
        return request.parts


class StaticFirst:
    """What is the same in many prompts first. A piece of a system prompt is taken for such once it was seen before."""

    def __init__(self, order: PassageOrder) -> None:
        self._order = order
        self._seen: set[Key] = set()

    def arrange(self, request: TracedRequest) -> tuple[Part, ...]:
        """System, passages, history and web, what changes of the system prompt, question."""
        system = request.of("system")
        static = tuple(part for part in system if part.key in self._seen)
        changing = tuple(part for part in system if part.key not in self._seen)
        self._seen.update(part.key for part in system)
        passages = tuple(self._order(request.of("passage")))
        return (*static, *passages, *request.of("history", "web"), *changing, *request.of("question", "rest"))


def by_rank(passages: Sequence[Part]) -> Sequence[Part]:
    """As they were found: best first."""
    return passages


def by_id(passages: Sequence[Part]) -> Sequence[Part]:
    """By id, whatever the ranks."""
    return sorted(passages, key=lambda part: part.id)


class ByPopularity:
    """Those first that most prompts so far held; of equals the one with the lower id."""

    def __init__(self) -> None:
        self._uses: Counter[Key] = Counter()

    def __call__(self, passages: Sequence[Part]) -> Sequence[Part]:
        """In order; counts them afterwards."""
        ordered = self.ordered(passages)
        self._uses.update(_keys(passages))
        return ordered

    def ordered(self, passages: Iterable[Part]) -> list[Part]:
        """In order; counts nothing."""
        return sorted(passages, key=lambda part: (-self._uses[part.key], part.id))


@dataclass(slots=True)
class _Beginning:
    """The passages with which some prompts began: how many did, and how these went on."""

    uses: int = 0
    next: dict[Key, "_Beginning"] = field(default_factory=dict)


class Followed:
    """Goes the way that most prompts which began alike went, and on by popularity where none went any of its ways."""

    def __init__(self) -> None:
        self._popular = ByPopularity()
        self._start = _Beginning()

    def __call__(self, passages: Sequence[Part]) -> Sequence[Part]:
        """In order; remembers it."""
        left = list(self._popular(passages))
        at, ordered = self._start, list[Part]()
        while left:
            known = [part for part in left if part.key in at.next]
            part = max(known, key=lambda part: at.next[part.key].uses) if known else left[0]
            left.remove(part)
            ordered.append(part)
            at = at.next.setdefault(part.key, _Beginning())
            at.uses += 1
        return ordered


def _keys(parts: Iterable[Part]) -> set[Key]:
    return {part.key for part in parts}


LAYOUTS: Final[Mapping[str, Callable[[], Layout]]] = MappingProxyType(
    {
        "trace": AsTraced,
        "rank": lambda: StaticFirst(by_rank),
        "canonical": lambda: StaticFirst(by_id),
        "popular": lambda: StaticFirst(ByPopularity()),
        "followed": lambda: StaticFirst(Followed()),
    }
)
