"""Promises of lexical search: what is a term, and BM25 as if the index held just what the asker may see."""

import hashlib
import math
import random
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import bm25s
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tritonrag_backends.index import lexical
from tritonrag_backends.index.analysis import Analyzer
from tritonrag_backends.index.lexical import (
    K1,
    B,
    LexicalSegment,
    LexicalView,
    LexicalWriter,
    count_visible,
    merge_lexical,
    search_lexical,
)
from tritonrag_client.errors import BadRequestError

PLAIN = Analyzer("none")
ENGLISH = Analyzer("english")

Mask = np.ndarray[Any, np.dtype[np.bool_]]


# --- terms


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("Raising the limits", ["rais", "limit"]),
        ("C, C++ and C#", ["c", "c++", "c", "c#", "c"]),
        ("Python 3.11", ["python", "3", "11"]),
        ("set max_wal_size=1GB", ["set", "max_wal_size", "max", "wal", "size", "1gb"]),
        ("ThreadPoolExecutor", ["threadpoolexecutor", "thread", "pool", "executor"]),
        ("HTTPServer X509Certificate", ["httpserver", "http", "server", "x509certif", "x509", "certif"]),
        ("PostgreSQL 64GB 3F2A9B", ["postgresql", "postgr", "sql", "64gb", "3f2a9b"]),
        ("__init__ ____ _x", ["__init__", "init", "_x", "x"]),
        ("--max-connections os.path", ["max", "connect", "os", "path"]),
        ("it's the server's, don't 're-use' re", ["server", "re", "use", "re"]),
        ("don\u2019t", []),
        ("\ufb01le \uff21\uff11 na\u00efve", ["file", "a1", "na\u00efv"]),
        ("na\u00efve nai\u0308ve", ["na\u00efv", "na\u00efv"]),
        ("soft\u00adhyphen", ["softhyphen"]),
        ("", []),
        ("!? -- \n\t", []),
    ],
)
def test_english_text_has_these_terms(text: str, terms: list[str]) -> None:
    assert ENGLISH.terms(text) == terms


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("東京都の天気", ["東京", "京都", "都の", "の天", "天気"]),
        ("カ", ["カ"]),
        ("hello世界abc", ["hello", "世界", "abc"]),
        ("한국어 문서", ["한국", "국어", "문서"]),
        ("ภาษาไทย", ["ภา", "าษ", "ษา", "าไ", "ไท", "ทย"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("l'index d\u2019eau", ["l", "index", "d", "eau"]),
        ("STRASSE Straße", ["strasse", "strasse"]),
        ("The CAT's", ["the", "cat", "s"]),
    ],
)
def test_text_in_no_language_is_folded_and_split_but_neither_stemmed_nor_thinned(text: str, terms: list[str]) -> None:
    assert PLAIN.terms(text) == terms


def test_an_identifier_is_found_by_its_parts_and_by_itself() -> None:
    held = set(ENGLISH.terms("Set max_wal_size."))
    assert set(ENGLISH.terms("wal size")) <= held
    assert set(ENGLISH.terms("max_wal_size")) <= held
    assert "max_wal_size" not in ENGLISH.terms("max wal size")


@given(st.text(max_size=200))
def test_terms_of_any_text_are_short_folded_and_the_same_each_time(text: str) -> None:
    for analyzer in (ENGLISH, PLAIN):
        terms = analyzer.terms(text)
        assert terms == Analyzer(analyzer.language).terms(text)
        assert all(0 < len(term.encode()) <= 64 for term in terms)
        assert all(term == term.lower() for term in terms if term.isascii())


@pytest.mark.parametrize(
    "text", ["x" * 10_000, "é" * 10_000, "a_" * 10_000, "aB" * 10_000, "天" * 10_000, "a'" * 10_000]
)
def test_terms_are_never_longer_than_64_bytes(text: str) -> None:
    assert max(len(term.encode()) for term in PLAIN.terms(text)) <= 64


def test_stop_words_are_left_out_in_the_languages_that_have_some() -> None:
    assert Analyzer("german").terms("der Server und die Häuser") == ["serv", "haus"]
    assert Analyzer("french").terms("l'index de la maison") == ["index", "maison"]
    assert Analyzer("finnish").terms("ja talossa") == ["ja", "talo"]


def test_a_language_that_there_is_not_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(BadRequestError, match=r"'klingon'.*english.*none"):
        Analyzer("klingon")


