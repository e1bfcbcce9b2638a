"""Talk to tritonrag: contract, errors, and gRPC clients.

    with RagClient("127.0.0.1:8001") as client, client.stream("What is a closure?") as answer:
        for delta in answer:
            print(delta.text, end="")

Names are imported when they are first used: a model process that needs `contract` or `errors` loads no gRPC.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tritonrag_client.aio import AsyncAnswerStream as AsyncAnswerStream
    from tritonrag_client.aio import AsyncRagClient as AsyncRagClient
    from tritonrag_client.contract import Passage as Passage
    from tritonrag_client.contract import Source as Source
    from tritonrag_client.contract import Turn as Turn
    from tritonrag_client.errors import BadRequestError as BadRequestError
    from tritonrag_client.errors import DeadlineError as DeadlineError
    from tritonrag_client.errors import DeniedError as DeniedError
    from tritonrag_client.errors import InternalError as InternalError
    from tritonrag_client.errors import NotFoundError as NotFoundError
    from tritonrag_client.errors import OverloadedError as OverloadedError
    from tritonrag_client.errors import RagError as RagError
    from tritonrag_client.errors import RequestCancelledError as RequestCancelledError
    from tritonrag_client.errors import UnavailableError as UnavailableError
    from tritonrag_client.options import AnswerOptions as AnswerOptions
    from tritonrag_client.options import ChannelOptions as ChannelOptions
    from tritonrag_client.options import RetryPolicy as RetryPolicy
    from tritonrag_client.options import SearchOptions as SearchOptions
    from tritonrag_client.options import Timeouts as Timeouts
    from tritonrag_client.options import TlsOptions as TlsOptions
    from tritonrag_client.results import Answer as Answer
    from tritonrag_client.results import AnswerDelta as AnswerDelta
    from tritonrag_client.results import Health as Health
    from tritonrag_client.results import ScoredPassage as ScoredPassage
    from tritonrag_client.results import SearchResult as SearchResult
    from tritonrag_client.sync import AnswerStream as AnswerStream
    from tritonrag_client.sync import RagClient as RagClient

_MODULES = {
    "aio": ("AsyncAnswerStream", "AsyncRagClient"),
    "contract": ("Passage", "Source", "Turn"),
    "errors": (
        "BadRequestError",
        "DeadlineError",
        "DeniedError",
        "InternalError",
        "NotFoundError",
        "OverloadedError",
        "RagError",
        "RequestCancelledError",
        "UnavailableError",
    ),
    "options": ("AnswerOptions", "ChannelOptions", "RetryPolicy", "SearchOptions", "Timeouts", "TlsOptions"),
    "results": ("Answer", "AnswerDelta", "Health", "ScoredPassage", "SearchResult"),
    "sync": ("AnswerStream", "RagClient"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

__all__ = sorted(_MODULE_OF)  # noqa: PLE0605 - one list of names, not two


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return __all__
