"""A look at what is to be served, before Triton starts: a wrong folder is named at once, not after seconds of loading."""

from dataclasses import dataclass
from pathlib import Path

from tritonrag.encoder_choice import choose_encoder
from tritonrag.instances import GPU_PROFILE
from tritonrag.triton_command import ServeOptions
from tritonrag.triton_parts import find_triton
from tritonrag_backends.embedding.format import MODEL_FILES, EmbedderManifest
from tritonrag_backends.generation.openai.address import chat_url
from tritonrag_backends.index.store import read_current
from tritonrag_backends.prompting.template import PromptTemplate
from tritonrag_backends.settings import Settings
from tritonrag_client.errors import BadRequestError, NotFoundError


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """The index that a server is started with. It may serve a later version by and by. `passages` is their number."""

    index: Path
    index_version: int
    passages: int


def look_at(settings: Settings) -> Served:
    """Look at the embedding model and the index that the settings name: their manifests, not their data.

    Raises NotFoundError where one is missing, BadRequestError where the index is of another embedding model,
    InternalError where one is damaged; each names the folder and the way out.
    """
    embedder = look_at_embedder(settings)
    index = read_current(settings.index)
    if index.embedding.fingerprint != embedder.fingerprint:
        raise BadRequestError(
            f"the index at {settings.index} was built with the embedding model {index.embedding.name}"
            f" ({index.embedding.fingerprint[:12]}), and the one at {settings.embedder.model} is {embedder.name}"
            f" ({embedder.fingerprint[:12]}); give --embedder the folder of the first, or build the index again"
        )
    return Served(index=settings.index, index_version=index.index_version, passages=index.counts.passages)


def look_at_encoder(options: ServeOptions) -> str | None:
    """What will run the encoder, in words; None in profile cpu, which has none. Raises RagError where nothing can as wanted."""
    if options.profile != GPU_PROFILE:
        return None
    backends = find_triton(options.triton_dir).backend_names()
    return choose_encoder(options.settings, options.machine(), backends).describe()


def look_at_generator(settings: Settings) -> str:
    """What the settings say of the engine, in words; a look at what can be seen without opening it.

    Raises NotFoundError or BadRequestError where it can't be right, with the way out; the engine itself looks closer.
    """
    PromptTemplate.load(settings.prompt.template)
    match settings.generator.engine:
        case "extractive":
            return "extractive: quotes sentences, no language model"
        case "onnxruntime_genai":
            return f"onnxruntime_genai: {_genai_folder(settings.genai.model)}"
        case "openai":
            _require(settings.openai.url, "TRITONRAG_OPENAI_URL", "the server's address up to /v1, or --openai-url")
            _require(
                settings.openai.model, "TRITONRAG_OPENAI_MODEL", "the model's name at that server, or --openai-model"
            )
            chat_url(settings.openai.url)  # refuses one with a password, which would be shown below
            return f"openai: {settings.openai.model} at {settings.openai.url}"
        case "tensorrt_llm":
            _require(settings.trtllm.model, "TRITONRAG_TRTLLM_MODEL", "the checkpoint's folder, or --trtllm-model")
            return f"tensorrt_llm: {settings.trtllm.model}"


def _genai_folder(folder: Path) -> Path:
    if not (folder / "genai_config.json").is_file():
        raise NotFoundError(
            f"the language model in {folder} is missing (no genai_config.json); write one with: tritonrag export generator,"
            " or give --generator-model DIR"
        )
    return folder


def _require(value: str | Path | None, variable: str, what: str) -> None:
    if not value:
        raise BadRequestError(f"{variable} is not set; give {what}")


def look_at_embedder(settings: Settings) -> EmbedderManifest:
    """The embedding model's manifest. Raises NotFoundError where it, or the file of the wanted precision, is missing."""
    folder, name = settings.embedder.model, MODEL_FILES[settings.embedder.precision]
    manifest = EmbedderManifest.load(folder, verify=False)
    if not (folder / name).is_file():
        raise NotFoundError(
            f"the embedder in {folder} lacks its file {name}; write one with: tritonrag export embedder, or, where it was exported"
            " with --no-int8, set TRITONRAG_EMBEDDER_PRECISION to fp32"
        )
    return manifest
