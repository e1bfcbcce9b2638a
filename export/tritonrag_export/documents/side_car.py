"""Side-cars: `report.pdf.meta.json` beside `report.pdf` tells its title, its tenant and its metadata.

A document whose side-car can't be read is left out: without its tenant, everybody would see it.
"""

import codecs
import errno
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tritonrag_export.documents.errors import ContentError, FieldError
from tritonrag_export.documents.files import read_bytes
from tritonrag_export.documents.finding import SIDE_CAR_SUFFIX, display_name
from tritonrag_export.documents.json_object import parse_object
from tritonrag_export.documents.metadata import check_metadata, check_string, check_tenant
from tritonrag_export.documents.text import one_line

_MOST_BYTES: Final = 1 << 20  # 16 times the metadata that it may hold: room for layout and escapes
_ADVICE: Final = "correct or remove it"


@dataclass(frozen=True, slots=True, kw_only=True)
class SideCar:
    """What a side-car tells of its document; None where it doesn't."""

    title: str | None
    tenant: str | None
    metadata: Mapping[str, Any]


def read_side_car(document: Path) -> SideCar | None:
    """The side-car of a document; None where there is none. Raises ContentError, a predicate of the document that names it."""
    found = side_cars(document)
    if not found:
        return None
    names = " and ".join(map(display_name, found))
    if len(found) > 1:
        raise ContentError(f"has two side-cars, {names}; keep one")
    try:
        return _parse(read_bytes(found[0], _MOST_BYTES, advice=_ADVICE, advice_if_long="shorten it"))
    except FieldError as error:
        raise ContentError(f"is left out because of its side-car {names}: {error}; {_ADVICE}") from error
    except ContentError as error:
        raise ContentError(f"is left out because its side-car {names} {error}") from error
    except OSError as error:
        raise ContentError(
            f"is left out because its side-car {names} can't be opened: {error.strerror}; check it and its permissions"
        ) from error


def side_cars(document: Path) -> list[Path]:
    """What stands where a side-car of this file would: beside it as named and, if that is a link, beside the file itself.

    Raises ContentError where that can't be told.
    """
    found: dict[str, Path] = {}
    for path in (document, Path(os.path.realpath(document))):
        side_car = path.with_name(path.name + SIDE_CAR_SUFFIX)
        if _exists(side_car):
            found.setdefault(os.path.realpath(side_car), side_car)
    return list(found.values())


def _exists(side_car: Path) -> bool:
    try:
        side_car.lstat()
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG}:
            return False
        raise ContentError(
            f"is left out because its side-car {display_name(side_car)} can't be looked for: {error.strerror}; "
            "check the folder's permissions"
        ) from error
    return True


def _parse(data: bytes) -> SideCar:
    fields = parse_object(data.removeprefix(codecs.BOM_UTF8))
    title, tenant = None, None
    if "title" in fields:
        title = one_line(check_string(fields.pop("title"), place="title")) or None
    if "tenant" in fields:
        tenant = check_tenant(fields.pop("tenant"))
    return SideCar(title=title, tenant=tenant, metadata=check_metadata(fields, place=""))
