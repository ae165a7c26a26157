"""Batches of a shard, written as they come; the rate at which they do."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import jax
import numpy as np

from input_pipeline import feature_cache
from input_pipeline.feature_cache import CacheWriter, Shard
from input_pipeline.io.progress import Progress
from mipd_jax.devices import chips
from mipd_jax.teachers.encoding import Encoders, Features, error_name

# (part, field -> rows, indices of the rows' examples): raises where amiss.
Check = Callable[[str, Mapping[str, np.ndarray], np.ndarray], None]


@dataclasses.dataclass(frozen=True)
class Work:
  """One batch: `indices` [batch], of which the first `count` are real."""

  parts: tuple[str, ...]
  indices: np.ndarray
  count: int


def by_number(shards: Sequence[Shard]) -> list[list[Shard]]:
  """Shards of several parts that hold the same examples go together."""
  groups: dict[int, list[Shard]] = {}
  for shard in shards:
    groups.setdefault(shard.number, []).append(shard)
  return [groups[number] for number in sorted(groups)]


def batches_of(shards: Sequence[Shard], batch_size: int) -> list[Work]:
  """Batches begin anew in each shard, so a restart sees the same ones."""
  parts = tuple(shard.part for shard in shards)
  start, stop = shards[0].start, shards[0].stop
  works = []
  for first in range(start, stop, batch_size):
    indices = np.arange(first, first + batch_size)
    count = min(batch_size, stop - first)
    # Filler repeats the last example.
    works.append(Work(parts, np.minimum(indices, stop - 1), count))
  return works


def one_behind(results: Iterator) -> Iterator:
  """Yields a result once the next one is started, so devices never wait."""
  previous = next(results, None)
  for result in results:
    yield previous
    previous = result
  if previous is not None:
    yield previous


def write(
  writer: CacheWriter,
  shards: Sequence[Shard],
  results: Iterator[tuple[Work, Features]],
  progress: "EncodingProgress",
  check: Check,
) -> None:
  """Writes shards of the same examples from their batches.

  `check` sees each batch before it is written, see `Encoders.check`.
  """
  with contextlib.ExitStack() as stack:
    files = [stack.enter_context(writer.open_shard(s)) for s in shards]
    for work, features in results:
      for shard, file in zip(shards, files, strict=True):
        names = [f.name for f in writer.plan.part_fields(shard.part)]
        rows = {n: np.asarray(features[n])[: work.count] for n in names}
        check(shard.part, rows, work.indices[: work.count])
        file.write(rows)
        _count_errors(file, names, features, work.count)
      progress.advance(work.count)


def _count_errors(
  file: feature_cache.ShardWriter,
  names: Sequence[str],
  features: Features,
  count: int,
) -> None:
  for name in names:
    if error_name(name) in features:
      sums = np.asarray(features[error_name(name)], np.float64)[:count]
      file.count_error(name, *sums.sum(axis=0))


class EncodingProgress(contextlib.AbstractContextManager):
  """Images a second, operations a second, and their share of the peak."""

  def __init__(self, split: str, total: int, encoders: Encoders):
    self._encoders = encoders
    self._peak = chips.peak_flops(jax.devices()[0].device_kind)
    self._progress = Progress(f"encode {split}", total, "images")
    self._first: tuple[float, float] | None = None

  def __enter__(self) -> "EncodingProgress":
    self._progress.__enter__()
    return self

  def __exit__(self, *error) -> None:
    self._progress.__exit__(*error)

  def advance(self, images: int) -> None:
    self._progress.advance(images, note=self._rate())

  def _rate(self) -> str:
    """From the first finished batch on: before it is compilation."""
    now = (time.monotonic(), self._encoders.flops)
    if self._first is None:
      self._first = now
      return ""
    seconds, flops = (b - a for a, b in zip(self._first, now, strict=True))
    rate = flops / max(seconds, 1e-9)
    size, unit = (1e12, "T") if rate >= 1e12 else (1e9, "G")
    note = f"({rate / size:.3g} {unit}FLOP/s a device"
    if self._peak:
      note += f", {100 * rate / self._peak:.0f} % of its peak"
    return note + ")"
