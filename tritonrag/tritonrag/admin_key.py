"""The key to Triton's restricted APIs: made for each start, held by the launcher, soon gone from where others could read it.

Triton takes it on its command line alone, which every user of a machine can read in /proc. So the bytes there are overwritten as
soon as Triton has taken them in. Whoever may read the memory of our processes, which is their own user and root, has the key
anyway.
"""

import logging
import re
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, get_args

from tritonrag.processes import stat_fields
from tritonrag_client.errors import BadRequestError

RestrictedApi = Literal["model-repository", "model-config", "shared-memory", "statistics", "trace", "logging"]

RESTRICTED_APIS: Final[tuple[RestrictedApi, ...]] = get_args(RestrictedApi)
# What perf_analyzer, and our own reading of Triton's counters, cannot do without.
MEASURING_APIS: Final[tuple[RestrictedApi, ...]] = ("model-config", "statistics")

_NAME: Final = "tritonrag-admin"
# Triton puts this before the name of a gRPC key and nothing before that of an HTTP key: with it in the latter's name, one header
# opens both.
ADMIN_HEADER: Final = f"triton-grpc-protocol-{_NAME}"
_KEY_BYTES: Final = 32
_LOG: Final = logging.getLogger(__name__)
# A line of Triton's own log, which it begins once its command line is taken in.
_LOG_LINE: Final = re.compile(rb"\.cc:\d+\] ")
_BEGINNING_BYTES: Final = 2**20  # of a log, where that line stands
_ARG_START: Final = 45  # proc(5), /proc/PID/stat: fields 48 and 49, counted from the state behind the program's name


def closed_apis(open_apis: Collection[str]) -> tuple[RestrictedApi, ...]:
    """What stays restricted. Raises BadRequestError for a name that is none of RESTRICTED_APIS."""
    for name in open_apis:
        if name not in RESTRICTED_APIS:
            raise BadRequestError(f"--open-api is {name!r}; use one of {', '.join(RESTRICTED_APIS)}")
    return tuple(name for name in RESTRICTED_APIS if name not in open_apis)


def has_taken_its_arguments(log_path: Path) -> bool:
    """Whether Triton has read its command line, told by what it logs afterwards; False where the log is no file to read again."""
    if not log_path.is_file():
        return False
    with log_path.open("rb") as log:
        return _LOG_LINE.search(log.read(_BEGINNING_BYTES)) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminKey:
    """A random key of 256 bits, in no repr."""

    value: str = field(default_factory=lambda: secrets.token_urlsafe(_KEY_BYTES), repr=False)

    @property
    def headers(self) -> Mapping[str, str]:
        """What opens a restricted API, over HTTP as a header and over gRPC as metadata."""
        return {ADMIN_HEADER: self.value}

    def arguments(self, open_apis: Collection[str]) -> list[str]:
        """Triton's options that restrict all but `open_apis`: a flag for each protocol, for either leaves the other one open.

        Raises BadRequestError for an API that there is not.
        """
        closed = ",".join(closed_apis(open_apis))
        if not closed:
            return []
        return [
            f"--grpc-restricted-protocol={closed}:{_NAME}={self.value}",
            f"--http-restricted-api={closed}:{ADMIN_HEADER}={self.value}",
        ]

    def hide(self, pid: int) -> bool:
        """Overwrite the key in the command line of the process, our child; whether it is no longer to be read there.

        Where the kernel forbids it that is logged as a warning, for then every user of the machine can read the key.
        """
        process = Path("/proc") / str(pid)
        try:
            if self._is_readable(process):
                self._overwrite(process)
            if not self._is_readable(process):
                return True
            reason = "the bytes stayed as they were"
        except (FileNotFoundError, ProcessLookupError):
            return True  # it has ended
        except OSError as error:
            reason = error.strerror or str(error)
        _LOG.warning(
            "the key to Triton's restricted APIs stays in the command line of process %d, where every user of this machine"
            " can read it (%s); let no other user onto it",
            pid,
            reason,
        )
        return False

    def _is_readable(self, process: Path) -> bool:
        return self.value.encode() in (process / "cmdline").read_bytes()

    def _overwrite(self, process: Path) -> None:
        start, end = _argument_range(process)
        key = self.value.encode()
        with (process / "mem").open("r+b", buffering=0) as memory:
            memory.seek(start)
            arguments = memory.read(end - start)
            for found in re.finditer(re.escape(key), arguments):
                memory.seek(start + found.start())
                memory.write(b"*" * len(key))


def _argument_range(process: Path) -> tuple[int, int]:
    """Where in the process's memory its arguments lie. Raises PermissionError where the kernel does not tell."""
    fields = stat_fields(process)
    start, end = int(fields[_ARG_START]), int(fields[_ARG_START + 1])
    if not start:
        raise PermissionError(0, "the kernel does not tell where its arguments lie")
    return start, end
