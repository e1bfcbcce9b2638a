"""Which documents of an index the ids in a question file mean: those of files are paths, which differ between machines."""

from collections.abc import Sequence
from itertools import takewhile


class DocumentLookup:
    """The ids of an index's documents, found by what they end in."""

    def __init__(self, documents: Sequence[str]) -> None:
        self._documents = dict.fromkeys(documents)
        self._by_name: dict[str, list[str]] = {}
        for document in self._documents:
            self._by_name.setdefault(_name(document), []).append(document)
        self._folder = _common_folder(list(self._documents))

    def __len__(self) -> int:
        return len(self._documents)

    def find(self, relevant_id: str) -> tuple[str, ...]:
        """The document whose id this is, else those whose id ends in "/" and this, in the order of the index."""
        if relevant_id in self._documents:
            return (relevant_id,)
        ending = f"/{relevant_id}"
        return tuple(document for document in self._by_name.get(_name(relevant_id), ()) if document.endswith(ending))

    def short(self, document: str) -> str:
        """A document's id without the folder that all documents lie in, which is of one machine and tells nothing."""
        return document.removeprefix(self._folder)


def _name(document: str) -> str:
    return document.rpartition("/")[2]


def _common_folder(documents: list[str]) -> str:
    """What all documents begin with, up to its last "/"; "" where there is one document: its folder may be its name."""
    if len(documents) < 2:  # noqa: PLR2004 - what one document has in common with others can't be seen
        return ""
    pairs = zip(min(documents), max(documents), strict=False)  # what these two share, those between them share too
    common = "".join(first for first, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    return common[: common.rfind("/") + 1]
