"""Times a training step and an evaluation step: one JSON line.

  python -m benchmarks.step --preset=reference|mipd [--batch=32] [--steps=10]
    [--dtype=auto] [--threads=0] [--dropout=off|on] [--compare] [--write]

Uses random features at the paper's sizes on the first device; needs jax, flax
and optax but no TensorFlow and no data. Times are medians without the first
runs; `flops` and `peak_bytes` come from the compiler, `train_cpu_ms` is the sum
over all threads. `--compare` adds the figures of the plain form, in which every
attention computes all its keys and values; the two forms are timed alternately,
so that other load on the machine affects both.

On Linux the program restarts itself with a C allocator that keeps its memory
and asks for huge pages (`ALLOCATOR`). Otherwise the step's temporaries, about
300 MB, are mapped again, page by page, in each step.
"""

import argparse
import dataclasses
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import jax

from benchmarks.support import performance, programs, true_sizes
from mipd_jax import presets
from mipd_jax.devices import compilation

# Read by glibc when a process starts.
ALLOCATOR = {
  "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
  "MALLOC_MMAP_MAX_": "0",
  "MALLOC_TRIM_THRESHOLD_": str(2**40),
  "MALLOC_TOP_PAD_": str(2**28),
}
_WARM = 2  # warm-up runs, which do not count


@dataclasses.dataclass
class Form:
  """One compiled form of the model, with its own state and times."""

  step: Any
  student: Any
  state: Any
  train_s: list[float] = dataclasses.field(default_factory=list)
  eval_s: list[float] = dataclasses.field(default_factory=list)
  train_cpu_s: list[float] = dataclasses.field(default_factory=list)
  losses: list[float] = dataclasses.field(default_factory=list)

  def run(self, batch: Any, banks: Any) -> None:
    """Runs and times one evaluation step and one training step."""
    params = self.state.params
    self.eval_s.append(_seconds(lambda: self.student(params, batch, banks))[0])
    begun = time.process_time()
    seconds, (self.state, metrics) = _seconds(
      lambda: self.step(self.state, batch, banks)
    )
    self.train_cpu_s.append(time.process_time() - begun)
    self.train_s.append(seconds)
    self.losses.append(float(metrics["total"]))

  def figures(self) -> dict[str, float]:
    """Times, costs, and the losses of the first and of the last step."""
    return {
      "train_ms": 1e3 * statistics.median(self.train_s[_WARM:]),
      "train_ms_least": 1e3 * min(self.train_s[_WARM:]),
      "train_cpu_ms": 1e3 * statistics.median(self.train_cpu_s[_WARM:]),
      "eval_ms": 1e3 * statistics.median(self.eval_s[_WARM:]),
      "eval_ms_least": 1e3 * min(self.eval_s[_WARM:]),
      "flops": self.step.cost_analysis()["flops"],
      "eval_flops": self.student.cost_analysis()["flops"],
      "peak_bytes": _peak_bytes(self.step),
      "loss": self.losses[0],
      "last_loss": self.losses[-1],
    }


def _seconds(function: Callable) -> tuple[float, Any]:
  start = time.perf_counter()
  result = jax.block_until_ready(function())
  return time.perf_counter() - start, result


def _peak_bytes(compiled: Any) -> int:
  """Bytes of arguments, results and temporaries, from the compiler."""
  memory = compiled.memory_analysis()
  return (
    memory.argument_size_in_bytes
    + memory.output_size_in_bytes
    - memory.alias_size_in_bytes
    + memory.temp_size_in_bytes
  )


def make_form(
  given: argparse.Namespace, batch: Any, banks: Any, *, absorbed: bool
) -> Form:
  """Compiles a form; both forms start from the same parameters."""
  model, objective = programs.build(
    given.preset,
    compilation.compute_dtype(given.dtype),
    dropout=given.dropout == "on",
    absorbed=absorbed,
  )
  state = jax.jit(lambda: programs.initial_state(model))()
  step = programs.train(model, objective)
  step = step.lower(state, batch, banks).compile()
  student = programs.student(model).lower(state.params, batch, banks).compile()
  return Form(step, student, state)


def measure(given: argparse.Namespace) -> dict[str, Any]:
  """All figures of the JSON line."""
  dtype = compilation.compute_dtype(given.dtype)
  batch = jax.device_put(true_sizes.random_batch(given.batch, dtype))
  banks = jax.device_put(true_sizes.random_banks())
  forms = {"": make_form(given, batch, banks, absorbed=True)}
  if given.compare:
    forms["plain_"] = make_form(given, batch, banks, absorbed=False)
  for _ in range(_WARM + given.steps):
    for form in forms.values():
      form.run(batch, banks)
  result = {
    "preset": given.preset,
    "batch": given.batch,
    "dtype": dtype.name,
    "dropout": given.dropout,
    "device": jax.devices()[0].device_kind,
    "threads": len(os.sched_getaffinity(0)),
    "steps": given.steps,
  }
  for prefix, form in forms.items():
    result |= {prefix + name: x for name, x in form.figures().items()}
  result["images_per_s"] = 1e3 * given.batch / result["train_ms"]
  result["load"] = [round(x, 2) for x in os.getloadavg()]
  return result


def arguments(values: list[str] | None = None) -> argparse.Namespace:
  """The command line."""
  parser = argparse.ArgumentParser(prog="python -m benchmarks.step")
  parser.add_argument("--preset", choices=presets.PRESETS, required=True)
  parser.add_argument("--batch", type=int, default=32)
  parser.add_argument("--steps", type=int, default=10, help="that count")
  parser.add_argument(
    "--dtype", choices=("auto", "float32", "bfloat16"), default="auto"
  )
  parser.add_argument(
    "--threads", type=int, default=0, help="of the CPU; 0: all that there are"
  )
  parser.add_argument("--dropout", choices=("off", "on"), default="off")
  parser.add_argument("--compare", action="store_true")
  parser.add_argument("--write", action="store_true", help="docs/performance*")
  return parser.parse_args(values)


def main(values: list[str] | None = None) -> int:
  """Prints the JSON line; returns the exit status."""
  given = arguments(values)
  if given.threads:
    # XLA starts as many threads as it may use processors.
    processors = sorted(os.sched_getaffinity(0))[: given.threads]
    os.sched_setaffinity(0, processors)
  result = measure(given)
  print(json.dumps(result))
  if given.write:
    performance.write_step(result)
  return 0


if __name__ == "__main__":
  if sys.platform == "linux" and not ALLOCATOR.keys() & os.environ.keys():
    os.execve(
      sys.executable,
      [sys.executable, "-m", "benchmarks.step", *sys.argv[1:]],
      os.environ | ALLOCATOR,
    )
  raise SystemExit(main())
