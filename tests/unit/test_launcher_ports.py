"""Ports are checked before anything starts; 0 is a free one."""

import socket

import pytest

from tritonrag.ports import address_of, choose_ports, is_free, is_loopback, reachable
from tritonrag_client.errors import BadRequestError

LOOPBACK = "127.0.0.1"


def test_zero_gives_different_free_ports() -> None:
    ports = choose_ports(LOOPBACK, {"http": 0, "grpc": 0, "metrics": 0})
    assert len(set(ports.values())) == 3
    assert all(is_free(LOOPBACK, port) for port in ports.values())


def test_a_wanted_port_is_kept() -> None:
    port = choose_ports(LOOPBACK, {"http": 0})["http"]
    assert choose_ports(LOOPBACK, {"http": port, "grpc": 0})["http"] == port


def test_a_taken_port_is_refused_with_its_option_and_the_way_out() -> None:
    with socket.socket() as taken:
        taken.bind((LOOPBACK, 0))
        taken.listen(1)
        port = taken.getsockname()[1]
        assert not is_free(LOOPBACK, port)
        with pytest.raises(BadRequestError, match=rf"--metrics-port {port} .*in use.*--metrics-port 0"):
            choose_ports(LOOPBACK, {"http": 0, "metrics": port})


def test_the_same_port_twice_is_refused() -> None:
    port = choose_ports(LOOPBACK, {"http": 0})["http"]
    with pytest.raises(BadRequestError, match=f"--http-port {port} and --grpc-port {port} are the same"):
        choose_ports(LOOPBACK, {"http": port, "grpc": port})


def test_an_address_that_this_machine_does_not_have_is_refused() -> None:
    with pytest.raises(BadRequestError, match=r"--host 192\.0\.2\.1 is no address of this machine"):
        choose_ports("192.0.2.1", {"http": 0})


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("localhost", True), ("::1", True), ("192.0.2.1", False), ("::", False)],
)
def test_what_only_this_machine_can_reach_is_known(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


def test_a_host_that_is_no_address_is_refused() -> None:
    with pytest.raises(BadRequestError, match=r"example\.org"):
        address_of("example.org")


def test_a_server_on_every_address_is_reached_by_loopback() -> None:
    assert [reachable(host) for host in ("0.0.0.0", "::", "127.0.0.1")] == ["127.0.0.1", "::1", "127.0.0.1"]  # noqa: S104
