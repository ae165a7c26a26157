"""Stage 1: folder, dataset, frozen encoders, cache; each made when absent."""

import contextlib
from typing import TYPE_CHECKING

import jax

from input_pipeline import feature_cache
from input_pipeline.dataset import Dataset
from input_pipeline.io import buckets, lock, paths
from input_pipeline.io.errors import InputError
from mipd_jax import tasks
from mipd_jax.config import Config
from mipd_jax.devices import distributed, precision, sharding
from mipd_jax.models import eyes
from mipd_jax.stages import cache_origin, inputs
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
  here, dataset = distributed.agreed(lambda: _made_inputs(config))
  facts = cache_origin.facts(here, dataset, inputs.encoder_folders(here))
  cache = _opened(here, facts)
  if cache is None:
    with _bucket_alone(config.teacher.cache):
      cache = _made(here, dataset, plan, facts)
      _upload(cache, here, config.teacher.cache)
  else:
    _upload(cache, here, config.teacher.cache)
  return tasks.of(config).prepared(dataset, cache) if cache else None


def _made_inputs(config: Config) -> tuple[Config, Dataset]:
  """What the cache is made of, unless another run makes that cache."""
  folder = config.teacher.cache
  if not paths.is_remote(folder):
    index, count = _process(config)
    lock.refuse(folder, index=index, count=count)
  return inputs.make(config)


def _bucket_alone(cache: str) -> contextlib.AbstractContextManager:
  """Keeps others from a bucket's cache; folders have a lock by themselves."""
  if not paths.is_remote(cache):
    return contextlib.nullcontext()
  return lock.holding(cache, "preparing this cache")


def _upload(
  cache: feature_cache.Cache | None, here: Config, where: str
) -> None:
  """Copies a cache into the bucket that it was asked for in."""
  if cache and here.teacher.cache != where:
    buckets.upload(where, last=feature_cache.MANIFEST)


def _process(config: Config) -> tuple[int, int]:
  """Which one this is of the processes that make the cache, of how many."""
  if config.teacher.process_count:
    return config.teacher.process_index, config.teacher.process_count
  return jax.process_index(), jax.process_count()


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


def _opened(
  config: Config, facts: cache_origin.Facts
) -> feature_cache.Cache | None:
  """The cache, if it is whole and nothing changed that it followed from."""
  folder = config.teacher.cache
  if distributed.all_of(cache_origin.same(folder, facts) and _is_whole(folder)):
    return feature_cache.open_cache(folder)
  return None


def _made(
  config: Config,
  dataset: Dataset,
  plan: "cache_plan.PrecomputeConfig",
  facts: cache_origin.Facts,
) -> feature_cache.Cache | None:
  """The cache, made if need be; None if teacher.only left some of it."""
  cache = _make_cache(config, dataset, plan)
  if cache and distributed.is_first():
    cache_origin.write(config.teacher.cache, facts)
  return cache


def _is_whole(folder: str) -> bool:
  """Whether no file of a finished cache was lost or cut short since."""
  plan = feature_cache.open_cache(folder).plan
  return feature_cache.is_complete(folder, plan)


def _make_cache(
  config: Config,
  dataset: Dataset,
  plan: "cache_plan.PrecomputeConfig",
) -> feature_cache.Cache | None:
  """Runs the frozen encoders over every split, unless that is done.

  Returns:
    The cache, or None if teacher.only left something undone.
  """
  from mipd_jax.teachers import families, precompute

  settings = config.teacher
  dtype = precision.compute_dtype(settings.compute_dtype)
  names = (settings.student_encoder, inputs.text_encoder(config))
  encoders = {name: families.load_encoder(name, dtype) for name in set(names)}
  mesh = sharding.make_mesh(
    model=config.mesh.model, devices=jax.local_devices()
  )
  teacher = families.load_teacher(
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
    encoders[settings.student_encoder],
    teacher,
    settings.cache,
    config=plan,
    mesh=mesh,
    text=encoders[inputs.text_encoder(config)],
    rationales=_rationales(config, dataset),
    only=_listed(settings.only),
    process=process,
    eyes=eyes.of(config.model),
  )


def _rationales(config: Config, dataset: Dataset) -> "RationaleSource":
  """Of the task, by the language model where one is given."""
  from mipd_jax.teachers.language import language_model

  settings, model = config.teacher, None
  if settings.language_model:
    dtype = precision.compute_dtype(settings.compute_dtype)
    model = language_model.load(settings.language_model, dtype)
  return tasks.of(config).rationales(dataset, model)


def _listed(names: str) -> tuple[str, ...]:
  return tuple(name.strip() for name in names.split(",") if name.strip())
