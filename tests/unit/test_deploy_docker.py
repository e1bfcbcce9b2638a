"""The Dockerfiles keep what docs/production.md promises; none was ever built here, so they are read, linted, and run in parts."""

import subprocess
import sys
from pathlib import Path

import pytest
from tests.unit.deploy_dockerfile import Dockerfile, dockerfile_problems, image_problems, parse_command

REPOSITORY = Path(__file__).parents[2]
DOCKER = REPOSITORY / "deploy" / "docker"
NAMES = ("Dockerfile", "Dockerfile.cpu")
HADOLINT = Path(sys.executable).with_name("hadolint")


def hadolint(path: Path) -> subprocess.CompletedProcess[str]:
    line = [HADOLINT, "--no-color", "--config", DOCKER / ".hadolint.yaml", path]
    return subprocess.run(line, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", NAMES)
def test_hadolint_finds_nothing(name: str) -> None:
    done = hadolint(DOCKER / name)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize(
    ("good", "bad", "rule"),
    [
        ("USER 10001:10001\n", "USER root\n", "DL3002"),
        ("WORKDIR /src\n", "WORKDIR src\n", "DL3000"),
        ('ENTRYPOINT ["tritonrag"]\n', "ENTRYPOINT tritonrag\n", "DL3025"),
        ("FROM ${TRITON_IMAGE}\n", "FROM example.org/tritonserver:26.07\n", "DL3026"),
        ('version="0.1.0"', 'version="newest"', "DL3056"),
    ],
)
def test_hadolint_would_find_a_fault(tmp_path: Path, good: str, bad: str, rule: str) -> None:
    text = (DOCKER / "Dockerfile").read_text()
    (tmp_path / "Dockerfile").write_text(text.replace(good, bad))
    done = hadolint(tmp_path / "Dockerfile")
    assert good in text
    assert done.returncode != 0
    assert rule in done.stdout


@pytest.mark.parametrize("name", NAMES)
def test_the_dockerfiles_keep_our_promises(name: str) -> None:
    assert dockerfile_problems((DOCKER / name).read_text(), REPOSITORY) == []


@pytest.mark.parametrize(
    ("good", "bad", "problem"),
    [
        ("26.07-trtllm-python-py3", "26.05-trtllm-python-py3", "older than 26.06"),
        ("tritonserver:26.07-trtllm-python-py3", "tritonserver:latest", "not pinned"),
        ("tritonserver:26.07-trtllm-python-py3", "tritonserver", "not pinned"),
        ("USER 10001:10001\n", "", "no USER"),
        ("USER 10001:10001\n", "USER tritonrag\n", "not a number above 0"),
        ("USER 10001:10001\n", "USER 0\n", "not a number above 0"),
        ('ENTRYPOINT ["tritonrag"]', 'ENTRYPOINT ["tritonrag"]\nUSER 10001:10001', "after ENTRYPOINT"),
        ('ENTRYPOINT ["tritonrag"]', "ENTRYPOINT tritonrag", "exec form"),
        ('ENTRYPOINT ["tritonrag"]', 'ENTRYPOINT ["tritonserver"]', "tritonserver is started"),
        ("COPY perf perf\n", "COPY perf performance perf\n", "performance is not in the repository"),
        ("COPY perf perf\n", "", "perf goes into the wheel"),
        ("TRITONRAG_INDEX=", "TRITONRAG_INDX=", "TRITONRAG_INDX"),
        ("TRITONRAG_INDEX=/data/index", "TRITONRAG_RETRIEVER_POLL_S=often", "TRITONRAG_RETRIEVER_POLL_S"),
        ('image.version="0.1.0"', 'image.version="0.0.9"', "does not say version 0.1.0"),
        ('"--allow-non-loopback"', '"--allow-everybody"', "does not parse"),
        ('"--profile", "gpu"', '"--profile", "tpu"', "does not parse"),
        ('CMD ["serve"', 'CMD ["server"', "does not parse"),
    ],
)
def test_a_broken_dockerfile_is_found(good: str, bad: str, problem: str) -> None:
    text = (DOCKER / "Dockerfile").read_text()
    assert good in text
    replaced = text.replace("USER 10001:10001\n", "") if "USER" in bad and "ENTRYPOINT" in good else text
    assert any(problem in found for found in dockerfile_problems(replaced.replace(good, bad), REPOSITORY))


@pytest.mark.parametrize(
    "image", ["tritonserver:26.06-py3", "nvcr.io/nvidia/tritonserver:27.01-py3", "redis:8.8.3-alpine"]
)
def test_images_that_are_new_enough_pass(image: str) -> None:
    assert list(image_problems(image)) == []


@pytest.mark.parametrize("name", NAMES)
def test_all_stages_begin_with_the_same_image_so_that_the_environment_built_in_one_runs_in_the_other(name: str) -> None:
    assert len(set(Dockerfile.parse((DOCKER / name).read_text()).images())) == 1


@pytest.mark.parametrize(("name", "profile"), [("Dockerfile", "gpu"), ("Dockerfile.cpu", "cpu")])
def test_the_image_serves_its_profile_to_other_containers_on_the_ports_that_it_exposes(name: str, profile: str) -> None:
    file = Dockerfile.parse((DOCKER / name).read_text())
    options = parse_command(file.command_line()[1:])
    assert (options["profile"], options["host"], options["allow_non_loopback"]) == (profile, "0.0.0.0", True)  # noqa: S104
    services = ("http", "grpc", "metrics", "health")
    assert {options[f"{service}_port"] for service in services} == file.ports()
    assert options["log_file"].parent == Path(file.environment()["HOME"]), "the log would grow in memory"


def test_a_build_sees_what_is_copied_and_nothing_else() -> None:
    lines = (REPOSITORY / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    copied = {
        source.split("/")[0] for name in NAMES for source in Dockerfile.parse((DOCKER / name).read_text()).sources()
    }
    assert rules[0] == "*"
    assert {rule.removeprefix("!") for rule in rules if rule.startswith("!")} == copied
