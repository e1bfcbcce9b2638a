"""The running totals of a build, and the passages on their way into it."""

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from tritonrag_backends.index.format import Manifest, SegmentRecord
from tritonrag_backends.index.writer import NewPassage
from tritonrag_client.errors import BadRequestError
from tritonrag_export.documents.finding import Skipped
from tritonrag_export.documents.model import DocumentPassages
from tritonrag_export.indexing.job import BuildProgress, BuildSummary


class Run:
    """Counts what goes by and tells of it. Memory: about 70 bytes a document, to know an id that comes twice."""

    def __init__(self, *, skipped: Sequence[Skipped], progress: Callable[[BuildProgress], None] | None) -> None:
        self.skipped = skipped
        self.unchanged = self.replaced = 0
        self.written = self.truncated = self.reused = 0
        self._progress = progress
        self._documents = 0
        self._seen: set[int] = set()
        self._started_s = time.monotonic()

    def passages(
        self, documents: Iterable[DocumentPassages], *, keep: Callable[[DocumentPassages], bool]
    ) -> Iterator[NewPassage]:
        """The passages of the documents that are kept. Raises BadRequestError for an id that comes twice."""
        for unit in documents:
            self._refuse_twice(unit)
            self._documents += 1
            if keep(unit):
                for passage in unit.passages:
                    yield NewPassage(document=unit.id, tenant=unit.tenant, passage=passage)

    def require_passages(self) -> None:
        """Refuse to publish nothing; says what was looked at."""
        if self.written:
            return
        first = f"; the first: {self.skipped[0].path} {self.skipped[0].reason}" if self.skipped else ""
        raise BadRequestError(
            f"there is nothing to index: {self._documents} documents with text in them, {len(self.skipped)} files skipped{first}; "
            "name files or folders that hold text"
        )

    def tell(self, what: str, passages: int, total: int | None = None) -> None:
        """Tell the caller how far the build is."""
        if self._progress is not None:
            self._progress(
                BuildProgress(
                    what=what,
                    documents=self._documents,
                    passages=passages,
                    total=total,
                    reused=self.reused,
                    skipped=len(self.skipped),
                    elapsed_s=time.monotonic() - self._started_s,
                )
            )

    def summary(self, manifest: Manifest, segments: Sequence[SegmentRecord]) -> BuildSummary:
        """The totals, once the version is live."""
        return BuildSummary(
            manifest=manifest,
            segments=tuple(segments),
            documents=self._documents,
            passages=self.written,
            truncated=self.truncated,
            reused=self.reused,
            replaced=self.replaced,
            unchanged=self.unchanged,
            skipped=tuple(self.skipped),
            elapsed_s=time.monotonic() - self._started_s,
        )

    def _refuse_twice(self, unit: DocumentPassages) -> None:
        # 64 bits of a digest: two of a million ids are taken for one with a probability of 3e-8.
        name = f"{unit.tenant or ''}\0{unit.id}".encode()
        key = int.from_bytes(hashlib.blake2b(name, digest_size=8).digest())
        if key in self._seen:
            whose = f" of tenant {unit.tenant!r}" if unit.tenant else ""
            raise BadRequestError(
                f"the document id {unit.id!r}{whose} comes twice in the input, and one would replace the other; give each document "
                "an id of its own, and each file once"
            )
        self._seen.add(key)
