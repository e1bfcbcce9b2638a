"""`tritonrag demo`: the main job on a corpus that every machine has, from documents to cited answers by a real Triton."""

import json
import shutil
import sys
from importlib.metadata import version
from pathlib import Path

from tritonrag.answers import print_stream
from tritonrag.commands.export_embedder import export
from tritonrag.launcher import RunningServer, TritonServer
from tritonrag.preflight import look_at
from tritonrag.settings import STATE, settings_from
from tritonrag.terminal import Steps, bold, dim, open_steps, tell, write
from tritonrag.triton_command import ServeOptions
from tritonrag_backends.embedding.format import MANIFEST_FILE
from tritonrag_backends.settings import Settings
from tritonrag_client import RagClient, Timeouts
from tritonrag_client.errors import RagError

INDEX = STATE / "demo-index"
STAMP = STATE / "demo-index.json"
QUESTIONS = (
    "What does the with statement do?",
    "How do I sort a list by a key?",
    "How do I read a CSV file?",
)
_TIMEOUTS = Timeouts(connect_s=10.0, total_s=60.0)


def run(*, embedder: Path | None) -> None:
    """Prepare what is not there yet, serve it, ask, stop, and say how to go on."""
    settings = settings_from(index=INDEX, embedder=embedder)
    with TritonServer() as server:
        with open_steps() as steps:
            prepare(settings, steps)
            steps.step("starting Triton on free ports")
            running = server.start(ServeOptions(settings=settings))
        _ask(running)
        tell("stopping Triton")
    _go_on()


def prepare(settings: Settings, steps: Steps) -> None:
    """Export the embedding model and build the index, each only where it is not there or made for another."""
    if not (settings.embedder.model / MANIFEST_FILE).is_file():
        export(None, settings.embedder.model, steps)
    if is_built(settings):
        served = look_at(settings)
        steps.step(f"using the index of {served.passages:,} passages that is there")
        return
    from tritonrag.indexing import IndexJob, run_job  # noqa: PLC0415 - loads FAISS and the readers, which a second run does not need

    built = run_job(IndexJob(settings=settings, pydoc=True), steps)
    stamp(settings)
    steps.note(f"{built.summary.passages:,} passages, {built.summary.passages_per_s:,.0f} a second")


def is_built(settings: Settings) -> bool:
    """Whether the index is there and of this Python's documentation, this program and this embedding model."""
    try:
        return bool(json.loads(STAMP.read_text()) == _identity(settings))
    except (OSError, ValueError, RagError):
        return False


def stamp(settings: Settings) -> None:
    """Record of what the index was made, once it is made."""
    STAMP.write_text(json.dumps(_identity(settings)))


def _identity(settings: Settings) -> dict[str, str | int]:
    served = look_at(settings)  # raises where the index is missing, damaged or of another embedding model
    return {"python": sys.version, "tritonrag": version("tritonrag"), "index_version": served.index_version}


def _ask(running: RunningServer) -> None:
    with RagClient(running.grpc_url, timeouts=_TIMEOUTS) as client:
        for question in QUESTIONS:
            write(f"\n{bold(question)}")
            with client.stream(question) as deltas:
                print_stream(deltas)
    write()


def _go_on() -> None:
    program = "tritonrag" if shutil.which("tritonrag") else _relative(Path(sys.argv[0]))
    write(bold("With your own documents (md, txt, rst, html, pdf, docx, jsonl):"))
    write(f"  {program} index build path/to/documents")
    write(f"  {program} serve")
    write(f'  {program} ask "What would you like to know?"  {dim("in another terminal")}')


def _relative(program: Path) -> str:
    try:
        return str(program.absolute().relative_to(Path.cwd()))
    except ValueError:
        return str(program)
