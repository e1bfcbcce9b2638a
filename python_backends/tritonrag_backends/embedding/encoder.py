"""Text to unit vector: tokenise, pack, run. One per process; `encode` may be called from several threads."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnxruntime as ort

from tritonrag_backends.embedding.format import MODEL_FILES, TOKENIZER_FILE, EmbedderManifest, Precision
from tritonrag_backends.embedding.packing import pack
from tritonrag_backends.embedding.session import Float32Array, run_batch
from tritonrag_backends.embedding.shared_session import open_shared_session
from tritonrag_backends.embedding.tokens import PrefixingTokenizer, TokenizedTexts
from tritonrag_client.contract import InputType
from tritonrag_client.errors import BadRequestError


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedTexts:
    """What `encode` gives. `vectors` is FP32 [texts, dim], C-contiguous, each row of unit length, in the order of the texts.

    `real_tokens` went in, `computed_tokens` were computed: the rest is padding, which the int8 graph leaves to attention;
    `truncated` texts were cut at `max_tokens`.
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
        tokenizer: PrefixingTokenizer,
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
        if model not in manifest.files:
            raise BadRequestError(
                f"the embedder in {directory} records no {model}; set TRITONRAG_EMBEDDER_PRECISION to a precision that it holds: "
                f"{', '.join(name for name, file in MODEL_FILES.items() if file in manifest.files)}"
            )
        manifest.verify(directory, (TOKENIZER_FILE, model))
        return cls(
            manifest=manifest,
            precision=precision,
            tokenizer=PrefixingTokenizer.open(directory, manifest),
            session=open_shared_session(directory / model, threads=threads),
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

    @property
    def passage_tokens(self) -> int:
        """Tokens that a passage may have before it is cut, without special tokens and the model's prefix for passages."""
        return self._tokenizer.passage_tokens

    def encode(self, texts: Sequence[str], *, input_type: InputType | Sequence[InputType] = "query") -> EmbeddedTexts:
        """Embed texts. Any number of them: memory is bounded by the packing's batches, not by the call.

        `input_type` is one for all texts or one for each. Raises BadRequestError where a text is not valid Unicode.
        """
        tokenized = self.tokenize(texts, input_type=input_type)
        return replace(self.encode_ids(tokenized.ids), truncated=tokenized.truncated)

    def tokenize(
        self, texts: Sequence[str], *, input_type: InputType | Sequence[InputType] = "query"
    ) -> TokenizedTexts:
        """The ids that `encode` embeds, prefix and special tokens among them. Raises BadRequestError as `encode` does."""
        return self._tokenizer.tokenize(texts, input_type=input_type)

    def encode_ids(self, ids: Sequence[Sequence[int]]) -> EmbeddedTexts:
        """Embed texts that were tokenised before; `truncated` is 0. Raises BadRequestError for an empty or an overlong one."""
        lengths = [len(text) for text in ids]
        for number, length in enumerate(lengths):
            if not 1 <= length <= self.max_tokens:
                raise BadRequestError(f"text {number} has {length} tokens; this model reads 1 to {self.max_tokens}")
        vectors = np.empty((len(lengths), self.dim), np.float32)
        tokens_alone, real = self._precision == "int8", sum(lengths)
        batches = pack(lengths, tokens_alone=tokens_alone)
        for batch in batches:
            vectors[list(batch.texts)] = run_batch(self._session, batch, ids)
        computed = real if tokens_alone else sum(batch.places for batch in batches)
        return EmbeddedTexts(vectors=vectors, real_tokens=real, computed_tokens=computed, truncated=0)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each whole text, without special tokens and without a limit. Raises BadRequestError as `encode` does."""
        return self._tokenizer.whole.count_tokens(texts)

    def token_offsets(self, text: str) -> list[tuple[int, int]]:
        """(start, end) in characters of each token of the whole text, without special tokens."""
        return self._tokenizer.whole.token_offsets(text)
