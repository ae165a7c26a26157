"""Whether a split is kept in device memory, and why."""

import contextlib
from collections.abc import Callable, Iterator

import jax
from absl import logging

from input_pipeline.io.errors import InputError
from input_pipeline.stream import Source
from mipd_jax.devices import distributed, sharding
from mipd_jax.feeding.feeds import Feed, FromMemory, Streaming
from mipd_jax.feeding.loading import loading
from mipd_jax.feeding.resident import Layout

_GIB = 2**30
# Of a device's memory: the rest is for parameters and one step's arrays.
_SHARE = 0.75
# On devices that do not tell their memory (CPUs), on all of them together.
_UNKNOWN_GIB = 4.0


@contextlib.contextmanager
def opening(
  source: Source, layout: Layout, setting: str, limit_gib: float, what: str
) -> Iterator[Callable[[], Feed]]:
  """Makes a feed ready while the block compiles.

  Args:
    source: of the split.
    layout: made from that source.
    setting, limit_gib, what: see `decide`.

  Yields:
    A function that waits until the feed is ready.
  """
  if decide(setting, limit_gib, layout, what):
    with loading(source, layout, f"load {what}") as resident:
      yield lambda: FromMemory(resident())
  else:
    yield lambda: Streaming(source, layout.batch_size, layout.mesh)


def decide(setting: str, limit_gib: float, layout: Layout, what: str) -> bool:
  """Decides, the same on all processes, and logs what and why.

  Args:
    setting: "on", "off" or "auto": where it fits.
    limit_gib: what a device may give to it; 0 takes three quarters of its
      memory less what is in use, or 4 GiB over all devices that do not tell.
    layout: of the split.
    what: the split's name.

  Raises:
    InputError: the setting is "on", and the split cannot be resident.
  """
  if setting == "off":
    return False
  needed = layout.device_bytes()
  limit = _limit(limit_gib, layout)
  fits = layout.is_possible and distributed.all_of(needed <= limit)
  devices = layout.mesh.shape[sharding.DATA]
  if layout.is_possible:
    reason = (
      f"{needed / _GIB:.2f} GiB on each of {devices} devices, which may give "
      f"{limit / _GIB:.2f} GiB to it"
    )
  else:
    reason = (
      f"its {layout.num_shards} virtual shards (of {layout.num_examples} "
      f"images in batches of {layout.batch_size}) do not divide over "
      f"{devices} devices"
    )
  if setting == "on" and not fits:
    raise InputError(
      f"train.resident='on', but {what} cannot be kept in device memory: "
      f"{reason}",
      "use more devices, an int8 cache (--config.teacher.dtype=int8), a batch "
      "size with more factors of two, a larger --config.train.resident_gib, "
      "or --config.train.resident=auto",
    )
  logging.info(
    "Features of %s are %s: %s.",
    what,
    "loaded into device memory" if fits else "streamed",
    reason,
  )
  return fits


def _limit(limit_gib: float, layout: Layout) -> int:
  if limit_gib:
    return int(limit_gib * _GIB)
  stats = [
    device.memory_stats()
    for device in layout.mesh.devices.flat
    if device.process_index == jax.process_index()
  ]
  if not all(stats):
    return int(_UNKNOWN_GIB * _GIB / layout.mesh.devices.size)
  return min(
    int(_SHARE * s["bytes_limit"]) - s.get("bytes_in_use", 0) for s in stats
  )
