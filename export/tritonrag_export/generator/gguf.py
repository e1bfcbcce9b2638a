"""A .gguf file as a model folder: transformers gives its weights back in FP32, and this writes them out."""

from pathlib import Path
from typing import Any

from tritonrag_client.errors import BadRequestError


def write_checkpoint(path: Path, folder: Path) -> None:
    """Write the model and its tokenizer, as transformers saves them: 4 bytes a parameter. Raises BadRequestError.

    A model that was read from GGUF counts as quantised and refuses to be saved. Its weights are plain FP32 tensors by then,
    so a plain model of the same shape takes them over, without a copy.
    """
    import torch  # noqa: PLC0415 - heavy
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: PLC0415

    place, name = str(path.parent), path.name
    models: Any = AutoModelForCausalLM
    try:
        AutoTokenizer.from_pretrained(place, gguf_file=name).save_pretrained(folder)
        read = models.from_pretrained(place, gguf_file=name, dtype=torch.float32)
    except (ValueError, KeyError, NotImplementedError) as error:
        raise BadRequestError(f"{path} can't be read: {error}") from error
    config = read.config
    del config.quantization_config
    with torch.device("meta"):  # shapes alone: no memory, no random numbers
        plain = models.from_config(config)
    plain.load_state_dict(read.state_dict(), assign=True)
    plain.tie_weights()
    plain.generation_config = read.generation_config
    plain.save_pretrained(folder)
