"""What must be set before any test module imports Ray."""

from cluster.quiet import hush
from cluster.runtime import guard_embedded_ray

hush()
guard_embedded_ray()
