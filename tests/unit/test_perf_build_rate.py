"""Bulk indexing against the raw encoder: the same passages on both sides, the costs that do not grow apart, nothing left behind."""

import json
import math
from pathlib import Path

import psutil
import pytest
from index_fakes import build, documents

from tritonrag_backends.index import Index
from tritonrag_client.contract import Passage
from tritonrag_client.errors import BadRequestError, InternalError
from tritonrag_export.documents.jsonl import read_jsonl
from tritonrag_perf import build_rate
from tritonrag_perf.build_rate import take_passages, write_jsonl
from tritonrag_perf.build_rate_raw import RawEncoders, RawRun, deal
from tritonrag_perf.build_rate_report import BuildRate, BuildRound, BuildRun, render
from tritonrag_perf.build_rate_worker import TimedSteps, dealt_out
from tritonrag_perf.machine import Machine


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """Thirty passages of ten documents."""
    build(tmp_path / "index", documents(10))
    return tmp_path / "index"


def run(passages: int, command_s: float, job_s: float, build_s: float) -> BuildRun:
    steps = {"opening the embedding model": job_s - build_s, "embedding": build_s}
    return BuildRun(
        passages=passages, kinds=("flat",), command_s=command_s, job_s=job_s, build_s=build_s, steps_s=steps
    )


def one_round(number: int = 1, half_s: float = 30.0, whole_s: float = 50.0) -> BuildRound:
    return BuildRound(
        round=number,
        raw=(RawRun(texts=1000, texts_per_s=50.0), RawRun(texts=1000, texts_per_s=200.0)),
        half=run(1000, half_s, half_s - 1, half_s - 4),
        whole=run(2000, whole_s, whole_s - 1, whole_s - 5),
    )


def record(*rounds: BuildRound) -> BuildRate:
    machine = Machine(cpu="Some CPU", cores=2, memory_gib=16.0, system="Linux")
    return BuildRate(date="2026-01-02", machine=machine, command="c", workers=2, characters=277.4, rounds=rounds)


def cells(page: str, first: str) -> list[str]:
    (row,) = (line for line in page.splitlines() if line.startswith(f"| {first} |"))
    return row.strip("| ").split(" | ")[1:]


def test_passages_are_spread_over_the_index_and_mixed_each_once(index: Path) -> None:
    every = [Passage.from_json(data).text for data in Index.open(index, fingerprint=None).all_passages()]
    taken = [passage.text for passage in take_passages(index, count=10)]
    assert sorted(taken) == sorted(every[::3])
    assert taken != every[::3]
    assert [passage.text for passage in take_passages(index, count=10)] == taken
    assert sorted(passage.text for passage in take_passages(index, count=30)) == sorted(every)


def test_an_index_with_too_few_passages_is_refused(index: Path) -> None:
    with pytest.raises(BadRequestError, match="30 passages and 31 are wanted"):
        take_passages(index, count=31)


def test_what_is_written_is_read_back_as_the_same_passages(index: Path, tmp_path: Path) -> None:
    passages = take_passages(index, count=30)
    units = list(read_jsonl(write_jsonl(tmp_path / "p.jsonl", passages)))
    assert [unit.passages for unit in units] == [(passage,) for passage in passages]
    assert len({unit.id for unit in units}) == 30


def test_texts_are_dealt_out_once_each_in_shares_of_like_length() -> None:
    texts = [f"{number:03}" + "x" * number**2 for number in range(402)]
    shares = deal(texts, 3)
    assert sorted(text for share in shares for text in share) == sorted(texts)
    assert {len(share) for share in shares} == {134}
    characters = [sum(map(len, share)) for share in shares]
    assert max(characters) < 1.001 * min(characters)


def test_the_raw_rate_is_over_all_texts_and_not_the_mean_of_rates() -> None:
    assert one_round().raw_per_s == 2000 / (20 + 5)


def test_what_the_larger_build_takes_longer_leaves_out_what_is_done_once() -> None:
    found = one_round(half_s=30.0, whole_s=50.0)
    assert found.second_half_per_s == 1000 / 20
    assert found.command_per_s == 2000 / 50
    assert found.build_per_s == 2000 / 45
    assert found.half.around_s == 1
    assert math.isnan(one_round(half_s=30.0, whole_s=30.0).second_half_per_s)


def test_the_page_tells_rates_ratios_of_the_same_round_and_the_time_of_each_step() -> None:
    page = render(record(one_round(1), one_round(2, 20.0, 30.0)))
    assert cells(page, "raw encoder") == ["80.0 (80.0-80.0)", "1.000 (1.000-1.000)"]
    assert cells(page, "build, without fixed costs") == ["75.0 (50.0-100.0)", "0.938 (0.625-1.250)"]
    assert cells(page, "build, the whole command") == ["53.3 (40.0-66.7)", "0.667 (0.500-0.833)"]
    assert cells(page, "starting and ending") == ["1.00 (1.00-1.00)", "1.00 (1.00-1.00)"]
    assert cells(page, "opening the embedding model") == ["3.00 (3.00-3.00)", "4.00 (4.00-4.00)"]
    assert cells(page, "embedding") == ["21.00 (16.00-26.00)", "35.00 (25.00-45.00)"]
    assert cells(page, "all") == ["25.00 (20.00-30.00)", "40.00 (30.00-50.00)"]
    assert cells(page, "the raw encoder") == ["12.50 (12.50-12.50)", "25.00 (25.00-25.00)"]


