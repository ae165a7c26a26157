"""Reads the numbers that a run logs as JSON lines."""

import json
import os

import numpy as np

from input_pipeline import paths
from input_pipeline.errors import InputError

Series = dict[str, tuple[np.ndarray, np.ndarray]]


def read_metrics(path: str | os.PathLike[str]) -> Series:
  """Reads JSON lines {"step": int, name: number, ...}.

  A half-written last line is skipped, as a killed run leaves one; of several
  values for one step (a run that was resumed) the last one counts.

  Returns:
    name -> (steps int64 [n], values float64 [n]), by rising step.

  Raises:
    InputError: no such file, a broken line before the last, or no numbers.
  """
  path = paths.path(path)
  if not path.is_file():
    raise InputError(f"{path}: no such file", "train first, or mend the path")
  points: dict[str, dict[int, float]] = {}
  lines = path.read_text(encoding="utf-8").splitlines()
  for position, line in enumerate(lines):
    if not line.strip():
      continue
    try:
      record = json.loads(line)
      step = int(record["step"])
    except (ValueError, KeyError, TypeError) as error:
      if position == len(lines) - 1:
        break
      raise InputError(
        f'{path}, line {position + 1}: not a JSON object with a "step"',
        "delete the line",
      ) from error
    for name, value in record.items():
      if name != "step" and type(value) in (int, float):
        points.setdefault(name, {})[step] = float(value)
  if not points:
    raise InputError(f"{path}: holds no numbers", "train for a few steps first")
  series = {}
  for name, by_step in points.items():
    steps = np.array(sorted(by_step), np.int64)
    series[name] = steps, np.array([by_step[s] for s in steps.tolist()])
  return series
