"""One shard: the records of consecutive examples in one ArrayRecord file."""

import contextlib
import math
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from input_pipeline.feature_cache import manifest
from input_pipeline.feature_cache.plan import Field, numpy_dtype
from input_pipeline.io import atomic, errors

# One record per chunk: any record is read alone. No compression: features
# look like noise, and equal features give equal bytes.
WRITER_OPTIONS = "group_size:1,uncompressed"
# Random access; the caller provides the threads.
READER_OPTIONS = "readahead_buffer_size:0,max_parallelism:0"
# How many bytes of a record, evenly spaced, its mark is computed from.
_SAMPLED = 512
MARK_DIGITS = 8


def open_reader(path: Path):
  """An ArrayRecord reader for random access; RuntimeError if damaged."""
  from array_record.python import array_record_module

  return array_record_module.ArrayRecordReader(str(path), READER_OPTIONS)


def mark(record: bytes) -> str:
  """Eight digits that distinguish records; cheap at any length.

  The file's own checksums detect any change to a record. They do not detect a
  file, or a part of one, from another split or cache.
  """
  # An odd step samples every byte of a number: the last may all be zero.
  step = len(record) // _SAMPLED | 1
  sample = memoryview(record)[::step]
  return f"{zlib.crc32(sample.tobytes()):0{MARK_DIGITS}x}"


def encode(
  fields: tuple[Field, ...], values: Mapping[str, np.ndarray]
) -> np.ndarray:
  """Arrays [n, *shape] -> uint8 [n, record_bytes], field after field.

  Raises:
    ValueError: an array has another shape or dtype than its field.
  """
  rows = []
  for field in fields:
    value = np.ascontiguousarray(values[field.name])
    if (value.shape[1:], value.dtype) != (
      field.shape,
      numpy_dtype(field.dtype),
    ):
      raise ValueError(
        f"{field.name}: {value.dtype}{list(value.shape[1:])} does not fit the "
        f"plan's {field.dtype}{list(field.shape)}"
      )
    size = math.prod(field.shape)
    rows.append(value.reshape(len(value), size).view(np.uint8))
  return np.concatenate(rows, axis=1)


def decode(fields: tuple[Field, ...], rows: np.ndarray) -> dict:
  """The inverse of `encode`: uint8 [n, record_bytes] -> arrays by name."""
  values, start = {}, 0
  for field in fields:
    part = np.ascontiguousarray(rows[:, start : start + field.nbytes])
    values[field.name] = part.view(numpy_dtype(field.dtype)).reshape(
      len(rows), *field.shape
    )
    start += field.nbytes
  return values


class ShardWriter:
  """Writes one shard; a context manager. The file appears when it is whole.

  Any error removes the temporary file; a full disk raises InputError.
  """

  def __init__(
    self,
    path: Path,
    fields: tuple[Field, ...],
    num_examples: int,
    bytes_left: Callable[[], int] = lambda: 0,
  ):
    """`bytes_left` gives the bytes yet to write, for a full disk's message."""
    self._path = path
    self._fields = fields
    self._expected = num_examples
    self._bytes_left = bytes_left
    self._temporary = path.with_name(path.name + manifest.TEMPORARY)
    self._written = 0
    self._last = b""
    self._marks: list[str] = []
    self._writer = None
    self._errors: dict[str, np.ndarray] = {}

  def __enter__(self) -> "ShardWriter":
    from array_record.python import array_record_module

    with self._guard():
      self._path.parent.mkdir(parents=True, exist_ok=True)
      self._writer = array_record_module.ArrayRecordWriter(
        str(self._temporary), WRITER_OPTIONS
      )
    return self

  def write(self, values: Mapping[str, np.ndarray]) -> None:
    """Appends n examples: arrays [n, *field.shape] of the field's dtype."""
    rows = encode(self._fields, values)
    with self._guard():
      for row in rows:
        self._last = row.tobytes()
        self._writer.write(self._last)
        self._marks.append(mark(self._last))
    self._written += len(rows)

  def count_error(self, field: str, error: float, power: float) -> None:
    """Adds squared error and squared norm of tokens stored as int8."""
    sums = self._errors.setdefault(field, np.zeros(2))
    sums += (error, power)

  @property
  def remarks(self) -> dict[str, object]:
    """What the manifest holds about this shard besides its size."""
    marks = {"marks": "".join(self._marks)}
    if not self._errors:
      return marks
    # Rounded, since the last digits depend on the batch size.
    sums = {k: [float(f"{v:.4g}") for v in e] for k, e in self._errors.items()}
    return {**marks, "int8": sums}

  def __exit__(self, kind, error, trace) -> None:
    if error is not None:
      self._abandon()
      return
    with self._guard():
      self._writer.close()
      self._check()
      atomic.publish(self._temporary, self._path)

  def _check(self) -> None:
    """Reads the count and the last record back before the file is named."""
    reader = open_reader(self._temporary)
    count = reader.num_records()
    if not self._expected == self._written == count:
      raise ValueError(
        f"{self._path}: {self._expected} examples belong in this shard, "
        f"{self._written} were written and {count} arrived"
      )
    if reader.read([count - 1]) != [self._last]:
      raise OSError(f"{self._temporary}: the last record reads back otherwise")

  @contextlib.contextmanager
  def _guard(self) -> Iterator[None]:
    try:
      yield
    except BaseException as error:
      self._abandon()
      if isinstance(error, Exception) and errors.is_full(error):
        raise manifest.full_disk(
          self._path.parent, self._bytes_left()
        ) from error
      raise

  def _abandon(self) -> None:
    # Closing writes the buffer, which fails again on a full disk.
    with contextlib.suppress(Exception):
      self._writer.close()
    self._temporary.unlink(missing_ok=True)
