"""Plain text: as it stands."""

from tritonrag_export.documents.content import Content
from tritonrag_export.documents.text import clean, decode


def read_text(data: bytes) -> Content:
    """Read a text file. It has no headings: what looks like one in free text is a guess, and a wrong one cuts passages."""
    return Content(text=clean(decode(data)))
