"""Names, tensors and JSON payloads that client and server agree on. Standard library alone.

Model   in                                                          out
embedder   text_input, [input_type]                                 embedding
retriever  embedding, text_input, [num_passages, tenant, filter, mode]  passage_ids, scores, passages, index_version, degraded
generator  text_input, [retriever's outputs, options]               text_output, sources, finish_reason, degraded
retrieve   = embedder, retriever       rag = embedder, retriever, generator

STRING tensors are UTF-8. Where fewer than `num_passages` passages are allowed, a row is padded with id -1, score 0 and "".
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, get_args

EMBEDDER: Final = "embedder"
RETRIEVER: Final = "retriever"
GENERATOR: Final = "generator"
RETRIEVE: Final = "retrieve"
RAG: Final = "rag"
TOKENIZER: Final = "tokenizer"  # profile gpu: `embedder` is the ensemble of tokenizer and encoder
ENCODER: Final = "encoder"

TEXT_INPUT: Final = "text_input"  # STRING [1]
EMBEDDING: Final = "embedding"  # FP32 [dim], unit length
INPUT_TYPE: Final = "input_type"  # STRING [1], one of InputType: what a text to embed is; "" or absent: query
INPUT_IDS: Final = "input_ids"  # INT32 [tokens], tokenizer to encoder: vocabulary ids, padded with 0 on the right
ATTENTION_MASK: Final = "attention_mask"  # INT32 [tokens]: 1 for a token of the text, 0 for padding
NUM_PASSAGES: Final = "num_passages"  # INT32 [1]
TENANT: Final = "tenant"  # STRING [1]
FILTER: Final = "filter"  # STRING [1], JSON
MODE: Final = "mode"  # STRING [1], one of Mode: how to search; "" or absent: as the index was built
PASSAGE_IDS: Final = "passage_ids"  # INT64 [k]
SCORES: Final = (
    "scores"  # FP32 [k], descending: cosine similarity (dense), BM25 (lexical), reciprocal rank fusion (hybrid)
)
PASSAGES: Final = "passages"  # STRING [k], JSON of a Passage each
INDEX_VERSION: Final = "index_version"  # INT64 [1]
RETRIEVAL_DEGRADED: Final = "retrieval_degraded"  # STRING [1], input of generator: the retriever's `degraded`
STREAM: Final = "stream"  # BOOL [1]
MAX_TOKENS: Final = "max_tokens"  # INT32 [1]
TEMPERATURE: Final = "temperature"  # FP32 [1]
TOP_P: Final = "top_p"  # FP32 [1]
SEED: Final = "seed"  # UINT64 [1]
STOP_WORDS: Final = "stop_words"  # STRING [-1]
STOP: Final = "stop"  # BOOL [1]: end the running generation that has this request's id
LORA_NAME: Final = "lora_name"  # STRING [1]
HISTORY: Final = "history"  # STRING [1], JSON list of Turn: what was said before, oldest first
STRICT: Final = "strict"  # BOOL [1]: rather an error than an answer in which something was given up
TIMEOUT: Final = "timeout"  # request parameter, not a tensor: microseconds that the answer may take; Triton's own name
TEXT_OUTPUT: Final = "text_output"  # STRING [1], a delta when streaming
SOURCES: Final = "sources"  # STRING [1], JSON list of Source, with the first response, "" afterwards
FINISH_REASON: Final = "finish_reason"  # STRING [1], "" until the last response
DEGRADED: Final = "degraded"  # STRING [1], "" or what was given up and why

NO_PASSAGE: Final = -1
MAX_BATCH: Final = 64  # rows in one request to embedder, retriever or retrieve: their max_batch_size

Mode = Literal["hybrid", "dense", "lexical"]
InputType = Literal["query", "passage"]
FinishReason = Literal["stop", "length", "cancelled", "error"]
Role = Literal["user", "assistant"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """A piece of a document, small enough to be embedded and cited.

    `start` and `end` are character offsets into the text of the document at `uri`: `document.text[start:end] == text`.
    """

    text: str
    title: str
    uri: str
    start: int
    end: int
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> bytes:
        """The wire and disk form: compact UTF-8 JSON."""
        payload = {
            "text": self.text,
            "title": self.title,
            "uri": self.uri,
            "start": self.start,
            "end": self.end,
            "metadata": dict(self.metadata),
        }
        return json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode()

    @classmethod
    def from_json(cls, data: bytes | str) -> "Passage":
        """Read the wire form back. Raises ValueError or TypeError where it is not one."""
        return cls(**json.loads(data))


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """Something that was said earlier in the conversation."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A passage as an answer cites it: `[n]` in the text refers to the source with that number."""

    n: int
    passage_id: int
    score: float
    passage: Passage

    def to_dict(self) -> dict[str, Any]:
        """The JSON object that stands in `sources`: the passage's fields beside n, passage_id and score."""
        fields = json.loads(self.passage.to_json())
        return {"n": self.n, "passage_id": self.passage_id, "score": round(self.score, 6), **fields}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Source":
        """Read one object of `sources` back."""
        fields = dict(data)
        n, passage_id, score = fields.pop("n"), fields.pop("passage_id"), fields.pop("score")
        return cls(n=n, passage_id=passage_id, score=score, passage=Passage(**fields))


def encode_history(turns: Sequence[Turn]) -> str:
    """The `history` tensor's one element."""
    return json.dumps(
        [{"role": t.role, "content": t.content} for t in turns], ensure_ascii=False, separators=(",", ":")
    )


def decode_history(data: bytes | str) -> list[Turn]:
    """Read `history` back. Raises ValueError that tells which element is not a turn."""
    try:
        turns = json.loads(data) if data else []
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    if not isinstance(turns, list):
        raise ValueError(f"it is {type(turns).__name__}, not a list")  # noqa: TRY004 - one error for whatever JSON holds
    for position, turn in enumerate(turns):
        if not (isinstance(turn, dict) and turn.keys() == {"role", "content"} and isinstance(turn["content"], str)):
            raise ValueError(f'element {position} is not {{"role": ..., "content": "..."}}')
        if turn["role"] not in get_args(Role):
            raise ValueError(f"the role of element {position} is {turn['role']!r}, not user or assistant")
    return [Turn(**turn) for turn in turns]


def encode_sources(sources: list[Source]) -> bytes:
    """The `sources` tensor's one element."""
    return json.dumps([s.to_dict() for s in sources], ensure_ascii=False, separators=(",", ":")).encode()


def decode_sources(data: bytes | str) -> list[Source]:
    """Read the `sources` tensor's element; an empty one (every response after the first) gives an empty list."""
    return [Source.from_dict(item) for item in json.loads(data)] if data else []
