"""Text to unit vector with ONNX Runtime and the int8 graph, for peers without torch."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from tokenizers import Tokenizer

_MOST_TEXTS: Final = 8
_LONGEST_TO_SHORTEST: Final = 1.25  # in a padded batch: more padding costs more than the batch saves


class Encoder:
    """One thread: there are as many workers as cores."""

    def __init__(self, folder: Path) -> None:
        """`folder` is what `tritonrag_perf.peers.export` wrote."""
        embedder = Path(json.loads((folder / "peer.json").read_text(encoding="utf-8"))["embedder"])
        manifest = json.loads((embedder / "embedder.json").read_text(encoding="utf-8"))
        self._tokenizer = Tokenizer.from_file(str(embedder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(manifest["max_tokens"])
        self._prefix: str = manifest.get("query_prefix", "")
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.enable_mem_pattern = False  # it is kept for each shape, and there are many
        self._session = ort.InferenceSession(
            str(embedder / "model.int8.onnx"), options, providers=["CPUExecutionProvider"]
        )
        self._dim: int = manifest["dim"]

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """FP32 [texts, dim] of unit length, in the order of the texts."""
        ids = [one.ids for one in self._tokenizer.encode_batch_fast([self._prefix + text for text in texts])]
        vectors = np.empty((len(ids), self._dim), np.float32)
        for places in groups([len(one) for one in ids]):
            vectors[places] = self._run([ids[place] for place in places])
        return vectors

    def _run(self, ids: Sequence[Sequence[int]]) -> npt.NDArray[np.float32]:
        """An ordinary padded batch: a text a row."""
        width = max(map(len, ids))
        inputs = np.zeros((len(ids), width), np.int64)
        for row, one in zip(inputs, ids, strict=True):
            row[: len(one)] = one
        lengths = np.array([len(one) for one in ids])[:, None]
        places = np.arange(width)
        text = np.arange(1, len(ids) + 1)
        feed = {
            "input_ids": inputs,
            "position_ids": np.where(places < lengths, places, 0),
            "text_ids": np.where(places < lengths, text[:, None], 0),
            "text_index": text,
        }
        vectors: npt.NDArray[np.float32] = self._session.run(["embedding"], feed)[0]
        return vectors


def groups(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Texts that go together: of like length, and few."""
    group: list[int] = []
    for place in sorted(range(len(lengths)), key=lengths.__getitem__):
        if group and (len(group) == _MOST_TEXTS or lengths[place] > _LONGEST_TO_SHORTEST * lengths[group[0]]):
            yield group
            group = []
        group.append(place)
    if group:
        yield group
