"""The index as its readers see it: open one version, search it in batches, read passages."""

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from tritonrag_backends.index.fields import decode_document_key
from tritonrag_backends.index.filter_rows import matches
from tritonrag_backends.index.filters import Filter, require_declared
from tritonrag_backends.index.fitness import analyzer_named, check_embedding, require_same_model
from tritonrag_backends.index.format import MODES, ROW_BITS, Manifest
from tritonrag_backends.index.fusion import FUSED, fuse
from tritonrag_backends.index.gpu.placing import Placing
from tritonrag_backends.index.kinds import use_blas_when_faster
from tritonrag_backends.index.lexical import search_lexical
from tritonrag_backends.index.rescoring import Found
from tritonrag_backends.index.segment import Segment
from tritonrag_backends.index.selection import Selection, SelectionCache
from tritonrag_backends.index.store import open_space, read_current
from tritonrag_backends.index.vectors import VectorSpace
from tritonrag_client.contract import Mode
from tritonrag_client.errors import BadRequestError, InternalError, NotFoundError


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Query:
    """One question. `embedding` is FP32 [dim] of unit length (dense and hybrid), `text` the question (lexical and hybrid).

    `mode` None: `Index.mode_of` decides. `tenant` None sees what belongs to no tenant, a tenant that and its own.
    """

    embedding: npt.NDArray[np.float32] | None
    num_passages: int
    text: str = ""
    tenant: str | None = None
    filter: Filter | None = None
    mode: Mode | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Hits:
    """What was found: ids INT64 [k] and scores FP32 [k], descending, ties by id; k <= num_passages.

    A score is the cosine similarity (dense), BM25 (lexical) or the sum of reciprocal ranks (hybrid).
    """

    passage_ids: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class _Asked:
    """A query with what it comes to in this version."""

    query: Query
    mode: Mode
    selections: tuple[Selection, ...]

    @property
    def depth(self) -> int:
        """How long a list it needs."""
        return max(FUSED, self.query.num_passages) if self.mode == "hybrid" else self.query.num_passages


