"""The wall between tenants, end to end: whatever is asked, by whatever way, nobody sees what is another tenant's.

Two tenants and the public have near-identical documents, each with a word that is found nowhere else. A generated request may come
back with the public's words and its own tenant's; a word of somebody else anywhere in the response is a hole.
"""

import json
import re
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.server.wire import Failure, Wire, request, strings
from tritonrag.launcher import RunningServer, TritonServer
from tritonrag.triton_command import ServeOptions
from tritonrag_backends.embedding.encoder import Encoder
from tritonrag_backends.generation.cache_settings import CacheSettings
from tritonrag_backends.settings import EmbedderSettings, RetrieverSettings, Settings
from tritonrag_client.contract import Passage, decode_sources
from tritonrag_export.documents.model import DocumentPassages
from tritonrag_export.indexing import build_index

# Names that occur nowhere by chance, so that they can be looked for in logs and metrics.
ACME: Final = "tenant-acme-k3x9"
ZETA: Final = "tenant-zeta-q7w2"
WORDS: Final[dict[str | None, str]] = {None: "openword", ACME: "acmesecret", ZETA: "zetasecret"}
SECRETS: Final = {tenant: word for tenant, word in WORDS.items() if tenant}
TOPICS: Final = ("travel budget", "parental leave", "laptop refund", "office plants", "on-call pay", "server room")
# Who is none of the two, however near: these see what the public sees.
NOBODY: Final = (
    "", "nobody", ACME.upper(), ACME[:-1], f"{ACME} ", f" {ACME}", f"{ACME}\n", f"{ACME}\u200b", f"{ACME},{ZETA}", "*", "%",
    "null", "None", "[]", f'"{ACME}"', f"{ACME}' OR '1'='1", f"../{ACME}", "tenant-acme-k3\u04459",  # with a Cyrillic letter
)  # fmt: skip
CHANCES: Final = hypothesis_settings(
    max_examples=150, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)


def _document(tenant: str | None, topic: str, number: int) -> DocumentPassages:
    text = (
        f"The {topic} policy, part {number}: ask for approval in the portal, keep the receipt, and quote the code"
        f" {WORDS[tenant]}{topic.replace(' ', '').replace('-', '')}{number}. Requests are answered within {number} days."
    )
    passage = Passage(
        text=text,
        title=f"The {topic} policy",
        uri=f"{WORDS[tenant]}/{number}.md",
        start=0,
        end=len(text),
        metadata={"part": number},
    )
    return DocumentPassages(id=f"{topic}-{number}.md", tenant=tenant, passages=(passage,))


@pytest.fixture(scope="module")
def policies(tmp_path_factory: pytest.TempPathFactory, embedder_dir: Path) -> Path:
    folder = tmp_path_factory.mktemp("policies") / "index"
    units = [_document(tenant, topic, number) for topic in TOPICS for number in (1, 2) for tenant in WORDS]
    build_index(units, [Encoder.open(embedder_dir)], folder)
    return folder


@pytest.fixture(scope="module")
def walled(policies: Path, embedder_dir: Path) -> Iterator[RunningServer]:
    """Every cache that a server can have in its own memory is on."""
    settings = Settings(
        index=policies,
        embedder=EmbedderSettings(model=embedder_dir, instances=2),
        retriever=RetrieverSettings(cache_bytes=2**20),
        cache=CacheSettings(store="memory"),
    )
    triton = TritonServer()
    with triton:
        yield triton.start(ServeOptions(settings=settings, triton_arguments=("--log-verbose=1",)))
    assert triton.check_left_behind() == []


@pytest.fixture(scope="module")
def policy_wire(walled: RunningServer) -> Iterator[Wire]:
    connection = Wire(walled)
    yield connection
    connection.close()


def foreign_to(tenant: str | None) -> list[str]:
    """The words that this asker must not see."""
    return [word for owner, word in SECRETS.items() if owner != tenant]


def seen(answers: Sequence[dict[str, bytes] | Failure]) -> str:
    """Everything that came back, as text."""
    parts = [
        answer.message if isinstance(answer, Failure) else b" ".join(answer.values()).decode(errors="replace")
        for answer in answers
    ]
    return "\n".join(parts)


def ask(wire: Wire, model: str, inputs: dict[str, Any], tenant: str | None) -> list[dict[str, bytes] | Failure]:
    given = inputs if tenant is None else {**inputs, "tenant": tenant}
    message = request(model, given)
    return wire.stream(message) if model in {"rag", "generator"} else [wire.unary(message)]


