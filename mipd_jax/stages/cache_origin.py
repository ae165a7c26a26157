"""A note beside a finished cache: what it was made from.

The cache's own plan names its encoders by a hash of their weights, and to
know it they have to be read: minutes for a large teacher. A run that is
started again, after a preemption above all, must not pay that each time. So
a finished cache gets a note of everything it followed from, files by size and
time of change; while nothing differs, it is opened without a look at the
encoders. Any difference, of our code too, and the plan decides as ever.
"""

import dataclasses
import json
import os
import pathlib
from collections.abc import Iterable

from input_pipeline.dataset import Dataset
from input_pipeline.feature_cache import source_code
from input_pipeline.io import atomic, json_files
from input_pipeline.io.errors import InputError
from mipd_jax.config import Config
from mipd_jax.models import eyes
from mipd_jax.teachers import cache_plan

NOTE = "made_from.json"
# Of the teacher's settings what the cache does not depend on.
_ELSEWHERE = ("cache", "only", "process_index", "process_count", "batch_size")
# Where a cache's making starts; and what chooses who writes the rationales.
_START = "mipd_jax.stages.prepare._make_cache"
_CHOOSERS = (
  "mipd_jax.tasks.situations.Situations.rationales",
  "mipd_jax.tasks.interactions.Interactions.rationales",
)
Facts = dict[str, object]


def facts(
  config: Config,
  dataset: Dataset,
  encoders: Iterable[pathlib.Path],
) -> Facts:
  """All that a cache follows from.

  Args:
    config: of the run.
    dataset: whose images are encoded.
    encoders: folders of the checkpoints.
  """
  settings = dataclasses.asdict(config.teacher)
  return {
    "settings": {k: v for k, v in settings.items() if k not in _ELSEWHERE},
    "eyes": eyes.of(config.model).keys,
    "dataset": dataset.fingerprint,
    "vocabulary": dataset.vocabulary.fingerprint,
    "groups": dataset.groups.sha256,
    "encoders": {str(folder): _files(folder) for folder in encoders},
    "libraries": cache_plan.libraries(),
    "code": _code(),
    "code_of_data": source_code.reached(source_code.entries_of(dataset)),
  }


def same(cache: str | os.PathLike, wanted: Facts) -> bool:
  """Whether a cache's note says exactly this; False without a note."""
  try:
    found = json_files.read(pathlib.Path(cache) / NOTE)
  except InputError:  # absent or damaged: the plan decides
    return False
  return found == json.loads(json.dumps(wanted))


def write(cache: str | os.PathLike, found: Facts) -> None:
  """Notes what a finished cache was made from, or was found equal to."""
  with atomic.replacing(pathlib.Path(cache) / NOTE) as path:
    path.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")


def _files(folder: pathlib.Path) -> list[list[object]]:
  """Name, size and time of change (ns) of a checkpoint's files."""
  found = [(path.name, path.stat()) for path in folder.iterdir()]
  return sorted([name, s.st_size, s.st_mtime_ns] for name, s in found)


def _code() -> dict[str, str]:
  """Digests of the code that makes a cache, with whichever encoder."""
  return source_code.reached(
    (_START, *_CHOOSERS), without=("mipd_jax.tasks.of",)
  )
