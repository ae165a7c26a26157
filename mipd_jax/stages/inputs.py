"""Inputs of the cache: the folder, its TFDS form, the encoders.

Real ones must be there; those of a small world are made if absent.
"""

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Iterator

import filelock
import jax
from absl import logging

from input_pipeline import feature_cache
from input_pipeline.dataset import Dataset
from input_pipeline.io import buckets, paths
from input_pipeline.io.errors import InputError
from mipd_jax import tasks
from mipd_jax.config import Config

_LOCK = ".preparing.lock"


def make(config: Config) -> tuple[Config, Dataset]:
  """The inputs of the cache, on this machine, made once.

  Separate processes that make one cache (teacher.process_count) wait for each
  other at a lock beside the data.
  """
  here = on_this_machine(config, need_cache=False)
  check_sources(here, encoders=True)
  _try_served(here)
  parent = pathlib.Path(here.dataset.folder).parent
  parent.mkdir(parents=True, exist_ok=True)
  with _alone(parent):
    data = dataset(here)
    _make_encoders(here)
  return here, data


def on_this_machine(config: Config, *, need_cache: bool) -> Config:
  """The config, with the contents of buckets copied to this machine.

  Raises:
    InputError: a bucket cannot be read, or several processes should make one
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


def check_sources(config: Config, *, encoders: bool) -> None:
  """Raises one error that names all missing inputs that cannot be made."""
  missing, remedies = [], []
  if config.world is None:
    try:
      tasks.of(config).check_folder()
    except InputError as error:
      missing.append(error.problem)
      remedies.append(error.remedy)
  if encoders and not config.teacher.foundation:
    absent = [name for name in _encoders(config) if _folder(name) is None]
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


def dataset(config: Config) -> Dataset:
  """The TFDS form of the folder; a small world is drawn first."""
  return tasks.of(config).dataset()


def text_encoder(config: Config) -> str:
  """Folder or id of the model that embeds labels and rationales."""
  return config.teacher.text_encoder or config.teacher.student_encoder


def encoder_folders(config: Config) -> list[pathlib.Path]:
  """Folders of those frozen models that are there."""
  folders = [_folder(name) for name in _encoders(config)]
  return [folder for folder in folders if folder is not None]


def _try_served(config: Config) -> None:
  """Raises InputError if the cache needs a served model that is not there."""
  settings = config.teacher
  whole = (pathlib.Path(settings.cache) / feature_cache.MANIFEST).exists()
  if settings.is_served and not whole:
    from mipd_jax.teachers.served import served_model

    served_model.load(settings.language_model, settings.served)


@contextlib.contextmanager
def _alone(folder: pathlib.Path) -> Iterator[None]:
  """Lets one process at a time make things in a folder."""
  if not os.access(folder, os.W_OK):  # nothing can be made there
    yield
    return
  lock = filelock.FileLock(folder / _LOCK)
  try:
    lock.acquire(timeout=1)
  except filelock.Timeout:
    logging.info("Another process prepares %s; waiting for it.", folder)
    lock.acquire()
  try:
    yield
  finally:
    lock.release()


def _folder(encoder: str) -> pathlib.Path | None:
  """A checkpoint's folder, given by path or by id in Hugging Face's cache."""
  from huggingface_hub import try_to_load_from_cache
  from huggingface_hub.errors import HFValidationError

  if (pathlib.Path(encoder) / "config.json").exists():
    return pathlib.Path(encoder)
  try:
    config_file = try_to_load_from_cache(encoder, "config.json")
  except HFValidationError:
    return None
  return (
    pathlib.Path(config_file).parent if isinstance(config_file, str) else None
  )


def _encoders(config: Config) -> dict[str, None]:
  """Folders or ids of the frozen models here, each once."""
  settings = config.teacher
  writer = "" if settings.is_served else settings.language_model
  names = (
    settings.student_encoder,
    settings.teacher_encoder,
    text_encoder(config),
    *filter(None, [writer]),
  )
  return dict.fromkeys(names)


def _make_encoders(config: Config) -> None:
  """Trains the small foundation models if asked for."""
  if not config.teacher.foundation:
    return
  from mipd_jax.teachers import foundation

  student = pathlib.Path(config.teacher.student_encoder)
  settings = foundation.FoundationConfig.of(
    config.world, config.teacher.foundation
  )
  models = foundation.STANDARD
  if config.teacher.language_model and not config.teacher.is_served:
    models += (foundation.LANGUAGE_MODEL,)
  foundation.train_foundation(config.world, student.parent, settings, models)
