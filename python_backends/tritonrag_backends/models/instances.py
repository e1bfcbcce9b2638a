"""An instance of a model by a name that no other instance in the server has."""

from collections.abc import Mapping


def instance_name(args: Mapping[str, str]) -> str:
    """From what Triton hands to `initialize`: its own name of the instance, and the GPU where it is one of those.

    Triton gives the instances of one group on several GPUs the same name (core/src/backend_model_instance.cc).
    """
    name = args["model_instance_name"]
    return f"{name}_gpu{args['model_instance_device_id']}" if args["model_instance_kind"] == "GPU" else name
