"""XLA's figures of a program that is compiled for TPUs without having them."""

import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from input_pipeline.io.errors import InputError
from mipd_jax.devices import chips

COLLECTIVES = (
  "all-reduce",
  "reduce-scatter",
  "all-gather",
  "all-to-all",
  "collective-permute",
  "collective-broadcast",
)
# An instruction: its result's type, its kind, and whether it is only a start.
_INSTRUCTION = re.compile(
  rf"= (?P<type>\(.*?\)|\S+) (?P<kind>{'|'.join(COLLECTIVES)})"
  r"(?P<start>-start)?\("
)
_NO_ROOM = re.compile(r"Used \S+ of \S+ hbm")
_CHANNEL = re.compile(r"channel_id=(\d+)")
_ARRAY = re.compile(r"(?P<dtype>[a-z]\w*)\[(?P<shape>[\d,]*)\]")
_BITS = {"pred": 8, "s4": 4, "u4": 4}


def devices(topology: str) -> Sequence[jax.Device]:
  """Chips of a topology such as v5e:2x4, only for compiling.

  Raises:
    InputError: libtpu is not installed, or does not know the topology.
  """
  # Compiling needs no chips, so it neither locks them nor asks the cloud.
  os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
  os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
  if not jax.config.jax_platforms:
    jax.config.update("jax_platforms", "cpu")
  from jax.experimental import topologies

  try:
    return topologies.get_topology_desc(
      platform="tpu", topology_name=topology
    ).devices
  except (RuntimeError, ValueError, NotImplementedError) as error:
    raise InputError(
      f"cannot compile for {topology!r}: {error}",
      "pip install -r requirements-tpu.txt; topologies are named as v5e:2x4",
    ) from error


def costs(
  function: Callable, arguments: tuple, chip: chips.Chip
) -> dict[str, Any]:
  """Compiles a function; returns memory, work and least time of one chip.

  The least time is the roofline's: the longest of operations at the chip's
  peak, bytes at its memory's rate, and bytes between chips at its links' rate.

  Args:
    function: the function; jitted here unless it is already.
    arguments: shapes, with shardings on the chips.
    chip: the chip's rates.

  Returns:
    Bytes of arguments, of temporaries and in total, `fits`, flops, bytes
    moved, `collectives` by kind, `roofline_ms` and what it is `bound` by. A
    loop of variable length counts as one iteration. If the program does not
    fit the chip, only `fits` and the compiler's `problem`.
  """
  if not hasattr(function, "lower"):
    function = jax.jit(function)
  try:
    compiled = function.lower(*arguments).compile()
  except jax.errors.JaxRuntimeError as error:
    needed = _NO_ROOM.search(str(error))
    if needed is None:
      raise
    return {"fits": False, "problem": needed[0]}
  memory, work = compiled.memory_analysis(), compiled.cost_analysis()
  by_kind = collectives(compiled.as_text())
  total = (
    memory.argument_size_in_bytes
    + memory.output_size_in_bytes
    - memory.alias_size_in_bytes
    + memory.temp_size_in_bytes
  )
  seconds = {
    "compute": work["flops"] / chip.flops,
    "memory": work["bytes accessed"] / chip.bandwidth,
    "interconnect": _sent(by_kind) / chip.interconnect,
  }
  bound = max(seconds, key=seconds.__getitem__)
  return {
    "argument_bytes": memory.argument_size_in_bytes,
    "temporary_bytes": memory.temp_size_in_bytes,
    "total_bytes": total,
    "fits": total < chip.memory,
    "flops": work["flops"],
    "bytes": work["bytes accessed"],
    "collectives": by_kind,
    "roofline_ms": 1e3 * seconds[bound],
    "bound": bound,
  }


def collectives(hlo: str) -> dict[str, dict[str, int]]:
  """Kind -> count, and bytes of all results and of the largest one.

  Args:
    hlo: the text of a compiled program.
  """
  kinds: dict[str, dict[str, int]] = {}
  seen = set()
  for match in _INSTRUCTION.finditer(hlo):
    # XLA may cut one collective into many pieces, all on its channel.
    channel = _CHANNEL.search(hlo, match.end(), hlo.find("\n", match.end()))
    if channel and channel[1] in seen:
      continue
    seen.add(channel and channel[1])
    # A start has its operands, its results and then words for the chip.
    sizes = _sizes(match["type"].replace(" u32[]", ""))
    if match["start"] and match["kind"] != "all-reduce":
      sizes = sizes[len(sizes) // 2 :]
    entry = kinds.setdefault(
      match["kind"], {"count": 0, "bytes": 0, "largest": 0}
    )
    entry["count"] += 1
    entry["bytes"] += sum(sizes)
    entry["largest"] = max(entry["largest"], *sizes)
  return kinds


def _sizes(shape: str) -> list[int]:
  """Bytes of every array of a type such as (f32[2,3]{1,0}, u32[])."""
  sizes = []
  for match in _ARRAY.finditer(shape):
    count = math.prod(int(n) for n in match["shape"].split(",") if n)
    sizes.append(count * _bits(match["dtype"]) // 8)
  return sizes


def _bits(dtype: str) -> int:
  known = _BITS.get(dtype)
  return known or int(re.search(r"\d+", dtype)[0])


def _sent(moved: Mapping[str, Mapping[str, int]]) -> float:
  """Bytes that a chip sends, in large rings; an all-reduce sends all twice."""
  return sum(
    entry["bytes"] * (2 if kind == "all-reduce" else 1)
    for kind, entry in moved.items()
  )
