"""Every architecture gives the vectors that transformers gives: tiny models with random weights, made and saved by transformers."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tiny_embedders import WORDS, random_texts, save_hf_model

from tritonrag_backends.embedding.encoder import Encoder
from tritonrag_backends.embedding.format import ENCODER_FILE
from tritonrag_backends.embedding.session import open_session
from tritonrag_export.embedder.exporter import ExportOptions, export_embedder
from tritonrag_export.embedder.padded import build_padded
from tritonrag_export.embedder.parity import encode_padded
from tritonrag_export.embedder.reference import ReferenceEncoder
from tritonrag_export.embedder.source import SourceModel, SourceOptions, read_source

SIZES: dict[str, Any] = {
    "vocab_size": len(WORDS),
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}
DISTILBERT = transformers.DistilBertConfig(vocab_size=len(WORDS), dim=32, n_layers=2, n_heads=4, hidden_dim=64)
LONG = {**SIZES, "max_position_embeddings": 302}
CASES: dict[str, tuple[Any, Any]] = {
    "bert": (transformers.BertModel, transformers.BertConfig(**SIZES)),
    "bert with a masked-language head": (transformers.BertForMaskedLM, transformers.BertConfig(**SIZES)),
    "bert with gelu_new": (transformers.BertModel, transformers.BertConfig(**SIZES, hidden_act="gelu_new")),
    "bert with relu": (transformers.BertModel, transformers.BertConfig(**SIZES, hidden_act="relu")),
    "roberta": (transformers.RobertaModel, transformers.RobertaConfig(**LONG, type_vocab_size=1)),
    "roberta with a masked-language head": (transformers.RobertaForMaskedLM, transformers.RobertaConfig(**LONG)),
    "xlm-roberta": (transformers.XLMRobertaModel, transformers.XLMRobertaConfig(**LONG, type_vocab_size=1)),
    "camembert": (transformers.CamembertModel, transformers.CamembertConfig(**LONG, type_vocab_size=1)),
    "distilbert": (transformers.DistilBertModel, DISTILBERT),
    "mpnet": (transformers.MPNetModel, transformers.MPNetConfig(**LONG)),
}
# Short, long enough that MPNet's last buckets are used (beyond a distance of 128), and of every length up to a packed row's.
TEXTS = random_texts([1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 200, 300])


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    folder: Path
    truth: Any  # the transformers model
    source: SourceModel

    def expected(self) -> np.ndarray:
        """FP32 [texts, dim]: transformers' hidden states, pooled and brought to unit length here, a text at a time."""
        return np.stack([self._vector(text) for text in TEXTS])

    def _vector(self, ids: list[int]) -> np.ndarray:
        with torch.no_grad():
            hidden = self.truth.base_model(torch.tensor([ids])).last_hidden_state[0].double().numpy()
        pooled = {"mean": hidden.mean(axis=0), "cls": hidden[0], "last": hidden[-1]}[self.source.pooling]
        return pooled / np.linalg.norm(pooled)


@pytest.fixture(
    scope="module",
    params=[
        *((case, "mean") for case in CASES),
        *((case, pooling) for case in ("bert", "roberta", "mpnet") for pooling in ("cls", "last")),
    ],
    ids=", ".join,
)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    case, pooling = request.param
    folder = tmp_path_factory.mktemp("family")
    model, config = CASES[case]
    truth = save_hf_model(folder / "hf", config, model)
    options = SourceOptions(pooling=pooling)
    export_embedder(folder / "hf", folder / "out", options=ExportOptions(target="onnx-fp16", source=options))
    return Exported(folder=folder / "out", truth=truth, source=read_source(folder / "hf", name="tiny", options=options))


def test_the_packed_fp32_graph_gives_the_vectors_of_transformers(exported: Exported) -> None:
    vectors = Encoder.open(exported.folder, precision="fp32").encode_ids(TEXTS).vectors
    assert np.abs(vectors - exported.expected()).max() < 1e-5


def test_the_reference_gives_the_vectors_of_transformers(exported: Exported) -> None:
    reference = ReferenceEncoder(exported.source)
    assert np.abs(np.stack([reference.encode(text) for text in TEXTS]) - exported.expected()).max() < 1e-5


def test_the_padded_graph_gives_them_too_and_in_fp16_nearly(exported: Exported) -> None:
    exact = open_session(build_padded(exported.source, products="fp32").SerializeToString(), threads=1)
    half = open_session(exported.folder / ENCODER_FILE, threads=1)
    assert np.abs(encode_padded(exact, TEXTS) - exported.expected()).max() < 1e-5
    assert (encode_padded(half, TEXTS) * exported.expected()).sum(axis=1).min() > 0.999


def test_the_architectures_that_differ_in_nothing_else_are_told_apart_by_their_fingerprints(tmp_path: Path) -> None:
    fingerprints = set()
    for name in ("bert", "bert with gelu_new", "bert with relu"):
        model, config = CASES[name]
        save_hf_model(tmp_path / name, config, model)  # the same weights each time
        fingerprints.add(read_source(tmp_path / name, name="x", options=SourceOptions(pooling="mean")).fingerprint)
    assert len(fingerprints) == 3
