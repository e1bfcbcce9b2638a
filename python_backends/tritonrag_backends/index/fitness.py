"""What must fit before an index is searched: the embedding model, the analyzer of its words, and a question's vector."""

from typing import Final

import numpy as np
import numpy.typing as npt

from tritonrag_backends.index.analysis import Analyzer
from tritonrag_backends.index.format import Manifest
from tritonrag_client.errors import BadRequestError, InternalError

# int8 encoders normalise in fp32, so their vectors are of unit length to 1e-6; fp16 ones to 1e-3.
UNIT_TOLERANCE: Final = 5e-3


def check_embedding(embedding: npt.NDArray[np.float32] | None, dim: int) -> None:
    """Raise BadRequestError where it is not FP32 [dim] of unit length; says what it is."""
    if embedding is None:
        raise BadRequestError("embedding is missing; send what the model `embedder` returns, or use mode lexical")
    if embedding.dtype != np.float32 or embedding.shape != (dim,):
        raise BadRequestError(
            f"embedding is {embedding.dtype} of shape {list(embedding.shape)} and this index holds float32 of shape [{dim}]; "
            "send what the model `embedder` returns"
        )
    length = float(np.dot(embedding, embedding)) ** 0.5
    if not abs(length - 1) <= UNIT_TOLERANCE:  # so written that NaN fails too
        said = f"is of length {length:.4g}" if np.isfinite(embedding).all() else "holds NaN or infinity"
        raise BadRequestError(f"embedding {said}; send a vector of unit length, as the model `embedder` returns it")


def analyzer_named(name: str) -> Analyzer:
    """The analyzer by which the index was built. Raises InternalError where this tritonrag has another."""
    try:
        analyzer = Analyzer(name.partition("/")[0])
    except BadRequestError as error:
        raise InternalError(f"the index was built for another language: {error.message}") from error
    if analyzer.name != name:
        raise InternalError(
            f"the index's words are those of analyzer {name} and this tritonrag has {analyzer.name}, so questions would miss them; "
            "build the index again with `tritonrag index build`"
        )
    return analyzer


def require_same_model(manifest: Manifest, fingerprint: str | None, embedder_name: str | None) -> None:
    """Raise BadRequestError where the index was built with another embedding model; None: any will do."""
    made_by = manifest.embedding
    if fingerprint is None or fingerprint == made_by.fingerprint:
        return
    serving = f"{embedder_name or 'the serving embedder'} (fingerprint {fingerprint})"
    raise BadRequestError(
        f"the index was built with the embedding model {made_by.name} (fingerprint {made_by.fingerprint}) and {serving} is "
        "another one, so their vectors can't be compared; build the index again with `tritonrag index build`, or serve with the "
        "embedder that built it"
    )
