"""Stage 1: folder, dataset, frozen encoders, cache; each made when absent."""

import dataclasses
import functools
import pathlib

import numpy as np
from absl import logging

from input_pipeline import feature_cache, ov_swig, schema, swig
from input_pipeline.errors import InputError
from mipd_jax import precision, sharding
from mipd_jax.config import Config
from mipd_jax.losses import total as total_lib
from mipd_jax.models.config import Sizes


@dataclasses.dataclass(frozen=True)
class Prepared:
  """Everything that training and evaluation read."""

  dataset: ov_swig.PreparedSwig
  cache: feature_cache.Cache

  @property
  def sizes(self) -> Sizes:
    words = self.dataset.vocabulary
    return Sizes(len(words.verbs), len(words.roles), len(words.nouns))

  @property
  def groups(self) -> np.ndarray:
    """Group of each verb, int [V]."""
    return np.asarray(self.dataset.groups.groups)

  @functools.cached_property
  def train_images(self) -> np.ndarray:
    """Training images of each verb, int [V]."""
    verbs = self.cache.split("train", ()).annotations[schema.VERB]
    return np.bincount(verbs, minlength=self.sizes.num_verbs)

  @functools.cached_property
  def banks(self) -> dict[str, np.ndarray]:
    """Text embeddings, and what the losses know of the training verbs."""
    count = self.train_images
    share = np.maximum(count, 1) / max(1, count.sum())
    return self.cache.labels() | {
      total_lib.VERB_LOG_PRIOR: np.log(share).astype(np.float32),
      total_lib.VERB_TRAINED: count > 0,
    }


def prepare(config: Config) -> Prepared:
  """Makes what is missing and opens all of it.

  Raises:
    InputError: the folder, the checkpoints or an existing cache cannot be
      used.
  """
  _check_sources(config)
  dataset = _dataset(config)
  _make_encoders(config)
  cache = _make_cache(config, dataset)
  return Prepared(dataset, cache)


def open_prepared(config: Config) -> Prepared:
  """Opens what `prepare` made; makes nothing but the TFDS form.

  Raises:
    InputError: something is missing, or the cache belongs to other images.
  """
  _check_sources(config)
  dataset = _dataset(config)
  cache = feature_cache.open_cache(config.teacher.cache)
  for what, here, there in (
    ("images or annotations", cache.plan.dataset, dataset.fingerprint),
    ("vocabulary", cache.plan.vocabulary, dataset.vocabulary.fingerprint),
  ):
    if here != there:
      raise InputError(
        f"the cache {cache.folder} was made for other {what} than those of "
        f"{config.dataset.folder}",
        "run --mode=prepare with another teacher.cache, or delete this one",
      )
  return Prepared(dataset, cache)


def _check_sources(config: Config) -> None:
  """Names all that is missing and cannot be made, in one message."""
  missing = []
  if config.dataset.world is None:
    try:
      swig.check_layout(config.dataset.folder)
    except InputError as error:
      missing.append(error.problem)
  if not config.teacher.foundation:
    missing += [
      f"{folder}: a CLIP checkpoint in Hugging Face format (config.json, "
      "model.safetensors, tokenizer.json)"
      for folder in (
        config.teacher.student_encoder,
        config.teacher.teacher_encoder,
      )
      if not (pathlib.Path(folder) / "config.json").exists()
    ]
  if missing:
    raise InputError(
      "missing:\n" + "\n".join(f"  - {line}" for line in missing),
      "get SWiG's images_512.zip and SWiG_jsons from "
      "https://github.com/allenai/swig, and encoders with `hf download "
      "openai/clip-vit-large-patch14-336 --local-dir "
      "data/clip-vit-large-patch14-336` (and the same for -patch14); "
      "README, 'Real data', has the steps",
    )


def _dataset(config: Config) -> ov_swig.PreparedSwig:
  """The TFDS form of the folder, drawn first where it is a small world."""
  settings = config.dataset
  folder = pathlib.Path(settings.folder)
  if settings.world is not None and not folder.exists():
    from input_pipeline.small_world.folder import write_folder

    logging.info("Drawing the small world into %s.", folder)
    write_folder(folder, settings.world)
  return ov_swig.prepare(
    folder,
    folder.parent / "tfds",
    num_rare=settings.num_rare,
    num_unseen=settings.num_unseen,
    seed=settings.split_seed,
  )


def _make_encoders(config: Config) -> None:
  """Trains the small foundation models where they are asked for."""
  if not config.teacher.foundation:
    return
  from mipd_jax.teachers import foundation

  student = pathlib.Path(config.teacher.student_encoder)
  settings = foundation.FoundationConfig()
  if config.teacher.foundation == "debug":
    settings = settings.debug()
  foundation.train_foundation(config.dataset.world, student.parent, settings)


def _make_cache(
  config: Config, dataset: ov_swig.PreparedSwig
) -> feature_cache.Cache:
  """Runs the frozen encoders over every split, unless that is done."""
  from mipd_jax.teachers import clip, precompute

  settings = config.teacher
  dtype = precision.compute_dtype(config.train.dtype)
  folders = {
    "student": settings.student_encoder,
    "teacher": settings.teacher_encoder,
    "text": settings.text_encoder or settings.student_encoder,
  }
  loaded = {
    folder: clip.load(folder, dtype) for folder in set(folders.values())
  }
  encoders = {name: loaded[folder] for name, folder in folders.items()}
  return precompute.build_cache(
    dataset,
    out=settings.cache,
    config=precompute.PrecomputeConfig(
      batch_size=settings.batch_size,
      text_length=settings.text_length,
      dtype=settings.dtype,
    ),
    mesh=sharding.make_mesh(),
    **encoders,
  )
