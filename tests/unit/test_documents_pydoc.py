"""The demo corpus: what the running Python says about itself."""

import io
import json
import sys
import threading
from contextlib import redirect_stdout

import pytest

from tritonrag_export.documents.finding import Skipped
from tritonrag_export.documents.model import Document
from tritonrag_export.documents.pydoc_corpus import module_document, pydoc_documents, topic_document


@pytest.fixture(scope="module")
def told() -> tuple[dict[str, Document], list[Skipped], str]:
    """The documents by uri, what was left out, and what was printed meanwhile."""
    skipped: list[Skipped] = []
    threads = set(threading.enumerate())
    with redirect_stdout(io.StringIO()) as printed:
        documents = {document.uri: document for document in pydoc_documents(skipped.append)}
    assert set(threading.enumerate()) <= threads, "a module has started a thread"
    return documents, skipped, printed.getvalue()


@pytest.fixture(scope="module")
def corpus(told: tuple[dict[str, Document], list[Skipped], str]) -> dict[str, Document]:
    return told[0]


def test_there_is_a_document_for_each_public_module_and_topic(corpus: dict[str, Document]) -> None:
    assert len(corpus) > 300
    assert {"pydoc:json", "pydoc:os.path", "pydoc:asyncio", "pydoc:topics/assert", "pydoc:concurrent.futures"} <= set(
        corpus
    )
    assert not any("._" in uri or ":_" in uri for uri in corpus)


@pytest.mark.parametrize(
    "name", ["json.loads", "pickle.loads", "os.path.join", "asyncio.run", "builtins.open", "builtins.dict.get", "threading.Lock",
             "random.shuffle", "subprocess.run", "sqlite3.connect", "datetime.datetime.strptime", "itertools.chain"]
)  # fmt: skip
def test_what_people_ask_about_is_documented_under_the_name_they_use(corpus: dict[str, Document], name: str) -> None:
    assert any(f"\n{name}(" in document.text for document in corpus.values())


def test_a_function_stands_behind_its_signature_under_a_heading_of_its_own(corpus: dict[str, Document]) -> None:
    document = corpus["pydoc:json"]
    (heading,) = (h for h in document.headings if h.title == "loads")
    assert heading.start == heading.end
    assert document.text[heading.start :].startswith("json.loads(s, *, cls=None,")
    assert json.loads.__doc__ is not None
    assert json.loads.__doc__.split("\n")[0] in document.text


def test_methods_stand_a_level_below_their_class(corpus: dict[str, Document]) -> None:
    levels = [(h.level, h.title) for h in corpus["pydoc:json"].headings]
    assert levels.index((1, "JSONDecoder")) + 1 == levels.index((2, "decode"))


def test_what_several_modules_export_is_told_once(corpus: dict[str, Document]) -> None:
    assert "JSONDecoder" in {h.title for h in corpus["pydoc:json"].headings}
    assert "JSONDecoder" not in {h.title for h in corpus["pydoc:json.decoder"].headings}


def test_a_topic_has_the_title_of_its_first_heading(corpus: dict[str, Document]) -> None:
    assert corpus["pydoc:topics/assert"].title == "The assert statement"


def test_a_topic_leaves_out_the_sections_that_another_has_told() -> None:
    source = 'The "if" statement\n******************\n\nIf.\n\nElse\n====\n\nElse.\n'
    told = {"Else."}
    document = topic_document("if", source, told)
    assert document.text == 'The "if" statement\n******************\n\nIf.\n\n'
    assert [h.title for h in document.headings] == ["The if statement"]
    assert told == {"Else.", "If.", ""}


def test_headings_are_in_order_and_inside_the_text(corpus: dict[str, Document]) -> None:
    for document in corpus.values():
        position = 0
        for heading in document.headings:
            assert position <= heading.start <= heading.end <= len(document.text)
            position = heading.end


def test_no_memory_address_makes_two_runs_differ(corpus: dict[str, Document]) -> None:
    assert not any(
        " object at 0x" in line
        for d in corpus.values()
        if "/" not in d.uri
        for line in d.text.split("\n")
        if "(" in line[:40]
    )
    again = {document.uri: document for document in pydoc_documents(lambda _: None)}
    assert again == corpus


def test_modules_with_side_effects_are_left_out_and_named(told: tuple[dict[str, Document], list[Skipped], str]) -> None:
    documents, skipped, printed = told
    reasons = {item.path: item.reason for item in skipped}
    assert "opens a web browser" in reasons["pydoc:antigravity"]
    assert {"pydoc:this", "pydoc:tkinter", "pydoc:test"} - set(reasons) <= {
        "pydoc:tkinter",
        "pydoc:test",
    }  # not in every build
    assert not {"pydoc:this", "pydoc:antigravity", "pydoc:idlelib", "pydoc:tkinter"} & set(documents)
    assert printed == ""
    assert "antigravity" not in sys.modules


def test_a_module_without_documentation_has_no_text() -> None:
    assert module_document("types", type(sys)("empty"), set()).text == ""
