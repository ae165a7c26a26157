"""Opens a run's results: config, words, text banks, encoders, parameters.

It reads the manifest and the labels of the cache and the JSONs of the dataset's
folder: the images and features of training are not needed.
"""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from input_pipeline import feature_cache, schema
from input_pipeline.feature_cache import manifest
from input_pipeline.feature_cache.plan import CachePlan
from input_pipeline.io import atomic, buckets, json_files, paths
from input_pipeline.io.errors import InputError
from input_pipeline.ov_swig import vocabulary
from mipd_jax import config as config_lib
from mipd_jax.devices import compilation, sharding
from mipd_jax.models import eyes as eyes_lib
from mipd_jax.models.config import ModelConfig, Sizes
from mipd_jax.models.eyes import Eyes
from mipd_jax.models.mipd import Mipd
from mipd_jax.teachers import families, labels
from mipd_jax.teachers.interfaces import Encoder
from mipd_jax.training import checkpoints
from mipd_jax.training import state as state_lib

_JSONS = "SWiG_jsons"
_TRAIN_FIRST = "train first: --mode=all; --workdir names the folder"


@dataclasses.dataclass(frozen=True, eq=False)
class Opened:
  """A trained student with everything that it needs.

  Attributes:
    folder: the work directory.
    config: of the run.
    words: the vocabulary of training.
    plan: of the cache of training.
    banks: its text banks.
    encoder: the student's image encoder.
    model, params: the student's; the parameters lie on the mesh.
    step: of the checkpoint.
  """

  folder: paths.AnyPath
  config: config_lib.Config
  words: vocabulary.Vocabulary
  plan: CachePlan
  banks: dict[str, np.ndarray]
  encoder: Encoder
  model: Mipd
  params: Any
  step: int

  @property
  def eyes(self) -> Eyes:
    """How the student sees."""
    return eyes_lib.of(self.model.config)

  @property
  def token_dtype(self) -> str:
    """Dtype in which the cache keeps what the student's eyes read."""
    fields = {field.name: field for field in self.plan.fields}
    return fields[self.eyes.keys[0]].dtype

  @property
  def text_encoder(self) -> str:
    """Folder or id of the encoder that embedded the labels."""
    settings = self.config.teacher
    return settings.text_encoder or settings.student_encoder

  @property
  def text_revision(self) -> str:
    """Revision of that encoder's weights, and of the prompts."""
    name = self.plan_option("text_encoder").split(" ")[-1]
    return f"{name} {self.plan_option('labels')}"

  def load_text_encoder(self) -> Encoder:
    """Loads it, at the precision of the cache.

    Raises:
      InputError: it is missing, or not the one that embedded the labels.
    """
    expected = self.plan_option("text_encoder").split(" ")[-1]
    encoder = self.encoder
    if self.text_encoder != self.config.teacher.student_encoder:
      encoder = families.load_encoder(self.text_encoder, self.encoder_dtype)
    _check_revision(self.text_encoder, encoder.revision, expected)
    return encoder

  @property
  def encoder_dtype(self) -> str:
    return self.plan_option("student_dtype")

  def plan_option(self, name: str) -> str:
    return dict(self.plan.options)[name]


def open_workdir(
  folder: str | os.PathLike[str],
  mesh: Mesh,
  config: config_lib.Config | None = None,
) -> Opened:
  """Opens the best checkpoint of a work directory.

  Args:
    folder: WORK.
    mesh: where the parameters are placed.
    config: for a folder without a config.json (an imported checkpoint).

  Raises:
    InputError: something is missing or does not belong to the checkpoint;
      the message names it.
  """
  place = paths.absolute(folder)
  config = _config(place, config)
  if not config.is_predicted:
    raise InputError(
      f"{place} holds a student of {config.task}; only situations are "
      "predicted",
      "see results.md and sheet.png there",
    )
  run = _run(place)
  plan, banks = _cache(config.teacher.cache)
  words = _words(config.dataset.folder)
  _check_same_run(place, config, run)
  _check_belong_together(place, config, run, plan, words)
  name = config.teacher.student_encoder
  dtype = dict(plan.options)["student_dtype"]
  encoder = families.load_encoder(name, dtype)
  _check_revision(name, encoder.revision, plan.student_revision)
  sizes = Sizes(len(words.verbs), len(words.roles), len(words.nouns))
  model = Mipd(
    config.model, sizes, compilation.compute_dtype(config.train.dtype)
  )
  params, step = _params(place, model, plan, banks, mesh)
  return Opened(place, config, words, plan, banks, encoder, model, params, step)


