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

# After the environment: what it imports starts jax.
from tests.fixtures.pipeline_fixture import pipeline  # noqa: E402, F401

# Files that take more than half a minute, the longest first. Workers take whole
# files: one of these as the last would leave the other worker idle.
_LONG = (
  "test_hardening.py",
  "test_two_processes.py",
  "test_training.py",
  "test_main.py",
  "test_resident.py",
  "test_notebook.py",
  "test_pairs_pipeline.py",
  "test_predict_mode.py",
  "test_ablate_runs.py",
  "test_ablate_interactions.py",
  "test_hardening.py",
)


def pytest_collection_modifyitems(items: list) -> None:
  """Long files come first; the order is the same on all workers."""

  def place(item) -> int:
    name = item.path.name
    return _LONG.index(name) if name in _LONG else len(_LONG)

  items.sort(key=place)