def test_the_same_name_means_the_same_terms() -> None:
    """Where this fails, the libraries give other terms than before: raise ANALYZER_VERSION with the digest."""
    text = "Running services' configurations: die Häuser, les maisons, las casas, le case, os carros, de huizen"
    stable = (
        "danish",
        "dutch",
        "english",
        "french",
        "german",
        "italian",
        "norwegian",
        "portuguese",
        "russian",
        "spanish",
    )
    terms = [(Analyzer(language).terms(text), sorted(Analyzer(language)._stop_words)) for language in stable]
    digest = hashlib.sha256(repr(terms).encode()).hexdigest()
    assert (ENGLISH.name, digest[:16]) == ("english/1", "acd8ed9cb560a8e6")


# --- search


def write(folder: Path, texts: Sequence[str], analyzer: Analyzer = PLAIN) -> LexicalSegment:
    folder.mkdir(parents=True, exist_ok=True)
    writer = LexicalWriter(folder, analyzer)
    for row, text in enumerate(texts):
        writer.add(row, text)
    writer.finish()
    writer.close()
    return LexicalSegment.open(folder, rows=len(texts))


def view(segment: LexicalSegment, visible: Mask | None = None, allowed: Mask | None = None) -> LexicalView:
    passages, words = count_visible(segment, visible)
    return LexicalView(segment=segment, visible=visible, allowed=allowed, passages=passages, words=words)


def random_texts(rows: int, seed: int, vocabulary: int = 400) -> list[str]:
    """Words that are as unevenly frequent as words are; some passages are empty, some long, some say one or two words only."""
    chance = random.Random(seed)
    words = [f"w{i}" for i in range(vocabulary)]
    weights = [1 / (i + 2) for i in range(vocabulary)]
    return [
        " ".join(chance.choices(words, weights, k=chance.choice([0, 1, 5, 20, 20, 20, 60])))
        if chance.random() < 0.99
        else " ".join(chance.choices(words, weights, k=2) * chance.choice([1, 30]))
        for _ in range(rows)
    ]


def brute_force(
    parts: Sequence[tuple[Sequence[str], Mask | None, Mask | None]], question: Sequence[str]
) -> list[dict[int, float]]:
    """The scores of all allowed rows of each part, from the definition."""
    seen = [
        Counter(text.split())
        for texts, visible, _ in parts
        for row, text in enumerate(texts)
        if visible is None or visible[row]
    ]
    average = sum(map(Counter.total, seen)) / len(seen) if seen else 0
    found: list[dict[int, float]] = []
    for texts, visible, allowed in parts:
        mask = visible if allowed is None else allowed
        scores = {}
        for row, text in enumerate(texts):
            counts = Counter(text.split())
            if mask is None or mask[row]:
                for term in question:
                    holders = sum(1 for one in seen if term in one)
                    weight = math.log(1 + (len(seen) - holders + 0.5) / (holders + 0.5))
                    damped = counts[term] + K1 * (1 - B + B * counts.total() / average) if counts[term] else 1
                    scores[row] = scores.get(row, 0.0) + weight * counts[term] / damped
        found.append({row: score for row, score in scores.items() if score > 0})
    return found


def assert_best(found: tuple[Any, Any], scores: dict[int, float], k: int) -> None:
    rows, given_scores = found
    assert rows.dtype == np.int64
    assert given_scores.dtype == np.float32
    assert len(rows) == min(k, len(scores)) == len(set(rows.tolist()))
    assert given_scores == pytest.approx([scores[row] for row in rows.tolist()], rel=1e-4)
    assert sorted(zip(-given_scores, rows, strict=True)) == list(zip(-given_scores, rows, strict=True))
    if len(rows):
        left_out = [score for row, score in scores.items() if row not in set(rows.tolist())]
        assert max(left_out, default=0) <= float(given_scores[-1]) * (1 + 1e-4)


def test_scores_are_those_of_bm25s(tmp_path: Path) -> None:
    texts = [text or "w1" for text in random_texts(500, seed=1)]
    oracle = bm25s.BM25(method="lucene", k1=K1, b=B)
    oracle.index([text.split() for text in texts], show_progress=False)
    segment = write(tmp_path, texts)
    for seed in range(50):
        question = random.Random(seed).choices(texts, k=1)[0].split()[:8]
        scores = oracle.get_scores(question)
        assert_best(
            search_lexical([view(segment)], question, 20)[0], {row: s for row, s in enumerate(scores) if s > 0}, 20
        )


