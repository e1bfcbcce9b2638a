"""Reads deploy/compose.yaml as Compose does, as far as our promises about it need, and says where it breaks one.

That its keys and types are right is the schema's business (check-jsonschema); here it is about what the file means.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from tests.unit.deploy_dockerfile import Dockerfile, command_problems, environment_problems, image_problems

_DEFAULT = re.compile(r"\$\{\w+:-([^}]*)\}")
TOOLS = "tools"


@dataclass(frozen=True, slots=True, kw_only=True)
class Compose:
    """The file with its variables at their defaults. `folder` is where it lies, and what its paths are relative to."""

    model: dict[str, Any]
    folder: Path

    @classmethod
    def parse(cls, text: str, folder: Path) -> "Compose":
        return cls(model=yaml.safe_load(_DEFAULT.sub(r"\1", text)), folder=folder)

    @property
    def services(self) -> dict[str, dict[str, Any]]:
        return dict(self.model["services"])

    def dockerfile(self, service: dict[str, Any]) -> Dockerfile | None:
        """What a service is built from; None where its image comes from a registry."""
        build = service.get("build")
        if build is None:
            return None
        return Dockerfile.parse((self.folder / build["context"] / build["dockerfile"]).read_text())

    def addresses(self, name: str) -> set[str]:
        """The names by which others reach a service."""
        networks = self.services[name].get("networks", {})
        options = networks.values() if isinstance(networks, dict) else ()
        return {name}.union(*(each.get("aliases", ()) for each in options))

    def environment(self, service: dict[str, Any], own: dict[str, str] | None = None) -> dict[str, str]:
        """The variables of a service, as Compose puts them together, where a file that need not be there holds `own`."""
        merged: dict[str, str] = {}
        for file in service.get("env_file", ()):
            merged |= (own or {}) if not file.get("required", True) else variables(self.folder / file["path"])
        return merged | service.get("environment", {})

    def problems(self, *, version: str) -> list[str]:
        """Every promise that this file breaks, in words."""
        found = list(self._unknown_names())
        for name, service in self.services.items():
            checks = (
                _hardening,
                self._user,
                partial(_image, version=version),
                self._health,
                _ports,
                self._mounts,
                self._environment,
                self._command,
            )
            found += [f"{name}: {problem}" for check in checks for problem in check(service)]
        return found

    def _unknown_names(self) -> Iterator[str]:
        volumes, networks = set(self.model["volumes"]), set(self.model["networks"])
        used_volumes, used_networks = set(), set()
        for name, service in self.services.items():
            used_volumes |= {mount.source for mount in mounts(service) if mount.is_volume}
            used_networks |= set(service.get("networks", ()))
            for other in service.get("depends_on", ()):
                if other not in self.services:
                    yield f"{name} depends on {other}, which is no service"
                elif not set(service["profiles"]) <= set(self.services[other]["profiles"]):
                    yield f"{name} depends on {other}, which is not in all of its profiles"
        yield from (f"the volume {each} is not declared" for each in used_volumes - volumes)
        yield from (f"the volume {each} is not used" for each in volumes - used_volumes)
        yield from (f"the network {each} is not declared" for each in used_networks - networks)
        yield from (f"the network {each} is not used" for each in networks - used_networks)

    def _user(self, service: dict[str, Any]) -> Iterator[str]:
        file = self.dockerfile(service)
        user = service.get("user") or (file.last("USER")[-1].value if file and file.last("USER") else "0")
        if not re.fullmatch(r"[1-9]\d*:[1-9]\d*", user):
            yield f"runs as {user}, not as a user and group by number other than root"

    def _health(self, service: dict[str, Any]) -> Iterator[str]:
        own, file = service.get("healthcheck", {}), self.dockerfile(service)
        if own.get("disable"):
            if service["profiles"] != [TOOLS]:
                yield "its health check is switched off"
        elif not own.get("test") and not (file and file.last("HEALTHCHECK")):
            yield "has no health check"

    def _mounts(self, service: dict[str, Any]) -> Iterator[str]:
        for mount in mounts(service):
            if not mount.is_volume and not (self.folder / mount.source).exists():
                yield f"mounts {mount.source}, which is not in the repository"
            if mount.target in {"/documents", "/models"} and not mount.read_only:
                yield f"can write to {mount.target}"
            if mount.target == "/data" and mount.read_only != (service["profiles"] != [TOOLS]):
                yield f"its {mount.target} is {'read-only' if mount.read_only else 'writable'}"

    def _environment(self, service: dict[str, Any]) -> Iterator[str]:
        needed = [each["path"] for each in service.get("env_file", ()) if each.get("required", True)]
        missing = [path for path in needed if not (self.folder / path).exists()]
        yield from (f"reads {path}, which is not in the repository" for path in missing)
        file = self.dockerfile(service)
        if file and not missing:
            yield from environment_problems(file.environment() | self.environment(service))

    def _command(self, service: dict[str, Any]) -> Iterator[str]:
        if "build" in service and "command" in service:
            yield from command_problems(["tritonrag", *service["command"]])


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    source: str
    target: str
    read_only: bool

    @property
    def is_volume(self) -> bool:
        return not self.source.startswith((".", "/", "~"))


def mounts(service: dict[str, Any]) -> list[Mount]:
    return [_mount(each) for each in service.get("volumes", ())]


def _mount(written: str | dict[str, Any]) -> Mount:
    if isinstance(written, dict):
        return Mount(source=written["source"], target=written["target"], read_only=written.get("read_only", False))
    source, target, *options = written.split(":")
    return Mount(source=source, target=target, read_only="ro" in options)


def _hardening(service: dict[str, Any]) -> Iterator[str]:
    if service.get("read_only") is not True:
        yield "its root is writable"
    if service.get("cap_drop") != ["ALL"]:
        yield "keeps capabilities"
    if "no-new-privileges:true" not in service.get("security_opt", ()):
        yield "may gain privileges"
    if service.get("privileged") or service.get("cap_add"):
        yield "is given privileges"
    for each in service.get("tmpfs", ()):
        options = set(each.partition(":")[2].split(","))
        if not {"noexec", "nosuid", "nodev"} <= options or not any(option.startswith("size=") for option in options):
            yield f"the tmpfs {each} is not bounded, or can hold programs"


def _image(service: dict[str, Any], *, version: str) -> Iterator[str]:
    tag = service["image"].partition(":")[2]
    if "build" in service and tag != version:
        yield f"the image {service['image']} is not of version {version}"
    yield from image_problems(service["image"])


def _ports(service: dict[str, Any]) -> Iterator[str]:
    for port in service.get("ports", ()):
        if not re.fullmatch(r"127\.0\.0\.1:(\d+):\1", port):
            yield f"publishes {port}: not the same port on loopback alone"


def published(service: dict[str, Any]) -> set[int]:
    """The container's ports that the machine has too."""
    return {int(port.rpartition(":")[2]) for port in service.get("ports", ())}


def seconds(text: str) -> int:
    """A duration of seconds or minutes: 60s, 2m."""
    return int(text[:-1]) * {"s": 1, "m": 60}[text[-1]]


def variables(path: Path) -> dict[str, str]:
    """What an env file holds: NAME=value in each line, but for comments."""
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return {name: value for name, _, value in (line.partition("=") for line in lines)}
