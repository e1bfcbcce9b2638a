"""One settings tree, one variable for each leaf, and the same tree on both sides of a process boundary."""

from pathlib import Path

import pytest

from tritonrag_backends.settings import EmbedderSettings, Settings, known_variables, load_settings
from tritonrag_client.errors import BadRequestError


def test_an_empty_environment_gives_the_defaults() -> None:
    assert load_settings({}) == Settings()


def test_the_given_environment_counts_and_the_process_one_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITONRAG_EMBEDDER_THREADS", "7")
    assert load_settings({"TRITONRAG_EMBEDDER_PRECISION": "fp32"}).embedder == EmbedderSettings(precision="fp32")
    assert Settings().embedder.threads == 1


def test_without_one_the_process_environment_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITONRAG_EMBEDDER_THREADS", "7")
    assert load_settings().embedder.threads == 7


def test_every_leaf_survives_the_way_through_an_environment() -> None:
    settings = load_settings(
        {
            "TRITONRAG_INDEX": "/data/index",
            "TRITONRAG_EMBEDDER_MODEL": "/data/embedder",
            "TRITONRAG_EMBEDDER_THREADS": "3",
            "TRITONRAG_ENCODER_CACHE_DIR": "/data/tensorrt",
            "TRITONRAG_RETRIEVER_NUM_PASSAGES": "9",
            "TRITONRAG_RETRIEVER_POLL_S": "0.05",
            "TRITONRAG_RETRIEVER_CACHE_BYTES": "0",
            "TRITONRAG_GENERATOR_MAX_TOKENS": "17",
            "TRITONRAG_GENERATOR_ENGINE": "openai",
            "TRITONRAG_GENAI_MODEL": "/data/generator",
            "TRITONRAG_OPENAI_API_KEY": "sk-secret",
            "TRITONRAG_OPENAI_TOKENIZER": "/data/tokenizer.json",
            "TRITONRAG_CACHE_REDIS_URL": "redis://:password@127.0.0.1:1/0",
            "TRITONRAG_PROMPT_ORDER": "rank",
            "TRITONRAG_LIMITS_TEXT_BYTES": "1000",
        }
    )
    assert load_settings(settings.to_environment()) == settings
    assert set(settings.to_environment()) == known_variables()


def test_secrets_travel_and_are_not_shown() -> None:
    environment = {
        "TRITONRAG_OPENAI_API_KEY": "sk-secret",
        "TRITONRAG_CACHE_REDIS_URL": "redis://:password@127.0.0.1:1/0",
    }
    settings = load_settings(environment)
    assert environment.items() <= settings.to_environment().items()
    for shown in (repr(settings), str(settings), settings.model_dump_json()):
        assert "sk-secret" not in shown
        assert "password" not in shown


def test_paths_travel_absolute() -> None:
    assert Path(Settings(index=Path("some/index")).to_environment()["TRITONRAG_INDEX"]).is_absolute()


def test_a_variable_set_to_nothing_is_not_set() -> None:
    assert load_settings({"TRITONRAG_INDEX": "", "TRITONRAG_EMBEDDER_THREADS": ""}) == Settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TRITONRAG_EMBEDDER_THREADS", "many"),
        ("TRITONRAG_EMBEDDER_THREADS", "0"),
        ("TRITONRAG_EMBEDDER_PRECISION", "int3"),
        ("TRITONRAG_RETRIEVER_THREADS", "-1"),
        ("TRITONRAG_RETRIEVER_POLL_S", "0"),
        ("TRITONRAG_RETRIEVER_POLL_S", "inf"),
        ("TRITONRAG_RETRIEVER_POLL_S", "nan"),
        ("TRITONRAG_RETRIEVER_CACHE_BYTES", "-1"),
        ("TRITONRAG_GENERATOR_ENGINE", "oracle"),
        ("TRITONRAG_GENERATOR_TEMPERATURE", "nan"),
        ("TRITONRAG_GENERATOR_TIMEOUT_S", "inf"),
        ("TRITONRAG_CACHE_STORE", "disk"),
    ],
)
def test_a_bad_value_is_refused_by_variable_and_value(name: str, value: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        load_settings({name: value})
    assert name in caught.value.message
    assert value in caught.value.message


@pytest.mark.parametrize("name", ["TRITONRAG_EMBEDDER_THREDS", "TRITONRAG_LIMITS_", "TRITONRAG_EMBEDDER"])
def test_a_variable_of_a_section_that_names_no_leaf_is_refused(name: str) -> None:
    with pytest.raises(BadRequestError, match=name):
        load_settings({name: "{}"})


def test_variables_of_our_other_programs_are_theirs_to_check() -> None:
    assert load_settings({"TRITONRAG_URL": "localhost:1", "TRITONRAG_HTTP_PORT": "x"}) == Settings()


def test_what_kubernetes_sets_for_a_service_of_our_name_is_left_alone() -> None:
    links = {"TRITONRAG_RETRIEVER_SERVICE_HOST": "10.0.0.1", "TRITONRAG_RETRIEVER_PORT": "tcp://10.0.0.1:8001"}
    assert load_settings(links) == Settings()
