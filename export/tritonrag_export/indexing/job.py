"""What a build is told, and what it tells."""

from dataclasses import dataclass
from typing import Final, Literal

from tritonrag_backends.choices import KindChoice, Reduction, VectorType
from tritonrag_backends.index.analysis import Analyzer
from tritonrag_backends.index.format import IndexOptions, Manifest, SegmentRecord
from tritonrag_backends.index.tuning import falls_short
from tritonrag_client.contract import Mode
from tritonrag_client.errors import BadRequestError
from tritonrag_export.documents.finding import Skipped

DEFAULT_MODE: Final[Mode] = "hybrid"  # docs/benchmarks/retrieval-quality.md
DEFAULT_RECALL: Final = 0.95
DEFAULT_LANGUAGE: Final = "english"
DEFAULT_SEGMENT_PASSAGES: Final = 2_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions:
    """How an index is made; `add_documents` takes all of it from the index instead.

    `dims` None keeps the model's own; fewer are made by `reduction` (pca for any model, truncate for one trained for it, Kusupati
    et al., Matryoshka Representation Learning, 2022). A segment holds at most `segment_passages`: that bounds the memory.
    Raises BadRequestError where options do not go together.
    """

    kind: KindChoice = "auto"
    recall_target: float = DEFAULT_RECALL
    mode: Mode = DEFAULT_MODE
    language: str = DEFAULT_LANGUAGE
    fields: tuple[str, ...] | None = None
    vectors: VectorType = "fp32"
    dims: int | None = None
    reduction: Literal["pca", "truncate"] = "pca"
    segment_passages: int = DEFAULT_SEGMENT_PASSAGES

    def __post_init__(self) -> None:
        if not 0 < self.recall_target <= 1:
            raise BadRequestError(f"recall is {self.recall_target}; give a number above 0, at most 1")
        if self.dims is not None and self.dims < 1:
            raise BadRequestError(f"dims is {self.dims}; give at least 1")
        if self.segment_passages < 1:
            raise BadRequestError(f"segment_passages is {self.segment_passages}; give at least 1")

    @property
    def of_index(self) -> IndexOptions:
        """What the manifest keeps of it. Raises BadRequestError for a language that there is not."""
        return IndexOptions(
            kind=self.kind,
            recall_target=self.recall_target,
            mode=self.mode,
            analyzer=Analyzer(self.language).name,
            fields=None if self.fields is None else tuple(sorted(set(self.fields))),
        )

    def reduction_from(self, dim: int) -> Reduction:
        """How vectors of `dim` values are shortened. Raises BadRequestError where they can't be."""
        if self.dims is not None and self.dims > dim:
            raise BadRequestError(f"dims is {self.dims} and the embedding model makes {dim}; give at most {dim}")
        return "none" if self.dims in (None, dim) else self.reduction


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildProgress:
    """How far a build is. `what` is being done; `passages` are done with it, of `total` where that is known.

    `reused` of the embedded passages were embedded by a run that was broken off.
    """

    what: str
    documents: int
    passages: int
    total: int | None
    reused: int
    skipped: int
    elapsed_s: float

    @property
    def passages_per_s(self) -> float:
        """Since the start."""
        return self.passages / self.elapsed_s if self.elapsed_s > 0 else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildSummary:
    """What a build or an addition came to.

    `passages` were embedded and written; `truncated` of them were longer than the model reads, `reused` had been embedded before
    a kill. `replaced` and `unchanged` documents were there already (additions alone). `index_bytes` are those of the new segments.
    """

    manifest: Manifest
    segments: tuple[SegmentRecord, ...]
    documents: int
    passages: int
    truncated: int
    reused: int
    replaced: int
    unchanged: int
    skipped: tuple[Skipped, ...]
    elapsed_s: float

    @property
    def index_version(self) -> int:
        """The version that is live now."""
        return self.manifest.index_version

    @property
    def index_bytes(self) -> int:
        """Bytes on the disk of the new segments."""
        return sum(file.bytes for segment in self.segments for file in segment.files.values())

    @property
    def passages_per_s(self) -> float:
        """Over the whole run."""
        return self.passages / self.elapsed_s if self.elapsed_s > 0 else 0.0

    @property
    def recall_missed(self) -> float | None:
        """The worst recall that falls short of the target by more than chance; None where there is none."""
        target = self.manifest.options.recall_target
        short = [segment.point for segment in self.manifest.segments if falls_short(segment.point, target)]
        return min((point.recall_at_10 for point in short if point.recall_at_10 is not None), default=None)
