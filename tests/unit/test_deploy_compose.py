"""deploy/compose.yaml and what it mounts keep what docs/production.md promises; no Compose ever ran them here."""

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.unit.deploy_compose import TOOLS, Compose, published, seconds
from tests.unit.deploy_dockerfile import environment_problems, parse_command

from tritonrag.launcher import _BEYOND_DRAIN_S
from tritonrag_backends.settings import load_settings

REPOSITORY = Path(__file__).parents[2]
DEPLOY = REPOSITORY / "deploy"
TEXT = (DEPLOY / "compose.yaml").read_text()
VERSION = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]
SERVERS = ("tritonrag-cpu", "tritonrag-gpu")


def compose(text: str = TEXT) -> Compose:
    return Compose.parse(text, DEPLOY)


def service(name: str) -> dict[str, Any]:
    return compose().services[name]


def check_schema(path: Path) -> subprocess.CompletedProcess[str]:
    """With the Compose Specification's own schema, which check-jsonschema carries; nothing is fetched."""
    line = [Path(sys.executable).with_name("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", path]
    return subprocess.run(line, capture_output=True, text=True, check=False)


def test_the_file_is_as_the_compose_specification_wants_it() -> None:
    done = check_schema(DEPLOY / "compose.yaml")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ("stop_grace_period:", "stop_grace:"),
        ("cap_drop: [ALL]", "cap_drop: ALL"),
        ("depends_on: [redis]", "depends_on: redis"),
    ],
)
def test_the_schema_would_find_a_fault(tmp_path: Path, good: str, bad: str) -> None:
    assert good in TEXT
    (tmp_path / "compose.yaml").write_text(TEXT.replace(good, bad))
    assert check_schema(tmp_path / "compose.yaml").returncode == 1


def test_the_file_keeps_our_promises() -> None:
    assert compose().problems(version=VERSION) == []


@pytest.mark.parametrize(
    ("good", "bad", "problem"),
    [
        ("read_only: true\n  cap_drop", "cap_drop", "its root is writable"),
        ("cap_drop: [ALL]", "cap_drop: [NET_RAW]", "keeps capabilities"),
        ("no-new-privileges:true", "no-new-privileges:false", "may gain privileges"),
        ("pids_limit: 4096", "cap_add: [SYS_ADMIN]", "is given privileges"),
        ("size=1g,mode=1777,noexec", "size=1g,mode=1777,exec", "can hold programs"),
        ('user: "999:1000"', 'user: "0:0"', "redis: runs as 0:0"),
        ('    user: "999:1000"\n', "", "redis: runs as 0"),
        ("redis:8.8.3-alpine", "redis:alpine", "not pinned"),
        ("image: tritonrag-gpu:0.1.0", "image: tritonrag-gpu:0.0.9", "not of version"),
        ("test: [CMD, redis-cli, ping]", "interval: 5s", "redis: has no health check"),
        ("shm_size: 1gb", "shm_size: 1gb\n    healthcheck: {disable: true}", "tritonrag-cpu: its health check is switched off"),
        ("127.0.0.1:8000:8000", "8000:8000", "publishes 8000:8000"),
        ("127.0.0.1:8000:8000", "0.0.0.0:8000:8000", "publishes 0.0.0.0:8000:8000"),
        ("- data:/data:ro", "- data:/data", "its /data is writable"),
        ("- data:/data\n      - ${D", "- data:/data:ro\n      - ${D", "index: its /data is read-only"),
        ("/documents:ro", "/documents", "can write to /documents"),
        ("./prometheus/prometheus.yml", "./prometheus/prom.yml", "not in the repository"),
        ("  state: {}", "  stat: {}", "the volume state is not declared"),
        ("  edge: {}\n\nvolumes", "\nvolumes", "the network edge is not declared"),
        ("depends_on: [redis]", "depends_on: [valkey]", "no service"),
        ('[cpu, gpu]\n    user: "999', '[cpu]\n    user: "999', "not in all of its profiles"),
        ("  env_file:", "  environment: {TRITONRAG_CACHE_STORE: valkey}\n  env_file:", "TRITONRAG_CACHE_STORE"),
        ("  env_file:", "  environment: {TRITONRAG_CACHE_SHOP: redis}\n  env_file:", "TRITONRAG_CACHE_SHOP"),
        ("path: defaults.env", "path: default.env", "reads default.env, which is not in the repository"),
        ("[index, build, /documents,", "[index, make, /documents,", "does not parse"),
    ],
)  # fmt: skip
def test_a_broken_file_is_found(good: str, bad: str, problem: str) -> None:
    assert good in TEXT
    assert any(problem in found for found in compose(TEXT.replace(good, bad)).problems(version=VERSION))


@pytest.mark.parametrize(
    ("good", "bad", "problem"),
    [
        ("TRITONRAG_CACHE_STORE=redis", "TRITONRAG_CACHE_STORE=valkey", "TRITONRAG_CACHE_STORE"),
        ("TRITONRAG_CACHE_STORE=", "TRITONRAG_CACHE_SHOP=", "TRITONRAG_CACHE_SHOP"),
    ],
)
def test_a_wrong_setting_among_the_defaults_is_found(tmp_path: Path, good: str, bad: str, problem: str) -> None:
    text, broken = (DEPLOY / "defaults.env").read_text(), tmp_path / "broken.env"
    assert good in text
    broken.write_text(text.replace(good, bad))
    found = compose(TEXT.replace("path: defaults.env", f"path: {broken}")).problems(version=VERSION)
    assert any(problem in each for each in found)


