"""The mark that stands before and behind a passage in the prompt, which nobody who wrote a passage can know."""

import hashlib
import hmac
from typing import Final

from tritonrag_client.contract import Passage

# 48 bits, about 8 tokens. A million passages of 200 guesses each hit with a chance of 1 in 1.4 million; see also `fence_of`.
_HEX_DIGITS: Final = 12


def fence_of(passage: Passage, key: bytes) -> str:
    """12 hex digits, a keyed hash (HMAC-SHA256, RFC 2104) of title and text.

    The same passage has the same fence in every prompt, so that what a KV cache holds of it can be used again. A passage that held
    its fence would have another one: the mark can be guessed only, and where a guess is right the next one is taken.
    """
    parts = [part.encode("utf-8", "surrogatepass") for part in (passage.title, passage.text)]
    content = b"".join(len(part).to_bytes(8, "big") + part for part in parts)
    attempt = 0
    while True:
        fence = hmac.new(key, attempt.to_bytes(4, "big") + content, hashlib.sha256).hexdigest()[:_HEX_DIGITS]
        if fence not in passage.text and fence not in passage.title:
            return fence
        attempt += 1
