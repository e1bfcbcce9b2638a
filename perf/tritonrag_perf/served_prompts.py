"""The very prompts that a server makes, made here: so that its engine can be asked directly what it is asked through the server."""

from tritonrag_backends.generation.engine import Engine, Prompt
from tritonrag_backends.prompting.builder import PromptBuilder
from tritonrag_backends.prompting.template import PromptTemplate
from tritonrag_client import SearchResult


class ServedPrompts:
    """Prompts of a server with the default template and order, whose TRITONRAG_PROMPT_FENCE_KEY is `fence_key`."""

    def __init__(self, engine: Engine, *, fence_key: str, max_tokens: int) -> None:
        self._max_tokens = max_tokens
        self._builder = PromptBuilder(
            PromptTemplate.load("default"),
            count_tokens=engine.count_tokens,
            context_tokens=engine.capabilities.context_tokens,
            order="canonical",
            fence_key=fence_key.encode(),
        )

    def prompt(self, question: str, found: SearchResult) -> tuple[Prompt, int]:
        """The prompt for a question with what `retrieve` found for it, and its tokens."""
        passages = tuple(scored.passage for scored in found.passages)
        built = self._builder.build(
            question=question,
            passages=passages,
            passage_ids=[scored.passage_id for scored in found.passages],
            history=(),
            max_tokens=self._max_tokens,
        )
        return Prompt(question=question, passages=passages, messages=built.messages), built.prompt_tokens
