"""The image's build fails where a package of ours, in front of the base image's, breaks what the base has."""

import importlib.util
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

SCRIPT = Path(__file__).parents[2] / "deploy" / "docker" / "check_overlay.py"


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_overlay", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


OVERLAY = load()


def install(folder: Path, packages: Mapping[str, tuple[str, list[str]]]) -> Path:
    """Write the metadata of packages: name to version and requirements."""
    for name, (version, requires) in packages.items():
        metadata = folder / f"{name.replace('-', '_')}-{version}.dist-info" / "METADATA"
        metadata.parent.mkdir(parents=True)
        lines = [f"Name: {name}", f"Version: {version}", *(f"Requires-Dist: {each}" for each in requires)]
        metadata.write_text("Metadata-Version: 2.1\n" + "\n".join(lines) + "\n")
    folder.mkdir(exist_ok=True)
    return folder


BASE: dict[str, tuple[str, list[str]]] = {
    "tensorrt_llm": ("1.2.1", ["numpy<2", "transformers==4.57.1", "openai", "absent>3", "modelopt[torch]~=0.37.0"]),
    "transformers": ("4.57.1", ["tokenizers<=0.23.0,>=0.22.0", "huggingface-hub<1.0"]),
    "tokenizers": ("0.22.1", []),
    "huggingface-hub": ("0.36.0", []),
    "numpy": ("1.26.4", []),
    "modelopt": ("0.37.0", ["pulp", 'onnx<1.20; extra == "onnx"', 'rich<14; extra == "torch"', "torch<2; python_version < '3'"]),
    "onnx": ("1.19.0", []),
    "rich": ("13.9.0", []),
    "torch": ("2.10.0a0", []),
    "pulp": ("3.1", ["rich>=13"]),
    "jupyter": ("1.0", ["attrs<20"]),
    "attrs": ("19.0", []),
    "openai": ("2.0", ["httpx>=1"]),
    "httpx": ("0.28", []),
}  # fmt: skip


def broken(tmp_path: Path, ours: Mapping[str, str], root: str = "tensorrt-llm") -> list[str]:
    base = OVERLAY.installed([str(install(tmp_path / "base", BASE))])
    front = OVERLAY.installed(
        [str(install(tmp_path / "ours", {name: (version, []) for name, version in ours.items()}))]
    )
    return list(OVERLAY.broken(base, front, [root]))


@pytest.mark.parametrize(
    "ours",
    [
        pytest.param({}, id="nothing is in front"),
        pytest.param({"faiss-gpu-cuvs": "1.15.1"}, id="the base has no such package"),
        pytest.param({"numpy": "1.26.4", "tokenizers": "0.22.2"}, id="versions that are allowed"),
        pytest.param({"attrs": "26.1"}, id="what needs it is nothing that TensorRT-LLM needs"),
        pytest.param({"onnx": "1.22"}, id="only an extra that nobody asked for minds"),
        pytest.param({"torch": "2.9"}, id="the condition does not hold"),
        pytest.param({"httpx": "0.27"}, id="the base's own version was not allowed either"),
        pytest.param({"absent": "2"}, id="the base lacked it"),
    ],
)
def test_what_breaks_nothing_passes(tmp_path: Path, ours: dict[str, str]) -> None:
    assert broken(tmp_path, ours) == []


@pytest.mark.parametrize(
    ("ours", "who"),
    [
        ({"numpy": "2.3.0"}, "tensorrt-llm 1.2.1 needs numpy<2"),
        ({"tokenizers": "0.23.3"}, "transformers 4.57.1 needs tokenizers"),
        ({"huggingface_hub": "2.4.0"}, "transformers 4.57.1 needs huggingface-hub<1.0"),
        ({"rich": "15.0.0"}, "modelopt 0.37.0 needs rich<14"),
        ({"Rich": "12.0"}, "pulp 3.1 needs rich>=13"),
    ],
)
def test_what_breaks_a_need_near_or_far_is_named_with_both_versions(
    tmp_path: Path, ours: dict[str, str], who: str
) -> None:
    (name, version), (problem,) = *ours.items(), broken(tmp_path, ours)
    assert who in problem
    assert version in problem
    assert "gpu-constraints.txt" in problem
    assert name.lower().replace("_", "-") in problem


def test_an_image_without_tensorrt_llm_is_not_the_one_that_we_think(tmp_path: Path) -> None:
    assert broken(tmp_path, {}, root="tensorrt_llm_next") == ["the base image has no tensorrt-llm-next"]


VERSIONS = st.sampled_from(["1.0", "1.5", "2.0a0", "2.0", "2.0.post1", "3.1"])


@given(bound=VERSIONS, own=VERSIONS, new=VERSIONS)
def test_a_problem_is_told_exactly_where_the_base_was_well_and_is_not_any_more(
    tmp_path_factory: pytest.TempPathFactory, bound: str, own: str, new: str
) -> None:
    from packaging.version import Version  # noqa: PLC0415 - the oracle

    folder = tmp_path_factory.mktemp("overlay")
    base = install(folder / "base", {"root": ("1", [f"part<={bound}"]), "part": (own, [])})
    ours = install(folder / "ours", {"part": (new, [])})
    found = OVERLAY.broken(OVERLAY.installed([str(base)]), OVERLAY.installed([str(ours)]), ["root"])
    assert bool(found) == (Version(own) <= Version(bound) < Version(new))


def test_the_script_ends_in_status_1_with_a_line_on_stderr_and_0_where_all_is_well() -> None:
    line = [sys.executable, str(SCRIPT)]
    missing = subprocess.run([*line, "no-such-package"], capture_output=True, text=True, check=False)
    well = subprocess.run(line, capture_output=True, text=True, check=False)
    assert (missing.returncode, missing.stderr) == (1, "check_overlay: the base image has no no-such-package\n")
    assert (well.returncode, well.stderr) == (0, "")
