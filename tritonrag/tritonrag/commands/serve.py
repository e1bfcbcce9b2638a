"""`tritonrag serve`: look at what is to be served, start Triton, say when it is ready, stay until told to stop."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import typer

from tritonrag.launcher import RunningServer, TritonServer
from tritonrag.ports import is_loopback
from tritonrag.preflight import Served, look_at, look_at_encoder, look_at_generator
from tritonrag.settings import settings_from
from tritonrag.stop_signals import StopSignals
from tritonrag.supervising.events import wants_json
from tritonrag.supervising.health_watch import HealthWatch, Overseer
from tritonrag.terminal import bold, tell, write, write_json
from tritonrag.tls import ServerTls
from tritonrag.triton_command import ServeOptions, require_access
from tritonrag_backends.settings import Settings
from tritonrag_client.errors import BadRequestError

_POLL_S = 0.05
# With GPUs a first start builds TensorRT's engines, and loads a large language model once the index is in place.
_READY_TIMEOUT_S = {"cpu": 300.0, "gpu": 1800.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeRequest:
    """The options of `tritonrag serve` as they were given; None is the settings' own value. Ports: 0 is a free one."""

    index: Path | None = None
    embedder: Path | None = None
    engine: str | None = None
    generator_model: Path | None = None
    trtllm_model: str | None = None
    openai_url: str | None = None
    openai_model: str | None = None
    prompt_template: str | None = None
    answer_cache: str | None = None
    http_port: int = 8000
    grpc_port: int = 8001
    metrics_port: int = 8002
    health_port: int = 8003
    host: str = "127.0.0.1"
    profile: str = "cpu"
    model_repository: Path | None = None
    triton_dir: Path | None = None
    allow_non_loopback: bool = False
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_client_ca: Path | None = None
    open_api: list[str] | None = None
    ready_timeout_s: float | None = None
    drain_delay_s: float = 0.0
    drain_timeout_s: int = 30
    log_file: Path | None = None
    verbose: bool = False
    json: bool = False

    def serve_options(self) -> ServeOptions:
        """What the launcher needs of it; raises BadRequestError where the settings or the address are wrong."""
        self._refuse_open_door()
        return ServeOptions(
            settings=self._settings(),
            model_repository=self.model_repository,
            triton_dir=self.triton_dir,
            host=self.host,
            http_port=self.http_port,
            grpc_port=self.grpc_port,
            metrics_port=self.metrics_port,
            profile=self.profile,
            ready_timeout_s=self.ready_timeout_s or _READY_TIMEOUT_S[self.profile],
            drain_timeout_s=self.drain_timeout_s,
            log_file=self.log_file,
            open_apis=tuple(self.open_api or ()),
            tls=ServerTls.of(self.tls_cert, self.tls_key, self.tls_client_ca),
        )

    def _settings(self) -> Settings:
        return settings_from(
            index=self.index,
            embedder=self.embedder,
            generator_engine=self.engine,
            genai_model=self.generator_model,
            trtllm_model=self.trtllm_model,
            openai_url=self.openai_url,
            openai_model=self.openai_model,
            prompt_template=self.prompt_template,
            cache_store=self.answer_cache,
        )

    def _refuse_open_door(self) -> None:
        if not is_loopback(self.host) and not self.allow_non_loopback:
            raise BadRequestError(
                f"--host {self.host} can be reached by other machines, and the Triton in the wheel has known security holes"
                " (it is for loopback use); serve from the production image, or give --allow-non-loopback"
            )


def run(request: ServeRequest) -> None:
    """Serve until SIGINT, SIGTERM or SIGHUP, then drain; a second one kills. Raises RagError where Triton can't start or ends."""
    options = request.serve_options()
    require_access(options)
    served = look_at(options.settings)
    look_at_generator(options.settings)
    if encoder := look_at_encoder(options):
        tell(f"encoder: {encoder}")
    watch = HealthWatch(
        options, port=request.health_port, as_json=wants_json(asked=request.json), verbose=request.verbose
    )
    with (
        watch,
        StopSignals() as signals,
        TritonServer(interrupted=lambda: bool(signals.received)) as server,
    ):
        tell("starting Triton")
        began = time.monotonic()
        try:
            running = server.start(options)
        except KeyboardInterrupt:
            raise typer.Exit(128 + signals.received[0]) from None
        start_s = time.monotonic() - began
        _announce(request, running, served, start_s=start_s, health_port=watch.port)
        with watch.over(server, running, start_s=start_s) as supervisor:
            signals.wait(supervisor.ended)
            if not signals.received:
                failure = supervisor.failure()  # before its log is removed
                watch.status.ending()
                server.stop(hurry=lambda: bool(signals.received))
                raise failure
            _drain(request, watch, supervisor, server, signals)


def _drain(
    request: ServeRequest, watch: HealthWatch, supervisor: Overseer, server: TritonServer, signals: StopSignals
) -> None:
    def in_a_hurry() -> bool:
        return len(signals.received) > 1

    watch.status.drain()
    tell(f"{signal.Signals(signals.received[0]).name}: finishing what has begun; once more to end at once")
    until_s = time.monotonic() + request.drain_delay_s
    while time.monotonic() < until_s and not in_a_hurry():
        time.sleep(_POLL_S)
    supervisor.stop()
    server.stop(hurry=in_a_hurry)
    tell("stopped")


def _announce(
    request: ServeRequest, running: RunningServer, served: Served, *, start_s: float, health_port: int
) -> None:
    tls, mutual = request.tls_cert is not None, request.tls_client_ca is not None
    if request.json:
        write_json(
            {
                "host": running.host,
                "http_host": running.plain_host,
                "http_port": running.http_port,
                "grpc_port": running.grpc_port,
                "metrics_port": running.metrics_port,
                "health_port": health_port,
                "tls": tls,
                "mutual_tls": mutual,
                "pid": os.getpid(),
                "triton_pid": running.pid,
                "index": str(served.index),
                "index_version": served.index_version,
                "passages": served.passages,
                "log": str(running.log_path),
                "ready_s": round(start_s, 3),
            }
        )
        return
    write(
        f"{bold('ready')} in {start_s:.1f} s: {served.passages:,} passages, version {served.index_version} of {served.index}"
    )
    write(f"  gRPC     {running.grpc_url}{', mutual TLS' if mutual else ', TLS' if tls else ''}")
    write(f"  HTTP     {running.http_url}")
    write(f"  metrics  http://{running.plain_host}:{running.metrics_port}/metrics")
    write(f"  health   http://{running.host}:{health_port}/health")
    write(f"  log      {running.log_path}")
    options = " --tls-ca FILE" if tls else ""
    options += " --tls-cert FILE --tls-key FILE" if mutual else ""
    write(f'ask: tritonrag ask "..." --url {running.grpc_url}{options}    stop: Ctrl-C')
