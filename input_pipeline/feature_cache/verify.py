"""Reads a whole cache and compares it with its manifest."""

from pathlib import Path

import numpy as np

from input_pipeline.feature_cache import manifest
from input_pipeline.feature_cache.reader import Cache, CachedSplit, open_cache
from input_pipeline.io.errors import InputError

_CHUNK = 256


def verify(folder: str | Path) -> dict[str, int]:
  """Checks every file's digest and every record's length and values.

  Returns:
    Counts to print: files, bytes, and examples of every split.

  Raises:
    InputError: the first file, record or value that is wrong.
  """
  cache = open_cache(folder)
  for name, entry in cache.files.items():
    if manifest.sha256(cache.folder / name) != entry["sha256"]:
      raise InputError(
        f"{cache.folder / name} is not what was written: its sha256 differs "
        "from the manifest's",
        "delete that file and prepare the cache again into the same folder",
      )
  _check_finite("labels.npz", cache.labels(), cache.folder)
  counts = {
    "files": len(cache.files),
    "bytes": sum(entry["bytes"] for entry in cache.files.values()),
  }
  for split in cache.plan.splits:
    counts[split.name] = _verify_split(cache, cache.split(split.name))
  return counts


def _verify_split(cache: Cache, split: CachedSplit) -> int:
  expected = cache.plan.split(split.name).num_examples
  lengths = {len(column) for column in split.annotations.values()}
  if {split.num_examples, *lengths} != {expected}:
    raise InputError(
      f"{cache.folder / split.name}: annotations for {split.num_examples} "
      f"examples, the plan says {expected}",
      "delete the cache folder and prepare it again",
    )
  for start in range(0, expected, _CHUNK):
    batch = split.read(np.arange(start, min(expected, start + _CHUNK)))
    where = f"examples {start} to {start + _CHUNK - 1} of {split.name}"
    _check_finite(where, batch, cache.folder)
  return expected


def _check_finite(where: str, arrays: dict, folder: Path) -> None:
  for name, value in arrays.items():
    if (
      value.dtype.kind in "fV"
      and not np.isfinite(value.astype(np.float32)).all()
    ):
      raise InputError(
        f"{folder}, {where}: {name} has values that are not finite",
        "look for the encoder that made them; a wider dtype may help",
      )
