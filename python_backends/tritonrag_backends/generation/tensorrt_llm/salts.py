"""Keeping tenants apart in the KV cache: prompts of one never reuse, nor time, what another's prompts left."""

import hashlib
import hmac
import secrets


class TenantSalts:
    """Salts by tenant: a keyed hash, so that the library and its logs never see a tenant's name.

    An empty `key` stands for a random one: salts then hold for one process, as its KV cache does.
    """

    def __init__(self, key: str = "") -> None:
        self._key = key.encode() or secrets.token_bytes(32)

    def salt(self, tenant: str | None) -> str | None:
        """64 hex digits, always the same for a tenant; None for None: what belongs to no tenant may be shared."""
        if tenant is None:
            return None
        return hmac.new(self._key, tenant.encode(), hashlib.sha256).hexdigest()
