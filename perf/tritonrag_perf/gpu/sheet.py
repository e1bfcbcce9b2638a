"""The record that a part writes while it runs: saved after each entry, so that one that is cut off leaves what it had."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final, Literal

from tritonrag_client.errors import BadRequestError
from tritonrag_perf.gpu.card import Card
from tritonrag_perf.gpu.timing import Spread
from tritonrag_perf.machine import Machine

PartName = Literal["encoder", "faiss", "server", "llm"]
Device = Literal["cpu", "cuda"]
Scale = Literal["full", "tiny"]
PARTS: Final[tuple[PartName, ...]] = ("encoder", "faiss", "server", "llm")

# Whose versions a figure may hang on; those that are not installed are left out.
_LIBRARIES: Final = (
    "torch", "transformers", "numpy", "onnxruntime", "onnxruntime-gpu", "tensorrt", "faiss-cpu", "faiss-gpu-cuvs", "faiss-gpu",
    "libcuvs-cu13", "nvidia-pytriton", "tritonclient", "tokenizers", "tensorrt-llm", "onnxruntime-genai-cuda",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What every part says of its run. `card` None: no GPU was used."""

    part: PartName
    device: Device
    scale: Scale
    command: str
    card: Card | None


class Sheet:
    """Tables of figures, checks and notes of one part. A check that fails fails the part, and the part goes on."""

    def __init__(self, path: Path, header: Header) -> None:
        self._path = path
        self._began_s = time.monotonic()
        self._data: dict[str, Any] = {
            "part": header.part,
            "status": "running",
            "error": "",
            "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
            "device": header.device,
            "scale": header.scale,
            "card": None if header.card is None else header.card.to_dict(),
            "machine": str(Machine.this()),
            "versions": library_versions(),
            "command": header.command,
            "seconds": 0.0,
            "checks": [],
            "notes": [],
            "tables": {},
        }
        self.save()

    @property
    def failed(self) -> bool:
        """Whether a check failed so far."""
        return not all(check["ok"] for check in self._data["checks"])

    def row(self, table: str, **cells: str | float | bool | Spread | Mapping[str, Any]) -> None:
        """Add a row to a table."""
        row = {name: cell.to_dict() if isinstance(cell, Spread) else cell for name, cell in cells.items()}
        self._data["tables"].setdefault(table, []).append(row)
        self.save()

    def check(self, name: str, *, ok: bool, found: object, wanted: object) -> None:
        """Record whether what was found is what was wanted."""
        self._data["checks"].append({"name": name, "ok": bool(ok), "found": str(found), "wanted": str(wanted)})
        self.save()

    def at_least(self, name: str, found: float, floor: float) -> None:
        """A check of a number; one that is NaN fails."""
        self.check(name, ok=found >= floor, found=f"{found:.6g}", wanted=f"at least {floor:g}")

    def at_most(self, name: str, found: float, ceiling: float) -> None:
        """A check of a number; one that is NaN fails."""
        self.check(name, ok=found <= ceiling, found=f"{found:.6g}", wanted=f"at most {ceiling:g}")

    def note(self, text: str) -> None:
        """What a reader of the figures must know."""
        self._data["notes"].append(text)
        self.save()

    def end(self, error: str = "") -> None:
        """The last entry: `error` is why the part could not go on, "" where it got to its end."""
        self._data["error"] = error
        self._data["status"] = "failed" if error or self.failed else "ok"
        self.save()

    def save(self) -> None:
        """Write the record, whole or not at all."""
        self._data["seconds"] = round(time.monotonic() - self._began_s, 1)
        write_json(self._path, self._data)


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write a JSON file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(f".{path.name}.half")
    half.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    half.replace(path)


def read_json(path: Path) -> dict[str, Any]:
    """Read a record. Raises BadRequestError where it can't be read or holds none."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadRequestError(f"the record {path} can't be read: {error}; measure again") from error
    if not isinstance(data, dict):
        raise BadRequestError(f"{path} holds no record but a {type(data).__name__}; measure again")
    return data


def library_versions(names: Sequence[str] = _LIBRARIES) -> dict[str, str]:
    """The versions of those that are installed."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
