"""Stage 1: folder, dataset, frozen encoders, cache; each made when absent."""

import dataclasses
import functools
import json
import pathlib
from typing import TYPE_CHECKING

import jax
import numpy as np
from absl import logging

from input_pipeline import (
  atomic,
  buckets,
  feature_cache,
  ov_swig,
  paths,
  schema,
  swig,
)
from input_pipeline.errors import InputError
from input_pipeline.small_world.config import WorldConfig
from mipd_jax import precision, sharding
from mipd_jax.config import Config
from mipd_jax.losses import total as total_lib
from mipd_jax.models.config import Sizes

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
  here = _on_this_machine(config, need_cache=False)
  _check_sources(here, encoders=True)
  dataset = _dataset(here)
  _make_encoders(here)
  cache = _make_cache(here, dataset, plan)
  if cache and here.teacher.cache != config.teacher.cache:
    buckets.upload(config.teacher.cache, last=feature_cache.MANIFEST)
  return Prepared(dataset, cache) if cache else None


def open_prepared(config: Config) -> Prepared:
  """Opens what `prepare` made; makes nothing but the TFDS form.

  Raises:
    InputError: something is missing, or the cache belongs to other images.
  """
  config = _on_this_machine(config, need_cache=True)
  _check_sources(config, encoders=False)
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


def _on_this_machine(config: Config, *, need_cache: bool) -> Config:
  """The config with what lies in buckets copied here (input_pipeline.buckets).

  Raises:
    InputError: a bucket cannot be read; several processes are to make one
      cache in it.
  """
  folder, cache = config.dataset.folder, config.teacher.cache
  if paths.is_remote(folder):
    folder = str(buckets.fetch(folder))
  if paths.is_remote(cache):
    whole = (paths.path(cache) / feature_cache.MANIFEST).exists()
    if need_cache or whole:
      buckets.fetch(cache, last=feature_cache.MANIFEST)
    elif max(jax.process_count(), config.teacher.process_count) > 1:
      raise InputError(
        f"several processes cannot make one cache in a bucket ({cache})",
        "make it by one process, or in a folder that all of them share, and "
        "copy it: gcloud storage cp -r",
      )
    cache = str(buckets.local(cache))
  return dataclasses.replace(
    config,
    dataset=dataclasses.replace(config.dataset, folder=folder),
    teacher=dataclasses.replace(config.teacher, cache=cache),
  )


def _check_sources(config: Config, *, encoders: bool) -> None:
  """Names all that is missing and cannot be made, in one message."""
  missing, remedies = [], []
  if config.dataset.world is None:
    try:
      swig.check_layout(config.dataset.folder)
    except InputError as error:
      missing.append(error.problem)
      remedies.append(
        "get SWiG's images_512.zip and SWiG_jsons from "
        "https://github.com/allenai/swig"
      )
  if encoders and not config.teacher.foundation:
    absent = [name for name in _encoders(config) if not _is_there(name)]
    missing += [
      f"{name}: a checkpoint in Hugging Face format (config.json, "
      "model.safetensors, tokenizer.json)"
      for name in absent
    ]
    remedies += [
      f"`hf download {name}` (an id), or name a folder that has it"
      for name in absent
    ]
  if missing:
    raise InputError(
      "missing:\n" + "\n".join(f"  - {line}" for line in missing),
      "; ".join(remedies) + "; README, 'Real data', has the steps",
    )


def _is_there(encoder: str) -> bool:
  """Whether a folder, or an id in the Hugging Face cache, is a checkpoint."""
  from huggingface_hub import try_to_load_from_cache
  from huggingface_hub.errors import HFValidationError

  if (pathlib.Path(encoder) / "config.json").exists():
    return True
  try:
    return isinstance(try_to_load_from_cache(encoder, "config.json"), str)
  except HFValidationError:
    return False


def _encoders(config: Config) -> dict[str, None]:
  """Folders or ids of the frozen models, each once."""
  settings = config.teacher
  names = (
    settings.student_encoder,
    settings.teacher_encoder,
    _text_encoder(config),
    *filter(None, [settings.language_model]),
  )
  return dict.fromkeys(names)


def _dataset(config: Config) -> ov_swig.PreparedSwig:
  """The TFDS form of the folder, drawn first where it is a small world."""
  settings = config.dataset
  folder = pathlib.Path(settings.folder)
  if settings.world is not None:
    _draw_world(folder, settings.world)
  dataset = ov_swig.prepare(
    folder,
    folder.parent / "tfds",
    num_rare=settings.num_rare,
    num_unseen=settings.num_unseen,
    seed=settings.split_seed,
    skip_broken=settings.skip_broken,
  )
  if broken := dataset.broken:
    logging.warning(
      "%d images are missing or broken and were left out: %s%s",
      len(broken),
      ", ".join(broken[:5]),
      " ..." if len(broken) > 5 else "",
    )
  return dataset.with_mirrored_views() if settings.mirrored else dataset


def _draw_world(folder: pathlib.Path, world: WorldConfig) -> None:
  """Draws the world where there is none; another world is an error."""
  from input_pipeline.small_world.folder import write_folder

  note = folder / "world.json"
  wanted = json.loads(json.dumps(dataclasses.asdict(world)))
  if not folder.exists():
    logging.info("Drawing the small world into %s.", folder)
    write_folder(folder, world)
    with atomic.replacing(note) as path:
      path.write_text(json.dumps(wanted) + "\n")
  elif note.exists() and (found := json.loads(note.read_text())) != wanted:
    differ = sorted(k for k in wanted if found.get(k) != wanted[k])
    raise InputError(
      f"{folder} holds another small world: {', '.join(differ)} of "
      "dataset.world differ",
      "choose another dataset.folder, or delete this one",
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
  models = foundation.STANDARD
  if config.teacher.language_model:
    models += (foundation.LANGUAGE_MODEL,)
  foundation.train_foundation(
    config.dataset.world, student.parent, settings, models
  )


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
  names = (settings.student_encoder, _text_encoder(config))
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
    text=clips[_text_encoder(config)],
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


def _text_encoder(config: Config) -> str:
  return config.teacher.text_encoder or config.teacher.student_encoder


def _listed(names: str) -> tuple[str, ...]:
  return tuple(name.strip() for name in names.split(",") if name.strip())
