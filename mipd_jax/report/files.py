"""Writes results and pictures whole or not at all."""

import json
import math
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from input_pipeline import paths
from input_pipeline.atomic import replacing
from input_pipeline.errors import InputError
from mipd_jax.report import tables


def write_results(
  folder: str | os.PathLike[str],
  results: Mapping[str, Any],
  blocks_of: tables.Blocks | None = None,
) -> tuple[paths.AnyPath, paths.AnyPath]:
  """Writes `results.json` and `results.md`.

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
  texts = {
    folder / "results.md": tables.markdown(plain, blocks_of),
    folder / "results.json": json.dumps(
      plain, indent=2, allow_nan=False, ensure_ascii=False
    )
    + "\n",
  }
  for path, text in texts.items():
    with replacing(path) as temporary:
      temporary.write_text(text, encoding="utf-8")
  return folder / "results.json", folder / "results.md"


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
