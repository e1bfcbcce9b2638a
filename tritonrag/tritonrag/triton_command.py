"""The command line and the environment that one Triton is started with."""

import os
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tritonrag.admin_key import AdminKey, closed_apis
from tritonrag.gpus import count_gpus
from tritonrag.instances import GPU_PROFILE, Machine
from tritonrag.ports import is_loopback
from tritonrag.tls import ServerTls
from tritonrag.triton_home import TritonHome
from tritonrag.triton_parts import TritonParts
from tritonrag_backends.environment import ENV_PREFIX
from tritonrag_backends.run_dir import RUN_DIR
from tritonrag_backends.settings import Settings
from tritonrag_client.contract import EMBEDDER, GENERATOR, RAG, RETRIEVE, RETRIEVER
from tritonrag_client.errors import BadRequestError, NotFoundError

PACKAGED_REPOSITORY = Path(__file__).parent / "model_repository"
CHECKOUT_REPOSITORY = Path(__file__).parents[2] / "model_repository"

# One thread in each library's pool: instances, not threads, fill the cores (measured: 1.47 times one instance of two threads),
# and pools of several instances that spin against each other cost 1.4 times. A variable that is set already is left alone.
THREAD_DEFAULTS = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}

_PING_EVERY_MS: Final = 20_000
_PING_TIMEOUT_MS: Final = 10_000
_CONNECTION_AGE_MS: Final = 600_000
_BEYOND_ANSWER_S: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """How one Triton is started. Ports: 0 is a free one. `log_file` None: in the server's private folder, gone with it.

    `model_repository` None is the one that belongs to this package. `models` are loaded with those that they are composed of and
    those that they call.
    `triton_dir` None is the Triton of the wheel, or of NVIDIA's image. `open_apis` are those of RESTRICTED_APIS that need no key.
    `tls` is gRPC's; with it HTTP and metrics, which have none, stay on the loopback address.
    """

    settings: Settings = field(default_factory=Settings)
    model_repository: Path | None = None
    triton_dir: Path | None = None
    models: tuple[str, ...] = (RAG, RETRIEVE, RETRIEVER)
    host: str = "127.0.0.1"
    http_port: int = 0
    grpc_port: int = 0
    metrics_port: int = 0
    profile: str = "cpu"
    drain_timeout_s: int = 30
    ready_timeout_s: float = 300.0
    log_file: Path | None = None
    open_apis: tuple[str, ...] = ()
    tls: ServerTls | None = None
    triton_arguments: tuple[str, ...] = ()

    def machine(self) -> Machine:
        """What the models' instances are dealt out over, with the GPUs that are visible now."""
        return Machine.of(self.profile, count_gpus())


def find_model_repository(given: Path | None) -> Path:
    """The given repository, else the one in the installed package, else the checkout's; raises NotFoundError where it is none."""
    if given is not None:
        if not given.is_dir():
            raise NotFoundError(
                f"the model repository {given} is not a directory; give one that holds <model>/config.pbtxt"
            )
        return given.absolute()
    for candidate in (PACKAGED_REPOSITORY, CHECKOUT_REPOSITORY):
        if candidate.is_dir():
            return candidate
    raise NotFoundError(
        f"no model repository at {PACKAGED_REPOSITORY}; reinstall tritonrag, or give --model-repository DIR"
    )


def require_profile(repository: Path, profile: str) -> None:
    """Raises BadRequestError where no model has that profile: Triton would take the CPU's configurations in silence."""
    if profile != "cpu" and not any(repository.glob(f"*/configs/{profile}.pbtxt")):
        raise BadRequestError(
            f"--profile is {profile}, and no model in {repository} has a configs/{profile}.pbtxt; give --profile cpu"
        )


def require_access(options: ServeOptions) -> None:
    """Raises BadRequestError for a restricted API that there is not, and for TLS files that nobody could be served with."""
    closed_apis(options.open_apis)
    if options.tls is not None:
        options.tls.check()


