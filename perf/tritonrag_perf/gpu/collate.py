"""Records of parts, measured in one run or in several, as one file and one page.

python -m tritonrag_perf.gpu.collate FILE... --out DIR [--page docs/benchmarks/gpu.md]

FILE is what a part wrote (encoder.json, ...) or a gpu.json. Of a part that was measured twice the last one given counts.
"""

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from tritonrag_client.errors import BadRequestError, RagError
from tritonrag_perf.gpu.page import is_shown, render
from tritonrag_perf.gpu.sheet import PARTS, read_json, write_json

RECORD: Final = "gpu.json"
_NEEDED: Final = frozenset(
    {"part", "status", "device", "scale", "card", "checks", "notes", "tables", "versions", "command"}
)


def read_parts(path: Path) -> list[dict[str, Any]]:
    """The records in a file. Raises BadRequestError where it holds none."""
    data = read_json(path)
    parts = data.get("parts", [data])
    for part in parts:
        if not isinstance(part, dict) or not part.keys() >= _NEEDED or part["part"] not in PARTS:
            raise BadRequestError(f"{path} is no record of a part; give what `python -m tritonrag_perf.gpu` wrote")
    return list(parts)


def write_records(records: Sequence[dict[str, Any]], out: Path, *, page: Path | None = None) -> None:
    """Write `gpu.json` and `gpu.md` in `out`, with what was there of other parts.

    The same for `page` and a JSON file beside it, but of parts that ran on a GPU at full scale alone: others make no figures.
    """
    _merge(records, out / RECORD, out / "gpu.md")
    shown = [record for record in records if is_shown(record)]
    if page is not None and shown:
        _merge(shown, page.with_suffix(".json"), page)


def _merge(records: Iterable[dict[str, Any]], path: Path, page: Path) -> None:
    every = {part["part"]: part for part in (read_parts(path) if path.is_file() else [])}
    every |= {part["part"]: part for part in records}
    ordered = [every[name] for name in PARTS if name in every]
    write_json(path, {"parts": ordered})
    page.write_text(render(ordered), encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> None:
    """The command. Exits with the error's message where a file holds no record."""
    parser = argparse.ArgumentParser(prog="tritonrag_perf.gpu.collate", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("records", type=Path, nargs="+", metavar="FILE")
    parser.add_argument("--out", type=Path, required=True, help="folder for gpu.json")
    parser.add_argument("--page", type=Path, help="page to write too, with the records beside it")
    options = parser.parse_args(argv)
    try:
        parts = [part for path in options.records for part in read_parts(path)]
        write_records(parts, options.out, page=options.page)
    except RagError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
