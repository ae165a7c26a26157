"""Stage 1: folder, dataset, frozen encoders, cache; each made when absent."""

import dataclasses
import functools
import pathlib
from typing import TYPE_CHECKING

import jax
import numpy as np

from input_pipeline import (
  buckets,
  feature_cache,
  ov_swig,
  schema,
)
from input_pipeline.errors import InputError
from mipd_jax import distributed, precision, sharding
from mipd_jax.config import Config
from mipd_jax.losses import total as total_lib
from mipd_jax.models.config import Sizes
from mipd_jax.stages import inputs, made_from

if TYPE_CHECKING:
  from mipd_jax.rationales.source import RationaleSource
  from mipd_jax.teachers import cache_plan


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


def prepare(config: Config) -> Prepared | None:
  """Makes what is missing and opens all of it.

  Returns:
    All of it, or None if teacher.only left something undone.

  Raises:
    InputError: the folder, the checkpoints or an existing cache cannot be
      used.
  """
  plan = _precompute_config(config)
  here, dataset = distributed.agreed(lambda: inputs.make(config))
  cache = _cache(here, dataset, plan)
  if cache and here.teacher.cache != config.teacher.cache:
    buckets.upload(config.teacher.cache, last=feature_cache.MANIFEST)
  return Prepared(dataset, cache) if cache else None


def open_prepared(config: Config) -> Prepared:
  """Opens what `prepare` made; makes nothing but the TFDS form.

  Raises:
    InputError: something is missing, or the cache belongs to other images.
  """
  config = inputs.on_this_machine(config, need_cache=True)
  inputs.check_sources(config, encoders=False)
  dataset = inputs.dataset(config)
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


def _precompute_config(config: Config) -> "cache_plan.PrecomputeConfig":
  """How the cache is to be made; wrong names are refused before any work."""
  from mipd_jax.teachers import cache_plan

  settings = config.teacher
  cache_plan.check_tasks(_listed(settings.only))
  return cache_plan.PrecomputeConfig(
    batch_size=settings.batch_size,
    text_length=settings.text_length,
    dtype=settings.dtype,
    parts=_listed(settings.parts),
  )


def _cache(
  config: Config,
  dataset: ov_swig.PreparedSwig,
  plan: "cache_plan.PrecomputeConfig",
) -> feature_cache.Cache | None:
  """The cache, made if need be; None if teacher.only left some of it."""
  folder = config.teacher.cache
  facts = made_from.facts(config, dataset, inputs.encoder_folders(config))
  if distributed.all_of(made_from.same(folder, facts) and _is_whole(folder)):
    return feature_cache.open_cache(folder)
  cache = _make_cache(config, dataset, plan)
  if cache and distributed.is_first():
    made_from.write(folder, facts)
  return cache


def _is_whole(folder: str) -> bool:
  """Whether no file of a finished cache was lost or cut short since."""
  plan = feature_cache.open_cache(folder).plan
  return feature_cache.is_complete(folder, plan)


def _make_cache(
  config: Config,
  dataset: ov_swig.PreparedSwig,
  plan: "cache_plan.PrecomputeConfig",
) -> feature_cache.Cache | None:
  """Runs the frozen encoders over every split, unless that is done.

  Returns:
    The cache, or None if teacher.only left something undone.
  """
  from mipd_jax.teachers import clip, image_teachers, precompute

  settings = config.teacher
  dtype = precision.compute_dtype(settings.compute_dtype)
  names = (settings.student_encoder, inputs.text_encoder(config))
  clips = {name: clip.load(name, dtype) for name in set(names)}
  mesh = sharding.make_mesh(
    model=config.mesh.model, devices=jax.local_devices()
  )
  teacher = image_teachers.load(
    settings.teacher_encoder,
    dtype,
    question=settings.question,
    verb_score=settings.verb_score,
    mesh=mesh,
  )
  process = None
  if settings.process_count:
    process = precompute.Process(settings.process_index, settings.process_count)
  return precompute.build_cache(
    dataset,
    clips[settings.student_encoder],
    teacher,
    settings.cache,
    config=plan,
    mesh=mesh,
    text=clips[inputs.text_encoder(config)],
    rationales=_rationales(config),
    only=_listed(settings.only),
    process=process,
  )


def _rationales(config: Config) -> "RationaleSource":
  """JRG with the language model, or templates where there is none."""
  from mipd_jax.rationales.jrg import JrgRationales
  from mipd_jax.rationales.source import TemplateRationales
  from mipd_jax.teachers import language_model

  settings = config.teacher
  if not settings.language_model:
    return TemplateRationales()
  dtype = precision.compute_dtype(settings.compute_dtype)
  model = language_model.load(settings.language_model, dtype)
  out = pathlib.Path(f"{settings.cache}-rationales") / "train.json"
  return JrgRationales(model, out, settings.jrg)


def _listed(names: str) -> tuple[str, ...]:
  return tuple(name.strip() for name in names.split(",") if name.strip())
