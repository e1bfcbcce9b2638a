"""The GPUs that can be planned for: memory, bandwidth and dense tensor throughput as NVIDIA's data sheets give them."""

import re
from dataclasses import dataclass
from typing import Final

from tritonrag.planning.quantities import GB
from tritonrag_client.errors import BadRequestError

_T: Final = 10**12
_MOST_GPUS: Final = 1024
_GPUS: Final = re.compile(r"(\d+)\s*x\s*(.+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One GPU. `memory_bytes` counts the data sheet's GB as 10**9, which is at most what the driver shows.

    `flops` are those of the tensor cores per second, dense (data sheets often show twice as many, with sparsity), accumulated in
    FP32. 0: the GPU has no such arithmetic. `link`: how GPUs of one machine talk.
    """

    name: str
    memory_bytes: int
    bytes_s: float
    fp16_flops: float
    fp8_flops: float = 0.0
    fp4_flops: float = 0.0
    link: str = "PCIe"
    source: str


def _card(
    name: str, gb: float, gb_s: float, fp16: float, *, fp8: float = 0, fp4: float = 0, link: str = "PCIe", source: str
) -> Card:
    return Card(
        name=name,
        memory_bytes=round(gb * GB),
        bytes_s=gb_s * GB,
        fp16_flops=fp16 * _T,
        fp8_flops=fp8 * _T,
        fp4_flops=fp4 * _T,
        link=link,
        source=source,
    )


# GB, GB/s, TFLOP/s. Where a data sheet shows throughput with sparsity alone, half of it.
CARDS: Final = {
    card.name: card
    for card in (
        _card("H100", 80, 3350, 989.5, fp8=1979, link="NVLink", source="NVIDIA H100 data sheet, SXM"),
        _card("H200", 141, 4800, 989.5, fp8=1979, link="NVLink", source="NVIDIA H200 data sheet, SXM"),
        _card(
            "B200", 180, 8000, 2250, fp8=4500, fp4=9000, link="NVLink", source="NVIDIA DGX B200 data sheet, an eighth"
        ),
        _card("A100-80G", 80, 2039, 312, link="NVLink", source="NVIDIA A100 data sheet, SXM 80 GB"),
        _card("A100-40G", 40, 1555, 312, link="NVLink", source="NVIDIA A100 data sheet, 40 GB"),
        _card("L40S", 48, 864, 362, fp8=733, source="NVIDIA L40S data sheet"),
        _card("L4", 24, 300, 121, fp8=242, source="NVIDIA L4 data sheet"),
        _card("A10", 24, 600, 125, source="NVIDIA A10 data sheet"),
        _card("T4", 16, 300, 65, source="NVIDIA T4 data sheet"),
        _card("RTX4090", 24, 1008, 165.2, fp8=330.3, source="NVIDIA Ada GPU architecture white paper"),
        _card(
            "RTX5090", 32, 1792, 209.5, fp8=419, fp4=1676, source="NVIDIA RTX Blackwell GPU architecture white paper"
        ),
    )
}


def parse_gpus(text: str) -> tuple[int, Card | None]:
    """How many GPUs of which kind: "4xH200", "1xcustom:48,900,180" (GB, GB/s, FP16 TFLOP/s[, FP8 TFLOP/s]), "none".

    Raises BadRequestError for anything else.
    """
    if text.strip().lower() == "none":
        return 0, None
    match = _GPUS.fullmatch(text.strip())
    if match is None or not 1 <= int(match[1]) <= _MOST_GPUS:
        raise BadRequestError(f"--gpus is {text!r}; write NxNAME as in 4xH200 (N from 1 to {_MOST_GPUS}), or none")
    return int(match[1]), _named(match[2].strip())


def _named(name: str) -> Card:
    if name.lower().startswith("custom:"):
        return _custom(name)
    found = {_plain(known): card for known, card in CARDS.items()}.get(_plain(name))
    if found is None:
        raise BadRequestError(
            f"the GPU {name!r} is not in our table; take one of {', '.join(CARDS)}, or custom:GB,GB/s,TFLOP/s"
        )
    return found


def _plain(name: str) -> str:
    return re.sub(r"[^A-Z0-9]", "", name.upper()).removeprefix("GEFORCE").removesuffix("B")


def _custom(text: str) -> Card:
    try:
        numbers = [float(number) for number in text.partition(":")[2].split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in {3, 4} or not all(0 < number < 10**6 for number in numbers):
        raise BadRequestError(
            f"the GPU {text!r} can't be read; write custom:GB,GB/s,FP16 TFLOP/s[,FP8 TFLOP/s], as in custom:48,900,180"
        )
    memory, bandwidth, fp16, *fp8 = numbers
    return _card("custom", memory, bandwidth, fp16, fp8=fp8[0] if fp8 else 0.0, source="as given on the command line")
