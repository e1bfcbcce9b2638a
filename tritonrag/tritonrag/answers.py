"""Answers, sources and passages as a person reads them."""

from collections.abc import Iterable

from tritonrag.terminal import bold, dim, tell, write
from tritonrag_client.contract import Source
from tritonrag_client.results import AnswerDelta

_EXCERPT_CHARACTERS = 300


def print_stream(deltas: Iterable[AnswerDelta]) -> None:
    """Print an answer while it is written, then its numbered sources and what the server gave up, if anything."""
    sources: tuple[Source, ...] = ()
    degraded = ""
    for delta in deltas:
        write(delta.text, end="")
        sources, degraded = delta.sources or sources, delta.degraded or degraded
    write()
    print_sources(sources)
    warn_degraded(degraded)


def print_sources(sources: Iterable[Source]) -> None:
    """One line for each source: number, title, where it stands."""
    for source in sources:
        write(f"  {bold(f'[{source.n}]')} {source.passage.title}  {dim(where(source))}")


def warn_degraded(degraded: str) -> None:
    """Say on stderr what the server gave up, and why."""
    if degraded:
        tell(f"degraded: {degraded}")


def where(source: Source) -> str:
    """The document and the characters in it."""
    return f"{source.passage.uri}:{source.passage.start}-{source.passage.end}"


def excerpt(text: str) -> str:
    """The beginning of a passage on one line."""
    line = " ".join(text.split())
    return line if len(line) <= _EXCERPT_CHARACTERS else line[:_EXCERPT_CHARACTERS].rsplit(" ", 1)[0] + " ..."
