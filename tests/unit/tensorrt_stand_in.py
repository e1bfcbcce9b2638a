"""The part of TensorRT's Python API that building an engine needs, strict: a name or an argument that it does not know is an error.

Names and signatures are those of tensorrt 10.13 and 11.4; what was called is kept in `built`.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_STRONGLY_TYPED = 1  # its bit among the network's flags


class NetworkDefinitionCreationFlag:
    STRONGLY_TYPED = _STRONGLY_TYPED


class BuilderFlag:
    TF32 = "TF32"


class Logger:
    ERROR = "error"

    def __init__(self, min_severity: str) -> None:
        assert min_severity == self.ERROR


class HostMemory(bytes):
    """What TensorRT hands out as a buffer."""


class TimingCache:
    def __init__(self, serialized_timing_cache: bytes) -> None:
        self._known = serialized_timing_cache

    @property
    def is_of_this_gpu(self) -> bool:
        return b"another GPU" not in self._known

    def serialize(self) -> HostMemory:
        return HostMemory(self._known + b"+measured")


class OptimizationProfile:
    def __init__(self) -> None:
        self.shapes: dict[str, tuple[tuple[int, ...], ...]] = {}

    def set_shape(self, input: str, min: tuple[int, ...], opt: tuple[int, ...], max: tuple[int, ...]) -> None:  # noqa: A002
        assert all(least <= tuned <= most for least, tuned, most in zip(min, opt, max, strict=True))
        self.shapes[input] = (min, opt, max)


class BuilderConfig:
    def __init__(self) -> None:
        self.profiles: list[OptimizationProfile] = []
        self.cleared: list[str] = []
        self._cache: TimingCache | None = None

    def clear_flag(self, flag: str) -> None:
        self.cleared.append(flag)

    def create_timing_cache(self, serialized_timing_cache: bytes) -> TimingCache | None:
        return None if b"garbage" in serialized_timing_cache else TimingCache(serialized_timing_cache)

    def set_timing_cache(self, cache: TimingCache, ignore_mismatch: bool) -> bool:
        assert ignore_mismatch is False
        if cache.is_of_this_gpu:
            self._cache = cache
        return cache.is_of_this_gpu

    def get_timing_cache(self) -> TimingCache:
        assert self._cache is not None
        return self._cache

    def add_optimization_profile(self, profile: OptimizationProfile) -> int:
        self.profiles.append(profile)
        return len(self.profiles) - 1


class Network:
    model: bytes = b""


@dataclass
class StandIn:
    """Stands where the module `tensorrt` stands. `parser_errors` make parsing fail, `plan` None makes building fail."""

    plan: bytes | None = b"engine"
    parser_errors: tuple[str, ...] = ()
    built: list[BuilderConfig] = field(default_factory=list)
    __version__: str = "11.4.0.106"

    Logger = Logger
    NetworkDefinitionCreationFlag = NetworkDefinitionCreationFlag
    BuilderFlag = BuilderFlag

    def Builder(self, logger: Logger) -> "Builder":  # noqa: N802 - TensorRT's name
        assert isinstance(logger, Logger)
        return Builder(self)

    def OnnxParser(self, network: Network, logger: Logger) -> "OnnxParser":  # noqa: N802
        assert isinstance(logger, Logger)
        return OnnxParser(self, network)


class Builder:
    def __init__(self, module: StandIn) -> None:
        self._module = module

    def create_network(self, flags: int) -> Network:
        assert flags == 1 << _STRONGLY_TYPED
        return Network()

    def create_builder_config(self) -> BuilderConfig:
        return BuilderConfig()

    def create_optimization_profile(self) -> OptimizationProfile:
        return OptimizationProfile()

    def build_serialized_network(self, network: Network, config: BuilderConfig) -> HostMemory | None:
        assert network.model, "nothing was parsed"
        self._module.built.append(config)
        return None if self._module.plan is None else HostMemory(self._module.plan)


class OnnxParser:
    def __init__(self, module: StandIn, network: Network) -> None:
        self._module, self._network = module, network

    def parse_from_file(self, model: str) -> bool:
        self._network.model = Path(model).read_bytes()
        return not self._module.parser_errors

    @property
    def num_errors(self) -> int:
        return len(self._module.parser_errors)

    def get_error(self, index: int) -> Any:
        return self._module.parser_errors[index]
