"""A digest of every array of a checkpoint, taken before and after the disk.

An array is a table of words: all axes but the last are its rows. The digest is
a SHA-256 over the sums of every row and of every column. Sums of integers are
exact in any order, so each process of a run adds up its part of an array, and
one device and many agree; next to the disk they cost little. Damage within one
row or one column always changes them; any other damage stays unnoticed with a
chance of less than 2**-32.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from input_pipeline.io import json_files

Record = dict[str, Any]
_FORM = "mipd_jax-1"


def record(state: Any, **more: Any) -> Record:
  """What is kept with a checkpoint of `state`: plain JSON values.

  Args:
    state: nested arrays, on the devices.
    more: plain values to keep, and protect, as well.
  """
  arrays = {
    name: [digest, list(x.shape), str(x.dtype)]
    for (name, x), digest in zip(
      named(state).items(), of_arrays(state), strict=True
    )
  }
  return json_files.sealed({"form": _FORM, "arrays": arrays, **more})


def problem(content: Any) -> str | None:
  """The fault of a record itself; None if it is as it was written."""
  if not isinstance(content, Mapping) or not content:
    return "it has no digests"
  if not json_files.is_sealed(content) or content["form"] != _FORM:
    return "its digests are damaged"
  return None


def differing(state: Any, kept: Record) -> list[str]:
  """Names of arrays that are not as in a record.

  Args:
    state: nested arrays, on the devices; the record may have more.
    kept: a record without a `problem`.
  """
  arrays = kept["arrays"]
  return [
    name
    for name, digest in zip(named(state), of_arrays(state), strict=True)
    if name not in arrays or arrays[name][0] != digest
  ]


def misfit(like: Any, kept: Record) -> str | None:
  """Why a record's arrays cannot be read into shapes; None if they can.

  Args:
    like: nested shapes; the record may have more.
    kept: a record without a `problem`.
  """
  for name, x in named(like).items():
    if name not in kept["arrays"]:
      return f"it lacks {name}"
    *_, shape, dtype = kept["arrays"][name]
    if (shape, dtype) != (list(x.shape), str(x.dtype)):
      return f"{name} is {dtype}{shape}, not {x.dtype}{list(x.shape)}"
  return None


def named(state: Any) -> dict[str, Any]:
  """Leaves by name, as in "params.student.decoder.kernel"."""
  leaves = jax.tree_util.tree_leaves_with_path(state)
  return {
    jax.tree_util.keystr(path, simple=True, separator="."): x
    for path, x in leaves
  }


def of_arrays(state: Any) -> list[str]:
  """SHA-256 of each array's sums, in the order of the tree's leaves.

  A collective call if there are several processes.
  """
  leaves = jax.tree.leaves(state)
  sums = [_sums(x) for x in leaves]
  if jax.process_count() > 1 and sums:
    whole = [
      not isinstance(x, jax.Array) or x.is_fully_replicated for x in leaves
    ]
    parts = [s for s, complete in zip(sums, whole, strict=True) if not complete]
    if parts:
      joined = np.concatenate(parts)
      everywhere = multihost_utils.process_allgather(joined)
      joined = np.add.reduce(everywhere, axis=0, dtype=np.uint32)
      ends = np.cumsum([len(part) for part in parts])[:-1]
      sums_of_parts = iter(np.split(joined, ends))
      sums = [
        s if complete else next(sums_of_parts)
        for s, complete in zip(sums, whole, strict=True)
      ]
  return [hashlib.sha256(s.astype("<u4").tobytes()).hexdigest() for s in sums]


def _sums(x: jax.Array | np.ndarray) -> np.ndarray:
  """Sums of this process's part of an array: rows, columns; uint32 [R + C].

  Of the whole array if every process has it.
  """
  if not isinstance(x, jax.Array):
    return _join(*_table_sums(np.asarray(x)))
  if x.is_fully_replicated:
    return _join(*_table_sums(np.asarray(x.addressable_data(0))))
  width = x.shape[-1] * _words_each(x.dtype)
  rows = np.zeros(x.shape[:-1], np.uint32)
  columns = np.zeros(width, np.uint32)
  for shard in x.addressable_shards:
    if shard.replica_id:
      continue  # another device adds it up
    part_rows, part_columns = _table_sums(np.asarray(shard.data))
    start, stop, _ = shard.index[-1].indices(x.shape[-1])
    each = _words_each(x.dtype)
    rows[shard.index[:-1]] += part_rows
    columns[start * each : stop * each] += part_columns
  return _join(rows, columns)


def _table_sums(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Sums of the rows, uint32 of all axes but the last, and of the columns."""
  x = np.ascontiguousarray(x)  # at least one axis
  words = x.view(f"u{min(x.dtype.itemsize, 4)}")
  rows = np.add.reduce(words, axis=-1, dtype=np.uint32)
  table = words.reshape(-1, words.shape[-1])
  return rows, np.add.reduce(table, axis=0, dtype=np.uint32)


def _join(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
  return np.concatenate([np.ravel(rows), columns])


def _words_each(dtype: np.dtype) -> int:
  """Number of words, of at most 32 bits, per element."""
  return max(1, dtype.itemsize // 4)