@pytest.mark.parametrize("name", SERVERS)
def test_what_a_person_sets_counts_over_the_settings_that_the_file_brings(name: str) -> None:
    own = {"TRITONRAG_CACHE_STORE": "off", "TRITONRAG_CACHE_REDIS_URL": "redis://:secret@elsewhere:6379/0"}
    cache = load_settings(compose().environment(service(name), own)).cache
    assert cache.store == "off"
    assert cache.redis_url.get_secret_value() == own["TRITONRAG_CACHE_REDIS_URL"]


@pytest.mark.parametrize("name", SERVERS)
def test_a_server_gets_the_time_that_it_needs_to_let_running_requests_end(name: str) -> None:
    file = compose().dockerfile(service(name))
    assert file is not None
    options = parse_command(file.command_line()[1:])
    drain_s = options["drain_delay_s"] + options["drain_timeout_s"]
    assert seconds(service(name)["stop_grace_period"]) > drain_s + _BEYOND_DRAIN_S


@pytest.mark.parametrize("name", SERVERS)
def test_the_ports_of_image_machine_and_command_are_the_same(name: str) -> None:
    file = compose().dockerfile(service(name))
    assert file is not None
    assert published(service(name)) == file.ports()


@pytest.mark.parametrize("name", SERVERS)
def test_the_answer_cache_is_the_redis_beside_the_server(name: str) -> None:
    cache = load_settings(compose().environment(service(name))).cache
    host = cache.redis_url.get_secret_value().removeprefix("redis://").partition(":")[0]
    assert cache.store == "redis"
    assert set(service(host)["networks"]) <= set(service(name)["networks"])


def test_nothing_but_the_servers_can_reach_the_cache_and_the_cache_can_reach_nothing() -> None:
    assert compose().model["networks"]["cache"] == {"internal": True}
    assert service("redis")["networks"] == ["cache"]
    members = {name for name, each in compose().services.items() if "cache" in each.get("networks", ())}
    assert members == {"redis", *SERVERS}


def test_prometheus_scrapes_servers_by_a_name_and_port_that_they_have() -> None:
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    (job,) = (each for each in config["scrape_configs"] if each["job_name"] == "tritonrag")
    (target,) = (target for group in job["static_configs"] for target in group["targets"])
    host, _, port = target.partition(":")
    for name in SERVERS:
        file = compose().dockerfile(service(name))
        assert file is not None
        assert host in compose().addresses(name)
        assert int(port) == parse_command(file.command_line()[1:])["metrics_port"]
        assert set(service("prometheus")["networks"]) <= set(service(name)["networks"])


def test_only_profile_gpu_asks_for_gpus() -> None:
    asking = {name for name, each in compose().services.items() if "deploy" in each}
    (device,) = service("tritonrag-gpu")["deploy"]["resources"]["reservations"]["devices"]
    assert asking == {"tritonrag-gpu"}
    assert device == {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}


def test_the_tools_write_where_the_servers_read() -> None:
    tools = {name: each for name, each in compose().services.items() if each["profiles"] == [TOOLS]}
    assert set(tools) == {"export", "index"}
    for name in SERVERS:
        file = compose().dockerfile(service(name))
        assert file is not None
        settings = load_settings(file.environment())
        assert parse_command(tools["export"]["command"])["output"] == settings.embedder.model
        assert parse_command(tools["index"]["command"])["output"] == settings.index
        assert settings.index.is_relative_to("/data")


def test_the_variables_of_the_file_itself_are_none_that_the_command_would_refuse() -> None:
    assert "${TRITONRAG_" not in TEXT


def test_the_commands_on_the_page_name_files_profiles_and_services_that_there_are() -> None:
    page = (REPOSITORY / "docs" / "production.md").read_text()
    commands = [shlex.split(line) for line in re.findall(r"^\$ (.*docker .*)$", page, flags=re.MULTILINE)]
    assert len(commands) >= 5
    for words in commands:
        assert (REPOSITORY / words[words.index("-f") + 1]).is_file()
        if "build" in words:
            assert words[words.index("-t") + 1] in {each["image"] for each in compose().services.values()}
            continue
        profile = words[words.index("--profile") + 1]
        members = {name for name, each in compose().services.items() if profile in each["profiles"]}
        assert members
        assert "run" not in words or words[-1] in members


def test_what_the_page_tells_to_set_are_settings_and_the_file_for_them_is_kept_out_of_git_and_images() -> None:
    page = (REPOSITORY / "docs" / "production.md").read_text()
    given = dict(re.findall(r"^(TRITONRAG_\w+)=(.*)$", page, flags=re.MULTILINE))
    assert list(environment_problems(given)) == []
    assert given
    _, file = service("tritonrag-gpu")["env_file"]
    assert file["required"] is False
    for ignored in (".gitignore", ".dockerignore"):
        assert f"deploy/{file['path']}" in (REPOSITORY / ignored).read_text().splitlines()
