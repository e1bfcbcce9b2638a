"""What the encoder costs: packed and padded, int8 and fp32, call sizes, threads. `python -m tritonrag_perf.embedder`.

Every contender runs once per round, rounds interleaved, so that a noisy machine is noisy for all; tables give the median
and the range over rounds. Texts are words of the vocabulary, drawn with a fixed seed to wanted lengths. With --index the cosines of
int8 to fp32 vectors come first, for questions about that index's passages.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort

from tritonrag_backends.embedding.encoder import Encoder
from tritonrag_backends.embedding.format import MODEL_FILES, Precision
from tritonrag_backends.embedding.packing import BATCH_TOKENS, Batch, one_per_row, pack
from tritonrag_backends.embedding.session import open_session, run_batch
from tritonrag_perf.corpus import QuestionSet, questions_of_index

Ids = Sequence[Sequence[int]]
Contenders = Mapping[str, Callable[[], object]]

_CLS, _SEP, _FIRST_WORD, _LAST_WORD = 101, 102, 1996, 29600
_QUESTION_TOKENS = (5, 40)
_PASSAGE_TOKENS = 200
_COMPARED = 500


def main() -> None:
    """Run all parts and print their tables in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=Path(".tritonrag/embedder"), help="embedder folder")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--index", type=Path, help="whose passages 500 questions are drawn from, to compare vectors")
    options = parser.parse_args()
    if options.index is not None:
        _compare_vectors(options.model, questions_of_index(options.index, count=_COMPARED, seed=0))
    for title, texts, contenders in _parts(options.model):
        _table(title, texts, _measure(contenders, options.rounds))


def make_questions(count: int, *, seed: int = 0) -> list[list[int]]:
    """Token ids of texts of 5 to 40 tokens, special ones among them, evenly mixed."""
    rng = np.random.default_rng(seed)
    return [_text(rng, int(length)) for length in rng.integers(*_QUESTION_TOKENS, count, endpoint=True)]


def make_passages(count: int, *, seed: int = 0) -> list[list[int]]:
    """Token ids of texts of 200 tokens."""
    rng = np.random.default_rng(seed)
    return [_text(rng, _PASSAGE_TOKENS) for _ in range(count)]


def _compare_vectors(model: Path, questions: QuestionSet) -> None:
    """Of questions that come alone: how near int8 is to fp32, and to itself in batches."""
    int8, fp32 = (Encoder.open(model, precision=precision) for precision in ("int8", "fp32"))
    alone = np.concatenate([int8.encode([text]).vectors for text in questions.texts])
    exact, batched = (encoder.encode(questions.texts).vectors for encoder in (fp32, int8))
    write = sys.stdout.write
    write(f"\n### Cosines, {questions}\n\n| | mean | 1 in 100 below | worst |\n|---|---|---|---|\n")
    for name, others in {"int8 to fp32": exact, "int8 alone to batched": batched}.items():
        cosines = np.einsum("td,td->t", alone, others, dtype=np.float64)
        write(f"| {name} | {cosines.mean():.4f} | {np.quantile(cosines, 0.01):.4f} | {cosines.min():.4f} |\n")


def _text(rng: np.random.Generator, length: int) -> list[int]:
    return [_CLS, *(int(word) for word in rng.integers(_FIRST_WORD, _LAST_WORD, length - 2)), _SEP]


def _parts(model: Path) -> list[tuple[str, int, Contenders]]:
    int8, fp32 = _open(model, "int8"), _open(model, "fp32")
    parts: list[tuple[str, int, Contenders]] = []
    sets = {f"{count} questions": make_questions(count) for count in (1, 8, 32)} | {"8 passages": make_passages(8)}
    for label, ids in sets.items():
        contenders = {
            "int8 packed": _runner(int8, ids, _packed(ids)),
            "int8 padded": _runner(int8, ids, [one_per_row([len(text) for text in ids])]),
            "int8 one by one": _runner(int8, ids, _alone(ids)),
            "fp32 packed": _runner(fp32, ids, _packed(ids, tokens_alone=False)),
        }
        parts.append((f"{label}, one thread", len(ids), contenders))
    for label, ids in {"256 questions": make_questions(256), "24 passages": make_passages(24)}.items():
        sizes = (128, 256, 384, 512, 1024, 2048, 4096)
        calls = {f"at most {size} tokens a call": _runner(int8, ids, _packed(ids, size)) for size in sizes}
        parts.append((f"{label}, int8 packed, one thread", len(ids), calls))
    two, spinning = _open(model, "int8", threads=2), _open(model, "int8", threads=2, spinning=True)
    for label in ("1 questions", "32 questions"):
        ids = sets[label]
        sessions = {"1 thread": int8, "2 threads": two, "2 threads, spinning": spinning}
        threads = {name: _runner(session, ids, _packed(ids)) for name, session in sessions.items()}
        parts.append((f"{label}, int8 packed", len(ids), threads))
    return parts


def _open(model: Path, precision: Precision, *, threads: int = 1, spinning: bool = False) -> ort.InferenceSession:
    return open_session(model / MODEL_FILES[precision], threads=threads, spinning=spinning)


def _packed(ids: Ids, batch_tokens: int = BATCH_TOKENS, *, tokens_alone: bool = True) -> list[Batch]:
    return pack([len(text) for text in ids], batch_tokens=batch_tokens, tokens_alone=tokens_alone)


def _alone(ids: Ids) -> list[Batch]:
    return [Batch(rows=1, row_tokens=len(text), texts=(number,), starts=(0,)) for number, text in enumerate(ids)]


def _runner(session: ort.InferenceSession, ids: Ids, batches: Sequence[Batch]) -> Callable[[], object]:
    return lambda: [run_batch(session, batch, ids) for batch in batches]


def _measure(contenders: Contenders, rounds: int) -> dict[str, list[float]]:
    """Seconds per run of each contender, one figure a round; one run before the first round is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for counted in (False, *[True] * rounds):
        for name, run in contenders.items():
            start = time.perf_counter()
            run()
            if counted:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def _table(title: str, texts: int, seconds: Mapping[str, Sequence[float]]) -> None:
    write = sys.stdout.write
    write(f"\n### {title}\n\n| | ms (median) | min to max | texts/s |\n|---|---|---|---|\n")
    for name, values in seconds.items():
        middle = statistics.median(values)
        write(
            f"| {name} | {middle * 1e3:.2f} | {min(values) * 1e3:.2f} to {max(values) * 1e3:.2f} | {texts / middle:.0f} |\n"
        )


if __name__ == "__main__":
    main()
