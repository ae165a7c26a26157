"""The dtype of compute, and how XLA compiles.

Parameters, softmax and losses are always float32. `set_up` keeps compiled
programs and may compile with less effort; only the command line calls it,
before jax starts its backend: XLA reads its flags once.
"""

import os
import pathlib

import jax
import jax.numpy as jnp


def compute_dtype(name: str) -> jnp.dtype:
  """float32 or bfloat16; "auto" is bfloat16 where hardware has it.

  CPUs only emulate bfloat16, several times slower than float32.
  """
  if name == "auto":
    name = "float32" if jax.default_backend() == "cpu" else "bfloat16"
  return jnp.dtype(name)


# Level 0 halves a CPU's time to compile a training step and makes its
# arithmetic a little slower.
_QUICK = "--xla_backend_optimization_level=0"


def set_up(folder: str | os.PathLike, *, quick: bool) -> None:
  """Sets variables that jax and XLA read, unless they are set.

  Args:
    folder: where compiled programs are kept between runs.
    quick: compile with little optimisation, for runs of a few steps.
  """
  flags = os.environ.get("XLA_FLAGS", "")
  if quick and _QUICK.split("=")[0] not in flags:
    os.environ["XLA_FLAGS"] = f"{flags} {_QUICK}".strip()
  # Programs made for another processor may not run on this one.
  folder = pathlib.Path(folder).absolute() / os.uname().nodename
  for name, value in (
    ("JAX_COMPILATION_CACHE_DIR", str(folder)),
    ("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", 0.3),
  ):
    if name not in os.environ:
      os.environ[name] = str(value)  # for child processes
      jax.config.update(name.lower(), value)