@settings(max_examples=60, deadline=None)
@given(data=st.data(), k=st.sampled_from([1, 2, 7, 100]))
def test_scores_are_those_of_an_index_of_what_may_be_seen(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, k: int
) -> None:
    folder = tmp_path_factory.mktemp("brute")
    words = st.sampled_from(["a", "b", "c", "d", "e"])
    text = st.lists(words, max_size=8).map(" ".join)
    parts, views = [], []
    for number in range(data.draw(st.integers(1, 3))):
        texts = data.draw(st.lists(text, min_size=1, max_size=12))
        mask = st.none() | st.lists(st.booleans(), min_size=len(texts), max_size=len(texts)).map(np.array)
        visible, passing = data.draw(mask), data.draw(mask)
        allowed = None if passing is None else passing if visible is None else passing & visible
        parts.append((texts, visible, allowed))
        views.append(view(write(folder / str(number), texts), visible, allowed))
    question = data.draw(st.lists(st.sampled_from(["a", "b", "c", "d", "e", "unheard"]), max_size=5))
    for found, scores in zip(search_lexical(views, question, k), brute_force(parts, question), strict=True):
        assert_best(found, scores, k)


@pytest.mark.parametrize("seek", [1e-6, 16, 10**9], ids="seek{}".format)
@pytest.mark.parametrize("pick", [0, 10, 10**9], ids="pick{}".format)
@pytest.mark.parametrize("masked", [False, True])
def test_however_the_best_are_found_they_are_the_first_of_all_to_the_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seek: float, pick: int, masked: bool
) -> None:
    """Cutting lists short, looking rows up, scanning all: ways to the same answer. Asked for all rows, nothing is cut short."""
    texts = random_texts(3_000, seed=2)
    segment = write(tmp_path, texts)
    chance = np.random.default_rng(3)
    visible = chance.random(len(texts)) < 0.8
    one = view(segment, visible, visible & (chance.random(len(texts)) < 0.7)) if masked else view(segment)
    monkeypatch.setattr(lexical, "_SEEK", seek)
    monkeypatch.setattr(lexical, "_PICK", pick)
    for seed in range(25):
        asked = random.Random(seed)
        question = [f"w{int(400 * asked.random() ** 3)}" for _ in range(asked.choice([1, 2, 3, 8]))]
        all_rows, all_scores = search_lexical([one], question, len(texts))[0]
        for k in (1, 3, 50):
            rows, scores = search_lexical([one], question, k)[0]
            assert rows.tolist() == all_rows[:k].tolist()
            assert scores.tobytes() == all_scores[:k].tobytes()


def test_rows_that_score_alike_come_by_row_and_the_cut_among_them_too(tmp_path: Path) -> None:
    segment = write(tmp_path, ["a b", "c", "a b"] * 1_000)
    rows, scores = search_lexical([view(segment)], ["b", "a"], 50)[0]
    assert rows.tolist() == [row for row in range(3_000) if row % 3 != 1][:50]
    assert len(set(scores.tolist())) == 1


def test_a_term_that_is_asked_twice_counts_twice(tmp_path: Path) -> None:
    segment = view(write(tmp_path, ["a b", "a", "b b c", "d"]))
    once, twice = (search_lexical([segment], ["a"] * times, 9)[0][1] for times in (1, 2))
    assert twice == pytest.approx(2 * once)


def test_the_order_of_the_question_s_words_changes_no_bit(tmp_path: Path) -> None:
    one = view(write(tmp_path, random_texts(300, seed=4)))
    question = ["w1", "w5", "w2", "w9", "w3", "w5"]
    _, scores = search_lexical([one], question, 300)[0]
    for seed in range(10):
        shuffled = random.Random(seed).sample(question, len(question))
        assert search_lexical([one], shuffled, 300)[0][1].tobytes() == scores.tobytes()


def test_a_passage_that_says_nothing_but_the_frequent_word_beats_long_ones_with_the_rare_one(tmp_path: Path) -> None:
    filler = " ".join(f"f{i}" for i in range(300))
    texts = (
        [f"rare {filler} {filler} {filler} {filler}"] * 5 + ["often " * 200] + [f"often {filler}"] * 30 + [filler] * 60
    )
    rows, _ = search_lexical([view(write(tmp_path, texts))], ["rare", "often"], 1)[0]
    assert rows.tolist() == [5]


