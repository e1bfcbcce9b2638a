"""Opening what the settings name: engine, prompts, cache. An engine's library is imported only where it is the one."""

from tritonrag_backends.generation.answer_cache import AnswerCache, open_store
from tritonrag_backends.generation.answering import Answering
from tritonrag_backends.generation.engine import Engine
from tritonrag_backends.generation.extractive import Embed, ExtractiveEngine
from tritonrag_backends.generation.fallback import Patience
from tritonrag_backends.prompting.builder import PromptBuilder
from tritonrag_backends.prompting.template import PromptTemplate
from tritonrag_backends.settings import Settings


def open_answering(settings: Settings, embed: Embed, *, instance: int = 0) -> Answering:
    """Everything that answers, as the settings say. Raises what `open_engine` and a wrong prompt template raise."""
    template = PromptTemplate.load(settings.prompt.template)
    store = open_store(settings.cache)
    engine = open_engine(settings, embed, instance=instance)
    extractive = engine if engine.capabilities.engine == "extractive" else ExtractiveEngine(embed)
    prompts = PromptBuilder(
        template,
        count_tokens=engine.count_tokens,
        context_tokens=engine.capabilities.context_tokens,
        order=settings.prompt.order,
        max_tokens=settings.prompt.max_tokens,
        fence_key=settings.prompt.fence_key.get_secret_value().encode(),
    )
    return Answering(
        engine,
        extractive=extractive,
        prompts=prompts,
        cache=AnswerCache(store),
        patience=Patience(
            first_s=settings.generator.first_token_timeout_s, next_s=settings.generator.next_token_timeout_s
        ),
    )


def open_engine(settings: Settings, embed: Embed, *, instance: int = 0) -> Engine:
    """Open it; a language model is loaded when this returns. `instance` counts the processes that do the same, from 0.

    Raises BadRequestError or NotFoundError for settings that can't be right, UnavailableError for a library or a device that is
    missing; each with the way out.
    """
    match settings.generator.engine:
        case "extractive":
            return ExtractiveEngine(embed)
        case "onnxruntime_genai":
            from tritonrag_backends.generation.genai.engine import open_genai  # noqa: PLC0415 - only where it is wanted

            return open_genai(settings.genai, instance=instance)
        case "openai":
            from tritonrag_backends.generation.openai.engine import open_openai  # noqa: PLC0415

            return open_openai(settings.openai)
        case "tensorrt_llm":
            from tritonrag_backends.generation.tensorrt_llm.engine import open_tensorrt_llm  # noqa: PLC0415

            return open_tensorrt_llm(settings.trtllm, instance=instance)
