"""Serving, starting and memory by size of index: what is compared with what, in which order, and what the page says of it."""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from index_fakes import add, build, documents

from tritonrag_backends.index.format import MANIFESTS, OperatingPoint
from tritonrag_client.errors import BadRequestError, UnavailableError
from tritonrag_perf import scale
from tritonrag_perf.machine import Machine
from tritonrag_perf.scale_measure import measure_memory, read_files, scale_settings
from tritonrag_perf.scale_record import Failure, Memory, Scale, ScaledIndex, Serving, Start, live_files
from tritonrag_perf.scale_report import render, write_scale

MIB = 2**20
POINT = OperatingPoint(effort=32, rescore=2, recall_at_10=0.97, queries=256)


def index(name: str, passages: int, recall: float | None = 0.97) -> ScaledIndex:
    return ScaledIndex(
        name=name,
        passages=passages,
        kinds=("hnsw",),
        mode="hybrid",
        recall_at_10=recall,
        points=(POINT,),
        bytes=2000 * passages,
    )


def serving(number: int, name: str, clients: int, rate: float) -> Serving:
    return Serving(
        round=number,
        index=name,
        clients=clients,
        questions_per_s=rate,
        p50_ms=2.5,
        p99_ms=7.5,
        server_cpu_ms=1.25,
        client_cores=0.1,
        stable=True,
    )


def memory(number: int, name: str, pss: int, own: int) -> Memory:
    return Memory(round=number, index=name, pss_bytes=pss, own_bytes=own, mapped_bytes=pss - own, shared_memory_bytes=0)


@pytest.fixture
def record() -> Scale:
    return Scale(
        date="2026-01-02",
        machine=Machine(cpu="Some CPU", cores=2, memory_gib=16.0, system="Linux"),
        software="Triton 1, perf_analyzer 2",
        questions="500 questions",
        command="python -m tritonrag_perf.scale",
        one_at_a_time=False,
        indexes=(index("10k", 10_000), index("1M", 1_000_000)),
    )


def cells(page: str, *first: str) -> list[str]:
    """The cells of the first row that begins with these, without them."""
    (row, *_) = (line for line in page.splitlines() if line.startswith(f"| {' | '.join(first)} |"))
    return row.strip("| ").split(" | ")[len(first) :]


def test_the_files_of_the_live_version_are_all_that_it_needs_and_nothing_else(tmp_path: Path) -> None:
    build(tmp_path / "i", documents(5))
    add(tmp_path / "i", documents(3, seed=1))  # in the place of three that are there
    (tmp_path / "i" / "staging").mkdir(exist_ok=True)
    (tmp_path / "i" / "staging" / "left").write_bytes(b"x" * 1000)
    named = {path.relative_to(tmp_path / "i").parts[0] for path in live_files(tmp_path / "i")}
    assert named == {"CURRENT", "manifests", "segments", "shared"}
    there = [path for part in ("segments", "shared") for path in (tmp_path / "i" / part).rglob("*") if path.is_file()]
    assert {path for path in live_files(tmp_path / "i") if path.parent.name != MANIFESTS} == {
        *there,
        tmp_path / "i" / "CURRENT",
    }
    read = ScaledIndex.read("small", tmp_path / "i")
    assert read.bytes == read_files(live_files(tmp_path / "i")) > 0
    assert (read.passages, read.kinds, read.mode) == (15, ("flat",), "dense")


def test_every_byte_of_every_file_is_read(tmp_path: Path) -> None:
    sizes = (0, 1, MIB, MIB + 1, 3 * MIB + 7)
    for size in sizes:
        (tmp_path / str(size)).write_bytes(b"\0" * size)
    assert read_files(tmp_path / str(size) for size in sizes) == sum(sizes)


def test_nothing_is_cached_and_ten_passages_come(tmp_path: Path) -> None:
    retriever = scale_settings(tmp_path / "i", tmp_path / "e").retriever
    assert (retriever.cache_bytes, retriever.num_passages) == (0, 10)


def test_a_rate_is_held_to_that_of_the_first_index_in_the_same_round_and_at_the_same_clients(record: Scale) -> None:
    for number, clients, first, other in ((1, 4, 1000, 900), (2, 4, 100, 80), (1, 64, 1, 1)):
        record = record.with_sample(serving(number, "10k", clients, first))
        record = record.with_sample(serving(number, "1M", clients, other))
    record = record.with_sample(serving(3, "1M", 4, 5))  # of that round there is nothing to hold it to
    ratio = record.ratio("1M", 4)
    assert ratio is not None
    assert (ratio.low, ratio.high) == (0.8, 0.9)
    page = render(record)
    assert cells(page, "4", "10k")[1] == "1.00 (1.00-1.00)"
    assert cells(page, "4", "1M")[:3] == ["80 (5-900)", "0.85 (0.80-0.90)", "2.5 (2.5-2.5)"]
    assert cells(page, "64", "1M")[1] == "1.00 (1.00-1.00)"


