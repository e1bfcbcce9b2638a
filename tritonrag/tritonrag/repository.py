"""The model repository as one server serves it: a profile's configurations with the instances that the settings say."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from google.protobuf import text_format  # type: ignore[import-untyped]
from tritonclient.grpc import model_config_pb2

from tritonrag.encoder_choice import EncoderChoice, choose_encoder
from tritonrag.encoder_config import CONFIGS, write_encoder
from tritonrag.instances import (
    GPU_PROFILE,
    Instances,
    Machine,
    encodes_on_gpus,
    instances_of,
    is_fused,
    searches_on_gpus,
)
from tritonrag.triton_command import ServeOptions, find_model_repository
from tritonrag.triton_home import TritonHome
from tritonrag.triton_parts import TritonParts
from tritonrag_backends.models.turn import expect_turns
from tritonrag_backends.settings import Settings
from tritonrag_client.contract import ENCODER, RAG, RETRIEVE, RETRIEVER
from tritonrag_client.errors import BadRequestError

CONFIG: Final = "config.pbtxt"
_SHARE_OF_START: Final = 0.8  # what they may take of the time in which a server must get ready; then the error is heard
_CONFIGS: Final = "configs"  # the folder of the other profiles' configurations


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendering:
    """What a repository is rendered for. `backends`: those that Triton has."""

    settings: Settings
    machine: Machine
    backends: frozenset[str]


def render(source: Path, target: Path, rendering: Rendering) -> None:
    """Fill the empty folder `target` with the models of `source` as this server runs them.

    A model's files are links. Its configuration is that of the profile, byte for byte where the settings change nothing of it.
    Raises BadRequestError or NotFoundError, with the way out, where a configuration or a setting can't be served.
    """
    for model in sorted(folder for folder in source.iterdir() if folder.is_dir() and not folder.name.startswith(".")):
        folder = target / model.name
        folder.mkdir()
        if model.name == ENCODER and rendering.machine.profile == GPU_PROFILE:
            _render_encoder(model, folder, rendering)
        else:
            _link_files(model, folder)
            _write_config(config_of(model, _profile_of(model.name, rendering)), folder, rendering)


def _profile_of(model: str, rendering: Rendering) -> str:
    """Whose configuration of the model is served: the profile's, but for a `retrieve` that is to be an ensemble."""
    plain = model == RETRIEVE and not is_fused(rendering.settings, rendering.machine)
    return GPU_PROFILE if plain else rendering.machine.profile


def prepare(options: ServeOptions, triton: TritonParts, home: TritonHome) -> None:
    """Render the repository into a server's home, and tell its generator for whom to wait before it takes GPU memory.

    Raises what `render` raises.
    """
    machine = options.machine()
    rendering = Rendering(settings=options.settings, machine=machine, backends=triton.backend_names())
    render(find_model_repository(options.model_repository), home.models, rendering)
    if {RAG, RETRIEVE} & set(options.models) and (first := _take_memory_first(rendering)):
        counts = {
            model: sum(group.count for group in instances_of(model, options.settings, machine)) for model in first
        }
        expect_turns(home.run, counts, wait_s=_SHARE_OF_START * options.ready_timeout_s)


def _take_memory_first(rendering: Rendering) -> list[str]:
    """The models that take GPU memory before a language model and can tell it so: Triton's own backends for `encoder` can't."""
    settings, machine = rendering.settings, rendering.machine
    first = [RETRIEVER] if searches_on_gpus(settings, machine) else []
    if encodes_on_gpus(settings, machine) and choose_encoder(settings, machine, rendering.backends).file is None:
        first.append(ENCODER)
    return first


def config_of(model: Path, profile: str) -> Path:
    """The model's configuration in the profile, as Triton's --model-config-name would choose it."""
    named = model / _CONFIGS / f"{profile}.pbtxt"
    return named if named.is_file() else model / CONFIG


def read_config(path: Path) -> Any:  # noqa: ANN401 - a protobuf message
    """The configuration as Triton's message. Raises BadRequestError that tells where it does not fit Triton's schema."""
    try:
        return text_format.Parse(path.read_text(encoding="utf-8"), model_config_pb2.ModelConfig())
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise BadRequestError(f"{path} is no model configuration of Triton's: {error}; correct it") from error


def _render_encoder(model: Path, folder: Path, rendering: Rendering) -> None:
    choice = choose_encoder(rendering.settings, rendering.machine, rendering.backends)
    _link_files(model, folder, versions=choice.file is None)
    _write_config(model / CONFIGS[choice.runtime], folder, rendering, choice)


def _link_files(model: Path, folder: Path, *, versions: bool = True) -> None:
    """Link what lies in a model's folder but for its configurations; `versions` says whether its numbered folders too."""
    for part in model.iterdir():
        if part.name not in (CONFIG, _CONFIGS) and (versions or not part.name.isdecimal()):
            (folder / part.name).symlink_to(part.absolute())


def _write_config(source: Path, folder: Path, rendering: Rendering, choice: EncoderChoice | None = None) -> None:
    instances = instances_of(folder.name, rendering.settings, rendering.machine)
    if not source.is_file():
        return  # Triton completes the configuration of such a model by itself
    text = source.read_bytes()
    if instances:
        config, given = read_config(source), read_config(source)
        _set_instances(config, instances)
        if choice is not None:
            write_encoder(config, choice, folder)
        if config != given:
            text = text_format.MessageToString(config).encode()
    (folder / CONFIG).write_bytes(text)


def _set_instances(config: Any, instances: list[Instances]) -> None:  # noqa: ANN401
    del config.instance_group[:]
    for instance in instances:
        group = config.instance_group.add(count=instance.count)
        group.kind = type(group).Kind.Value(instance.kind)
        if instance.gpu is not None:
            group.gpus.append(instance.gpu)
