"""What the embedding model asks of a GPU or a core, for one question."""

from dataclasses import dataclass
from typing import Final

from tritonrag.planning.cpu_rates import EMBEDDED_A_SECOND

# BERT's family: layers by hidden size. all-MiniLM-L6-v2 (384, 6), BERT base (768, 12), BERT large (1024, 24).
_LAYERS: Final = ((384, 6), (768, 12))
_MOST_LAYERS: Final = 24
_VOCABULARY: Final = 30_522
_MEASURED_DIM: Final = 384
_QUESTION_TOKENS: Final = 32  # the bucket (settings.encoder.buckets) that holds a question of 17 to 32 tokens
WORKSPACE_BYTES: Final = (
    2**30
)  # our assumption for TensorRT's workspace, CUDA's context and activations of a batch of 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoder:
    """A BERT-like encoder of hidden size `dim`, as many layers as its like have."""

    dim: int

    @property
    def layers(self) -> int:
        """Layers of the well-known model of that size."""
        return next((layers for dim, layers in _LAYERS if self.dim <= dim), _MOST_LAYERS)

    @property
    def layer_params(self) -> int:
        """12 x layers x dim^2 (Kaplan et al. 2020, table 1): 10.6M for all-MiniLM-L6-v2, as it is."""
        return 12 * self.layers * self.dim**2

    @property
    def gpu_bytes(self) -> int:
        """Weights in FP16 with the table of words, and workspace."""
        return 2 * (self.layer_params + _VOCABULARY * self.dim) + WORKSPACE_BYTES

    @property
    def flops_a_question(self) -> float:
        """2 x weights x tokens, in the bucket of 32 tokens, and attention: 4 x layers x tokens^2 x dim."""
        return 2.0 * self.layer_params * _QUESTION_TOKENS + 4.0 * self.layers * _QUESTION_TOKENS**2 * self.dim

    @property
    def questions_a_core_second(self) -> float:
        """What one core embeds in int8, one question at a time: the measured rate of all-MiniLM-L6-v2, by the weights."""
        return EMBEDDED_A_SECOND * Encoder(dim=_MEASURED_DIM).layer_params / max(self.layer_params, 1)
