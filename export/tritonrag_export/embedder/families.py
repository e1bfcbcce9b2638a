"""The architectures that can be exported: where each one's config.json and weights differ from BERT's.

All are post-norm encoders of the same layer. What differs: names; where positions begin (RoBERTa and its kin count from the padding
token's id + 1); whether there are token types; MPNet's bias by relative position (Song et al. 2020, arXiv 2004.09297).
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final, Literal, cast

from tritonrag_client.errors import BadRequestError

Activation = Literal["gelu", "gelu_tanh", "relu"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderConfig:
    """The numbers of config.json that the forward pass hangs on.

    `max_positions` is the longest text in tokens; the position table has `first_position` rows more, which are before the first
    token's. `token_types` and `relative_buckets` are 0 where the architecture has none.
    """

    architecture: str
    hidden_size: int
    layers: int
    heads: int
    intermediate_size: int
    max_positions: int
    vocabulary: int
    token_types: int
    norm_epsilon: float
    activation: Activation = "gelu"
    first_position: int = 0
    relative_buckets: int = 0

    @property
    def head_size(self) -> int:
        """Elements of one attention head."""
        return self.hidden_size // self.heads

    def facts(self) -> dict[str, Any]:
        """What the fingerprint covers: what came later counts only where it is not as it always was, so that old ones hold."""
        defaults = {one.name: one.default for one in fields(self)}
        return {name: value for name, value in asdict(self).items() if value != defaults[name]}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Family:
    """`prefix` stands before the encoder's weights in a model with a head; `renames` make BERT's names of them.

    `keys` are the keys of config.json that differ from BERT's; `fixed` the numbers that the architecture does not leave open.
    """

    prefix: str
    keys: Mapping[str, str] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    renames: Mapping[str, str] = field(default_factory=dict)
    positions_after_padding: bool = False


_KEYS: Final[Mapping[str, str]] = {
    "hidden_size": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "intermediate_size": "intermediate_size",
    "max_positions": "max_position_embeddings",
    "vocabulary": "vocab_size",
    "token_types": "type_vocab_size",
    "norm_epsilon": "layer_norm_eps",
    "activation": "hidden_act",
}
_ROBERTA: Final = _Family(prefix="roberta.", positions_after_padding=True)
_FAMILIES: Final[Mapping[str, _Family]] = {
    "Bert": _Family(prefix="bert."),
    "Roberta": _ROBERTA,
    "XLMRoberta": _ROBERTA,
    "Camembert": _ROBERTA,
    "DistilBert": _Family(
        prefix="distilbert.",
        keys={
            "hidden_size": "dim",
            "layers": "n_layers",
            "heads": "n_heads",
            "intermediate_size": "hidden_dim",
            "activation": "activation",
        },
        fixed={"token_types": 0, "norm_epsilon": 1e-12},
        renames={
            "transformer.layer.": "encoder.layer.",
            ".attention.q_lin.": ".attention.self.query.",
            ".attention.k_lin.": ".attention.self.key.",
            ".attention.v_lin.": ".attention.self.value.",
            ".attention.out_lin.": ".attention.output.dense.",
            ".sa_layer_norm.": ".attention.output.LayerNorm.",
            ".ffn.lin1.": ".intermediate.dense.",
            ".ffn.lin2.": ".output.dense.",
            ".output_layer_norm.": ".output.LayerNorm.",
        },
    ),
    "MPNet": _Family(
        prefix="mpnet.",
        # transformers computes 32 buckets, whatever relative_attention_num_buckets says.
        fixed={"token_types": 0, "relative_buckets": 32},
        renames={
            ".attention.attn.q.": ".attention.self.query.",
            ".attention.attn.k.": ".attention.self.key.",
            ".attention.attn.v.": ".attention.self.value.",
            ".attention.attn.o.": ".attention.output.dense.",
            ".attention.LayerNorm.": ".attention.output.LayerNorm.",
        },
        positions_after_padding=True,
    ),
}
_HEADS: Final = ("Model", "ForMaskedLM")  # the second one's head is left out
_ARCHITECTURES: Final = {family + head: family for family in _FAMILIES for head in _HEADS}
SUPPORTED: Final = tuple(f"{family}Model" for family in _FAMILIES)
# Old checkpoints' names, from TensorFlow.
_NORM_RENAMES: Final = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
_ACTIVATIONS: Final[Mapping[str, Activation]] = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}
# What config.json may leave out.
_DEFAULTS: Final[Mapping[str, Any]] = {"activation": "gelu"}
_DEFAULT_PADDING: Final = 1  # RoBERTa's and MPNet's


def read_config(raw: Mapping[str, Any], where: str) -> EncoderConfig:
    """The content of config.json, which lies at `where`. Raises BadRequestError for what can't be exported."""
    family_name = _family_name(raw)
    family = _FAMILIES[family_name]
    if raw.get("position_embedding_type", "absolute") != "absolute":
        raise BadRequestError(
            f"the model's position_embedding_type is {raw['position_embedding_type']!r}; supported: 'absolute'"
        )
    if raw.get("is_decoder"):
        raise BadRequestError("the model is a decoder (is_decoder in config.json); only encoders are supported")
    keys = {**_KEYS, **family.keys}
    try:
        numbers = {
            name: raw.get(key, _DEFAULTS[name]) if name in _DEFAULTS else raw[key]
            for name, key in keys.items()
            if name not in family.fixed
        }
    except KeyError as error:
        raise BadRequestError(f"{where} lacks {error}") from error
    numbers |= family.fixed
    if family.positions_after_padding:
        numbers["first_position"] = _padding(raw) + 1
        numbers["max_positions"] -= numbers["first_position"]
    numbers["activation"] = _activation(keys["activation"], numbers["activation"])
    config = EncoderConfig(architecture=f"{family_name}Model", **numbers)
    if config.hidden_size % config.heads:
        raise BadRequestError(f"{where}: {config.hidden_size} elements can't be shared by {config.heads} heads")
    return config