def test_what_holds_none_of_the_terms_or_is_not_there_is_not_found(tmp_path: Path) -> None:
    one = view(write(tmp_path, ["a b", "", "c"]))
    assert [rows.tolist() for rows, _ in search_lexical([one], ["unheard", "c"], 5)] == [[2]]
    assert [rows.tolist() for rows, _ in search_lexical([one], [], 5)] == [[]]
    assert search_lexical([], ["a"], 5) == []
    nobody = view(one.segment, np.zeros(3, np.bool_))
    assert [rows.tolist() for rows, _ in search_lexical([nobody], ["a"], 5)] == [[]]
    silent = view(write(tmp_path / "silent", ["", "!"]))
    assert [rows.tolist() for rows, _ in search_lexical([silent, one], ["a"], 5)] == [[], [0]]


def test_what_may_not_be_seen_changes_no_score(tmp_path: Path) -> None:
    texts = random_texts(300, seed=5)
    visible = np.random.default_rng(0).random(300) < 0.5
    hidden = view(write(tmp_path / "all", texts), visible)
    kept = np.flatnonzero(visible)
    alone = view(write(tmp_path / "alone", [texts[row] for row in kept]))
    for question in (["w1", "w30"], ["w2", "w3", "w100"], ["w399"]):
        (rows, scores), (rows_alone, scores_alone) = (search_lexical([one], question, 40)[0] for one in (hidden, alone))
        assert rows.tolist() == kept[rows_alone].tolist()
        assert scores.tobytes() == scores_alone.tobytes()


def test_merged_segments_are_to_the_byte_what_is_written_anew(tmp_path: Path) -> None:
    texts = random_texts(400, seed=6)
    kept = np.random.default_rng(1).random(400) < 0.7
    row_map = np.where(kept, np.cumsum(kept) - 1, -1)
    cuts = [range(150), range(150, 160), range(160, 400)]
    segments = [write(tmp_path / str(cut.start), [texts[row] for row in cut]) for cut in cuts]
    (tmp_path / "merged").mkdir()
    merge_lexical(
        [(segment, row_map[cut.start : cut.stop]) for segment, cut in zip(segments, cuts, strict=True)],
        tmp_path / "merged",
    )
    write(tmp_path / "anew", [texts[row] for row in np.flatnonzero(kept)])
    files = sorted(path.name for path in (tmp_path / "anew").iterdir())
    assert files == sorted(path.name for path in (tmp_path / "merged").iterdir())
    for name in files:
        assert (tmp_path / "merged" / name).read_bytes() == (tmp_path / "anew" / name).read_bytes(), name
    apart = [view(segment, kept[cut.start : cut.stop]) for segment, cut in zip(segments, cuts, strict=True)]
    merged = view(LexicalSegment.open(tmp_path / "merged", rows=int(kept.sum())))
    for question in (["w1", "w30"], ["w2", "w3", "w100"]):
        found = search_lexical(apart, question, 400)
        rows, scores = search_lexical([merged], question, 400)[0]
        together = sorted(
            (-score, int(row_map[cut.start + row]))
            for cut, (some, their) in zip(cuts, found, strict=True)
            for row, score in zip(some.tolist(), their.tolist(), strict=True)
        )
        assert together == list(zip((-scores).tolist(), rows.tolist(), strict=True))


def test_many_threads_get_what_one_gets(tmp_path: Path) -> None:
    views = [view(write(tmp_path / str(i), random_texts(rows, seed=i))) for i, rows in enumerate((2_000, 50, 700))]
    questions = [[f"w{i}", f"w{i * 3 % 400}", f"w{i * 7 % 400}"] for i in range(200)]

    def answer(question: Sequence[str]) -> list[tuple[bytes, bytes]]:
        return [(rows.tobytes(), scores.tobytes()) for rows, scores in search_lexical(views, question, 10)]

    alone = [answer(question) for question in questions]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(answer, questions)) == alone


def test_a_search_that_breaks_off_leaves_nothing_for_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = view(write(tmp_path, random_texts(500, seed=9)))
    rows, scores = search_lexical([one], ["w1", "w2"], 10)[0]
    with monkeypatch.context() as broken:
        broken.setattr(lexical._Sums, "at_least", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            search_lexical([one], ["w1", "w3", "w2"], 10)
    again = search_lexical([one], ["w1", "w2"], 10)[0]
    assert (again[0].tolist(), again[1].tobytes()) == (rows.tolist(), scores.tobytes())


def test_titles_and_texts_are_found_by_their_words_in_other_forms(tmp_path: Path) -> None:
    one = view(write(tmp_path, ["A note on a server's configuration", "Configuring the servers", "Cats"], ENGLISH))
    assert search_lexical([one], ENGLISH.terms("how do I configure my server?"), 5)[0][0].tolist() == [1, 0]
