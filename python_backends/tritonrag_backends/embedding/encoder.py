"""Text to unit vector: tokenise, pack, run. One per process; `encode` may be called from several threads."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort

from tritonrag_backends.embedding.format import MODEL_FILES, TOKENIZER_FILE, EmbedderManifest, Precision
from tritonrag_backends.embedding.packing import pack
from tritonrag_backends.embedding.session import Float32Array, open_session, run_batch
from tritonrag_backends.embedding.tokens import TextTokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedTexts:
    """What `encode` gives. `vectors` is FP32 [texts, dim], C-contiguous, each row of unit length, in the order of the texts.

    `real_tokens` went in, `computed_tokens` were computed (the rest is padding); `truncated` texts were cut at `max_tokens`.
    """

    vectors: Float32Array
    real_tokens: int
    computed_tokens: int
    truncated: int


class Encoder:
    """The embedding model of an embedder folder, on the CPU."""

    def __init__(
        self,
        *,
        manifest: EmbedderManifest,
        precision: Precision,
        tokenizer: TextTokenizer,
        session: ort.InferenceSession,
    ) -> None:
        """Use `Encoder.open`."""
        self._precision: Precision = precision
        self._manifest = manifest
        self._tokenizer = tokenizer
        self._session = session

    @classmethod
    def open(cls, directory: Path, *, precision: Precision = "int8", threads: int = 1) -> "Encoder":
        """Open an embedder folder and hold the files that are used to their SHA-256.

        Raises NotFoundError, BadRequestError or InternalError, as `EmbedderManifest.load` does.
        """
        manifest = EmbedderManifest.load(directory, verify=False)
        model = MODEL_FILES[precision]
        manifest.verify(directory, (TOKENIZER_FILE, model))
        return cls(
            manifest=manifest,
            precision=precision,
            tokenizer=TextTokenizer(directory / TOKENIZER_FILE, max_tokens=manifest.max_tokens),
            session=open_session(directory / model, threads=threads),
        )

    @property
    def name(self) -> str:
        """The model's name, for people."""
        return self._manifest.name

    @property
    def dim(self) -> int:
        """Elements of a vector."""
        return self._manifest.dim

    @property
    def precision(self) -> Precision:
        """The precision of the weights that run."""
        return self._precision

    @property
    def max_tokens(self) -> int:
        """Tokens of a text that are read, the special ones among them."""
        return self._manifest.max_tokens

    @property
    def fingerprint(self) -> str:
        """The identity of the vector space, in hex; an index records it and refuses any other."""
        return self._manifest.fingerprint

    def encode(self, texts: Sequence[str]) -> EmbeddedTexts:
        """Embed texts. Any number of them: memory is bounded by the packing's batches, not by the call.

        Raises BadRequestError where a text is not valid Unicode.
        """
        tokenized = self._tokenizer.tokenize(texts)
        lengths = [len(ids) for ids in tokenized.ids]
        vectors = np.empty((len(lengths), self.dim), np.float32)
        computed = 0
        for batch in pack(lengths):
            vectors[list(batch.texts)] = run_batch(self._session, batch, tokenized.ids)
            computed += batch.computed_tokens
        return EmbeddedTexts(
            vectors=vectors, real_tokens=sum(lengths), computed_tokens=computed, truncated=tokenized.truncated
        )

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each whole text, without special tokens and without a limit. Raises BadRequestError as `encode` does."""
        return self._tokenizer.count_tokens(texts)

    def token_offsets(self, text: str) -> list[tuple[int, int]]:
        """(start, end) in characters of each token of the whole text, without special tokens."""
        return self._tokenizer.token_offsets(text)
