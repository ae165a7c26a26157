"""Opening a cache and reading batches from it, by index, on any thread.

`CachedSplit` decodes int8 features on the host. `StoredSplit` gives them as
stored, int8 with scales: a quarter of the bytes go to the devices, which
decode them (`mipd_jax.feeding.dequantise`).
"""

import io
import threading
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from input_pipeline import schema
from input_pipeline.feature_cache import int8, manifest
from input_pipeline.feature_cache.manifest import BUILDING, MANIFEST, Manifest
from input_pipeline.feature_cache.plan import (
  PARTS,
  CachePlan,
  Shard,
  check_same,
)
from input_pipeline.feature_cache.shard import (
  MARK_DIGITS,
  decode,
  mark,
  open_reader,
)
from input_pipeline.io.errors import InputError

LABELS = "labels.npz"
ANNOTATIONS = "annotations.npz"
RATIONALES = "rationales.jsonl"
NAMES = "names"
# The annotation columns of situations. Batching adds the mask.
COLUMNS = tuple(key for key in schema.ANNOTATIONS if key != schema.EXAMPLE_MASK)


class Cache:
  """A complete cache. Make it with `open_cache`.

  Reading returns what was written or raises InputError. Arrays and texts are
  checked by the sha256 of their file, records by the checksums of their file
  and a digest of their own (`shard.mark`).
  """

  def __init__(self, folder: Path, manifest: Manifest):
    self.folder = folder
    self.plan = manifest.plan
    self.files = manifest.files
    self.libraries = manifest.libraries

  def labels(self) -> dict[str, np.ndarray]:
    """The text banks: float32 verb_text [V,X], role_text, noun_text."""
    return self.arrays(LABELS)

  def arrays(self, path: str) -> dict[str, np.ndarray]:
    """All arrays of one of the cache's .npz files."""
    return load_arrays(self.folder / path, self._sha256(path))

  def lines(self, path: str) -> Iterator[str]:
    """The lines of one of the cache's text files."""
    place = self.folder / path
    if not place.exists() or manifest.sha256(place) != self._sha256(path):
      raise manifest.damaged(
        place, "it is not what was written: sha256 differs"
      )
    with place.open(encoding="utf-8") as text:
      yield from text

  def _sha256(self, path: str) -> str:
    if path not in self.files:
      raise InputError(
        f"the cache {self.folder} has no {path}", "prepare it again"
      )
    return self.files[path]["sha256"]

  def quantisation_error(self) -> dict[str, float]:
    """Relative error of every int8 field: |stored - true| / |true|, RMS.

    Over all shards; empty if nothing is stored as int8.
    """
    sums: dict[str, list[float]] = {}
    for entry in self.files.values():
      for name, (error, power) in entry.get("int8", {}).items():
        total = sums.setdefault(name, [0.0, 0.0])
        total[0] += error
        total[1] += power
    return {n: (e / max(p, 1e-30)) ** 0.5 for n, (e, p) in sums.items()}

  def split(
    self, name: str, parts: tuple[str, ...] | None = None
  ) -> "CachedSplit":
    """A split with the features of `parts` (all that it has if None).

    Raises:
      InputError: there is no such split, or it lacks one of the parts.
    """
    has = self.plan.split(name).parts
    parts = has if parts is None else tuple(parts)
    missing = [part for part in parts if part not in has]
    if missing:
      raise InputError(
        f"split {name!r} of the cache {self.folder} has no {missing}, "
        f"only {list(has)}",
        "ask for other parts, or prepare a cache that has them",
      )
    return CachedSplit(self, name, parts)


