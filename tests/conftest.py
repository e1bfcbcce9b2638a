"""What unit and server tests share."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny_hf_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny language model as transformers saves it."""
    from tests.tiny_llm import make_hf_model  # noqa: PLC0415 - loads torch, which few tests need

    return make_hf_model(tmp_path_factory.mktemp("tiny") / "hf")


@pytest.fixture(scope="session")
def tiny_lora_dirs(tiny_hf_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two LoRA adapters for it as PEFT saves them, by name."""
    from tests.tiny_llm import make_lora_adapters  # noqa: PLC0415 - loads torch

    return make_lora_adapters(tiny_hf_dir, tmp_path_factory.mktemp("lora"))


@pytest.fixture(scope="session")
def tiny_llm_dir(tiny_hf_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model exported for ONNX Runtime GenAI in fp32."""
    from tritonrag_export.generator.exporter import export_generator  # noqa: PLC0415 - loads onnx

    folder = tmp_path_factory.mktemp("tiny") / "genai"
    export_generator(tiny_hf_dir, folder, precision="fp32")
    return folder


@pytest.fixture(scope="session")
def tiny_llm_with_adapters_dir(
    tiny_hf_dir: Path, tiny_lora_dirs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The same with both adapters."""
    from tritonrag_export.generator.exporter import export_generator  # noqa: PLC0415 - loads onnx

    folder = tmp_path_factory.mktemp("tiny") / "genai-lora"
    export_generator(tiny_hf_dir, folder, precision="fp32", adapters=tiny_lora_dirs)
    return folder


@pytest.fixture(scope="session")
def endless_llm_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny language model that writes on until it is stopped, so that a test can be sure to stop it in the middle."""
    from tests.tiny_llm import make_hf_model  # noqa: PLC0415 - loads torch
    from tritonrag_export.generator.exporter import export_generator  # noqa: PLC0415 - loads onnx

    folder = tmp_path_factory.mktemp("endless")
    export_generator(make_hf_model(folder / "hf", endless=True), folder / "genai", precision="fp32")
    return folder / "genai"
