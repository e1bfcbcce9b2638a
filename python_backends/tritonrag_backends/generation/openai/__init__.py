"""The `openai` engine: any OpenAI-compatible server."""
