"""A soak tells growth from noise, and writes down what it saw."""

import json
import os
import random
from dataclasses import replace
from pathlib import Path

import pytest
from tests.waiting import wait_until

from tritonrag_client.errors import BadRequestError, UnavailableError
from tritonrag_perf.machine import Machine
from tritonrag_perf.soak import Plan
from tritonrag_perf.soak_report import MIB, Soak, render, verdict, write_soak
from tritonrag_perf.soak_samples import Held, Sample, Sampler, held_by
from tritonrag_perf.soak_traffic import Tally
from tritonrag_perf.soak_trend import fit

HOURS = [number / 720 for number in range(540)]  # a sample every 5 s for 45 minutes


def noise(size: float, seed: int = 0) -> list[float]:
    draw = random.Random(seed)
    return [draw.gauss(0, size) for _ in HOURS]


@pytest.mark.parametrize("seed", range(5))
def test_noise_round_a_level_is_flat(seed: int) -> None:
    trend = fit(HOURS, [100 + one for one in noise(5, seed)], tolerance=1)
    assert trend.verdict == "flat"
    assert abs(trend.per_hour) < 3
    assert trend.low_per_hour < 0 < trend.high_per_hour or abs(trend.grown) < 1


@pytest.mark.parametrize("seed", range(5))
def test_a_leak_under_noise_grows_by_what_leaks(seed: int) -> None:
    trend = fit(HOURS, [100 + 20 * hour + one for hour, one in zip(HOURS, noise(3, seed), strict=True)], tolerance=1)
    assert trend.grows
    assert trend.low_per_hour < 20 < trend.high_per_hour
    assert trend.grown == pytest.approx(trend.per_hour * HOURS[-1])


def test_a_few_peaks_are_no_growth() -> None:
    values = [100.0 + one for one in noise(0.1)]
    values[-20:] = [1000.0] * 20
    assert fit(HOURS, values, tolerance=1).verdict == "flat"


def test_what_shrinks_is_flat() -> None:
    assert fit(HOURS, [100 - 20 * hour for hour in HOURS], tolerance=1).verdict == "flat"


def test_a_count_that_never_changes_is_flat_and_one_that_climbs_grows() -> None:
    assert fit(HOURS, [7] * len(HOURS), tolerance=0.5).per_hour == 0
    assert fit(HOURS, [7 + int(hour * 8) for hour in HOURS], tolerance=0.5).grows


def test_growth_within_the_tolerance_is_flat_absolute_or_as_a_share() -> None:
    values = [1000 + 4 * hour for hour in HOURS]
    assert fit(HOURS, values, tolerance=1).grows
    assert not fit(HOURS, values, tolerance=4).grows
    assert not fit(HOURS, values, tolerance=1, share=0.01).grows


def test_too_few_samples_are_refused() -> None:
    with pytest.raises(BadRequestError, match="7 samples"):
        fit(HOURS[:7], HOURS[:7], tolerance=1)


def test_a_plan_that_makes_too_few_samples_is_refused_before_an_hour_is_spent() -> None:
    with pytest.raises(BadRequestError, match=r"--minutes 0\.5"):
        Plan(minutes=0.5)
    assert Plan(minutes=1, sample_s=1).change_s == 20


def held(mib: float, threads: int = 10) -> Held:
    return Held(
        private_bytes=int(mib * MIB),
        rss_bytes=int(2 * mib * MIB),
        pss_bytes=int(mib * MIB),
        threads=threads,
        descriptors=20,
    )


def made(leak_mib_per_hour: float = 0.0, **changes: object) -> Soak:
    samples = tuple(
        Sample(
            at_s=hour * 3600,
            processes={"triton": held(50), "embedder_0_0": held(80 + leak_mib_per_hour * hour)},
            regions=5,
            region_bytes=5 * MIB,
            generations=0,
        )
        for hour in HOURS
    )
    soak = Soak(
        date="2026-01-01",
        machine=Machine(cpu="Some CPU", cores=2, memory_gib=23.5, system="Linux"),
        command="python -m tritonrag_perf.soak",
        questions="500 questions",
        minutes=45,
        warm_up_s=600,
        rate_per_s=10,
        requests={"search": 1000, "bad": 100},
        failures={},
        changes={"add": 3},
        named=(),
        samples=samples,
    )
    return replace(soak, **changes)  # type: ignore[arg-type]


def test_a_flat_run_says_so_and_a_leak_is_named_by_its_process() -> None:
    assert verdict(made()).startswith("**Flat")
    growing = made(leak_mib_per_hour=40).growing()
    assert "embedder_0_0: private MiB" in growing
    assert "all processes: private MiB" in growing
    assert not [name for name in growing if name.startswith("triton")]


def test_the_warm_up_is_in_no_trend() -> None:
    soak = made()
    early = [replace(one, regions=100) if one.at_s < 600 else one for one in soak.samples]
    assert made(samples=tuple(early)).growing() == []
    assert len(soak.kept) == 420


def test_the_page_names_failures_and_what_ended_it() -> None:
    page = render(
        made(failures={"search: deadline": 2}, named=("a bad request got x",), trouble="Triton is gone"),
        plot="soak.png",
    )
    for words in (
        "| search | 1,000 | 2 search: deadline |",
        "a bad request got x",
        "Triton is gone",
        "(soak.png)",
        "3 add",
    ):
        assert words in page


@pytest.mark.parametrize("plot", [False, True])
def test_every_sample_and_trend_is_in_the_record(tmp_path: Path, plot: bool) -> None:
    paths = write_soak(made(), tmp_path / "out", name="soak", plot=plot)
    assert [path.suffix for path in paths] == [".json", ".md", *([".png"] if plot else [])]
    record = json.loads(paths[0].read_text())
    assert len(record["samples"]) == len(HOURS)
    assert record["trends"]["triton: threads"]["verdict"] == "flat"
    assert all(path.stat().st_size for path in paths)


def test_what_a_process_holds_is_read_from_the_kernel() -> None:
    own = held_by(os.getpid())
    assert own.rss_bytes >= own.pss_bytes >= own.private_bytes > MIB
    assert own.threads >= 1
    assert own.descriptors >= 3


def test_a_sampler_samples_until_it_is_told_or_the_server_is_gone() -> None:
    sample = made().samples[0]
    with Sampler(lambda at_s: replace(sample, at_s=at_s), every_s=0.01) as sampler:
        assert wait_until(lambda: len(sampler.samples) >= 3)
    assert sampler.trouble == ""

    def gone(_: float) -> Sample:
        raise UnavailableError("gone")

    with Sampler(gone, every_s=0.01) as sampler:
        assert wait_until(lambda: sampler.trouble == "gone")


def test_a_process_that_is_another_ends_the_run() -> None:
    one = made().samples[0]
    other = replace(one, processes={"triton": one.processes["triton"]})
    following = iter((one, other))
    with Sampler(lambda _: next(following), every_s=0.01) as sampler:
        assert wait_until(lambda: "embedder_0_0" in sampler.trouble)
    assert len(sampler.samples) == 1


def test_only_what_did_not_end_as_it_should_is_a_failure() -> None:
    tally = Tally()
    tally.count("search")
    tally.count("bad", "answered")
    assert tally.requests == {"search": 1, "bad": 1}
    assert tally.failures == {"bad: answered": 1}
