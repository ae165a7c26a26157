"""Small models of every preset, for tests."""

import dataclasses
import functools

import jax
import numpy as np

from mipd_jax import presets
from mipd_jax.losses import situations
from mipd_jax.losses.config import LossConfig
from mipd_jax.losses.objective import Objective
from mipd_jax.models.config import Dropout, ModelConfig
from mipd_jax.models.mipd import Mipd
from tests import batches

HIDDEN = batches.TEXT_WIDTH  # the reference needs the two to be equal
NO_DROPOUT = Dropout(student=0.0, decoder=0.0, noun=0.0, box=0.0)


def configs(preset: str, **changes) -> tuple[ModelConfig, LossConfig]:
  """A preset at small sizes, without dropout."""
  model, losses = presets.preset_defaults(preset)
  small = {
    "hidden": HIDDEN,
    "heads": 4,
    "feed_forward": 48,
    "dropout": NO_DROPOUT,
  }
  return dataclasses.replace(model, **small | changes), losses


def objective(losses: LossConfig) -> Objective:
  """Of situations, with these weights."""
  return Objective(situations.TERMS, losses)


@functools.cache
def make(preset: str, **changes):
  """Module, its losses, and parameters with every value away from zero.

  Zero is where the prompts start; a test that wants to see what they do
  needs other values.
  """
  model_config, losses = configs(preset, **changes)
  model = Mipd(model_config, batches.SIZES)
  start = jax.jit(model.init)  # not jitted, each operation is compiled
  params = start(jax.random.key(0), batches.batch(), batches.banks())["params"]
  rng = np.random.default_rng(1)
  params = jax.tree.map(
    lambda x: x + 0.02 * rng.normal(size=x.shape).astype(np.float32), params
  )
  return model, losses, params


def loss_and_grads(preset: str, batch: dict, params=None, losses=None):
  """(total, terms, outputs, gradients) of a batch."""
  _, default_losses, default_params = make(preset)
  params = default_params if params is None else params
  run = _compiled(preset, losses or default_losses)
  (total, (terms, outputs)), grads = run(params, batch, batches.banks())
  return total, terms, outputs, grads


@functools.cache
def _compiled(preset: str, losses: LossConfig):
  model = make(preset)[0]

  def run(params, batch, banks):
    def loss_of(params):
      outputs = model.apply({"params": params}, batch, banks)
      total, terms = objective(losses)(outputs, batch, banks)
      return total, (terms, outputs)

    return jax.value_and_grad(loss_of, has_aux=True)(params)

  return jax.jit(run)
