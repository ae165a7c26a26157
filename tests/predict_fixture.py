"""A student with random parameters and small stand-ins, ready to predict."""

import dataclasses
import functools
import pathlib
import tempfile

import jax
import numpy as np
from PIL import Image

from configs import synthetic
from input_pipeline import schema
from input_pipeline.feature_cache import Field
from mipd_jax import config as config_lib
from mipd_jax.devices import sharding
from mipd_jax.inference import workdir
from mipd_jax.inference.predictor import Predictor
from mipd_jax.models.config import Sizes
from mipd_jax.models.mipd import Mipd
from mipd_jax.teachers import labels
from tests import fakes, models

SIDE = 16
# Of this process: fixtures of pytest cannot be cached across modules.
_FOLDERS = tempfile.TemporaryDirectory()


@functools.cache
def mesh() -> jax.sharding.Mesh:
  return sharding.make_mesh(devices=jax.devices()[:2])


@functools.cache
def clip() -> fakes.FakeClip:
  return fakes.FakeClip(image_size=SIDE, patch=4)


def opened(preset: str = "mipd", dtype: str = "bfloat16") -> workdir.Opened:
  """What `open_workdir` gives, without files but a folder to write in."""
  return _opened(preset, dtype)


@functools.cache
def _opened(preset: str, dtype: str) -> workdir.Opened:
  words, encoder = fakes.vocabulary(), clip()
  model_config, _ = models.configs(preset, hidden=16, heads=2, feed_forward=16)
  values = synthetic.get_config("debug")
  values.teacher.update(student_encoder="fake", text_encoder="")
  config = dataclasses.replace(config_lib.unpack(values), model=model_config)
  grid = SIDE // encoder.patch
  plan = fakes.plan(
    student_revision=encoder.revision,
    vocabulary=words.fingerprint,
    options=(
      ("labels", labels.VERSION),
      ("student_dtype", "float32"),
      ("text_encoder", f"fake {encoder.revision}"),
    ),
    fields=(Field(schema.STUDENT_TOKENS, (grid**2 + 1, 8), dtype),),
    splits=(),
  )
  banks = _banks()
  folder = pathlib.Path(_FOLDERS.name, f"{preset}-{dtype}")
  folder.mkdir()
  sizes = Sizes(len(words.verbs), len(words.roles), len(words.nouns))
  model = Mipd(model_config, sizes)
  params = draw(model, plan, banks)
  return workdir.Opened(
    *(folder, config, words, plan, banks, encoder, model, params, 7)
  )


def draw(model: Mipd, plan, banks):
  """Away from where training starts: boxes and confidences that differ."""
  batch = {
    key: np.zeros(shape.shape, shape.dtype)
    for key, shape in workdir.example_batch(plan, model.config).items()
  }
  key = jax.random.key(3)
  init = jax.jit(lambda: model.init(key, batch, banks, method=model.predict))
  rng = np.random.default_rng(4)
  return jax.tree.map(
    lambda x: x + rng.normal(0, 0.2, x.shape).astype(np.float32),
    init()["params"],
  )


@functools.cache
def _banks() -> dict[str, np.ndarray]:
  return labels.label_banks(clip(), fakes.vocabulary(), mesh())


def predictor(preset: str = "mipd", dtype: str = "bfloat16") -> Predictor:
  """Four images at once, on two devices; programs are compiled once."""
  return _predictor(preset, dtype)


@functools.cache
def _predictor(preset: str, dtype: str) -> Predictor:
  return Predictor(opened(preset, dtype), mesh(), 4)


def photograph(seed: int, width: int = 40, height: int = 28) -> Image.Image:
  """Blocks of colour: no two corners are alike."""
  rng = np.random.default_rng(seed)
  blocks = rng.integers(0, 256, (4, 5, 3), np.uint8)
  return Image.fromarray(blocks).resize((width, height), Image.Resampling.BOX)
