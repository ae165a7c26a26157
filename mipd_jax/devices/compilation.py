"""The dtype of compute, and how XLA compiles.

Parameters, softmax and losses are always float32. `set_up` keeps compiled
programs and may compile with less effort; only the command line calls it,
before jax starts its backend: XLA reads its flags once.
"""

import atexit
import contextlib
import hashlib
import json
import os
import pathlib

import jax
import jax.numpy as jnp

from input_pipeline.io import atomic


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
  kept = os.environ["JAX_COMPILATION_CACHE_DIR"]
  if kept and "://" not in kept:  # those in buckets are not checked
    remove_strangers(pathlib.Path(kept).absolute())
    atexit.register(note_programs, pathlib.Path(kept).absolute())


_NOTE = "programs.json"
_PROGRAMS = "*-cache"  # jax's name of a program, before it a digest of its code
_ENDS = 2**16  # bytes at both ends of a program that its digest covers


def note_programs(folder: pathlib.Path) -> None:
  """Notes which compiled programs are in a folder, each with a digest.

  jax checks a program's bytes, but not that they are the program of that name.
  """
  noted = {path.name: _digest(path) for path in folder.glob(_PROGRAMS)}
  if not noted:
    return
  with contextlib.suppress(OSError), atomic.replacing(folder / _NOTE) as path:
    path.write_text(json.dumps(noted, indent=1) + "\n")


def remove_strangers(folder: pathlib.Path) -> None:
  """Removes programs that are not what `note_programs` noted under the name.

  Programs of a process that was killed have no note; they stay, since jax
  checks their bytes. A missing or damaged note names none.
  """
  try:
    noted = json.loads((folder / _NOTE).read_text())
    if not isinstance(noted, dict):
      noted = {}
  except (OSError, ValueError, RecursionError):
    noted = {}
  for path in folder.glob(_PROGRAMS):
    if noted.get(path.name, "") not in ("", _digest(path)):
      path.unlink(missing_ok=True)


def _digest(path: pathlib.Path) -> str:
  """Tells compressed programs apart: their size and both ends."""
  try:
    size = path.stat().st_size
    with path.open("rb") as file:
      ends = file.read(_ENDS)
      file.seek(max(0, size - _ENDS))
      ends += file.read()
  except OSError:  # another process removed it
    return ""
  return hashlib.sha256(ends + str(size).encode()).hexdigest()
