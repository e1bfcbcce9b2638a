"""Loading a model into TensorRT-LLM, in the order that it needs: settings checked, GPUs chosen, library imported, model loaded."""

import hashlib
import logging
from collections.abc import Sequence
from typing import Any, Final

from tritonrag_backends.generation.engine import Capabilities
from tritonrag_backends.generation.tensorrt_llm.adapters import Adapter
from tritonrag_backends.generation.tensorrt_llm.checkpoint import Checkpoint
from tritonrag_backends.generation.tensorrt_llm.foreign import Foreign
from tritonrag_backends.generation.tensorrt_llm.library import Library
from tritonrag_backends.generation.tensorrt_llm.settings import TrtllmSettings
from tritonrag_client.errors import BadRequestError, UnavailableError

_LOG = logging.getLogger(__name__)
# Settings that may change what is answered; the others change how fast.
_ANSWERING: Final = (
    "dtype",
    "kv_dtype",
    "sampler",
    "speculative",
    "tensor_parallel",
    "pipeline_parallel",
    "expert_parallel",
)


def load_model(library: Library, checkpoint: Checkpoint, arguments: dict[str, Any]) -> Foreign:
    """The library's LLM, ready to answer; takes minutes for a large model.

    Raises BadRequestError where the library refuses the arguments, UnavailableError where it can't start; what it said is logged.
    """
    kind = library.llm if checkpoint.kind == "hf" else library.engine_llm
    if kind is None:
        raise BadRequestError(
            f"tensorrt_llm {library.version} can't load folders of trtllm-build any more; set TRITONRAG_TRTLLM_MODEL to the"
            " checkpoint itself"
        )
    _LOG.info("loading the model with tensorrt_llm %s: %s", library.version, arguments)
    try:
        return kind(**arguments)
    except (ValueError, TypeError, AssertionError) as error:
        _LOG.exception("tensorrt_llm %s refused the model or its settings", library.version)
        raise BadRequestError(
            f"tensorrt_llm {library.version} refused the model or the settings TRITONRAG_TRTLLM_...; the server's log says which"
        ) from error
    except (RuntimeError, OSError, ImportError, LookupError, AttributeError) as error:
        _LOG.exception("tensorrt_llm %s could not load the model", library.version)
        raise UnavailableError(
            f"tensorrt_llm {library.version} could not load the model; the server's log says why. Out of memory?"
            " Lower kv_fraction or max_batch_size, or use more GPUs with tensor_parallel"
        ) from error


def capabilities(
    settings: TrtllmSettings, checkpoint: Checkpoint, adapters: Sequence[Adapter], library: Library, llm: Foreign
) -> Capabilities:
    """What the loaded model can do."""
    native = settings.sampler == "TRTLLMSampler" or checkpoint.kind == "engine"
    return Capabilities(
        engine="tensorrt_llm",
        model=checkpoint.folder.name,
        fingerprint=_fingerprint(settings, checkpoint, adapters, library),
        context_tokens=_context_tokens(settings, checkpoint, llm),
        reads_messages=True,
        seeds=native or library.torch_sampler_seeds,
        lora_names=tuple(adapter.name for adapter in adapters),
    )


def slots(settings: TrtllmSettings, llm: Foreign) -> int | None:
    """Generations that run at once; None where neither the settings nor the library say."""
    return settings.max_batch_size or _whole(llm, "max_batch_size")


def _context_tokens(settings: TrtllmSettings, checkpoint: Checkpoint, llm: Foreign) -> int | None:
    context = settings.max_seq_len or _whole(llm, "max_seq_len") or checkpoint.context_tokens
    step = None if settings.chunked_prefill else settings.max_num_tokens or _whole(llm, "max_num_tokens")
    # A prompt that does not fit one step is refused by the library unless it may take several.
    known = [bound for bound in (context, step) if bound]
    return min(known) if known else None


def _whole(llm: Foreign, name: str) -> int | None:
    value = getattr(getattr(llm, "args", None), name, None)
    return value if isinstance(value, int) and value > 0 else None


def _fingerprint(
    settings: TrtllmSettings, checkpoint: Checkpoint, adapters: Sequence[Adapter], library: Library
) -> str:
    parts = [library.version, checkpoint.fingerprint, *(f"{name}={getattr(settings, name)}" for name in _ANSWERING)]
    parts += [f"{adapter.name}={adapter.digest}" for adapter in adapters]
    if settings.tokenizer is not None:
        parts.append(f"tokenizer={_tokenizer_digest(settings)}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _tokenizer_digest(settings: TrtllmSettings) -> str:
    digest = hashlib.sha256()
    for path in sorted(settings.tokenizer.iterdir()) if settings.tokenizer and settings.tokenizer.is_dir() else ():
        if path.suffix in (".json", ".jinja", ".model") and path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()