def test_what_an_index_adds_to_a_start_is_beyond_the_tiny_one_of_the_same_round(record: Scale) -> None:
    record = replace(record, tiny=index("tiny", 10))
    for number, tiny_s, start_s in ((1, 2.0, 3.0), (2, 4.0, 4.5), (3, 2.0, 3.0)):
        record = record.with_sample(Start(round=number, index="tiny", start_s=tiny_s, read_s=0.001))
        record = record.with_sample(Start(round=number, index="1M", start_s=start_s, read_s=0.5))
    page = render(record)
    starting = page[page.index("## Starting") :]
    assert cells(starting, "1M") == [
        "3.00 (3.00-4.50)",
        "0.500 (0.500-0.500)",
        "6.00 (6.00-9.00)",
        "1.00 (0.50-1.00)",
        "2.00 (1.00-2.00)",
    ]
    assert cells(starting, "tiny")[3:] == ["-", "-"]
    assert cells(starting, "10k") == ["-"] * 5


def test_without_a_tiny_index_nothing_is_said_of_it(record: Scale) -> None:
    page = render(record.with_sample(Start(round=1, index="1M", start_s=3.0, read_s=1.5)))
    assert cells(page[page.index("## Starting") :], "1M")[2] == "2.00 (2.00-2.00)"
    assert "beyond the tiny index, s" not in page


