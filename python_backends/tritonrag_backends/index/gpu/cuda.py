"""Free memory of a GPU, asked from the NVIDIA driver: FAISS can't tell, and may abort the process where there is none."""

import ctypes
from functools import cache
from typing import Any, Final

_DRIVER: Final = "libcuda.so.1"


class Driver:
    """What we use of the CUDA driver API. Memory counts as the driver sees it, whichever process holds it."""

    def __init__(self, library: Any) -> None:  # noqa: ANN401 - a ctypes library
        """Raises OSError where the driver does not start."""
        self._library = library
        self._contexts: dict[int, ctypes.c_void_p] = {}
        self._call("cuInit", ctypes.c_uint(0))

    def free_bytes(self, ordinal: int) -> int:
        """Free memory of GPU `ordinal` among those that this process sees. Raises OSError that says what failed.

        The GPU's primary context, which FAISS uses too, is made the first time and kept: its memory is then counted as used.
        """
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self._call("cuCtxPushCurrent_v2", self._context(ordinal))
        try:
            self._call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
        finally:
            self._call("cuCtxPopCurrent_v2", ctypes.byref(ctypes.c_void_p()))
        return free.value

    def _context(self, ordinal: int) -> ctypes.c_void_p:
        if ordinal not in self._contexts:
            device, context = ctypes.c_int(), ctypes.c_void_p()
            self._call("cuDeviceGet", ctypes.byref(device), ctypes.c_int(ordinal))
            self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
            self._contexts[ordinal] = context
        return self._contexts[ordinal]

    def _call(self, name: str, *arguments: Any) -> None:  # noqa: ANN401 - ctypes values
        code = getattr(self._library, name)(*arguments)
        if code != 0:
            raise OSError(f"the CUDA driver's {name} failed with code {code}")


@cache
def _driver() -> Driver:
    return Driver(ctypes.CDLL(_DRIVER))


def free_bytes(ordinal: int) -> int:
    """As `Driver.free_bytes` of this machine's driver. Raises OSError where there is none."""
    return _driver().free_bytes(ordinal)