def _config(place, given: config_lib.Config | None) -> config_lib.Config:
  path = place / "config.json"
  if not path.exists():
    if given is not None and (place / "run.json").exists():
      return given
    raise InputError(
      f"{place} is no work directory: it has no config.json", _TRAIN_FIRST
    )
  try:
    return config_lib.unpack(_json(path))
  except InputError as error:
    problem = error.problem.removeprefix(f"{path}: ")
    raise InputError(
      f"{path}: {problem}",
      f"{error.remedy}; a run of another version of this project is opened "
      "with that version, or trained anew",
    ) from None


def _run(place) -> dict[str, Any]:
  path = place / "run.json"
  if not path.exists() or not (place / "best").exists():
    raise InputError(f"{place} has no checkpoint", _TRAIN_FIRST)
  return _json(path)


def _json(path, form: Any = dict) -> dict[str, Any]:
  return json_files.read(path, form, "copy the work directory again")


def _cache(folder: str) -> tuple[CachePlan, dict[str, np.ndarray]]:
  """The plan of a cache and its text banks."""
  names = (feature_cache.LABELS, feature_cache.MANIFEST)
  there, here = paths.path(folder), buckets.local(folder)
  for name in names:
    if not (there / name).exists():
      raise InputError(
        f"the cache {folder} has no {name}",
        "run --mode=prepare, or copy that file of the cache of training; "
        "folders in a config.json are seen from where the run was started",
      )
    if paths.is_remote(folder):
      with atomic.replacing(here / name) as path:
        atomic.copy(there / name, path)
  content = manifest.read(
    here / feature_cache.MANIFEST, there / feature_cache.MANIFEST
  )
  labels_file = content.files.get(feature_cache.LABELS, {"sha256": ""})
  return content.plan, feature_cache.load_arrays(
    here / feature_cache.LABELS, labels_file["sha256"]
  )


def _words(folder: str) -> vocabulary.Vocabulary:
  if paths.is_remote(folder):
    return vocabulary.load(buckets.fetch(f"{folder}/{_JSONS}"))
  return vocabulary.load(folder)


def _check_belong_together(place, config, run, plan, words) -> None:
  """Raises InputError if cache or words are not those of the checkpoint."""
  cache = config.teacher.cache
  if run.get("cache") != plan.plan_hash:
    raise InputError(
      f"the checkpoint in {place} was trained on another cache than {cache} "
      "is now: another vocabulary, other images or other encoders",
      "name the work directory of that cache, or train anew",
    )
  if words.fingerprint != plan.vocabulary:
    raise InputError(
      f"{config.dataset.folder} has another vocabulary than the one that "
      f"{place} was trained on",
      f"put its {_JSONS} back, or train anew",
    )
  version = dict(plan.options)["labels"]
  if version != labels.VERSION:
    raise InputError(
      f"the cache {cache} has labels of version {version}, new words would "
      f"get those of {labels.VERSION}",
      "prepare the cache again, and train anew",
    )


def _check_same_run(place, config, run) -> None:
  """Raises InputError if config.json and run.json are of two runs.

  Fields in only one of them are ignored: they came with another version.
  """
  differ = sorted(_differing(config.to_dict(), run, ""))
  if differ:
    raise InputError(
      f"{place}: config.json is not that of the checkpoints; it differs from "
      f"run.json in {', '.join(differ)}",
      "copy both files of that work directory again",
    )


def _differing(here: Any, there: Any, path: str) -> list[str]:
  if isinstance(here, Mapping) and isinstance(there, Mapping):
    return [
      name
      for key in here.keys() & there.keys()
      for name in _differing(here[key], there[key], f"{path}.{key}")
    ]
  return [] if here == there else [path[1:]]


def _check_revision(name: str, revision: str, expected: str) -> None:
  if revision != expected:
    raise InputError(
      f"{name} is not the encoder that the cache of training was made with "
      f"(sha256 {revision[:12]}, expected {expected[:12]})",
      "put that encoder's weights back, or prepare and train anew",
    )


def _params(place, model, plan, banks, mesh) -> tuple[Any, int]:
  """The student's parameters, on every device of the mesh, and their step."""
  like = state_lib.student_shapes(
    model, example_batch(plan, model.config), banks, sharding.replicated(mesh)
  )
  best = checkpoints.read_best(place, like)
  return best.params, best.step


def example_batch(
  plan: CachePlan, config: ModelConfig
) -> dict[str, jax.ShapeDtypeStruct]:
  """Shapes of a batch of one, as `Mipd.predict` reads it."""
  fields = {field.name: field for field in plan.fields}
  roles = (1, schema.MAX_ROLES)
  shapes = {
    **{
      key: ((1, *fields[key].shape), schema.FEATURES[key].dtype)
      for key in eyes_lib.of(config).keys
    },
    schema.VERB: ((1,), "int32"),
    schema.ROLES: (roles, "int32"),
    schema.ROLE_MASK: (roles, "bool"),
  }
  return {
    key: jax.ShapeDtypeStruct(shape, np.dtype(jax.numpy.dtype(dtype)))
    for key, (shape, dtype) in shapes.items()
  }