def test_memory_is_that_of_the_last_round_and_grows_by_the_passages_beyond_the_first_index(record: Scale) -> None:
    for number, first, other in ((1, 1, 1), (2, 300 * MIB, 300 * MIB + 990_000 * 2000)):
        record = record.with_sample(memory(number, "10k", first, first // 2))
        record = record.with_sample(memory(number, "1M", other, first // 2 + 990_000 * number))
    page = render(record)
    held = page[page.index("## Memory") :]
    assert cells(held, "10k") == ["300", "150", "150", "-", "-"]
    assert cells(held, "1M")[-2:] == ["2,000", "2"]


def test_an_index_that_is_not_known_to_find_enough_is_named(record: Scale) -> None:
    assert "Not known to reach" not in render(record)
    for recall in (0.9, None):
        page = render(replace(record, indexes=(record.indexes[0], index("1M", 1_000_000, recall))))
        assert "**Not known to reach 0.95: 1M; its rate tells little.**" in page


def test_the_memory_of_a_server_is_that_of_all_processes_of_its_session() -> None:
    script = "import subprocess, sys; kept = bytearray(32 << 20); kept[::4096] = b'x' * len(kept[::4096]); "
    child = f"{script}print('ready', flush=True); sys.stdin.read()"
    parent = f"{script}subprocess.run([sys.executable, '-c', {child!r}])"
    with subprocess.Popen(
        [sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        held = measure_memory(process.pid, number=1, index="10k")
        process.communicate()
    assert held.own_bytes > 64 * MIB
    assert held.mapped_bytes > 0
    assert abs(held.pss_bytes - held.own_bytes - held.mapped_bytes - held.shared_memory_bytes) < MIB


class FakeAsker:
    """Answers at once; a server that is named in `broken` does not."""

    def __init__(self, *broken: str) -> None:
        self._broken = broken

    def serving(self, _running: object, *, number: int, index: str, clients: int) -> Serving:
        if index in self._broken:
            raise UnavailableError("it went away")
        return serving(number, index, clients, 100)


@pytest.fixture
def bench(record: Scale, monkeypatch: pytest.MonkeyPatch) -> scale.Bench:
    """Without servers: `kept` holds every record that was handed on."""
    kept: list[Scale] = []
    bench = scale.Bench(record, kept.append)
    monkeypatch.setattr(bench, "kept", kept, raising=False)
    monkeypatch.setattr(bench, "_started", lambda *_: SimpleNamespace(pid=os.getpid()))
    monkeypatch.setattr(scale, "measure_memory", lambda _, *, number, index: memory(number, index, 2, 1))
    return bench


INDEXES = {"10k": None, "1M": None}


def test_indexes_stand_side_by_side_in_every_round_and_every_other_round_runs_backwards(bench: scale.Bench) -> None:
    bench.measure_together(INDEXES, FakeAsker(), [1, 64], rounds=2)  # type: ignore[arg-type]
    assert [(one.round, one.clients, one.index) for one in bench.record.serving] == [
        *((1, 1, "10k"), (1, 1, "1M"), (1, 64, "10k"), (1, 64, "1M")),
        *((2, 64, "1M"), (2, 64, "10k"), (2, 1, "1M"), (2, 1, "10k")),
    ]
    assert [(one.round, one.index) for one in bench.record.memory] == [(1, "10k"), (1, "1M"), (2, "10k"), (2, "1M")]


def test_one_at_a_time_a_server_is_asked_everything_before_the_next_one_starts(bench: scale.Bench) -> None:
    bench.measure_apart(INDEXES, FakeAsker(), [1, 64], rounds=2)  # type: ignore[arg-type]
    assert [(one.round, one.index, one.clients) for one in bench.record.serving] == [
        *((1, "10k", 1), (1, "10k", 64), (1, "1M", 1), (1, "1M", 64)),
        *((2, "1M", 64), (2, "1M", 1), (2, "10k", 64), (2, "10k", 1)),
    ]
    assert len(bench.record.memory) == 4


def test_a_measurement_that_fails_is_told_and_the_others_go_on(bench: scale.Bench) -> None:
    bench.measure_together(INDEXES, FakeAsker("1M"), [4], rounds=2)  # type: ignore[arg-type]
    assert [one.index for one in bench.record.serving] == ["10k", "10k"]
    assert bench.record.failures[0] == Failure(
        what="round 1, 1M at 4 clients", reason=str(UnavailableError("it went away"))
    )
    page = render(bench.record)
    assert "- round 2, 1M at 4 clients: " in page
    assert cells(page, "4", "1M")[0] == "-"


def test_the_record_is_handed_on_after_every_sample(bench: scale.Bench) -> None:
    bench.measure_together(INDEXES, FakeAsker(), [4], rounds=1)  # type: ignore[arg-type]
    kept: list[Scale] = bench.kept  # type: ignore[attr-defined]
    assert [(len(one.serving), len(one.memory)) for one in kept] == [(1, 0), (2, 0), (2, 1), (2, 2)]


def test_a_start_that_is_cold_counts_for_nothing(bench: scale.Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, str]] = []

    def start(_: object, *, number: int, index: str) -> Start:
        seen.append((number, index))
        return Start(round=number, index=index, start_s=1, read_s=1)

    monkeypatch.setattr(scale, "measure_start", start)
    bench.measure_starts(INDEXES, rounds=2)  # type: ignore[arg-type]
    assert seen == [(0, "10k"), (1, "10k"), (1, "1M"), (2, "1M"), (2, "10k")]
    assert [(one.round, one.index) for one in bench.record.starts] == seen[1:]


@pytest.mark.parametrize("text", ["10k", "=dir", "10k=", "tiny=dir"])
def test_an_index_without_name_or_folder_is_refused(text: str) -> None:
    with pytest.raises(BadRequestError, match="NAME=DIR"):
        scale.named_index(text)


def test_two_indexes_of_one_name_are_refused() -> None:
    assert scale.named_indexes(["a=x", "b=y=z"]) == {"a": Path("x"), "b": Path("y=z")}
    with pytest.raises(BadRequestError, match="twice"):
        scale.named_indexes(["a=x", "a=y"])


@contextmanager
def no_servers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr(
            scale, "measure_start", lambda _, *, number, index: Start(round=number, index=index, start_s=2, read_s=1)
        )
        yield


def test_the_command_writes_what_was_asked_for_and_no_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    build(tmp_path / "i", documents(6))
    build(tmp_path / "small", documents(1))
    arguments = ["--index", f"few={tmp_path / 'i'}", "--tiny", str(tmp_path / "small"), "--output", str(tmp_path)]
    with no_servers(monkeypatch):
        scale.main([*arguments, "--starts", "2", "--rounds", "0", "--name", "sizes"])
    assert capsys.readouterr().out.split() == [str(tmp_path / "sizes.json"), str(tmp_path / "sizes.md")]
    found = json.loads((tmp_path / "sizes.json").read_bytes())
    assert [(one["round"], one["index"]) for one in found["starts"]] == [
        *((1, "tiny"), (1, "few"), (2, "few"), (2, "tiny")),
    ]
    page = (tmp_path / "sizes.md").read_text()
    assert str(tmp_path) not in page
    assert "--index few=DIR --tiny DIR --clients 1 4 16 64 256 --rounds 0 --starts 2" in page
    assert cells(page, "few")[:3] == ["18", "`flat`", "dense"]


def test_a_missing_index_is_told_before_anything_is_started(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="not_found"):
        scale.main(["--index", f"a={tmp_path / 'none'}", "--output", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_a_picture_is_drawn_where_something_was_served(record: Scale, tmp_path: Path) -> None:
    assert len(write_scale(record, tmp_path, name="scale", plot=True)) == 2
    served = record.with_sample(serving(1, "10k", 4, 100)).with_sample(serving(1, "1M", 4, 90))
    picture = write_scale(served, tmp_path, name="scale", plot=True)[-1]
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert f"({picture.name})" in (tmp_path / "scale.md").read_text()


def test_no_client_is_no_load(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        scale.main(["--index", "a=b", "--clients", "0", "--output", "c"])
    assert "give 1 or more" in capsys.readouterr().err


def test_questions_of_a_file_stand_in_the_command(tmp_path: Path) -> None:
    (tmp_path / "q.txt").write_text("why?\n")
    options = argparse.Namespace(questions=tmp_path / "q.txt")
    assert scale._questions(options, tmp_path).texts == ("why?",)
