"""The dtype of compute; parameters, softmax and losses are float32 always.

How XLA compiles: kept programs, and less effort where that pays.

For the command line alone, and before jax starts its backend: XLA reads its
flags once.
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


# Level 0 halves the time that a CPU takes to compile a training step and
# makes its arithmetic a little slower.
_QUICK = "--xla_backend_optimization_level=0"


def set_up(folder: str | os.PathLike, *, quick: bool) -> None:
  """Sets what jax and XLA read from the environment, unless it is set.

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
      os.environ[name] = str(value)  # for processes that this one starts
      jax.config.update(name.lower(), value)
