"""A checkpoint for TensorRT-LLM: weights quantised by NVIDIA's ModelOpt, in a folder that the LLM API loads.

Written after NVIDIA's own examples/llm_ptq/hf_ptq.py (Model-Optimizer). Two forms:

    unified    config.json, hf_quant_config.json, *.safetensors, tokenizer: what the LLM API reads, any number of GPUs
    legacy     config.json, rank0.safetensors: what trtllm-build makes an engine of, for one GPU

Calibration measures the range of activations, so the texts should be of the kind that will be asked: passages and questions.
Loads torch, so it runs in a process of its own (worker.py).
"""

import importlib.util
import json
import pydoc_data.topics
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from tritonrag_client.errors import BadRequestError, UnavailableError
from tritonrag_export.generator.making import Report, checkpoint_of
from tritonrag_export.generator.source import Source

Quantise = Literal["none", "fp8", "int4-awq", "nvfp4"]
Form = Literal["unified", "legacy"]

MANIFEST_FILE: Final = "checkpoint.json"
CONFIGS: Final[Mapping[Quantise, str]] = {
    "fp8": "FP8_DEFAULT_CFG",
    "int4-awq": "INT4_AWQ_CFG",
    "nvfp4": "NVFP4_DEFAULT_CFG",
}
CALIBRATION_TEXTS: Final = 256
CALIBRATION_TOKENS: Final = 512
_CALIBRATION_CHARACTERS: Final = 2_000  # about 512 tokens of English
_COPIED: Final = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt")


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointJob:
    """What to prepare, and where: `folder` becomes the checkpoint. `calibration` None: Python's own documentation."""

    source: Source
    folder: Path
    scratch: Path
    quantise: Quantise
    form: Form
    calibration: Path | None


def prepare(job: CheckpointJob, report: Report) -> None:
    """Fill the job's folder. Raises BadRequestError (the model, the texts), UnavailableError (ModelOpt is missing)."""
    checkpoint = checkpoint_of(job.source, job.scratch, report)
    if job.quantise == "none" and job.form == "unified":
        report("copying the weights", 0.3)
        _copy(checkpoint, job.folder)
    else:
        _export(job, checkpoint, report)
    facts = {"format_version": 1, "name": job.source.name, "quantise": job.quantise, "form": job.form}
    (job.folder / MANIFEST_FILE).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def check_modelopt() -> None:
    """Raises UnavailableError where ModelOpt is not installed."""
    if importlib.util.find_spec("modelopt") is None:
        raise UnavailableError(
            "quantising for TensorRT-LLM needs NVIDIA ModelOpt, which is not installed; "
            "install it with: pip install 'nvidia-modelopt[hf]', or use --quantise none"
        )


def read_texts(path: Path | None) -> Sequence[str]:
    """Up to `CALIBRATION_TEXTS` texts: a file's lines that are not empty, or parts of Python's documentation."""
    texts = _own_texts() if path is None else _lines(path)
    found = [text for text, _number in zip(texts, range(CALIBRATION_TEXTS), strict=False)]
    if not found:
        raise BadRequestError(f"{path} holds no text to calibrate with; give a file with one text a line")
    return found


def _own_texts() -> Iterator[str]:
    for _name, topic in sorted(pydoc_data.topics.topics.items()):
        yield from (topic[at : at + _CALIBRATION_CHARACTERS] for at in range(0, len(topic), _CALIBRATION_CHARACTERS))


def _lines(path: Path) -> Iterator[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadRequestError(f"the calibration texts in {path} can't be read: {error}") from error
    return (line for line in lines if line.strip())


def _copy(checkpoint: Path, folder: Path) -> None:
    for pattern in _COPIED:
        for path in sorted(checkpoint.glob(pattern)):
            shutil.copyfile(path, folder / path.name)


def _export(job: CheckpointJob, checkpoint: Path, report: Report) -> None:
    check_modelopt()
    import torch  # noqa: PLC0415 - heavy
    from modelopt.torch import export  # noqa: PLC0415
    from transformers import AutoTokenizer  # noqa: PLC0415

    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    texts = read_texts(job.calibration)
    where = "on the GPU" if torch.cuda.is_available() else "on the CPU, for there is no GPU: this is slow"
    report(f"loading the model {where}", 0.1)
    model = _load(checkpoint)
    with torch.inference_mode():
        if job.quantise != "none":
            report(f"quantising to {job.quantise} {where}", 0.3)
            _quantise(model, job.quantise, _forward_loop(tokenizer, texts))
        report("writing the checkpoint", 0.8)
        try:
            _write(export, model, job)
        except NotImplementedError as error:  # such as int4-awq where a layer's width is no multiple of 128
            raise BadRequestError(f"ModelOpt can't write {job.source.name} as {job.quantise}: {error}") from error
    tokenizer.save_pretrained(job.folder)


def _write(export: Any, model: Any, job: CheckpointJob) -> None:  # noqa: ANN401 - ModelOpt ships without types
    if job.form == "unified":
        export.export_hf_checkpoint(model, export_dir=job.folder)
        return
    kind = export.get_model_type(model)
    export.export_tensorrt_llm_checkpoint(model, kind, export_dir=job.folder, inference_tensor_parallel=1)


def _load(checkpoint: Path) -> Any:  # noqa: ANN401 - a model of transformers
    import torch  # noqa: PLC0415 - heavy
    from transformers import AutoModelForCausalLM  # noqa: PLC0415

    # Spread over the GPUs where there are several; that takes the library accelerate, which modelopt[hf] brings.
    spread = {"device_map": "auto"} if torch.cuda.device_count() > 1 else {}
    models: Any = AutoModelForCausalLM
    model = models.from_pretrained(checkpoint, dtype="auto", **spread).eval()
    if model.dtype == torch.float32:
        model = model.to(torch.bfloat16)  # what is not quantised is served in 16 bits
    if torch.cuda.device_count() == 1:
        model = model.to("cuda")
    model.config.use_cache = False  # keys and values of calibration are of no use
    return model


def _quantise(model: Any, kind: Quantise, forward_loop: Callable[[Any], None]) -> None:  # noqa: ANN401
    import modelopt.torch.quantization as mtq  # noqa: PLC0415 - heavy

    mtq.quantize(model, getattr(mtq, CONFIGS[kind]), forward_loop=forward_loop)


def _forward_loop(tokenizer: Any, texts: Sequence[str]) -> Callable[[Any], None]:  # noqa: ANN401
    def loop(model: Any) -> None:  # noqa: ANN401
        for text in texts:
            ids = tokenizer(text, return_tensors="pt", truncation=True, max_length=CALIBRATION_TOKENS).input_ids
            if ids.shape[1]:
                model(ids.to(model.device))

    return loop
