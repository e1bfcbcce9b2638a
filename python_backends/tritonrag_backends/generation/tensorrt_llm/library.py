"""TensorRT-LLM itself: imported here and nowhere else, and only when the engine is opened.

Written against the public source of releases 1.1 and 1.2 (tensorrt_llm/llmapi, executor, sampling_params).
"""

import importlib
import inspect
import logging
import re
from dataclasses import dataclass
from typing import Final

from tritonrag_backends.generation.tensorrt_llm.foreign import Foreign
from tritonrag_client.errors import UnavailableError

IMAGE: Final = "nvcr.io/nvidia/tritonserver:26.07-trtllm-python-py3"
_LOG = logging.getLogger(__name__)
_PLAIN_RELEASE = re.compile(r"(\d+)\.(\d+)(\.\d+)*")
_SEEDS_SINCE = (1, 3)  # pull request 17172; before it TorchSampler draws for all requests from one generator


@dataclass(frozen=True, slots=True, kw_only=True)
class Library:
    """What we use of it. `configs` holds the configuration classes (KvCacheConfig, LoraConfig, ...)."""

    version: str
    llm: Foreign
    engine_llm: Foreign  # for folders of trtllm-build; None where this version can't load them
    sampling_params: Foreign
    lora_request: Foreign
    request_error: type[Exception]
    configs: Foreign

    @property
    def torch_sampler_seeds(self) -> bool:
        """Whether TorchSampler honours a request's seed; a release candidate does not count."""
        release = _PLAIN_RELEASE.fullmatch(self.version)
        return release is not None and (int(release[1]), int(release[2])) >= _SEEDS_SINCE


def load_library() -> Library:
    """Import it. Raises UnavailableError where it is not installed, can't be loaded or can't keep tenants apart."""
    try:
        package = importlib.import_module("tensorrt_llm")
        llmapi = importlib.import_module("tensorrt_llm.llmapi")
        library = Library(
            version=str(package.__version__),
            llm=llmapi.LLM,
            engine_llm=_engine_llm(),
            sampling_params=llmapi.SamplingParams,
            lora_request=importlib.import_module("tensorrt_llm.executor").LoRARequest,
            request_error=llmapi.RequestError,
            configs=importlib.import_module("tensorrt_llm.llmapi.llm_args"),
        )
    except ModuleNotFoundError as error:
        _LOG.exception("tensorrt_llm can't be imported")
        raise UnavailableError(_missing(error)) from error
    except (
        ImportError,
        OSError,
        RuntimeError,
        AttributeError,
    ) as error:  # CUDA or MPI libraries; another release's names
        _LOG.exception("tensorrt_llm can't be loaded")
        raise UnavailableError(
            f"tensorrt_llm is installed but can't be loaded; the log says why. It needs a GPU and the libraries of {IMAGE}"
        ) from error
    _require_salts(library)
    return library


def _missing(error: ModuleNotFoundError) -> str:
    if error.name == "tensorrt_llm":
        return (
            f"the tensorrt_llm engine needs the library of that name, of which PyPI has a stub alone: run in {IMAGE},"
            " or choose another engine with TRITONRAG_GENERATOR_ENGINE"
        )
    return f"tensorrt_llm is installed without {error.name}, which it needs; run in {IMAGE}"


def _engine_llm() -> Foreign:
    try:
        return importlib.import_module("tensorrt_llm._tensorrt_engine").LLM
    except ModuleNotFoundError:
        return None


def _require_salts(library: Library) -> None:
    parameters = inspect.signature(library.llm.generate_async).parameters
    wrapped = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    if "cache_salt" not in parameters and not wrapped:
        raise UnavailableError(
            f"tensorrt_llm {library.version} can't keep tenants apart in its KV cache (no cache_salt); use 1.1 or newer: {IMAGE}"
        )
