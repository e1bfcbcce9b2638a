"""What sentence-transformers keeps beside a model: the pipeline, the pooling, the longest text and the prompts.

modules.json                         the pipeline; only Transformer, Pooling, Normalize are known here
1_Pooling/config.json                how tokens become one vector
sentence_bert_config.json            max_seq_length
config_sentence_transformers.json    prompts: what goes before a query and before a passage

A plain transformers folder has none of these: then the pooling has to be named, and the longest text is what the positions allow.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tritonrag_backends.embedding.format import Pooling
from tritonrag_client.errors import BadRequestError, NotFoundError

_POOLING_FILE: Final = "1_Pooling/config.json"
_MODULES: Final = ("Transformer", "Pooling", "Normalize")
_MIN_TOKENS: Final = 3  # [CLS], one token, [SEP]
_POOLINGS: Final[Mapping[str, Pooling]] = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "last",
}
# How newer releases of sentence-transformers name the same.
_POOLING_NAMES: Final[Mapping[str, str]] = {
    "mean": "pooling_mode_mean_tokens",
    "cls": "pooling_mode_cls_token",
    "lasttoken": "pooling_mode_lasttoken",
}
_QUERY_PROMPTS: Final = ("query",)
_PASSAGE_PROMPTS: Final = ("passage", "document", "corpus")


def read_bytes(directory: Path, name: str, *, way_out: str = "") -> bytes:
    """A file of the model folder. Raises NotFoundError that names it, and `way_out`."""
    path = directory / name
    if not path.is_file():
        raise NotFoundError(f"{directory} is no model folder that can be exported: it lacks {name}{way_out}")
    return path.read_bytes()


def read_object(directory: Path, name: str, *, way_out: str = "") -> dict[str, Any]:
    """A JSON object of the model folder. Raises NotFoundError, or BadRequestError where it is none."""
    value = _read_json(directory, name, way_out=way_out)
    if not isinstance(value, dict):
        raise BadRequestError(f"{directory / name} is not a JSON object")
    return value


def check_modules(directory: Path) -> None:
    """Raises BadRequestError where the pipeline does what the graphs do not."""
    if not (directory / "modules.json").is_file():
        return
    for module in _read_json(directory, "modules.json"):
        kind = module["type"].rsplit(".", 1)[-1]
        if kind not in _MODULES:
            raise BadRequestError(f"the model's pipeline has a {kind} module; supported: {', '.join(_MODULES)}")


def read_pooling(directory: Path, named: Pooling | None) -> Pooling:
    """The folder's pooling, or `named` where the folder has none. Raises BadRequestError where the two differ."""
    if named is not None and not (directory / _POOLING_FILE).is_file():
        return named
    raw = read_object(directory, _POOLING_FILE, way_out="; name the model's pooling: --pooling mean, cls or last")
    modes = sorted(key for key, on in raw.items() if key.startswith("pooling_mode_") and on is True)
    if isinstance(raw.get("pooling_mode"), str):
        modes = [_POOLING_NAMES.get(raw["pooling_mode"], raw["pooling_mode"])]
    if len(modes) != 1 or modes[0] not in _POOLINGS:
        raise BadRequestError(f"the model's pooling is {modes}; supported: {', '.join(_POOLINGS)}")
    pooling = _POOLINGS[modes[0]]
    if named not in (None, pooling):
        raise BadRequestError(f"the model's pooling is {pooling}, and --pooling says {named}; leave --pooling out")
    if raw.get("include_prompt") is False:
        raise BadRequestError("the model leaves prompts out of its pooling (include_prompt); that is not supported")
    return pooling


def read_max_tokens(directory: Path, positions: int) -> int:
    """The longest text in tokens, the special ones among them; `positions` is what the model has room for."""
    limits = read_object(directory, "sentence_bert_config.json") if _has(directory, "sentence_bert_config.json") else {}
    if limits.get("do_lower_case"):
        raise BadRequestError(
            "sentence_bert_config.json asks for do_lower_case outside the tokenizer; that is not supported"
        )
    max_tokens = limits.get("max_seq_length") or positions
    if not isinstance(max_tokens, int) or not _MIN_TOKENS <= max_tokens <= positions:
        raise BadRequestError(
            f"max_seq_length is {max_tokens!r}; it must lie between {_MIN_TOKENS} and the model's {positions} positions"
        )
    return max_tokens


def read_prompts(directory: Path) -> tuple[str, str]:
    """The prefixes of queries and of passages; "" where the folder names none. Raises BadRequestError where one is no text."""
    name = "config_sentence_transformers.json"
    prompts = (read_object(directory, name).get("prompts") or {}) if _has(directory, name) else {}
    if not isinstance(prompts, dict) or not all(isinstance(text, str) for text in prompts.values()):
        raise BadRequestError(f"{directory / name}: prompts must be an object of texts, and it is {prompts!r}")
    return _first(prompts, _QUERY_PROMPTS), _first(prompts, _PASSAGE_PROMPTS)


def _first(prompts: Mapping[str, str], names: tuple[str, ...]) -> str:
    return next((prompts[name] for name in names if name in prompts), "")


def _has(directory: Path, name: str) -> bool:
    return (directory / name).is_file()


def _read_json(directory: Path, name: str, *, way_out: str = "") -> Any:  # noqa: ANN401  # JSON is any type until it is checked
    try:
        return json.loads(read_bytes(directory, name, way_out=way_out))
    except ValueError as error:
        raise BadRequestError(f"{directory / name} is not JSON: {error}") from error
