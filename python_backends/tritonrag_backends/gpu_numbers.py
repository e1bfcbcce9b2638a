"""GPUs as a setting names them among those that a process sees."""

from tritonrag_client.errors import BadRequestError


def gpus_named(text: str, present: int, *, variable: str) -> list[int]:
    """The GPUs in "0,1", all that are `present` where it is empty. Raises BadRequestError that names the variable."""
    if not text.strip():
        return list(range(present))
    parts = [part.strip() for part in text.split(",")]
    gpus = [int(part) for part in parts if part.isdecimal() and int(part) < present]
    if len(gpus) < len(parts) or len(set(gpus)) < len(gpus):
        raise BadRequestError(
            f"{variable} is {text!r}, and {present} GPUs are seen; name some from 0 to {present - 1}, each once, as in 0,1"
        )
    return gpus
