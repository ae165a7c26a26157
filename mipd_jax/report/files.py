"""Writes results and pictures whole or not at all."""

import json
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from input_pipeline import json_files, paths
from input_pipeline.atomic import replacing
from input_pipeline.errors import InputError
from mipd_jax.report import tables

RESULTS, TABLES = "results.json", "results.md"
# The split whose files have no split in their names.
REPORTED = "test"


def named(name: str, split: str) -> str:
  """The name of a split's file, so that no split overwrites another's.

  Args:
    name: that of the reported split, test: "results.json".
    split: whose file it is: "dev" makes it "results-dev.json".
  """
  path = pathlib.PurePath(name)
  more = "" if split == REPORTED else f"-{split}"
  return f"{path.stem}{more}{path.suffix}"


def read_results(
  folder: str | os.PathLike[str], split: str, remedy: str
) -> dict[str, Any]:
  """The results of a split, as `write_results` wrote them.

  Raises:
    InputError: they are missing, or not as they were written.
  """
  path = paths.path(folder) / named(RESULTS, split)
  if not path.exists():
    raise InputError(f"there is no {path}", remedy)
  found = json_files.read(path, {"models": {str: dict}, "split": str}, remedy)
  if not json_files.is_sealed(found):
    raise InputError(
      f"{path} was changed or damaged after it was written", remedy
    )
  del found[json_files.SEAL]
  return found


def write_results(
  folder: str | os.PathLike[str],
  results: Mapping[str, Any],
  blocks_of: tables.Blocks | None = None,
) -> tuple[paths.AnyPath, paths.AnyPath]:
  """Writes `results.json` and `results.md`, or `named` for another split.

  Args:
    folder: made when absent.
    results: the dict that `tables` describes; NumPy scalars and arrays are
      welcome, numbers that are not finite become null.
    blocks_of: makes the tables, see `tables.markdown`.

  Returns:
    The paths of the JSON and of the Markdown file.

  Raises:
    InputError: a value that JSON does not know, or a dict that is no results
      dict; nothing is written then.
  """
  folder = paths.path(folder)
  plain = jsonable(results)
  split = plain.get("split", REPORTED)
  written = folder / named(RESULTS, split), folder / named(TABLES, split)
  text = json.dumps(
    json_files.sealed(plain), indent=2, allow_nan=False, ensure_ascii=False
  )
  texts = {
    written[1]: tables.markdown(plain, blocks_of),
    written[0]: text + "\n",
  }
  for path, text in texts.items():
    with replacing(path) as temporary:
      temporary.write_text(text, encoding="utf-8")
  return written


def jsonable(value: Any, where: str = "results") -> Any:
  """Plain JSON types only: NumPy unwrapped, NaN and infinities to None."""
  if isinstance(value, (np.ndarray, np.generic)):
    value = value.tolist()
  if value is None or isinstance(value, (str, bool, int)):
    return value
  if isinstance(value, float):
    return value if math.isfinite(value) else None
  if isinstance(value, Mapping):
    return {str(k): jsonable(v, f"{where}[{k!r}]") for k, v in value.items()}
  if isinstance(value, (list, tuple)):
    return [jsonable(v, f"{where}[{i}]") for i, v in enumerate(value)]
  raise InputError(
    f"{where} is a {type(value).__name__}, which JSON cannot hold",
    "hand over numbers, strings, lists and dicts",
  )
