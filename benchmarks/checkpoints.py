"""The cost of digests when a checkpoint of true size is saved and read.

  python -m benchmarks.checkpoints [--preset=mipd] [--times=5] [--write]

Saves alternately with and without digests, in one process. The last line is
one JSON object; --write puts it into docs/performance.
"""

import argparse
import contextlib
import json
import os
import statistics
import tempfile
import time
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp

from benchmarks.support import performance, programs
from mipd_jax import presets
from mipd_jax.training import checkpoints, digests


def measure(preset: str, times: int) -> dict[str, Any]:
  """Medians over several saves, in seconds; sizes in bytes."""
  model, _ = programs.build(
    preset, jnp.dtype("float32"), dropout=False, absorbed=True
  )
  state = jax.block_until_ready(
    jax.jit(lambda: programs.initial_state(model))()
  )
  samples: dict[str, list[float]] = {}
  with tempfile.TemporaryDirectory() as folder:
    for number in range(times + 1):
      for kind in ("digests", "plain"):
        work = f"{folder}/{kind}-{number}"
        with _without() if kind == "plain" else contextlib.nullcontext():
          held, done = _save(work, state)
        if number:  # the first one warms up
          samples.setdefault(f"{kind}_held_s", []).append(held)
          samples.setdefault(f"{kind}_saved_s", []).append(done)
    start = time.perf_counter()
    digests.of_arrays(state)
    compared = time.perf_counter() - start
  result = {name: statistics.median(x) for name, x in samples.items()}
  leaves = jax.tree.leaves(state)
  return {
    "preset": preset,
    "bytes": sum(x.nbytes for x in leaves),
    "arrays": len(leaves),
    "digest_s": compared,
    **result,
    "saving_takes": result["digests_saved_s"] / result["plain_saved_s"],
    "times": times,
    "load": [round(x, 2) for x in os.getloadavg()],
  }


def _save(folder: str, state: Any) -> tuple[float, float]:
  """Seconds that the loop is blocked, and until all is on the disk."""
  writer = checkpoints.Checkpoints(folder, {})
  start = time.perf_counter()
  writer.save(state)
  held = time.perf_counter() - start
  writer.wait()
  done = time.perf_counter() - start
  writer.close()
  return held, done


def _without():
  return mock.patch.object(digests, "record", lambda state, **more: {})


def table(row: dict[str, Any]) -> str:
  """The figures in Markdown."""
  return performance.markdown(
    ("", "with digests", "without"),
    [
      (
        f"the loop is held up, s ({row['bytes'] / 1e9:.2f} GB, preset "
        f"{row['preset']})",
        f"{row['digests_held_s']:.2f}",
        f"{row['plain_held_s']:.2f}",
      ),
      (
        "until it is on the disk, s",
        f"{row['digests_saved_s']:.2f}",
        f"{row['plain_saved_s']:.2f}",
      ),
      ("of which digests, s", f"{row['digest_s']:.2f}", ""),
    ],
  )


def main() -> None:
  parser = argparse.ArgumentParser(prog="python -m benchmarks.checkpoints")
  parser.add_argument("--preset", choices=presets.PRESETS, default="mipd")
  parser.add_argument("--times", type=int, default=5)
  parser.add_argument("--write", action="store_true", help="docs/performance*")
  given = parser.parse_args()
  result = measure(given.preset, given.times)
  if given.write:
    performance.write("checkpoints", result, table(result))
  print(json.dumps(result))


if __name__ == "__main__":
  main()
