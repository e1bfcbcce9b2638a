"""What unit and server tests share."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny_hf_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny language model as transformers saves it."""
    from tests.tiny_llm import make_hf_model  # noqa: PLC0415 - loads torch, which few tests need

    return make_hf_model(tmp_path_factory.mktemp("tiny") / "hf")


@pytest.fixture(scope="session")
def tiny_llm_dir(tiny_hf_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, exported for ONNX Runtime GenAI in fp32."""
    folder = tmp_path_factory.mktemp("tiny") / "genai"
    builder = [sys.executable, "-m", "onnxruntime_genai.models.builder"]
    subprocess.run(
        [*builder, "-m", str(tiny_hf_dir), "-i", str(tiny_hf_dir), "-o", str(folder), "-p", "fp32", "-e", "cpu"],
        check=True,
        capture_output=True,
    )
    return folder
