"""Students of other finished runs, to be shown in the same tables."""

import pathlib
from collections.abc import Mapping
from typing import Any

from input_pipeline.io import json_files, paths
from input_pipeline.io.errors import InputError
from mipd_jax.config import Config
from mipd_jax.report import files
from mipd_jax.tasks.task import STUDENT

# What two runs share whose figures stand in one table.
_SHARED = ("task", "dataset", "interactions")
_RERUN = (
  "finish that run with the same data, or leave --config.eval.beside empty"
)


def read(config: Config) -> dict[str, Mapping[str, Any]]:
  """Scores of the students of `config.eval.beside`.

  They go by their preset, or by their folder's name where that is taken.

  Raises:
    InputError: a run has not been evaluated, or was on other data.
  """
  found: dict[str, Mapping[str, Any]] = {}
  for folder in filter(None, map(str.strip, config.eval.beside.split(","))):
    results = _results(folder, config)
    name = results["preset"]
    if name in found:
      name = pathlib.PurePath(folder).name
    for model, scores in results["models"].items():
      if model.startswith(STUDENT):
        found[model.replace(STUDENT, name, 1)] = scores
  return found


def _results(folder: str, config: Config) -> Mapping[str, Any]:
  place = paths.path(folder)
  try:
    results = files.read_results(place, config.eval.split, _RERUN)
    other = json_files.read(place / "config.json", dict, _RERUN)
  except InputError as error:
    raise InputError(
      f"--config.eval.beside: {error.problem}", error.remedy
    ) from None
  mine = config.to_dict()
  for field in _SHARED:
    if other.get(field) != mine.get(field):
      raise InputError(
        f"--config.eval.beside: {field} of {place / 'config.json'} is not "
        "this run's",
        _RERUN,
      )
  return results
