"""The whole BLIP-2 as one Flax module, with transformers' T5 or OPT in it."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mipd_jax.teachers.blip2 import config as configs
from mipd_jax.teachers.blip2.qformer import QFormer
from mipd_jax.teachers.blip2.vision import VisionTower

VISION_TOKENS = "vision_tokens"
LOWER_TOKENS = "lower_tokens"
QUERY_TOKENS = "query_tokens"
LANGUAGE_TOKENS = "language_tokens"


class Blip2Module(nn.Module):
  """Parameters carry the names of transformers' Blip2ForConditionalGeneration.

  The language model's passes are in `t5` and `opt`; they reach its
  submodules by `apply` with a method.

  Attributes:
    config: transformers' Blip2Config.
    dtype: of the arithmetic.
  """

  config: Any
  dtype: Any = jnp.float32

  def setup(self):
    config = self.config
    width = config.qformer_config.hidden_size
    self.vision_model = VisionTower(config.vision_config, self.dtype)
    self.qformer = QFormer(config.qformer_config, self.dtype)
    # transformers starts queries at zero, where they would all stay equal.
    start = nn.initializers.normal(0.02)
    shape = (1, config.num_query_tokens, width)
    self.query_tokens = self.param("query_tokens", start, shape)
    self.language_projection = nn.Dense(
      config.text_config.hidden_size, dtype=self.dtype
    )
    self.language_model = _language_module(config.text_config, self.dtype)

  def encode(self, pixels: jax.Array, above: int = 0) -> dict[str, jax.Array]:
    """Normalised [B, H, W, 3] -> vision, query and language tokens.

    With `above` also the lower tokens, before the tower's last `above` layers.
    """
    vision, lower = self.vision_model(pixels, above)
    seen = {VISION_TOKENS: vision, **self.read(vision)}
    return seen | ({LOWER_TOKENS: lower} if above else {})

  def read(
    self, vision: jax.Array, coverage: jax.Array | None = None
  ) -> dict[str, jax.Array]:
    """Vision tokens [B, N, S] -> query and language tokens.

    `coverage` [B, N] says how much of each token is read, see `QFormer`.
    """
    shape = (vision.shape[0], *self.query_tokens.shape[1:])
    queries = jnp.broadcast_to(self.query_tokens, shape)
    query = self.qformer(queries, vision, coverage)
    return {
      QUERY_TOKENS: query,
      LANGUAGE_TOKENS: self.language_projection(query),
    }

  def __call__(self, pixels: jax.Array, ids: jax.Array) -> jax.Array:
    """Uses every parameter once; only for `init`."""
    self.encode(pixels)
    ones = jnp.ones_like(ids)
    if self.config.text_config.model_type == configs.T5:
      return self.language_model(ids, ones, ids, ones).logits
    return self.language_model(ids, ones, jnp.cumsum(ones, axis=-1) - 1).logits


def init(module: Blip2Module, key: jax.Array) -> dict:
  """Random float32 parameters."""
  side = module.config.vision_config.image_size
  pixels = jnp.zeros((1, side, side, 3))
  return module.init(key, pixels, jnp.zeros((1, 2), jnp.int32))["params"]


def build(config: Any, dtype: Any = jnp.float32) -> tuple[Blip2Module, dict]:
  """The module of a Blip2Config and its tree of float32 shapes.

  Args:
    config: transformers' Blip2Config.
    dtype: of the arithmetic, a floating one.

  Raises:
    InputError: the config asks for unsupported features.
  """
  configs.check(config, "config")
  module = Blip2Module(config, jnp.dtype(dtype))
  start = functools.partial(init, module)
  return module, jax.eval_shape(start, jax.random.key(0))


def _language_module(config: Any, dtype: Any) -> nn.Module:
  from transformers.models.opt.modeling_flax_opt import (
    FlaxOPTForCausalLMModule,
  )
  from transformers.models.t5.modeling_flax_t5 import (
    FlaxT5ForConditionalGenerationModule,
  )

  if config.model_type == configs.T5:
    return FlaxT5ForConditionalGenerationModule(config, dtype=dtype)
  return FlaxOPTForCausalLMModule(config, dtype=dtype)