ASKERS = st.one_of(st.sampled_from([None, ACME, ZETA]), st.sampled_from(NOBODY))
TEXTS = st.one_of(
    st.sampled_from([f"What is the {topic} policy?" for topic in TOPICS]),
    # Questions for the other's words by name, which a search by words finds where it may.
    st.sampled_from(
        [f"{word}{topic.replace(' ', '')}{n}" for word in WORDS.values() for topic in TOPICS for n in (1, 2)]
    ),
    st.text(min_size=1, max_size=20).filter(lambda text: text.strip() and "\0" not in text),
)
FILTERS = st.one_of(
    st.none(),
    st.sampled_from([{"part": 1}, {"part": {"gte": 1}}, {"not": {"part": 99}}, {"or": [{"part": 1}, {"part": 2}]}]),
    st.sampled_from([{"tenant": ACME}, {"part": {"exists": False}}]),
)
OPTIONS = st.fixed_dictionaries(
    {"text_input": TEXTS},
    optional={
        "num_passages": st.sampled_from([1, 3, 12, 36, 100]),
        "mode": st.sampled_from(["dense", "lexical", "hybrid"]),
    },
)


@CHANCES
@given(options=OPTIONS, condition=FILTERS, tenant=ASKERS)
def test_no_search_crosses_the_wall(
    policy_wire: Wire, options: dict[str, Any], condition: dict[str, Any] | None, tenant: str | None
) -> None:
    inputs = options if condition is None else {**options, "filter": json.dumps(condition)}
    answers = ask(policy_wire, "retrieve", inputs, tenant)
    assert not [word for word in foreign_to(tenant) if word in seen(answers)]


@CHANCES
@given(options=OPTIONS, tenant=ASKERS)
def test_no_search_by_a_vector_crosses_the_wall(policy_wire: Wire, options: dict[str, Any], tenant: str | None) -> None:
    embedded = policy_wire.unary(request("embedder", {"text_input": options["text_input"]}))
    assert isinstance(embedded, dict), embedded
    vector = np.frombuffer(embedded["embedding"], np.float32).reshape(1, -1)
    answers = ask(policy_wire, "retriever", {"embedding": vector, **options}, tenant)
    assert not [word for word in foreign_to(tenant) if word in seen(answers)]


@CHANCES
@given(
    options=OPTIONS,
    stream=st.booleans(),
    askers=st.lists(ASKERS, min_size=2, max_size=4),
    model=st.sampled_from(["rag", "generator"]),
)
def test_no_answer_and_no_source_crosses_the_wall_known_or_written(
    policy_wire: Wire, options: dict[str, Any], stream: bool, askers: list[str | None], model: str
) -> None:
    # The same question by several, one after the other: what is known of one must not be told to the next.
    for tenant in askers:
        answers = ask(policy_wire, model, {**options, "stream": stream}, tenant)
        assert not [word for word in foreign_to(tenant) if word in seen(answers)], tenant


def test_the_test_would_see_a_hole(policy_wire: Wire) -> None:
    for model in ("retrieve", "rag", "generator"):
        for tenant, word in SECRETS.items():
            inputs = {"text_input": "What is the travel budget policy?", "num_passages": 12}
            text = seen(ask(policy_wire, model, inputs, tenant))
            assert word in text, "its own tenant does not see it"
            assert WORDS[None] in text, "the public's documents are not seen"


def test_rows_of_several_tenants_in_one_request_stay_apart(policy_wire: Wire) -> None:
    tenants = [None, ACME, ZETA, "nobody"] * 8
    names = np.array([[(tenant or "").encode()] for tenant in tenants], object)
    texts = np.full((len(tenants), 1), b"What is the travel budget policy?", object)
    counts = np.full((len(tenants), 1), 36, np.int32)
    answer = policy_wire.unary(request("retrieve", {"text_input": texts, "tenant": names, "num_passages": counts}))
    assert isinstance(answer, dict), answer
    passages = strings(answer["passages"])
    for row, tenant in enumerate(tenants):
        text = b" ".join(passages[row * 36 : (row + 1) * 36]).decode()
        assert not [word for word in foreign_to(tenant) if word in text], tenant
        assert tenant not in SECRETS or SECRETS[tenant] in text


