"""Ports to listen on: given ones are checked before anything starts, a 0 stands for a free one."""

import errno
import ipaddress
import socket
from collections.abc import Mapping
from contextlib import ExitStack

from tritonrag_client.errors import BadRequestError


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address; raises BadRequestError where `host` is no address."""
    return ipaddress.ip_address(address_of(host)).is_loopback


def address_of(host: str) -> str:
    """The numeric address that `host` means; raises BadRequestError where it is neither one nor `localhost`."""
    if host == "localhost":
        return "127.0.0.1"
    try:
        return str(ipaddress.ip_address(host))
    except ValueError as error:
        raise BadRequestError(f"--host is {host!r}; give an IP address of this machine, such as 127.0.0.1") from error


def require_ipv4(host: str) -> None:
    """Raises BadRequestError for another: Triton 2.51 says of `::1` that the port is in use."""
    if ipaddress.ip_address(address_of(host)).version == 6:  # noqa: PLR2004
        raise BadRequestError(
            f"--host is {host!r}; Triton can't listen on IPv6, give an IPv4 address such as 127.0.0.1"
        )


def reachable(address: str) -> str:
    """The address under which this machine reaches a server that is bound to `address`."""
    parsed = ipaddress.ip_address(address)
    if not parsed.is_unspecified:
        return address
    return "127.0.0.1" if isinstance(parsed, ipaddress.IPv4Address) else "::1"


def choose_ports(address: str | Mapping[str, str], wanted: Mapping[str, int]) -> dict[str, int]:
    """A port for every name (`http`, `grpc`, ...): the wanted one, or a free one where 0 is wanted; no two are the same.

    `address` is where all of them listen, or for each name where it does. Another process can take a port between this call and its
    use: who wanted 0 tries again then. Raises BadRequestError that names the option and the port where a wanted one can't be had.
    """
    _refuse_the_same_twice(wanted)
    chosen: dict[str, int] = {}
    with ExitStack() as held:  # all are held until all are chosen
        for name in sorted(wanted, key=lambda name: wanted[name] == 0):  # a free one must be none that is wanted
            own = address if isinstance(address, str) else address[name]
            bound = _bind(held, own, name, wanted[name])
            while bound in chosen.values():  # free on this address, and another's on its own
                bound = _bind(held, own, name, 0)
            chosen[name] = bound
    return {name: chosen[name] for name in wanted}


def is_free(address: str, port: int) -> bool:
    """Whether nobody listens on the port and we may."""
    with ExitStack() as held:
        try:
            _bind(held, address, "probe", port)
        except BadRequestError:
            return False
        return True


def _refuse_the_same_twice(wanted: Mapping[str, int]) -> None:
    owner: dict[int, str] = {}
    for name, port in wanted.items():
        if port and owner.setdefault(port, name) != name:
            raise BadRequestError(
                f"--{owner[port]}-port {port} and --{name}-port {port} are the same; give each its own, or 0 for a free one"
            )


def _bind(held: ExitStack, address: str, name: str, port: int) -> int:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    probe = held.enter_context(socket.socket(family, socket.SOCK_STREAM))
    # A port in TIME_WAIT can be bound by Triton, so the probe must not be stricter than Triton is.
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        probe.bind((address, port))
        probe.listen(1)  # with SO_REUSEADDR two sockets may bind one port, but only one may listen
    except OSError as error:
        raise BadRequestError(_refusal(error, address, name, port)) from error
    bound: int = probe.getsockname()[1]
    return bound


def _refusal(error: OSError, address: str, name: str, port: int) -> str:
    if error.errno == errno.EADDRNOTAVAIL:
        return f"--host {address} is no address of this machine; give one of its own, such as 127.0.0.1"
    way_out = "stop what uses it, or give"
    if error.errno in {errno.EACCES, errno.EPERM}:
        way_out = "ports below 1024 are the administrator's; give a higher one, or"
    return (
        f"--{name}-port {port} can't be had on {address} ({error.strerror}); {way_out} --{name}-port 0 for a free one"
    )
