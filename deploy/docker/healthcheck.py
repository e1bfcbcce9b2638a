"""What HEALTHCHECK runs: status 0 where every model answers, by what `tritonrag serve` found, else 1 and a line that says why.

Triton itself goes on saying that it is ready when a model's process is dead, so it is the supervisor that is asked, on its port:
TRITONRAG_HEALTH_PORT, else 8003. Standard library alone, and little of it, because it is
started every few seconds.
"""

import http.client
import os
import sys

TIMEOUT_S = 3.0  # below HEALTHCHECK's own, so that it is we who say what is amiss


def why_not_ready(port: int) -> str | None:
    """Ask the supervisor on this machine; None where all is ready."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/health/ready")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return f"no answer on port {port}: {error or type(error).__name__}"
    finally:
        connection.close()
    return None if status == http.HTTPStatus.OK else f"not ready: status {status} on port {port}"


if __name__ == "__main__":
    sys.exit(why_not_ready(int(os.environ.get("TRITONRAG_HEALTH_PORT") or "8003")))
