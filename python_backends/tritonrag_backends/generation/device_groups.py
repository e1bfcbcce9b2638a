"""Which GPUs an instance of the generator has, of those that a setting deals out: "0,1;2,3" is two groups of two."""

from tritonrag_client.errors import BadRequestError


def device_group(devices: str, instance: int, *, variable: str) -> tuple[str, ...]:
    """The group of this instance, GPUs as CUDA_VISIBLE_DEVICES names them; `devices` is not blank, `variable` what it is set by.

    Raises BadRequestError where a GPU has no name or is named twice, or where the instance has no group.
    """
    groups = [tuple(name.strip() for name in group.split(",")) for group in devices.split(";")]
    named = [name for group in groups for name in group]
    if not all(named) or len(set(named)) < len(named):
        raise BadRequestError(f"{variable} is {devices!r}; name each GPU once, as in 0,1;2,3")
    if instance >= len(groups):
        raise BadRequestError(
            f"{variable} is {devices!r}, which has {len(groups)} groups, none for generator instance {instance}"
        )
    return groups[instance]
