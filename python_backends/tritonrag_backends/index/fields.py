"""Keys of the postings `fields`: which document and tenant a passage is of, and what its metadata holds.

    NUL "d" NUL document                    a document that belongs to no tenant
    NUL "d" SOH tenant NUL document         a tenant's document
    NUL "t" tenant                          a passage that belongs to a tenant
    field NUL "b" (NUL or SOH)              the field holds false or true
    field NUL "n" float64 rest              a number
    field NUL "s" UTF-8                     a string

Bytes order as values do, so that a range of values is a range of keys. A number is the largest float64 that is not above it
(8 bytes, big endian, its sign so turned that bytes order as values do) and what it is short of the number (2 bytes): integers of
64 bits and floats compare exactly, 5 and 5.0 are one key. Strings order by code point. NUL and SOH in a field's name are escaped.
"""

import json
import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from tritonrag_backends.index.filters import Scalar
from tritonrag_client.errors import BadRequestError

ALL_DOCUMENTS: Final = (b"\0d", b"\0e")  # from, to
ALL_TENANTS: Final = (b"\0t", b"\0u")
MOST_STRING_BYTES: Final = 1_024
# The filter language gives these another meaning, so no filter could name them.
RESERVED: Final = frozenset({"", "and", "or", "not"})

_BOOLEAN, _NUMBER, _STRING = b"b", b"n", b"s"
_SIGN: Final = 1 << 63
_ALL_BITS: Final = (1 << 64) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentKey:
    """A document by its id, which is unique within a tenant; None: it belongs to nobody."""

    document: str
    tenant: str | None


def document_key(document: str, tenant: str | None) -> bytes:
    """The key that a document's passages bear. Raises BadRequestError where an id holds NUL."""
    owner = b"\0" if tenant is None else b"\1" + _checked(tenant, "tenant") + b"\0"
    return ALL_DOCUMENTS[0] + owner + _checked(document, "document id")


def decode_document_key(key: bytes) -> DocumentKey:
    """What `document_key` was given."""
    rest = key[len(ALL_DOCUMENTS[0]) :]
    tenant, _, document = rest[1:].partition(b"\0") if rest[:1] == b"\1" else (None, b"", rest[1:])
    return DocumentKey(document=document.decode(), tenant=None if tenant is None else tenant.decode())


def tenant_key(tenant: str) -> bytes:
    """The key that a tenant's passages bear. Raises BadRequestError where the tenant holds NUL."""
    return ALL_TENANTS[0] + _checked(tenant, "tenant")


def field_key(field: str, value: Scalar) -> bytes:
    """The key of passages whose field holds this value: a string, a boolean, a finite float or an integer of 64 bits."""
    return _prefix(field) + _encode(value)


def field_span(field: str) -> tuple[bytes, bytes]:
    """From which key on, and up to before which, passages have the field at all."""
    prefix = _prefix(field)
    return prefix, prefix[:-1] + b"\1"


def type_span(field: str, like: float | str) -> tuple[bytes, bytes]:
    """The same for passages whose field holds a number, or a string, as `like` is one."""
    prefix, kind = _prefix(field), _STRING if isinstance(like, str) else _NUMBER
    return prefix + kind, prefix + bytes([kind[0] + 1])


def key_after(key: bytes) -> bytes:
    """The least key that is greater: a bound that leaves `key` itself out, or lets it in."""
    return key + b"\0"


def metadata_keys(
    metadata: Mapping[str, object], declared: frozenset[str] | None
) -> tuple[set[bytes], set[str], set[str]]:
    """The keys of a passage's metadata, the fields that have one, and the fields that can't be filtered by.

    A list's elements each have a key; null and an empty list have none. A value that can't be filtered by is an object, a list
    within a list, a string over 1,024 bytes, an integer beyond 64 bits, NaN or infinity. With `declared` only those fields are
    looked at, and such a value raises BadRequestError; without, its field is told as unfilterable and has no keys here.
    """
    keys: set[bytes] = set()
    fields: set[str] = set()
    unfilterable: set[str] = set()
    for field, value in metadata.items():
        if declared is not None and field not in declared:
            continue
        elements = list(_elements(value))
        wrong = [element for element in elements if field in RESERVED or not _is_filterable(element)]
        if wrong and declared is not None:
            raise BadRequestError(_refusal(field, wrong[0]))
        if wrong:
            unfilterable.add(field)
        elif elements:
            fields.add(field)
            prefix = _prefix(field)
            keys.update(prefix + _encode(element) for element in elements if isinstance(element, Scalar))
    return keys, fields, unfilterable


def _elements(value: object) -> Iterator[object]:
    """A list's elements, or the one value; null is no value."""
    for element in value if isinstance(value, list | tuple) else (value,):
        if element is not None:
            yield element


def _is_filterable(value: object) -> bool:
    if isinstance(value, str):
        return len(value) <= MOST_STRING_BYTES and len(_utf8(value)) <= MOST_STRING_BYTES
    if isinstance(value, int):  # booleans are integers to Python
        return -(2**63) <= value < 2**63
    return isinstance(value, float) and math.isfinite(value)


def _encode(value: Scalar) -> bytes:
    if isinstance(value, bool):
        return _BOOLEAN + (b"\1" if value else b"\0")
    if isinstance(value, str):
        return _STRING + _utf8(value)
    below = float(value) + 0.0  # which makes 0.0 of -0.0
    if below > value:  # Python compares the two exactly
        below = math.nextafter(below, -math.inf)
    rest = int(value) - int(below) if isinstance(value, int) else 0
    bits = int.from_bytes(struct.pack(">d", below), "big")
    bits ^= _ALL_BITS if bits & _SIGN else _SIGN
    return _NUMBER + struct.pack(">QH", bits, rest)


def _prefix(field: str) -> bytes:
    return _utf8(field).replace(b"\1", b"\1\2").replace(b"\0", b"\1\1") + b"\0"


def _utf8(text: str) -> bytes:
    # A lone surrogate is let pass here: writing the passage refuses it, and says where it is.
    return text.encode(errors="surrogatepass")


def _checked(name: str, what: str) -> bytes:
    if "\0" in name:
        raise BadRequestError(f"{what} {name!a} holds the character NUL; use one without")
    return _utf8(name)


def _refusal(field: str, value: object) -> str:
    shown = json.dumps(value, default=str)
    shown = shown if len(shown) <= 60 else shown[:57] + "..."  # noqa: PLR2004 - a line of a terminal
    return (
        f"the metadata field {field!a} holds {shown}, which can't be filtered by; give a string of at most {MOST_STRING_BYTES} "
        "bytes, a finite number within 64 bits, true, false or a list of these, or do not declare the field (--field)"
    )
