"""Stage 1: folder, dataset, frozen encoders, cache; each made when absent."""

from typing import TYPE_CHECKING, Any

import jax

from input_pipeline import buckets, feature_cache, ov_swig
from input_pipeline.errors import InputError
from mipd_jax import distributed, precision, sharding, tasks
from mipd_jax.config import Config
from mipd_jax.stages import inputs, made_from
from mipd_jax.tasks.prepared import Prepared

if TYPE_CHECKING:
  from mipd_jax.rationales.source import RationaleSource
  from mipd_jax.teachers import cache_plan


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
  return tasks.of(config).prepared(dataset, cache) if cache else None


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
        "run --mode=prepare with another --config.teacher.cache, or delete "
        "this one",
      )
  return tasks.of(config).prepared(dataset, cache)


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
    rationales=_rationales(config, dataset),
    only=_listed(settings.only),
    process=process,
  )


def _rationales(config: Config, dataset: Any) -> "RationaleSource":
  """Of the task, by the language model where one is given."""
  from mipd_jax.teachers import language_model

  settings, model = config.teacher, None
  if settings.language_model:
    dtype = precision.compute_dtype(settings.compute_dtype)
    model = language_model.load(settings.language_model, dtype)
  return tasks.of(config).rationales(config, dataset, model)


def _listed(names: str) -> tuple[str, ...]:
  return tuple(name.strip() for name in names.split(",") if name.strip())
