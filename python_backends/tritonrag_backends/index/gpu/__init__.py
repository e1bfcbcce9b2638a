"""The index on GPUs: segments brought there when a version is opened, asked for candidates, and trusted with nothing.

What a device proposes is held to the selection and scored from the stored vectors, as on the CPU; so scores, walls and filters do
not depend on where a segment is searched, and a device that fails, has no room or lies costs time alone.
"""

from tritonrag_backends.index.gpu.placing import ON_THE_CPU, Placeable, Placed, Placing, PlacingOptions

__all__ = ["ON_THE_CPU", "Placeable", "Placed", "Placing", "PlacingOptions"]
