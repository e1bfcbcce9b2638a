"""Each format is read as its reader would see it, with exact headings."""

from pathlib import Path

import pytest

from tritonrag_export.documents.errors import ContentError
from tritonrag_export.documents.format_docx import read_docx
from tritonrag_export.documents.format_html import read_html
from tritonrag_export.documents.format_markdown import read_markdown
from tritonrag_export.documents.format_pdf import read_pdf
from tritonrag_export.documents.format_rst import read_rst
from tritonrag_export.documents.model import Document
from tritonrag_export.documents.reading import read_document

SAMPLES = Path(__file__).parent.parent / "data" / "documents"


def headings(document: Document) -> list[tuple[int, str, str]]:
    return [(h.level, h.title, document.text[h.start : h.end]) for h in document.headings]


def test_markdown_is_kept_as_it_stands_behind_its_front_matter_and_its_headings_are_found() -> None:
    document = read_document(SAMPLES / "guide.md")
    assert document.text == (SAMPLES / "guide.md").read_text().split("---\n", 2)[2]
    assert (document.title, document.metadata) == ("Boat guide", {"date": "2026-01-01"})
    assert headings(document) == [
        (1, "Knots", "# Knots\n"),
        (2, "The reef knot", "## The `reef` *knot*\n"),
        (1, "Splices", "Splices\n=======\n"),
    ]


def test_markdown_without_front_matter_takes_its_first_heading_as_title() -> None:
    assert read_markdown(b"text\n\n## Second level\n").title == "Second level"
    assert read_markdown(b"no heading").title is None


def test_headings_in_quotations_and_lists_structure_nothing() -> None:
    assert read_markdown(b"> # quoted\n\n- # listed\n").headings == ()


def test_rst_is_kept_as_it_stands_and_its_headings_are_found() -> None:
    document = read_document(SAMPLES / "guide.rst")
    assert document.text == (SAMPLES / "guide.rst").read_text()
    assert document.title == "Boat guide"
    assert headings(document) == [
        (1, "Boat guide", "==========\nBoat guide\n==========\n"),
        (2, "Knots and bends", "Knots and :ref:`bends <bends>`\n------------------------------\n"),
        (3, "The reef knot", "The ``reef`` knot\n~~~~~~~~~~~~~~~~~\n"),
        (2, "Splices", "Splices\n-------\n"),
    ]


def test_rst_never_includes_other_files(tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("Secret\n======\n\nhidden\n")
    content = read_rst(f"Title\n=====\n\n.. include:: {secret}\n".encode())
    assert [h.title for h in content.headings] == ["Title"]


def test_rst_keeps_its_headings_beside_a_line_longer_than_docutils_allows() -> None:
    content = read_rst(b"Title\n=====\n\n" + b"x" * 20_000 + b"\n")
    assert [h.title for h in content.headings] == ["Title"]


def test_rst_nested_too_deeply_for_docutils_is_read_without_headings() -> None:
    deep = "".join(" " * depth + "- a\n\n" for depth in range(300))
    assert read_rst(deep.encode()).headings == ()


def test_rst_neighbouring_headings_with_the_same_underline_do_not_overlap() -> None:
    content = read_rst(b"One\n===\nTwo\n===\ntext\n")
    spans = [(h.start, h.end) for h in content.headings]
    assert spans == [(0, 8), (8, 16)]


def test_html_gives_what_a_reader_sees() -> None:
    document = read_document(SAMPLES / "guide.html")
    assert document.title == "Boat guide — Knots"
    assert headings(document) == [(1, "Knots", "Knots"), (2, "Reef", "Reef")]
    assert document.text == (
        'Knots\n\nThe bowline holds.\nUse it often.\n\ntie(\n    "bowline")\n\nReef\n\n'
        "- over\n- under\n\nknot | use\nreef | sails"
    )


@pytest.mark.parametrize("hidden", ["boo", "Home", "Copyright", "not shown", "color", "#"])
def test_html_leaves_out_what_is_not_for_reading(hidden: str) -> None:
    assert hidden not in read_document(SAMPLES / "guide.html").text


@pytest.mark.parametrize("sign", ["#", "\u00b6", " \u00a7 "])
def test_html_headings_lose_the_link_to_themselves_and_keep_the_sign_elsewhere(sign: str) -> None:
    page = f'<h2>C# <a href="/x">guide</a><span><a class="mark" href="#c">{sign}</a></span></h2><p>{sign.strip()}5</p>'
    content = read_html(page.encode())
    assert [heading.title for heading in content.headings] == ["C# guide"]
    assert content.text.endswith(f"{sign.strip()}5")


def test_html_takes_the_first_heading_where_there_is_no_title() -> None:
    assert read_html(b"<h2>Sub</h2><p>x").title == "Sub"


def test_html_obeys_the_charset_that_it_declares() -> None:
    page = '<meta charset="koi8-r"><p>Привет, мир'.encode("koi8-r")
    assert read_html(page).text == "Привет, мир"


def test_html_control_characters_written_as_references_do_not_come_through() -> None:
    assert not any(ord(c) < 32 and c != "\n" for c in read_html(b"<p>a&#1;b&#27;c").text)


def test_html_nested_a_hundred_thousand_deep_is_read() -> None:
    assert read_html(b"<div>" * 100_000 + b"core").text == "core"


def test_pdf_pages_begin_where_page_starts_says() -> None:
    document = read_document(SAMPLES / "guide.pdf")
    assert document.title == "Boat guide"
    first, second, _third = document.page_starts
    assert document.text[first:second].strip() == "A keel keeps the boat upright. The example is short."
    assert document.text[second:].strip() == "The rudder steers."


@pytest.mark.parametrize(("name", "reason"), [("encrypted", "is encrypted"), ("scanned", "2 pages without any text")])
def test_a_pdf_without_readable_text_says_why(name: str, reason: str) -> None:
    with pytest.raises(ContentError, match=reason):
        read_pdf((SAMPLES / f"{name}.pdf").read_bytes())


def test_docx_gives_headings_lists_and_tables() -> None:
    document = read_document(SAMPLES / "guide.docx")
    assert document.title == "Boat guide"
    assert headings(document) == [(1, "Sails", "Sails"), (2, "Main sail", "Main sail")]
    assert document.text == (
        "Sails\n\nA sail catches the wind. It is made of cloth.\n\nMain sail\n\n"
        "- hoist it\n- trim it\n\nSizes\nsmall | 12 m2"
    )


def test_an_old_or_encrypted_word_file_says_so() -> None:
    with pytest.raises(ContentError, match=r"encrypted, or an old \.doc"):
        read_docx(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 100)


@pytest.mark.parametrize("kept", [0, 10, 1000, 20_000])
def test_a_truncated_word_file_is_called_damaged(kept: int) -> None:
    with pytest.raises(ContentError, match="damaged"):
        read_docx((SAMPLES / "guide.docx").read_bytes()[:kept])


def test_a_truncated_pdf_is_called_damaged() -> None:
    with pytest.raises(ContentError, match="damaged"):
        read_pdf((SAMPLES / "guide.pdf").read_bytes()[:40])
