"""requirements/gpu.lock is what the production image installs: pinned, hashed, and without what the image has or must not have."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).parents[2]
REQUIREMENTS = REPOSITORY / "requirements"
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
EXTRAS = ("gpu", "redis", "build")
FORBIDDEN = {
    "faiss-cpu",
    "onnxruntime",
    "onnxruntime-genai",
    "nvidia-pytriton",
}  # the GPU builds and the image's Triton instead
OF_THE_IMAGE = {"torch", "tensorrt-llm", "transformers", "huggingface-hub"}


def blocks(text: str) -> dict[str, tuple[str, int]]:
    """Each requirement's version and number of hashes by name; raises ValueError where a line is none of a lock."""
    found: dict[str, tuple[str, int]] = {}
    for block in re.split(r"\n(?=\S)", re.sub(r"^ *#.*\n", "", text, flags=re.MULTILINE).strip()):
        head, *hashes = block.replace("\\\n", "\n").splitlines()
        pin = re.fullmatch(r"([a-z0-9.-]+)==([^ ;]+)( ;.*)?", head.strip())
        if pin is None or not all(re.fullmatch(r" +--hash=sha256:[0-9a-f]{64} *", line) for line in hashes):
            raise ValueError(block)
        found[canonicalize_name(pin[1])] = (pin[2], len(hashes))
    return found


def lines(name: str) -> list[Requirement]:
    text = (REQUIREMENTS / name).read_text().splitlines()
    return [Requirement(line) for line in text if line and not line.startswith("#")]


LOCK = blocks((REQUIREMENTS / "gpu.lock").read_text())


def test_everything_is_pinned_and_hashed() -> None:
    assert len(LOCK) > 40
    assert [name for name, (_, hashes) in LOCK.items() if hashes == 0] == []


@pytest.mark.parametrize(
    "broken",
    [
        "numpy>=1.26 \\\n    --hash=sha256:" + "0" * 64,
        "numpy @ https://example.org/numpy.whl",
        "numpy==1 \\\n    --hash=md5:0",
    ],
)
def test_what_is_not_pinned_or_not_hashed_would_be_found(broken: str) -> None:
    with pytest.raises(ValueError, match="numpy"):
        blocks(broken)


def test_a_pin_without_a_hash_would_be_found() -> None:
    assert blocks("numpy==1\nredis==2 \\\n    --hash=sha256:" + "0" * 64) == {"numpy": ("1", 0), "redis": ("2", 1)}


def test_the_gpu_builds_are_there_and_nothing_that_would_stand_in_their_way_or_in_that_of_the_image() -> None:
    assert {"faiss-gpu-cuvs", "onnxruntime-gpu", "onnxruntime-genai-cuda", "tritonclient", "hatchling"} <= set(LOCK)
    assert (FORBIDDEN | OF_THE_IMAGE).isdisjoint(LOCK)


def test_what_is_left_out_is_left_out_by_the_overrides() -> None:
    assert {canonicalize_name(each.name) for each in lines("gpu-overrides.txt")}.isdisjoint(LOCK)
    assert all(each.marker is not None and not each.marker.evaluate() for each in lines("gpu-overrides.txt"))


def test_the_image_gets_everything_that_pyproject_asks_for_in_a_version_that_it_allows() -> None:
    left_out = {canonicalize_name(each.name) for each in lines("gpu-overrides.txt")}
    wanted = [*PROJECT["dependencies"], *(each for extra in EXTRAS for each in PROJECT["optional-dependencies"][extra])]
    for requirement in map(Requirement, wanted):
        name = canonicalize_name(requirement.name)
        if name not in left_out:
            assert requirement.specifier.contains(LOCK[name][0], prereleases=True), requirement


def test_versions_are_within_what_the_base_image_can_live_with() -> None:
    bounds: dict[str, SpecifierSet] = {
        canonicalize_name(each.name): each.specifier for each in lines("gpu-constraints.txt")
    }
    assert {"numpy", "tokenizers"} <= set(bounds)
    for name, bound in bounds.items():
        assert bound.contains(LOCK[name][0]), f"{name} {LOCK[name][0]}"


def test_versions_are_those_that_are_tested_here_but_for_those_that_the_base_image_bounds() -> None:
    tested = {
        canonicalize_name(name): version
        for name, version in re.findall(
            r"^([a-z0-9.-]+)==([^ ;]+)", (REQUIREMENTS / "demo.lock").read_text(), re.MULTILINE
        )
    }
    different = {name for name, (version, _) in LOCK.items() if tested.get(name, version) != version}
    assert different == {"tokenizers"}