class Index:
    """One version of an index, open for reading; immutable, and safe for many threads. Made by `Index.open`."""

    def __init__(
        self,
        *,
        manifest: Manifest,
        segments: Sequence[Segment],
        space: VectorSpace,
        together: Executor | None = None,
    ) -> None:
        """`together` searches the segments at once, where they are on several devices."""
        self.manifest: Final = manifest
        self.segments: Final = tuple(segments)
        self._space, self._doubt = space, ""
        self._each: Callable[..., Iterator[Found]] = map if together is None else together.map
        self._by_number = {segment.number: segment for segment in segments}
        self._analyzer = analyzer_named(manifest.options.analyzer)
        self._selections = SelectionCache()
        self._fields = frozenset(field for segment in segments for field in segment.record.fields)
        self._unfilterable = frozenset(field for segment in segments for field in segment.record.unfilterable)

    @classmethod
    def open(
        cls,
        directory: Path,
        *,
        fingerprint: str | None,
        embedder_name: str | None = None,
        verify: bool = True,
        reuse: "Index | None" = None,
        placing: Placing | None = None,
    ) -> "Index":
        """Open the live version. `fingerprint` (and, for the message, `embedder_name`) are the serving embedder's; None: any.

        Raises NotFoundError where there is no index, BadRequestError where another model made it, InternalError where a file is
        damaged; each says what to do. `verify` false leaves out the sha256 of files: for those who have just checked.
        `reuse` is another version of the same index: segments that both have are neither read nor checked again, and stay on the
        devices that they are on. `placing` brings segments onto devices; what it can't bring there is searched on the CPU, and
        `degraded` says so.
        """
        manifest = read_current(directory)
        return cls.of(
            directory,
            manifest,
            fingerprint=fingerprint,
            embedder_name=embedder_name,
            verify=verify,
            reuse=reuse,
            placing=placing,
        )

    @classmethod
    def of(
        cls,
        directory: Path,
        manifest: Manifest,
        *,
        fingerprint: str | None = None,
        embedder_name: str | None = None,
        verify: bool = True,
        reuse: "Index | None" = None,
        placing: Placing | None = None,
    ) -> "Index":
        """Open the version of this manifest, live or not; as `open`."""
        require_same_model(manifest, fingerprint, embedder_name)
        opened = {segment.record.id: segment for segment in reuse.segments} if reuse else {}
        segments = [
            Segment.open(directory, record, manifest.vectors, verify=verify, reuse=opened.get(record.id))
            for record in manifest.segments
        ]
        use_blas_when_faster(manifest.vectors.dims)
        space = open_space(directory, manifest, verify=verify)  # before placing, which is dear: all that may be refused
        if placing is None:
            return cls(manifest=manifest, segments=segments, space=space)
        return cls._placed(manifest, segments, space, placing)

    @classmethod
    def _placed(cls, manifest: Manifest, segments: Sequence[Segment], space: VectorSpace, placing: Placing) -> "Index":
        placed = placing.place([segment.placeable for segment in segments], target=manifest.options.recall_target)
        segments = [segment.at(place) for segment, place in zip(segments, placed, strict=True)]
        return cls(manifest=manifest, segments=segments, space=space, together=placing.together)

    def placed_again(self, placing: Placing) -> "Index":
        """The same version, with what found no room on the devices brought there after all, where now there is some."""
        if not any(segment.placed.gave_up for segment in self.segments):
            return self
        return self._placed(self.manifest, self.segments, self._space, placing).doubted(self._doubt)

    @property
    def version(self) -> int:
        """The version, from 1; it goes into every response and cache key."""
        return self.manifest.index_version

    @property
    def dim(self) -> int:
        """Values in an embedding."""
        return self.manifest.embedding.dim

    @property
    def passage_count(self) -> int:
        """Passages in this version."""
        return self.manifest.counts.passages

    @property
    def degraded(self) -> str:
        """What this version gave up and why; "" where nothing: then the passages found are the same, but for `doubted`."""
        return "; ".join(filter(None, [*(segment.degraded for segment in self.segments), self._doubt]))

    def doubted(self, why: str) -> "Index":
        """The same version, which says in `degraded` why its answers may be wrong."""
        doubted = copy(self)
        doubted._doubt = why  # noqa: SLF001 - of this class
        return doubted

    @property
    def embedding_name(self) -> str:
        """The model that made the vectors."""
        return self.manifest.embedding.name

    @property
    def default_mode(self) -> Mode:
        """How a query that does not say is searched."""
        return self.manifest.options.mode

    def mode_of(self, query: Query) -> Mode:
        """How a query is searched: as it says, else as the index was built, but for what it has no text or embedding for."""
        if query.mode is not None:
            return query.mode
        if query.embedding is None:
            return "lexical"
        return self.default_mode if query.text.strip() else "dense"

    def check(self, query: Query, *, embedded: bool = True) -> None:
        """Raise BadRequestError where `search` could not honour the query; names the value and the way out.

        `embedded` false: its embedding is still to come.
        """
        if query.num_passages < 1:
            raise BadRequestError(f"num_passages is {query.num_passages}; ask for at least 1")
        if query.filter is not None:
            require_declared(query.filter, self._fields, self._unfilterable)
        mode = self.mode_of(query)
        if mode not in MODES:
            raise BadRequestError(f"mode is {mode!r}; use one of {', '.join(MODES)}")
        if mode != "dense" and not query.text.strip():
            raise BadRequestError(
                f"text_input is {query.text!r}, and mode {mode} looks for its words; send the question"
            )
        if mode != "lexical" and embedded:
            check_embedding(query.embedding, self.dim)

    def search(self, queries: Sequence[Query]) -> list[Hits]:
        """The best passages for each query; those that ask alike are searched together.

        Raises BadRequestError as `check` does for the first query that is wrong; one who serves many callers in a batch calls
        `check` for each before, so that one's mistake is not the other's error. Raises InternalError rather than returning a
        passage that the query must not see.
        """
        for query in queries:
            self.check(query)
        asked = [_Asked(query, self.mode_of(query), self._selected(query)) for query in queries]
        dense = self._dense(asked)
        hits = [self._hits(one, dense.get(i)) for i, one in enumerate(asked)]
        for one, hit in zip(asked, hits, strict=True):
            self._verify(one, hit)
        return hits

    def passages(self, ids: Sequence[int] | npt.NDArray[np.int64]) -> list[bytes]:
        """The wire JSON of each passage, as it lies on the disk. Raises NotFoundError for an id that this version lacks."""
        return [segment.passage(row) for segment, row in map(self._place, ids)]

    def all_passages(self) -> Iterator[bytes]:
        """The wire JSON of every passage that is not deleted, in the order of the segments: for the owner of the index."""
        for segment in self.segments:
            for row in range(segment.rows) if segment.alive is None else np.flatnonzero(segment.alive):
                yield segment.passage(int(row))

    def documents_of(self, ids: Sequence[int] | npt.NDArray[np.int64]) -> list[str]:
        """The id of the document that each passage belongs to. Raises NotFoundError for an id that this version lacks."""
        places = [self._place(passage_id) for passage_id in ids]
        return [
            decode_document_key(segment.files.fields.key(int(segment.owners[row]))).document for segment, row in places
        ]

    @cached_property
    def document_keys(self) -> list[tuple[str | None, str]]:
        """(tenant, document id) of every document that is not deleted, in the order of the segments."""
        keys = [
            decode_document_key(segment.files.fields.key(int(position)))
            for segment in self.segments
            for position in segment.documents
        ]
        return [(key.tenant, key.document) for key in keys]

    def document_ids(self) -> list[str]:
        """The ids of all documents, each once, whoever's they are: for the owner of the index, not for those who ask."""
        return list(dict.fromkeys(document for _, document in self.document_keys))

    def _selected(self, query: Query) -> tuple[Selection, ...]:
        return self._selections.get(
            query.tenant,
            query.filter,
            lambda: tuple(segment.select(query.tenant, query.filter) for segment in self.segments),
        )

    def _dense(self, asked: Sequence["_Asked"]) -> dict[int, Hits]:
        """The dense list of each query that needs one, by its place. Alike means: same selection, as many passages.

        Queries for more passages are kept apart: the company that a question has must not change its answer.
        """
        alike: dict[tuple[int, int], list[int]] = defaultdict(list)
        for i, one in enumerate(asked):
            if one.mode != "lexical":
                alike[id(one.selections), one.depth].append(i)
        found: dict[int, Hits] = {}
        for (_, depth), places in alike.items():
            embeddings = np.stack([vector for i in places if (vector := asked[i].query.embedding) is not None])
            found.update(zip(places, self._nearest(embeddings, depth, asked[places[0]].selections), strict=True))
        return found

    def _nearest(self, embeddings: npt.NDArray[np.float32], k: int, selections: tuple[Selection, ...]) -> list[Hits]:
        vectors = self._space.reduce(embeddings)
        ids, scores = [np.empty((len(vectors), 0), np.int64)], [np.empty((len(vectors), 0), np.float32)]
        each = self._each(lambda segment, selection: segment.search(vectors, k, selection), self.segments, selections)
        for segment, (rows, found) in zip(self.segments, each, strict=True):
            ids.append(segment.ids(rows))
            scores.append(found)
        return [
            _best(*both, k) for both in zip(np.concatenate(ids, axis=1), np.concatenate(scores, axis=1), strict=True)
        ]

    def _hits(self, one: "_Asked", dense: Hits | None) -> Hits:
        if dense is not None and one.mode == "dense":
            return dense
        lexical = self._lexical(one)
        if dense is None:
            return lexical
        ids, scores = fuse(dense.passage_ids, lexical.passage_ids, one.query.num_passages)
        return Hits(passage_ids=ids, scores=scores)

    def _lexical(self, one: "_Asked") -> Hits:
        views = [selection.lexical for selection in one.selections]
        found = search_lexical(views, self._analyzer.terms(one.query.text), one.depth)
        ids = [segment.ids(rows.astype(np.int64)) for segment, (rows, _) in zip(self.segments, found, strict=True)]
        none = np.empty(0, np.int64), np.empty(0, np.float32)
        scores = np.concatenate([none[1], *(scores for _, scores in found)])
        return _best(np.concatenate([none[0], *ids]), scores, one.depth)

    def _verify(self, one: "_Asked", hits: Hits) -> None:
        """Hold what was found to the wall and the filter once more, by other means than those that found it."""
        selections = dict(zip(self._by_number, one.selections, strict=True))
        for passage_id in hits.passage_ids:
            segment, row = self._place(passage_id)
            allowed = selections[segment.number].allowed
            wanted = one.query.filter
            passes = wanted is None or matches(wanted, json.loads(segment.passage(row))["metadata"])
            if not passes or not (allowed is None or allowed[row]):
                raise InternalError(
                    f"passage {passage_id} was found although the request must not see it, so nothing is returned; "
                    "check the index with `tritonrag index verify`"
                )

    def _place(self, passage_id: int | np.int64) -> tuple[Segment, int]:
        segment = self._by_number.get(int(passage_id) >> ROW_BITS)
        row = int(passage_id) & (2**ROW_BITS - 1)
        if segment is None or row >= segment.rows or not (segment.alive is None or segment.alive[row]):
            raise NotFoundError(f"passage {passage_id} is not in version {self.version} of the index; search again")
        return segment, row


def _best(ids: npt.NDArray[np.int64], scores: npt.NDArray[np.float32], k: int) -> Hits:
    """The k best of several segments' finds."""
    order = np.lexsort((ids, -scores))[:k]
    return Hits(passage_ids=ids[order], scores=scores[order])
