"""The files of a run: its results, its log, and the origin of its texts.

Files are written whole or not at all.
"""

import json
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from input_pipeline.io import json_files, paths
from input_pipeline.io.atomic import replacing
from input_pipeline.io.errors import InputError
from mipd_jax.report import tables

# name -> (steps int64 [n], values float64 [n]).
Series = dict[str, tuple[np.ndarray, np.ndarray]]
RESULTS, TABLES = "results.json", "results.md"
# The split that is not named in its files.
REPORTED = "test"
# Authors of rationales.
_TEMPLATE = "by template from the annotated frames, without a language model"
_MODEL = (
  "by a language model from the annotated frames; by template where none of "
  "its answers was accepted"
)
_OWN = "by those who published the dataset, whose files hold them"


def named(name: str, split: str) -> str:
  """The name of a split's file, so that no split overwrites another's.

  Args:
    name: the file of the split test: "results.json".
    split: of the file: "dev" makes it "results-dev.json".
  """
  path = pathlib.PurePath(name)
  more = "" if split == REPORTED else f"-{split}"
  return f"{path.stem}{more}{path.suffix}"


def read_results(
  folder: str | os.PathLike[str], split: str, remedy: str
) -> dict[str, Any]:
  """The results of a split, as `write_results` wrote them.

  Raises:
    InputError: they are missing, or were changed.
  """
  path = paths.path(folder) / named(RESULTS, split)
  if not path.exists():
    raise InputError(f"there is no {path}", remedy)
  results = json_files.read(path, {"models": {str: dict}, "split": str}, remedy)
  if not json_files.is_sealed(results):
    raise InputError(
      f"{path} was changed or damaged after it was written", remedy
    )
  del results[json_files.SEAL]
  return results


def write_results(
  folder: str | os.PathLike[str],
  results: Mapping[str, Any],
  blocks_of: tables.Blocks | None = None,
) -> tuple[paths.AnyPath, paths.AnyPath]:
  """Writes `results.json` and `results.md`, or `named` for another split.

  Args:
    folder: made when absent.
    results: the dict that `tables` describes; NumPy scalars and arrays are
      allowed, non-finite numbers become null.
    blocks_of: makes the tables, see `tables.markdown`.

  Returns:
    The paths of the JSON and of the Markdown file.

  Raises:
    InputError: a value that JSON cannot hold, or not a results dict; nothing is
      written then.
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
  """Plain JSON types: NumPy unwrapped, NaN and infinities as None."""
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


def read_metrics(path: str | os.PathLike[str]) -> Series:
  """Reads JSON lines {"step": int, name: number, ...}.

  A half-written last line of a killed run is skipped; of several values for one
  step (of a resumed run) the last one counts.

  Returns:
    name -> (steps int64 [n], values float64 [n]), by ascending step.

  Raises:
    InputError: no such file, a broken line before the last, or no numbers.
  """
  path = paths.path(path)
  if not path.is_file():
    raise InputError(f"{path}: no such file", "train first, or mend the path")
  points: dict[str, dict[int, float]] = {}
  lines = path.read_bytes().splitlines()
  for position, line in enumerate(lines):
    if not line.strip():
      continue
    try:
      record = json.loads(line.decode("utf-8"))
      step = int(record["step"])
    except (ValueError, LookupError, TypeError) as error:
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


def author(version: str, own: int = 0, total: int = 0) -> str:
  """The authors of rationales, in words that follow "written".

  Args:
    version: `rationales` of the cache's plan.
    own: images, of the `total`, with texts in the dataset's own files, which
      come before all others.
    total: images concerned; 0 if they were not counted.
  """
  here = _MODEL if version.startswith("jrg") else _TEMPLATE
  if total and own == total:
    return _OWN
  if own:
    return f"for {own} of these {total} images {_OWN}; for the others {here}"
  if total:
    return here
  return f"{here}; texts in the dataset's own files come before them"


def use(*, teacher: bool, read: bool, preset: str) -> str:
  """The use of the rationales in training, one sentence.

  Args:
    teacher: whether the run has a teacher branch with a term in use.
    read: whether anything of that branch reads rationales.
    preset: of the run, for the sentence.
  """
  if not teacher:
    return (
      f"This student was trained without a teacher (preset {preset}): it has "
      "read none of them."
    )
  if not read:
    return "The settings of this run leave them out: training read none."
  return (
    "In training an image's four texts guide what the teacher passes on to "
    "the student."
  )


def zero_shot(*, teacher: bool) -> str:
  """A sentence on the teacher's verbs beside the student's."""
  role = (
    "the student never sees it in use"
    if teacher
    else "this student was trained without it"
  )
  return f"The teacher is asked zero-shot, as the cache has it; {role}."