def test_a_step_lasts_until_the_next_and_one_that_comes_again_goes_on() -> None:
    times = iter([0.0, 3.0, 7.0, 12.0, 20.0])
    steps = TimedSteps(clock=lambda: next(times))
    for name in ("opening", "embedding", "writing", "embedding"):
        steps.step(name)
        steps.update(1, 2)
    assert steps.finish() == {"opening": 3.0, "embedding": 4.0 + 8.0, "writing": 5.0}


def test_embedding_begins_when_the_model_is_open_and_not_when_it_is_announced() -> None:
    announced = {"opening the embedding model in /some/where": 5.0, "embedding": 20.0, "writing the postings": 2.0}
    assert dealt_out(announced, opening_s=1.0) == {
        "opening the embedding model": 1.0,
        "embedding": 24.0,
        "writing the postings": 2.0,
    }


def test_raw_processes_embed_every_text_and_end(embedder_dir: Path) -> None:
    with RawEncoders(embedder_dir, processes=2) as raw:
        found = raw.measure(["a text to embed", "another one", "a third"])
        with pytest.raises(BadRequestError, match="1 texts for 2 processes"):
            raw.measure(["too few"])
    assert found.texts == 3
    assert found.texts_per_s > 0
    assert not [
        child for child in psutil.Process().children(recursive=True) if "spawn_main" in " ".join(child.cmdline())
    ]


def test_a_raw_process_that_can_not_open_the_model_is_told(tmp_path: Path) -> None:
    with pytest.raises(InternalError, match="raw encoder ended"):
        RawEncoders(tmp_path / "none", processes=1)


def test_raw_runs_stand_around_the_builds_and_every_other_round_begins_with_the_larger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[object] = []

    class Raw:
        def measure(self, texts: list[str]) -> RawRun:
            done.append(texts)
            return RawRun(texts=len(texts), texts_per_s=1.0)

    def built(_: object, passages: Path) -> BuildRun:
        done.append(passages.name)
        return run({"half": 2, "whole": 4}[passages.name], 3, 2, 1)

    monkeypatch.setattr(build_rate.Sides, "build", built)
    sides = build_rate.Sides(
        raw=Raw(),  # type: ignore[arg-type]
        embedder=tmp_path,
        workers=1,
        folder=tmp_path,
        texts=["a", "b", "c", "d"],
        half=tmp_path / "half",
        whole=tmp_path / "whole",
    )
    for number in (1, 2):
        found = sides.round(number)
        assert (found.half.passages, found.whole.passages) == (2, 4)
    assert done == [["a", "b"], "half", "whole", ["c", "d"], ["a", "b"], "whole", "half", ["c", "d"]]


def test_both_sides_are_measured_and_nothing_stays(
    index: Path, embedder_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRITONRAG_INDEX", "settings of the shell are not the build's")
    (tmp_path / "work").mkdir()
    options = {"--index": index, "--embedder": embedder_dir, "--work": tmp_path / "work", "--output": tmp_path / "out"}
    given = [str(part) for option in options.items() for part in option]
    build_rate.main([*given, "--passages", "12", "--workers", "1", "--rounds", "1"])
    assert capsys.readouterr().out.split() == [
        str(tmp_path / "out" / "build-rate.json"),
        str(tmp_path / "out" / "build-rate.md"),
    ]
    found = json.loads((tmp_path / "out" / "build-rate.json").read_bytes())
    assert [(one["half"]["passages"], one["whole"]["passages"]) for one in found["rounds"]] == [(12, 24)]
    for one in found["rounds"]:
        assert [raw["texts"] for raw in one["raw"]] == [12, 12]
        for built in (one["half"], one["whole"]):
            assert built["command_s"] > built["job_s"] > built["build_s"] > 0
            assert sum(built["steps_s"].values()) == pytest.approx(built["job_s"], rel=0.05)
    assert str(tmp_path) not in (tmp_path / "out" / "build-rate.md").read_text()
    assert not list((tmp_path / "work").iterdir())


def test_a_build_that_fails_says_why(index: Path, embedder_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text('{"id": "1"}\n')
    sides = build_rate.Sides(
        raw=None,  # type: ignore[arg-type]
        embedder=embedder_dir,
        workers=1,
        folder=tmp_path,
        texts=(),
        half=index,
        whole=index,
    )
    with pytest.raises(InternalError, match="text is missing"):
        sides.build(tmp_path / "bad.jsonl")


@pytest.mark.parametrize("option", ["--passages", "--rounds", "--workers"])
def test_nothing_to_measure_is_refused(option: str, index: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=f"{option} is 0"):
        build_rate.main([option, "0", "--index", str(index), "--output", str(tmp_path / "out")])
