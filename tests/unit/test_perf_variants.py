"""Variants of a server are compared with the first of them, round by round."""

import json
from pathlib import Path

import pytest

from tritonrag_client.errors import BadRequestError
from tritonrag_perf.load import Load
from tritonrag_perf.machine import Machine
from tritonrag_perf.variants import Variant
from tritonrag_perf.variants_report import Served, VariantsRecord, render, write_variants

ONE, MANY = Load(model="retrieve", concurrency=1), Load(model="retrieve", concurrency=64)
MACHINE = Machine(cpu="Some CPU", cores=2, memory_gib=8, system="Linux")


def served(number: int, variant: str, load: Load, rate: float) -> Served:
    return Served(
        round=number, variant=variant, load=load, questions_per_s=rate, p50_ms=1000 / rate, p99_ms=9, client_cores=0.1
    )


RECORD = VariantsRecord(
    machine=MACHINE,
    command="python -m tritonrag_perf.variants ...",
    questions="5 questions",
    variants={"plain": {"TRITONRAG_RETRIEVE_FUSED": "false"}, "fused": {}},
    served=(
        served(1, "plain", MANY, 100),
        served(1, "fused", MANY, 150),
        served(2, "fused", MANY, 100),
        served(2, "plain", MANY, 50),
        served(3, "plain", MANY, 100),
        served(3, "fused", MANY, 90),
        served(1, "plain", ONE, 10),
        served(1, "fused", ONE, 20),
    ),
)


def test_ratios_are_taken_within_a_round() -> None:
    ratio = RECORD.ratio("fused", MANY)
    assert (ratio.median, ratio.low, ratio.high) == (1.5, 0.9, 2.0)
    assert RECORD.ratio("plain", MANY).low == 1


def test_the_page_tells_machine_command_and_variants_and_has_a_row_for_each_load_of_each() -> None:
    page = render(RECORD)
    for said in ("Some CPU", RECORD.command, "`TRITONRAG_RETRIEVE_FUSED=false`", "`fused`: the defaults"):
        assert said in page
    rows = [line for line in page.splitlines() if line.startswith("| retrieve")]
    assert [row.split("|")[2].strip() for row in rows] == ["`plain`", "`fused`"] * 2
    assert "1.50 (0.90-2.00)" in rows[-1]


def test_every_sample_is_kept(tmp_path: Path) -> None:
    data, _ = write_variants(RECORD, tmp_path, "variants")
    assert len(json.loads(data.read_text())["served"]) == len(RECORD.served)


def test_a_variant_is_a_name_with_variables() -> None:
    assert Variant.parse("a:X=1,Y=b=c").variables == {"X": "1", "Y": "b=c"}
    assert Variant.parse("defaults:").variables == {}


@pytest.mark.parametrize("text", ["", "name", ":X=1", "a:X", "a:=1"])
def test_what_is_no_variant_is_refused_by_its_text(text: str) -> None:
    with pytest.raises(BadRequestError, match="give NAME:VARIABLE=VALUE"):
        Variant.parse(text)