def loaded_models(models: tuple[str, ...]) -> tuple[str, ...]:
    """The models, and what is called from inside a Python model, of which Triton knows nothing."""
    called = (RETRIEVE, EMBEDDER) if {RAG, GENERATOR} & set(models) else ()
    return tuple(dict.fromkeys([*models, *called]))


def plain_address(options: ServeOptions, address: str) -> str:
    """Where HTTP and metrics listen, which know no TLS: beside a gRPC that has it, on this machine alone."""
    if options.tls is None or is_loopback(address):
        return address
    return "::1" if ":" in address else "127.0.0.1"


def service_addresses(options: ServeOptions, address: str) -> dict[str, str]:
    """Where each of Triton's services listens whose gRPC listens at `address`."""
    plain = plain_address(options, address)
    return {"http": plain, "grpc": address, "metrics": plain}


def triton_arguments(
    options: ServeOptions,
    triton: TritonParts,
    home: TritonHome,
    *,
    address: str,
    ports: Mapping[str, int],
    admin_key: AdminKey,
) -> list[str]:
    """The command line of tritonserver. `ports` has `http`, `grpc` and `metrics`; the repository is the one in the home."""
    arguments = [str(triton.tritonserver), f"--model-repository={home.models}"]
    arguments += [f"--backend-directory={home.backends}", f"--cache-directory={home.caches}"]
    arguments += [f"--backend-config=python,shm-region-prefix-name={home.shm_prefix}"]
    arguments += [
        "--model-control-mode=explicit",
        *(f"--load-model={model}" for model in loaded_models(options.models)),
    ]
    for service, own_address in service_addresses(options, address).items():
        arguments += [f"--{service}-address={own_address}", f"--{service}-port={ports[service]}"]
    arguments += ["--exit-on-error=true", "--strict-readiness=true", f"--exit-timeout-secs={options.drain_timeout_s}"]
    if not count_gpus():
        arguments.append("--allow-gpu-metrics=false")
    arguments += _connection_arguments(options.settings)
    if options.tls is not None:
        arguments += options.tls.arguments()
    return [*arguments, *options.triton_arguments, *admin_key.arguments(options.open_apis)]


def _connection_arguments(settings: Settings) -> list[str]:
    """When a gRPC connection is cut: a client that has vanished or is stopped, and one that reads its answer no more.

    No model sees that a reader stalls, and a ping is answered all the same; so every connection ends at an age, at which clients
    go over to a new one by themselves, and what ran on it has the longest time that an answer may take, and some.
    """
    grace_ms = round(1e3 * (settings.generator.timeout_s + _BEYOND_ANSWER_S))
    return [
        f"--grpc-keepalive-time={_PING_EVERY_MS}",
        f"--grpc-keepalive-timeout={_PING_TIMEOUT_MS}",
        f"--grpc-max-connection-age={_CONNECTION_AGE_MS}",
        f"--grpc-max-connection-age-grace={grace_ms}",
    ]


def triton_environment(
    options: ServeOptions, triton: TritonParts, home: TritonHome, base: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The environment of Triton and its stubs: ours without what the settings tree would refuse, and the settings themselves."""
    inherited = os.environ if base is None else base
    environment = {name: value for name, value in inherited.items() if not name.startswith(ENV_PREFIX)}
    environment = {**THREAD_DEFAULTS, **environment, **settled(options).to_environment(), RUN_DIR: str(home.run)}
    environment["LD_LIBRARY_PATH"] = triton.library_path()
    # The stub's interpreter takes the virtual environment whose bin is first on PATH.
    scripts = sysconfig.get_path("scripts")
    environment["PATH"] = os.pathsep.join([scripts, environment.get("PATH", os.defpath)])
    environment.setdefault("PYTHONUNBUFFERED", "1")  # a model's last words reach the log even when it is killed
    return environment


def settled(options: ServeOptions) -> Settings:
    """The settings as the models get them: in profile cpu the retriever is not to look for GPUs by itself."""
    retriever = options.settings.retriever
    if options.profile == GPU_PROFILE or retriever.device != "auto":
        return options.settings
    return options.settings.model_copy(update={"retriever": retriever.model_copy(update={"device": "cpu"})})
