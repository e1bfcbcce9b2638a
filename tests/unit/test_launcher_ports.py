"""Ports are checked before anything starts; 0 is a free one."""

import socket

import pytest

from tritonrag.launcher import TritonServer
from tritonrag.ports import address_of, choose_ports, is_free, is_loopback, reachable
from tritonrag.triton_command import ServeOptions
from tritonrag_client.errors import BadRequestError

LOOPBACK = "127.0.0.1"
OTHER = "127.0.0.2"  # Linux has all of 127.0.0.0/8


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


@pytest.mark.parametrize("host", ["::1", "::"])
def test_an_address_that_triton_can_not_take_is_refused_before_it_starts(host: str) -> None:
    with pytest.raises(BadRequestError, match=f"{host}.*IPv4"):
        TritonServer().start(ServeOptions(host=host))


def test_a_server_on_every_address_is_reached_by_loopback() -> None:
    assert [reachable(host) for host in ("0.0.0.0", "::", "127.0.0.1")] == ["127.0.0.1", "::1", "127.0.0.1"]  # noqa: S104


def test_each_service_is_looked_for_on_its_own_address() -> None:
    with socket.create_server((LOOPBACK, 0)) as taken:
        port = taken.getsockname()[1]
        assert choose_ports({"http": OTHER, "grpc": LOOPBACK}, {"http": port, "grpc": 0})["http"] == port
        with pytest.raises(BadRequestError, match=rf"--http-port {port} can't be had on 127\.0\.0\.1"):
            choose_ports({"http": LOOPBACK, "grpc": OTHER}, {"http": port, "grpc": 0})


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [({"http": 0, "grpc": 0}, {"http": 7, "grpc": 8}), ({"http": 0, "grpc": 7}, {"http": 8, "grpc": 7})],
)
def test_a_port_that_is_free_on_two_addresses_is_given_to_one_service(
    wanted: dict[str, int], chosen: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    free = iter([7, 7, 8] if 7 not in wanted.values() else [7, 8])
    monkeypatch.setattr("tritonrag.ports._bind", lambda _held, _address, _name, port: port or next(free))
    assert choose_ports({"http": LOOPBACK, "grpc": OTHER}, wanted) == chosen
