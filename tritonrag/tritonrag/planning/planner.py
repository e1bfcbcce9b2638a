"""From a request to a plan: the first way to place index and language model that does what was asked, else the best there is."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final, Literal

from tritonrag.planning.cpu_rates import SERVED_EFFICIENCY
from tritonrag.planning.encoder_load import Encoder
from tritonrag.planning.generation import Generation, generations
from tritonrag.planning.quantities import GB, gb, ms, three_digits
from tritonrag.planning.request import ASSUMED_CORES_A_GPU, ASSUMED_GB_A_GPU, PlanRequest
from tritonrag.planning.retrieval import HOST_SHARE, SEARCHING_CORES, TARGET_LOAD, Retrieval, fits_host, retrievals
from tritonrag_client.errors import BadRequestError

_MOST_GPUS: Final = 1024
_MOST_CORES: Final = 4096
_CLEARLY: Final = 1.1
_AT_LOAD: Final = f"at {TARGET_LOAD * 100:.0f} % load"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What goes where. `problems`: what was asked for and isn't reached; none: it fits.

    `nearest`: the smallest changes with which it would; empty where there are no problems.
    """

    request: PlanRequest
    retrieval: Retrieval
    generation: Generation | None
    problems: tuple[str, ...]
    nearest: str = ""

    @property
    def profile(self) -> Literal["cpu", "gpu"]:
        """Which model configurations serve it."""
        return "gpu" if self.request.gpus else "cpu"

    @property
    def encoder(self) -> Encoder:
        """The embedding model."""
        return Encoder(dim=self.request.dim)

    @property
    def questions_s(self) -> float:
        """Questions/s that embedding and search leave, expected; what binds first of cores and GPUs."""
        return min(cpu_questions_s(self.request, self.retrieval), self.retrieval.gpu_searches_s)


def make_plan(request: PlanRequest) -> Plan:
    """The best way; raises BadRequestError where the language model fits in no way, with the nearest that does."""
    plan = _first_fitting(request)
    if plan is None:
        raise BadRequestError(_no_room(request))
    if not plan.problems:
        return plan
    return replace(plan, nearest=_nearest(request))


def cpu_questions_s(request: PlanRequest, retrieval: Retrieval) -> float:
    """Questions/s of the CPU's part, expected: of all cores where they embed too, else of the retriever's half."""
    if request.gpus:
        return request.cores * SEARCHING_CORES / retrieval.core_s if retrieval.core_s else float("inf")
    return request.cores * SERVED_EFFICIENCY / (retrieval.core_s + 1 / Encoder(dim=request.dim).questions_a_core_second)


def _first_fitting(request: PlanRequest) -> Plan | None:
    best: Plan | None = None
    for plan in _plans(request):
        if not plan.problems:
            return plan
        if best is None or _better(plan, best):
            best = plan
    return best


def _plans(request: PlanRequest) -> Iterator[Plan]:
    for retrieval in retrievals(request):
        ways = (None,) if request.model is None else generations(request, retrieval)
        for generation in ways:
            problems = tuple(_problems(request, retrieval, generation))
            yield Plan(request=request, retrieval=retrieval, generation=generation, problems=problems)


def _better(plan: Plan, best: Plan) -> bool:
    """Whether it has fewer problems, or is faster by more than what arithmetic leaves out, such as GPUs' talk to each other."""
    if len(plan.problems) != len(best.problems):
        return len(plan.problems) < len(best.problems)
    return _rate(plan) > _rate(best) * _CLEARLY


def _rate(plan: Plan) -> float:
    return min(plan.questions_s, plan.generation.expected_s if plan.generation else float("inf"))


def _problems(request: PlanRequest, retrieval: Retrieval, generation: Generation | None) -> Iterator[str]:
    if not fits_host(request, retrieval.host_needed):
        needed = retrieval.host_needed / HOST_SHARE
        yield (
            f"the host has {gb(request.memory_bytes)} of memory, and an index with {retrieval.vectors} vectors wants"
            f" {gb(needed)}; fewer --dim, or --memory-gb {needed / GB:,.0f}"
        )
    rate = cpu_questions_s(request, retrieval)
    if request.qps > rate * TARGET_LOAD:
        what = "search" if request.gpus else "embed and search"
        yield f"{request.cores} cores {what} {three_digits(rate)} questions/s, {_AT_LOAD} {three_digits(rate * TARGET_LOAD)}"
    if generation is None:
        return
    if request.qps > generation.expected_s * TARGET_LOAD:
        yield (
            f"the language model answers {three_digits(generation.expected_s)} questions/s as expected, {_AT_LOAD}"
            f" {three_digits(generation.expected_s * TARGET_LOAD)}, of {request.qps:g} asked for ({generation.bound} binds)"
        )
    limit = request.first_token_limit_s
    if limit is not None and generation.first_token_s > limit:
        yield f"the first token comes after {ms(generation.first_token_s)} on average, {ms(limit)} was asked for"


def _no_room(request: PlanRequest) -> str:
    if request.model is None or next(retrievals(request), None) is None:
        return (
            f"no kind of index over {request.rows:,} passages fits these GPUs; {_nearest(request)}; or --retrieval cpu"
        )
    where = (
        f"{request.gpus}x{request.card.name}"
        if request.card
        else f"{gb(request.memory_bytes)} of memory, {request.cores} cores"
    )
    weights = gb(request.model.weight_bytes)
    return f"{request.model.name} takes {weights} and does not fit beside index and runtime in {where}; {_nearest(request)}"


def _nearest(request: PlanRequest) -> str:
    """The smallest changes that do what was asked; says so where none was found."""
    found = [*_smaller(request), *_more(request)]
    more = "GPUs" if request.card else "cores"
    return f"nearest that does: {', or '.join(found)}" if found else f"no number of {more} alone does"


def _smaller(request: PlanRequest) -> Iterator[str]:
    model = request.model
    if model is None:
        return
    if model.stored_bytes is None and model.precision not in {"int4-awq", "nvfp4"}:
        smaller = replace(model, precision="int4-awq", name=model.name.replace(model.precision, "int4-awq"))
        if _does(replace(request, model=smaller)):
            yield f"--llm {smaller.name}"
    if (
        request.card is not None
        and model.kv_value_bytes > 1
        and _does(replace(request, model=replace(model, kv_value_bytes=1.0)))
    ):
        yield "--kv fp8"


def _more(request: PlanRequest) -> Iterator[str]:
    if request.card is not None:
        count = _fewest(lambda gpus: _does(with_gpus(request, gpus)), request.gpus + 1, _MOST_GPUS)
        if count is not None:
            yield f"--gpus {count}x{request.card.name}"
        return
    cores = _fewest(lambda cores: _does(replace(request, cores=cores)), request.cores + 1, _MOST_CORES)
    if cores is not None:
        yield f"--cores {cores}"


def with_gpus(request: PlanRequest, gpus: int) -> PlanRequest:
    """The same on so many GPUs; a host that was assumed grows with them."""
    if not request.assumed_host:
        return replace(request, gpus=gpus)
    return replace(request, gpus=gpus, cores=gpus * ASSUMED_CORES_A_GPU, memory_bytes=gpus * ASSUMED_GB_A_GPU * GB)


def _does(request: PlanRequest) -> bool:
    plan = _first_fitting(request)
    return plan is not None and not plan.problems


def _fewest(does: Callable[[int], bool], least: int, most: int) -> int | None:
    """The least number from `least` to `most` that does; what one number does, all larger ones do."""
    if least > most or not does(most):
        return None
    low, high = least, most
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if does(middle) else (middle + 1, high)
    return low
