"""The body of a request for a chat completion: https://platform.openai.com/docs/api-reference/chat/create."""

import hashlib
import hmac
import json
from typing import Any

from pydantic import SecretStr

from tritonrag_backends.generation.engine import Prompt, Sampling

_MAX_STOP_WORDS = 4  # the API's limit; all of them are enforced on our side
_SEEDS = 2**63  # the API's seeds are signed 64-bit numbers, ours unsigned; some servers refuse negative ones


def request_body(prompt: Prompt, sampling: Sampling, *, model: str, salt: str | None) -> bytes:
    """JSON in UTF-8. An adapter is asked for as the model: so vLLM and trtllm-serve name them. `salt` None: none is sent."""
    fields: dict[str, Any] = {
        "model": sampling.lora_name or model,
        "messages": [{"role": message.role, "content": message.content} for message in prompt.messages],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
    }
    if sampling.top_p is not None:
        fields["top_p"] = sampling.top_p
    if sampling.seed is not None:
        fields["seed"] = sampling.seed % _SEEDS
    if words := [word for word in sampling.stop_words if word]:
        fields["stop"] = words[:_MAX_STOP_WORDS]
    if salt is not None:
        fields["cache_salt"] = salt
    return json.dumps(fields).encode()


def tenant_salt(tenant: str, api_key: SecretStr) -> str:
    """What keeps a tenant's prompts apart in the server's cache without telling its name; the same in all our processes."""
    key = b"tritonrag cache_salt" + api_key.get_secret_value().encode()
    return hmac.new(hashlib.sha256(key).digest(), tenant.encode(), hashlib.sha256).hexdigest()
