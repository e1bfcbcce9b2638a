"""What is told about what is denied, and about a secret that stands where none belongs."""

import pytest

from tritonrag.preflight import look_at_generator
from tritonrag_backends.generation.openai.address import chat_url
from tritonrag_backends.generation.openai.settings import OpenaiSettings
from tritonrag_backends.settings import GeneratorSettings, LimitSettings, Settings
from tritonrag_client.errors import BadRequestError, DeniedError
from tritonrag_perf.perf_analyzer import explain_failure


def test_a_perf_analyzer_that_was_denied_is_told_with_what_to_open() -> None:
    stderr = (
        "error: failed to get model config: This protocol is restricted, expecting header 'triton-grpc-protocol-x'\n"
    )
    failure = explain_failure(99, stderr)
    assert isinstance(failure, DeniedError)
    assert "tritonrag serve --open-api model-config --open-api statistics" in failure.message


@pytest.mark.parametrize("url", ["http://me:secret@h/v1", "http://h/v1?key=secret", "http://h/v1#secret"])
def test_an_address_that_holds_a_secret_is_refused_without_it(url: str) -> None:
    settings = Settings(generator=GeneratorSettings(engine="openai"), openai=OpenaiSettings(url=url, model="m"))
    for look in (lambda: chat_url(url), lambda: look_at_generator(settings)):
        with pytest.raises(BadRequestError, match="TRITONRAG_OPENAI_URL") as caught:
            look()
        assert "secret" not in caught.value.message


def test_secrets_are_in_no_repr_of_the_settings() -> None:
    settings = Settings(openai=OpenaiSettings(api_key="secret"))  # type: ignore[arg-type]
    assert "secret" not in repr(settings) + str(settings.openai)


def test_a_limit_is_at_least_one() -> None:
    for name in ("stop_words", "stop_word_bytes", "passages_bytes", "history_bytes"):
        with pytest.raises(ValueError, match=name):
            LimitSettings(**{name: 0})
