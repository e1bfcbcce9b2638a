"""`tritonrag bench prompt-reuse`: how many prompt tokens of a trace a KV cache has already, by the order of the prompt's parts."""

from dataclasses import dataclass
from pathlib import Path

from tritonrag.terminal import open_steps, tell, write, write_json
from tritonrag_perf.trace.prompt_reuse import measure_reuse
from tritonrag_perf.trace.prompt_reuse_report import table_of, write_reuse_record
from tritonrag_perf.trace.reading import read_trace


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptReuseRequest:
    """The options as they were given. An unbounded cache is always among those that are computed."""

    trace: Path
    cache_tokens: tuple[int, ...] = ()
    block_tokens: int
    output: Path | None = None
    name: str = "prompt-reuse"
    json: bool = False

    def command(self) -> str:
        """How to do it again, without the paths of one machine."""
        caches = "".join(f" --cache-tokens {tokens}" for tokens in self.cache_tokens)
        return f"tritonrag bench prompt-reuse --trace DIR{caches} --block-tokens {self.block_tokens}"


def run(request: PromptReuseRequest) -> None:
    """Compute, print the table and, with `output`, write the record. Raises RagError."""
    trace = read_trace(request.trace)
    with open_steps() as steps:
        record = measure_reuse(
            trace,
            cache_tokens=(None, *request.cache_tokens),
            block_tokens=request.block_tokens,
            progress=lambda layout: steps.step(f"prompts in the order {layout}"),
        )
    files = []
    if request.output is not None:
        files = write_reuse_record(record, request.output, name=request.name, command=request.command())
    if request.json:
        write_json({**record.to_dict(), "files": [*map(str, files)]})
        return
    for line in table_of(record):
        write(line)
    if record.estimated:
        tell(f"the trace lacks the lengths of {', '.join(record.estimated)}: estimated")
    if files:
        write(f"written: {', '.join(map(str, files))}")
