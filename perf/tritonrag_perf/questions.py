"""Questions to measure with, and the input file in which perf_analyzer wants them.

Drawn from the passages of the index that is searched, so that they have its words and lengths; the same seed and
the same passages give the same questions.
"""

import json
import random
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tritonrag_client.contract import MAX_TOKENS, STREAM, TEXT_INPUT, Passage
from tritonrag_client.errors import BadRequestError
from tritonrag_perf.load import Load

_TEMPLATES = (
    "What is {title}?",
    "How does {title} work?",
    "When should I use {title}?",
    "Where is it said that {opening}?",
    "What does {title} mean by this: {opening}?",
    "Can you explain this in other words: {opening}?",
)
_TITLE_WORDS = 8
_OPENING_WORDS = 14  # with these two, questions have 3 to 30 words
_OPENING_LEAST_WORDS = 3  # below that a passage's opening is a heading or a name, and says nothing


def draw_questions(passages: Iterable[Passage], *, count: int, seed: int = 0) -> list[str]:
    """Up to `count` different questions about `passages`; fewer only where these don't yield more.

    Raises BadRequestError where there is none.
    """
    if count < 1:
        raise BadRequestError(f"the number of questions is {count}; give 1 or more")
    questions: dict[str, str] = {}
    for question in _candidates(list(passages), random.Random(seed)):  # noqa: S311 - repeatable, not secret
        questions.setdefault(question.casefold(), question)
        if len(questions) == count:
            break
    if not questions:
        raise BadRequestError(
            "no passage has a title or an opening to make a question from; give a file of questions instead"
        )
    return list(questions.values())


def read_questions(path: Path) -> list[str]:
    """The questions of a UTF-8 text file, one on each line; blank lines and repeats are left out.

    Raises BadRequestError where the file can't be read or holds none.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadRequestError(f"the questions in {path} can't be read: {error}; give a UTF-8 text file") from error
    questions = list(dict.fromkeys(filter(None, map(_clean, lines))))
    if not questions:
        raise BadRequestError(f"{path} holds no question; write one on each line")
    return questions


def write_input_data(path: Path, questions: Sequence[str], load: Load, *, stream: bool, max_tokens: int | None) -> Path:
    """Write perf_analyzer's `--input-data` file: each question is one request. Returns `path`.

    `stream` and `max_tokens` are inputs of the decoupled models only.
    """
    options: dict[str, list[bool] | list[int]] = {}
    if load.decoupled:
        options[STREAM] = [stream]
        if max_tokens is not None:
            options[MAX_TOKENS] = [max_tokens]
    data = [{TEXT_INPUT: [question], **options} for question in questions]
    path.write_text(json.dumps({"data": data}, ensure_ascii=False), encoding="utf-8")
    return path


def _candidates(passages: list[Passage], rng: random.Random) -> Iterator[str]:
    """Questions in the order in which they are taken: one for each passage, then with each one's next template."""
    rng.shuffle(passages)
    topics = [(_words(p.title, _TITLE_WORDS), _opening(p.text), rng.randrange(len(_TEMPLATES))) for p in passages]
    for turn in range(len(_TEMPLATES)):
        for title, opening, first in topics:
            template = _TEMPLATES[(first + turn) % len(_TEMPLATES)]
            if ("{title}" in template and not title) or ("{opening}" in template and not opening):
                continue
            yield template.format(title=title, opening=opening)


def _opening(text: str) -> str:
    """The first words of a passage's first sentence; empty where they say nothing."""
    sentence = re.split(r"(?<=[.!?])\s", text.lstrip(), maxsplit=1)[0]
    words = _words(sentence, _OPENING_WORDS)
    return words if len(words.split()) >= _OPENING_LEAST_WORDS else ""


def _words(text: str, most: int) -> str:
    """The first words of `text`; rulers and bullets are none."""
    words = [word for word in _clean(text).split() if any(map(str.isalnum, word))]
    return " ".join(words[:most]).rstrip(" .,;:!?")


def _clean(text: str) -> str:
    """`text` on one line, without control characters and lone surrogates, which a request refuses."""
    return " ".join("".join(character if character.isprintable() else " " for character in text).split())
