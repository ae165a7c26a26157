"""Set before jax starts: eight CPU devices, so that sharding is tested.

Compiled programs are kept between tests and runs: many tests, and the
processes that some of them start, compile the same ones. They are compiled
with little optimisation: nearly all of a test's time is compiling.
"""

import os
import pathlib

_ROOT = pathlib.Path(__file__).resolve().parent.parent
os.environ.setdefault(
  "XLA_FLAGS",
  "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0",
)
os.environ.setdefault(
  "JAX_COMPILATION_CACHE_DIR", str(_ROOT / ".pytest_cache" / "jax")
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
