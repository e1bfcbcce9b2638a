"""Judging the server's address, its model's name and the key when the engine is opened."""

from collections.abc import Mapping
from urllib.parse import urlsplit

from pydantic import SecretStr

from tritonrag_backends.generation.openai.settings import OpenaiSettings
from tritonrag_client.errors import BadRequestError

_EXAMPLE = "give the server's address up to /v1, such as http://127.0.0.1:8080/v1"


def chat_url(url: str) -> str:
    """The address of chat completions under `url`. Raises BadRequestError that names the variable, and shows no credentials."""
    name = "TRITONRAG_OPENAI_URL"
    if not url:
        raise BadRequestError(f"{name} is not set, and the openai engine needs it; {_EXAMPLE}")
    if "@" in url:
        raise BadRequestError(f"{name} holds a user name or a password; take it out, and set TRITONRAG_OPENAI_API_KEY")
    try:
        parts = urlsplit(url)
        valid = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0 and url.isprintable()
    except ValueError:
        valid = False
    if not valid or " " in url:
        raise BadRequestError(f"{name} is {url!r}, which is no http:// or https:// address; {_EXAMPLE}")
    if parts.query or parts.fragment or parts.path.rstrip("/").endswith("/completions"):
        shown = url.partition("?")[0].partition("#")[0]  # a query may hold a key
        raise BadRequestError(f"{name} is {shown!r}, which goes on after its path or names an endpoint; {_EXAMPLE}")
    return f"{url.rstrip('/')}/chat/completions"


def model_name(settings: OpenaiSettings) -> str:
    """Raises BadRequestError where it is not set."""
    if not settings.model.strip():
        raise BadRequestError(
            "TRITONRAG_OPENAI_MODEL is not set, and the openai engine needs it; give the model's name at the server"
            " (its /v1/models lists them)"
        )
    return settings.model


def bearer_key(settings: OpenaiSettings, environment: Mapping[str, str]) -> SecretStr:
    """The key of the settings, else OPENAI_API_KEY, else an empty one. Raises BadRequestError for what no header can bear."""
    own = settings.api_key.get_secret_value().strip()
    name, key = (
        ("TRITONRAG_OPENAI_API_KEY", own) if own else ("OPENAI_API_KEY", environment.get("OPENAI_API_KEY", "").strip())
    )
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise BadRequestError(
            f"{name} holds a character that no key has (a line break, a space, a letter beyond ASCII); set it again"
        )
    return SecretStr(key)