def test_requests_of_several_tenants_at_once_stay_apart(policy_wire: Wire) -> None:
    """The dynamic batcher puts them into one batch."""
    tenants = [ACME, ZETA, None] * 40
    inputs = {"text_input": "What is the office plants policy?", "num_passages": 12}
    messages = [
        request("retrieve", {**inputs, "tenant": tenant} if tenant else {**inputs, "tenant": ""}) for tenant in tenants
    ]
    calls = [policy_wire.stub.ModelInfer.future(message, timeout=30) for message in messages]
    for tenant, call in zip(tenants, calls, strict=True):
        text = b" ".join(call.result().raw_output_contents).decode(errors="replace")
        assert not [word for word in foreign_to(tenant) if word in text], tenant


def test_the_same_question_of_several_tenants_at_once_is_not_answered_by_one_generation(policy_wire: Wire) -> None:
    """Askers of the same may share what is being written, but not across the wall."""
    tenants = [ACME, ZETA, None] * 6
    inputs = {"text_input": "What does the on-call pay policy say?", "num_passages": 12, "stream": True}
    with ThreadPoolExecutor(len(tenants)) as pool:
        texts = list(pool.map(lambda tenant: seen(ask(policy_wire, "generator", inputs, tenant)), tenants))
    for tenant, text in zip(tenants, texts, strict=True):
        assert WORDS[tenant] in text
        assert not [word for word in foreign_to(tenant) if word in text], tenant


def test_passages_that_a_caller_brings_are_its_own_affair_and_are_told_to_nobody_else(policy_wire: Wire) -> None:
    """Who sends passages has them already: that is no hole. What is answered from them must not become another's answer."""
    inputs = {"text_input": "What is the on-call pay policy?", "num_passages": 12}
    (of_acme,) = ask(policy_wire, "retrieve", inputs, ACME)
    assert isinstance(of_acme, dict)
    brought = {
        "text_input": inputs["text_input"],
        "passages": np.array(strings(of_acme["passages"]), object),
        "passage_ids": np.frombuffer(of_acme["passage_ids"], np.int64),
        "scores": np.frombuffer(of_acme["scores"], np.float32),
    }
    assert SECRETS[ACME] in seen(ask(policy_wire, "generator", brought, ZETA)), (
        "what it brought is what it is answered from"
    )
    for model in ("rag", "generator"):
        for tenant in (ZETA, None, "nobody"):
            text = seen(ask(policy_wire, model, inputs, tenant))
            assert not [word for word in foreign_to(tenant) if word in text], (model, tenant)


def test_every_source_of_an_answer_is_of_the_asker_or_of_everybody(policy_wire: Wire) -> None:
    for tenant in (None, ACME, ZETA, *NOBODY):
        answers = ask(policy_wire, "rag", {"text_input": "parental leave", "num_passages": 36}, tenant)
        (answer,) = answers
        assert isinstance(answer, dict), answer
        owners = {source.passage.uri.partition("/")[0] for source in decode_sources(strings(answer["sources"])[0])}
        assert owners <= {WORDS[None], WORDS.get(tenant, WORDS[None])}, tenant


def test_a_stop_ends_no_generation_of_another_tenant(policy_wire: Wire) -> None:
    (answer,) = policy_wire.stream(request("generator", {"stop": True, "tenant": ZETA}, request_id="of-acme"))
    assert isinstance(answer, Failure)
    assert answer.message.startswith("not_found")


def test_what_was_asked_was_answered_from_the_caches_too(policy_wire: Wire) -> None:
    """Without that the tests above would say nothing about the caches."""
    for _ in range(2):
        ask(policy_wire, "generator", {"text_input": "What is the server room policy?"}, ACME)
    assert policy_wire.metric("tritonrag_answer_cache_total", outcome="hit") > 0
    assert policy_wire.metric("tritonrag_retriever_searches_total", cache="hit") > 0


def test_no_name_and_no_word_of_a_tenant_is_in_the_metrics_or_in_the_log(
    walled: RunningServer, policy_wire: Wire
) -> None:
    for tenant in (ACME, ZETA):  # good ones and bad ones
        for bad in ({}, {"num_passages": 0}, {"filter": "{"}, {"filter": '{"colour": 1}'}, {"mode": "odd"}):
            ask(policy_wire, "generator", {"text_input": "server room", **bad}, tenant)
            ask(policy_wire, "retrieve", {"text_input": "server room", **bad}, tenant)
    with urllib.request.urlopen(f"http://{walled.plain_host}:{walled.metrics_port}/metrics", timeout=20) as answer:
        metrics = answer.read().decode()
    log = walled.log_path.read_text(errors="replace")
    assert "tritonrag_" in metrics
    for hidden in (*SECRETS, *SECRETS.values()):
        assert hidden not in metrics
        assert not re.search(re.escape(hidden), log), [line for line in log.splitlines() if hidden in line][:3]
