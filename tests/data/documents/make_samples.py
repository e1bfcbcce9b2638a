"""Makes the binary sample documents that lie beside this file: `python tests/data/documents/make_samples.py`."""

from collections.abc import Sequence
from pathlib import Path

import docx

HERE = Path(__file__).parent


def pdf(pages: Sequence[Sequence[str]], *, title: str = "", is_encrypted: bool = False) -> bytes:
    """A PDF with these lines on these pages."""
    kids = " ".join(f"{4 + 2 * i} 0 R" for i in range(len(pages)))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>".encode(),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for i, lines in enumerate(pages):
        shown = " ".join(f"({line}) Tj T*" for line in lines)
        stream = f"BT /F1 12 Tf 72 720 Td 14 TL {shown} ET".encode("latin-1")
        resources = "/Resources << /Font << /F1 3 0 R >> >>"
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {5 + 2 * i} 0 R {resources} >>".encode()
        )
        objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream))
    trailer = ""
    if title:
        objects.append(f"<< /Title ({title}) >>".encode())
        trailer += f" /Info {len(objects)} 0 R"
    if is_encrypted:  # with a password that nobody knows: the check values are made up
        objects.append(b"<< /Filter /Standard /V 1 /R 2 /P -4 /O <" + b"ab" * 32 + b"> /U <" + b"cd" * 32 + b"> >>")
        trailer += f" /Encrypt {len(objects)} 0 R /ID [<00><00>]"
    return _assembled(objects, trailer)


def _assembled(objects: Sequence[bytes], trailer: str) -> bytes:
    out, offsets = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    head = b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    tail = f"trailer << /Size {len(objects) + 1} /Root 1 0 R{trailer} >>\nstartxref\n{len(out)}\n%%EOF\n".encode()
    return out + head + table + tail


def save_docx(path: Path) -> None:
    """A Word document with headings, a list and a table with a merged cell."""
    document = docx.Document()
    document.core_properties.title = "Boat guide"
    document.add_heading("Sails", level=1)
    document.add_paragraph("A sail catches the wind. It is made of cloth.")
    document.add_heading("Main sail", level=2)
    document.add_paragraph("hoist it", style="List Bullet")
    document.add_paragraph("trim it", style="List Bullet")
    table = document.add_table(rows=2, cols=2)
    table.cell(0, 0).merge(table.cell(0, 1)).text = "Sizes"
    table.cell(1, 0).text, table.cell(1, 1).text = "small", "12 m2"
    document.save(str(path))


if __name__ == "__main__":
    lines = ["A keel keeps the boat upright. The exam-", "ple is short."]
    (HERE / "guide.pdf").write_bytes(pdf([lines, ["The rudder steers."], []], title="Boat guide"))
    (HERE / "encrypted.pdf").write_bytes(pdf([["secret"]], is_encrypted=True))
    (HERE / "scanned.pdf").write_bytes(pdf([[], []]))
    save_docx(HERE / "guide.docx")
