"""Exported students of `predict_fixture`, and their loader without us."""

import functools
import importlib
import pathlib
import sys
import tempfile

import pytest

from mipd_jax.exporting import exported_folder
from tests import predict_fixture

# What a machine has not that has jax and numpy only.
FOREIGN = ("mipd_jax", "input_pipeline", "flax", "safetensors", "transformers")
_FOLDERS = tempfile.TemporaryDirectory()


def exported(
  preset: str = "mipd",
  dtype: str = "bfloat16",
  forms: tuple[str, ...] = exported_folder.FORMS,
) -> pathlib.Path:
  """The folder of an export with its own words, float32, four guesses."""
  return _exported(preset, dtype, forms)


@functools.cache
def _exported(preset, dtype, forms) -> pathlib.Path:
  out = pathlib.Path(_FOLDERS.name, f"{preset}-{dtype}-{'-'.join(forms)}")
  settings = exported_folder.Settings(forms=forms, top_k=4)
  exported_folder.write(
    predict_fixture.opened(preset, dtype), out, None, settings
  )
  return out


def student(path: pathlib.Path, form: str):
  """`Student` of the folder's own predict.py, foreign packages hidden."""
  with pytest.MonkeyPatch.context() as patch:
    scripts = _hide(patch, path)
    return scripts.Student(path, form)


def scripts(path: pathlib.Path):
  """The folder's own predict.py as a module."""
  with pytest.MonkeyPatch.context() as patch:
    return _hide(patch, path)


def _hide(patch: pytest.MonkeyPatch, path: pathlib.Path):
  for name in list(sys.modules):
    if name.split(".")[0] in FOREIGN:
      patch.setitem(sys.modules, name, None)
  for name in FOREIGN:
    patch.setitem(sys.modules, name, None)
  patch.syspath_prepend(str(path))
  for name in ("load", "predict"):
    patch.delitem(sys.modules, name, raising=False)
  try:
    return importlib.import_module("predict")
  finally:
    for name in ("load", "predict"):
      sys.modules.pop(name, None)