class CachedSplit:
  """Random access to the annotations and features of one split."""

  def __init__(self, cache: Cache, name: str, parts: tuple[str, ...]):
    self.name = name
    self.parts = parts
    self._cache = cache
    columns = cache.arrays(f"{name}/{ANNOTATIONS}")
    self.names: tuple[str, ...] = tuple(columns.pop(NAMES).tolist())
    mask = np.ones(self.num_examples, bool)
    # The columns of `schema.ANNOTATIONS` or `schema.PAIR_ANNOTATIONS`, one row
    # per example.
    self.annotations = {schema.EXAMPLE_MASK: mask, **columns}
    self._columns = tuple(columns)
    self._shards = {part: cache.plan.shards(name, part) for part in parts}
    # ArrayRecord's reader is thread-safe; one per file, made when needed.
    self._readers: dict[Path, object] = {}
    self._lock = threading.Lock()
    if len(self.names) != cache.plan.split(name).num_examples:
      raise manifest.damaged(
        cache.folder / name / ANNOTATIONS,
        f"{len(self.names)} examples, the plan says "
        f"{cache.plan.split(name).num_examples}",
      )

  @property
  def num_examples(self) -> int:
    return len(self.names)

  def only(self, *parts: str) -> "CachedSplit":
    """The same examples with other parts."""
    return self._cache.split(self.name, parts)

  @property
  def keys(self) -> tuple[str, ...]:
    """The keys of `read`."""
    return self._columns + tuple(k for part in self.parts for k in PARTS[part])

  def __len__(self) -> int:
    return self.num_examples

  def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
    """The contract's arrays of the given examples, without example_mask.

    Args:
      indices: int [n], positions in the split, in any order, repeats allowed.

    Raises:
      InputError: a record cannot be read (file truncated or damaged).
    """
    return int8.dequantise(self.read_stored(indices))

  def read_stored(self, indices: np.ndarray) -> dict[str, np.ndarray]:
    """`read` without decoding: the plan's fields, int8 with their scales."""
    indices = np.asarray(indices, np.int64)
    if indices.size and not (
      indices.min() >= 0 and indices.max() < self.num_examples
    ):
      raise IndexError(f"indices outside 0..{self.num_examples - 1}")
    batch = {key: self.annotations[key][indices] for key in self._columns}
    for part in self.parts:
      fields = self._cache.plan.part_fields(part)
      batch.update(decode(fields, self._read_part(part, indices)))
    return batch

  def _read_part(self, part: str, indices: np.ndarray) -> np.ndarray:
    """uint8 [n, record_bytes]; one read per shard."""
    size = self._cache.plan.record_bytes(part)
    rows = np.empty((len(indices), size), np.uint8)
    numbers = indices // self._cache.plan.examples_per_shard
    for number in np.unique(numbers):
      shard = self._shards[part][number]
      here = np.flatnonzero(numbers == number)
      data = self._read_records(shard, indices[here] - shard.start, size)
      rows[here] = np.frombuffer(data, np.uint8).reshape(len(here), size)
    return rows

  def _read_records(self, shard: Shard, records: np.ndarray, size: int):
    path = self._cache.folder / shard.path
    try:
      data = self._reader(path).read(records.tolist())
    except RuntimeError as error:
      raise manifest.damaged(path, str(error), records.tolist()) from error
    # A truncated file may also return empty records.
    bad = [r for r, d in zip(records, data, strict=True) if len(d) != size]
    if bad:
      raise manifest.damaged(path, f"expected {size} bytes a record", bad)
    marks = self._cache.files[shard.path].get("marks", "")
    bad = [
      r
      for r, d in zip(records, data, strict=True)
      if mark(d) != marks[r * MARK_DIGITS : (r + 1) * MARK_DIGITS]
    ]
    if bad:
      raise manifest.damaged(
        path, "not what was written, a file of another split or cache", bad
      )
    return b"".join(data)

  def _reader(self, path: Path):
    with self._lock:
      if path not in self._readers:
        self._readers[path] = open_reader(path)
      return self._readers[path]


def open_cache(folder: str | Path, expected: CachePlan | None = None) -> Cache:
  """Opens a complete cache.

  Args:
    folder: the cache's folder.
    expected: the plan that the cache must have, if given.

  Raises:
    InputError: the cache is missing, unfinished, of another format or of
      another plan than expected, or a file is missing or truncated.
  """
  folder = Path(folder)
  manifest_path = folder / MANIFEST
  if not manifest_path.exists():
    state = "unfinished" if (folder / BUILDING).exists() else "missing"
    raise InputError(
      f"the cache {folder} is {state} (no {MANIFEST})",
      "prepare it first; an unfinished one continues where it stopped",
    )
  cache = Cache(folder, manifest.read(manifest_path))
  if expected is not None:
    check_same(cache.plan, expected, str(folder))
  for name, entry in cache.files.items():
    check_size(folder / name, entry)
  return cache


def is_complete(folder: str | Path, plan: CachePlan) -> bool:
  """Whether all files of the cache exist in full length.

  Raises:
    InputError: the folder holds a cache of another plan or format.
  """
  folder = Path(folder)
  if not (folder / MANIFEST).exists():
    return False
  cache = Cache(folder, manifest.read(folder / MANIFEST))
  check_same(cache.plan, plan, str(folder))
  return all(is_there(folder / n, e) for n, e in cache.files.items())


def is_there(path: Path, entry: Mapping) -> bool:
  """Whether a file has its length and, unless it is a shard, its sha256.

  Shards are checked when they are read.
  """
  if _size(path) != entry["bytes"]:
    return False
  return "records" in entry or manifest.sha256(path) == entry["sha256"]


def _size(path: Path) -> int | None:
  return path.stat().st_size if path.exists() else None


def check_size(path: Path, entry: Mapping) -> None:
  """Raises InputError unless the file has the manifest's size."""
  size = _size(path)
  if size != entry["bytes"]:
    state = "missing" if size is None else f"{size} bytes long"
    raise InputError(
      f"{path} is {state}, the manifest says {entry['bytes']} bytes"
      + (f" ({entry['records']} records)" if "records" in entry else ""),
      "prepare the cache again into the same folder: it rewrites that file",
    )


def load_arrays(path: Path, sha256: str | None = None) -> dict[str, np.ndarray]:
  """All arrays of an .npz file; checks its sha256 if that is given."""
  data = manifest.read_checked(path, sha256)
  try:
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
      return dict(file)
  except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
    raise manifest.damaged(path, str(error)) from error


class StoredSplit:
  """A `stream.Source` over a `CachedSplit` that decodes nothing."""

  def __init__(self, split: CachedSplit):
    self._split = split

  @property
  def num_examples(self) -> int:
    return self._split.num_examples

  @property
  def names(self) -> tuple[str, ...]:
    """Image names."""
    return self._split.names

  def only(self, *parts: str) -> "StoredSplit":
    """The same examples with other parts of the cache."""
    return StoredSplit(self._split.only(*parts))

  def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
    """Annotations and fields of the plan; see `CachedSplit.read`.

    An int8 field is int8 [n, ..., D] with `<key>_scale`, float32 [n, ...].
    """
    return self._split.read_stored(indices)
