"""Run where a GPU is: `python -m pytest -m gpu tests/gpu`.

Tests of encoder and index run on the CPU in a GPU's place too, everywhere: what they ask is tried, and only a GPU's answers are
missing where there is none.
"""

import sys
from pathlib import Path

import pytest

from tritonrag_backends.embedding.format import ENCODER_FILE
from tritonrag_export.embedder.exporter import ExportOptions, export_embedder

sys.path.append(str(Path(__file__).parents[1] / "unit"))  # what the unit tests make indexes with


@pytest.fixture(scope="session")
def gpu_embedder_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real model with its FP16 graph."""
    folder = tmp_path_factory.mktemp("gpu-embedder") / "embedder"
    export_embedder(None, folder, options=ExportOptions(target="onnx-fp16"))
    assert (folder / ENCODER_FILE).is_file()
    return folder
