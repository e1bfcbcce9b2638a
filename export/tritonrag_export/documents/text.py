"""From bytes to clean text: encodings, line ends, control characters."""

import codecs
import logging
import re
from typing import Final

import charset_normalizer

from tritonrag_export.documents.errors import ContentError

_LOG = logging.getLogger(__name__)

# UTF-32 first: its little-endian mark begins with that of UTF-16.
_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_SAMPLE_BYTES: Final = 262_144  # what the guess looks at: it decodes its input dozens of times over
_REPLACEMENT: Final = "\ufffd"

_LINE_ENDS: Final = re.compile("\r\n|[\r\x0b\x0c\x85\u2028\u2029]")
_CONTROLS: Final = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f]")
_SURROGATES: Final = re.compile("[\ud800-\udfff]")
# Text has next to none of them; colour codes in a log are about one character in fifty.
_MAX_CONTROL_SHARE: Final = 0.05


def decode(data: bytes, *, declared: str | None = None) -> str:
    """Decode a text file: by its byte order mark, as UTF-8, as what it `declared` itself to be, else by a guess.

    Raises ContentError for bytes that are no text in any encoding.
    """
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return _decode_as(data.removeprefix(mark), encoding)
    if b"\0" in data:
        raise ContentError("holds NUL bytes, so it is a binary file; if it is UTF-16 text, save it as UTF-8")
    try:
        return data.decode()
    except UnicodeDecodeError:
        return _decode_other(data, declared)


def scrub(text: str) -> str:
    """One newline character per line end, no byte order marks, each control character but the tab a space."""
    text = _LINE_ENDS.sub("\n", text.replace("\ufeff", ""))
    return _SURROGATES.sub(_REPLACEMENT, _CONTROLS.sub(" ", text))


def clean(text: str) -> str:
    """`scrub` a text file. Raises ContentError where it holds so many control characters that it is none."""
    count = sum(1 for _ in _CONTROLS.finditer(text))
    if count > _MAX_CONTROL_SHARE * len(text):
        raise ContentError(f"is a binary file: {count} of its {len(text)} characters are control characters")
    return scrub(text)


def one_line(text: str, *, limit: int = 120) -> str:
    """A title fit to be shown: white space collapsed, cut with an ellipsis after `limit` characters."""
    line = " ".join(text[: 8 * limit].split())
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


def _decode_as(data: bytes, encoding: str) -> str:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise ContentError(
            f"begins like {encoding.upper()} text but byte {error.start} is not; save it as UTF-8"
        ) from error


def _decode_other(data: bytes, declared: str | None) -> str:
    damaged = data.decode(errors="replace")
    wrong = damaged.count(_REPLACEMENT)
    if wrong * 10 <= sum(1 for _ in re.finditer(r"[^\x00-\x7f]", damaged)):
        # Nine good multi-byte characters to a bad one come about in no other encoding: UTF-8 with damage.
        _LOG.warning("UTF-8 text with %d damaged characters, shown as %s", wrong, _REPLACEMENT)
        return damaged
    encoding = declared or _guess(data)
    try:
        text = data.decode(encoding)
    except (UnicodeDecodeError, LookupError) as error:
        raise ContentError(f"is neither UTF-8 nor {encoding} text; save it as UTF-8") from error
    _LOG.info("read as %s", encoding)
    return text


def _guess(data: bytes) -> str:
    sample = data[:_SAMPLE_BYTES]
    if len(data) > len(sample):
        sample = sample[: sample.rfind(b"\n") + 1] or sample  # a cut inside a character would spoil the guess
    match = charset_normalizer.from_bytes(sample).best()
    if match is None:
        raise ContentError("is text in no encoding that we can tell; save it as UTF-8")
    return match.encoding