def canonical_name(name: str, config: EncoderConfig) -> str:
    """A weight's name in BertModel's state dict. `name` is as the checkpoint has it."""
    family = _FAMILIES[config.architecture.removesuffix("Model")]
    name = name.removeprefix(family.prefix)
    for old, new in {**family.renames, **_NORM_RENAMES}.items():
        name = name.replace(old, new)
    return name


def weight_shapes(config: EncoderConfig) -> dict[str, tuple[int, ...]]:
    """Every weight that the forward pass uses, by its canonical name, with its shape: dense weights are [out, in]."""
    hidden, wide = config.hidden_size, config.intermediate_size
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (config.vocabulary, hidden),
        "embeddings.position_embeddings.weight": (config.first_position + config.max_positions, hidden),
    }
    if config.token_types:
        shapes["embeddings.token_type_embeddings.weight"] = (config.token_types, hidden)
    if config.relative_buckets:
        shapes["encoder.relative_attention_bias.weight"] = (config.relative_buckets, config.heads)
    norms = ["embeddings.LayerNorm"]
    for layer in (f"encoder.layer.{number}" for number in range(config.layers)):
        for part in ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"):
            shapes |= {f"{layer}.{part}.weight": (hidden, hidden), f"{layer}.{part}.bias": (hidden,)}
        shapes |= {f"{layer}.intermediate.dense.weight": (wide, hidden), f"{layer}.intermediate.dense.bias": (wide,)}
        shapes |= {f"{layer}.output.dense.weight": (hidden, wide), f"{layer}.output.dense.bias": (hidden,)}
        norms += [f"{layer}.attention.output.LayerNorm", f"{layer}.output.LayerNorm"]
    return shapes | {f"{norm}.{kind}": (hidden,) for norm in norms for kind in ("weight", "bias")}


def _family_name(raw: Mapping[str, Any]) -> str:
    architecture = next(iter(raw.get("architectures") or ["none"]))
    if architecture not in _ARCHITECTURES:
        raise BadRequestError(f"the model's architecture is {architecture}; supported: {', '.join(SUPPORTED)}")
    return _ARCHITECTURES[architecture]


def _activation(key: str, name: object) -> Activation:
    if not isinstance(name, str) or name not in _ACTIVATIONS:
        raise BadRequestError(f"the model's {key} is {name!r}; supported: {', '.join(_ACTIVATIONS)}")
    return _ACTIVATIONS[name]


def _padding(raw: Mapping[str, Any]) -> int:
    padding = raw.get("pad_token_id")
    return _DEFAULT_PADDING if padding is None else cast("int", padding)
