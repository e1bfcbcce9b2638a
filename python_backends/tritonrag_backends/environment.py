"""What our environment variables look like, and which of that look are not ours."""

import re
from typing import Final

ENV_PREFIX: Final = "TRITONRAG_"

# What Kubernetes sets in every pod for a service whose name begins with ours.
_SERVICE_LINK: Final = re.compile(r"_SERVICE_(HOST|PORT(_\w+)?)$|_PORT_\d+_(TCP|UDP|SCTP)(_\w+)?$")
_SERVICE_ADDRESS: Final = ("tcp://", "udp://", "sctp://")


def is_ours(name: str, value: str) -> bool:
    """Whether the variable is one that a person set for us: it has our prefix, a value, and is no Kubernetes service link."""
    linked = _SERVICE_LINK.search(name) is not None or value.startswith(_SERVICE_ADDRESS)
    return name.startswith(ENV_PREFIX) and bool(value) and not linked
