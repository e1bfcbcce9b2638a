"""Which files are meant when a user names files and folders."""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tritonrag_client.errors import NotFoundError

# What describes a document, `report.pdf.meta.json` beside `report.pdf`: no document itself.
SIDE_CAR_SUFFIX: Final = ".meta.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """Something that was not read. `path` is its name as given (a file, a folder, a `pydoc:` module), `reason` a predicate."""

    path: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path} {self.reason}"


OnSkip = Callable[[Skipped], None]


@dataclass(slots=True, kw_only=True)
class ReadSummary:
    """What happened while reading: it grows as the documents are taken. For the summary that a user sees at the end."""

    documents: int = 0
    skipped: int = 0
    unsupported: Counter[str] = field(default_factory=Counter)  # files in folders, by suffix ("" for none)

    def counting(self, on_skip: OnSkip) -> OnSkip:
        """`on_skip`, with each thing that it is told of counted."""

        def tell(skipped: Skipped) -> None:
            self.skipped += 1
            on_skip(skipped)

        return tell


def display_name(path: Path) -> str:
    """A path as text that can be printed and sent: as given, with what is no UTF-8 replaced."""
    return os.fsencode(path).decode(errors="replace")


def described_by(path: Path) -> Path | None:
    """The document whose side-car this path names; None where it names none."""
    name = path.name.removesuffix(SIDE_CAR_SUFFIX)
    return None if name in {"", path.name} else path.with_name(name)


def find_documents(
    paths: Sequence[Path], *, suffixes: frozenset[str], on_skip: OnSkip, summary: ReadSummary
) -> Iterator[Path]:
    """The files meant by `paths`, folders walked in the order of names, each file once.

    In folders, hidden files and folders are left out and files with other suffixes counted in `summary`; a file named
    itself is always given. Links are followed, each folder is entered once. What can't be looked at is reported.
    Side-cars are never given: one named itself stands for its document, one without its document is reported.
    Raises NotFoundError for a path that does not exist, before anything is given.
    """
    for path in paths:
        if not os.path.lexists(path):
            raise NotFoundError(f"there is no file or folder {display_name(path)}; check the path")
    walk = _Walk(suffixes=suffixes, tell=summary.counting(on_skip), summary=summary)
    return walk.files(paths)


@dataclass(slots=True, kw_only=True)
class _Walk:
    suffixes: frozenset[str]
    tell: OnSkip
    summary: ReadSummary
    seen: set[str] = field(default_factory=set)  # real paths

    def files(self, paths: Sequence[Path]) -> Iterator[Path]:
        """Depth first, with a stack of our own: folders may nest deeper than Python's."""
        for named in self._documents_named(paths):
            stack = [named]
            while stack:
                path = stack.pop()
                if self._is_folder(path):
                    stack.extend(reversed(self._entries(path)))
                elif self._is_new(path) and (path == named or self._is_wanted(path)):
                    yield path

    def _documents_named(self, paths: Sequence[Path]) -> Iterator[Path]:
        for path in paths:
            document = described_by(path)
            if document is None or self._is_folder(path):
                yield path
            elif os.path.lexists(document):
                yield document
            else:
                self._tell_lonely(path, document)

    def _is_folder(self, path: Path) -> bool:
        return os.path.isdir(path)  # noqa: PTH112  # Path.is_dir raises on a circle of links in Python 3.11 and 3.12

    def _is_new(self, path: Path) -> bool:
        real = os.path.realpath(path)
        if real in self.seen:
            return False
        self.seen.add(real)
        return True

    def _is_wanted(self, path: Path) -> bool:
        suffix = path.suffix.lower()
        if suffix not in self.suffixes:
            self.summary.unsupported[suffix] += 1
        return suffix in self.suffixes

    def _entries(self, folder: Path) -> list[Path]:
        if not self._is_new(folder):
            return []
        try:
            names = sorted(os.listdir(folder))  # noqa: PTH208  # names are all we need
        except OSError as error:
            reason = f"can't be listed: {error.strerror}; check its permissions"
            self.tell(Skipped(path=display_name(folder), reason=reason))
            return []
        entries = [folder / name for name in names if not name.startswith(".")]
        return list(self._without_side_cars(entries))

    def _without_side_cars(self, entries: Sequence[Path]) -> Iterator[Path]:
        known = frozenset(entries)
        for path in entries:
            document = described_by(path)
            if document is None:
                yield path
            elif document not in known:
                self._tell_lonely(path, document)

    def _tell_lonely(self, side_car: Path, document: Path) -> None:
        reason = f"is a side-car without its document; put {display_name(document)} there or remove it"
        self.tell(Skipped(path=display_name(side_car), reason=reason))
