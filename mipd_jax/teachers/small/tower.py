"""The small BLIP-2's image tower: a CLIP's, fitted to work without a norm.

CLIP norms its tokens before the first layer and only its class token after
the last; BLIP-2's tower norms all tokens after the last layer and none before
the first. So the weights are copied, and a few steps of regression to CLIP's
normed tokens compensate for the difference.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mipd_jax.teachers.blip2 import Blip2
from mipd_jax.teachers.clip import Clip

_LEARNING_RATE = 1e-3
_SEEN = 128  # images per call of CLIP
Params = Any


@dataclasses.dataclass(frozen=True)
class Regression:
  """Its schedule, see `muon.Schedule`."""

  steps: int
  learning_rate: float = _LEARNING_RATE
  muon_rate: float = 0.0


def from_clip(params: Params, clip: Params) -> Params:
  """Puts a CLIP's image tower into BLIP-2's parameters, norms and all.

  Parameters of only one of them are dropped (CLIP's norm before the first
  layer) or kept (the bias of BLIP-2's patches).
  """
  here, there = params["vision_model"], clip["vision_model"]
  embeddings, patches = there["embeddings"], here["embeddings"]
  kernel = embeddings["patch_embedding"]["kernel"]
  layers = {
    index: _layer(layer) for index, layer in there["encoder"]["layers"].items()
  }
  tower = {
    "embeddings": {
      "class_embedding": embeddings["class_embedding"][None, None],
      "patch_embedding": patches["patch_embedding"] | {"kernel": kernel},
      "position_embedding": embeddings["position_embedding"]["embedding"][None],
    },
    "encoder": {"layers": layers},
    "post_layernorm": there["post_layernorm"],
  }
  return params | {"vision_model": jax.tree.map(jnp.asarray, tower)}


def _layer(layer: Params) -> Params:
  attention = layer["self_attn"]
  parts = [attention[name] for name in ("q_proj", "k_proj", "v_proj")]
  qkv = {
    name: jnp.concatenate([part[name] for part in parts], axis=-1)
    for name in ("kernel", "bias")
  }
  return {
    "layer_norm1": layer["layer_norm1"],
    "layer_norm2": layer["layer_norm2"],
    "mlp": layer["mlp"],
    "self_attn": {"qkv": qkv, "projection": attention["out_proj"]},
  }


def clip_tokens(clip: Clip, pixels: np.ndarray) -> np.ndarray:
  """The tower's targets: CLIP's tokens, all through its last norm.

  float16 [n, N, D]; CLIP itself norms only its class token.
  """
  norm = clip.params["vision_model"]["post_layernorm"]
  epsilon = clip.config.vision_config.layer_norm_eps

  @jax.jit
  def see(pixels):
    tokens = clip.image_tokens(clip.params, pixels)
    normal = jax.nn.standardize(tokens, axis=-1, epsilon=epsilon)
    return (normal * norm["scale"] + norm["bias"]).astype(jnp.float16)

  parts = [
    np.asarray(see(pixels[start : start + _SEEN]))
    for start in range(0, len(pixels), _SEEN)
  ]
  return np.concatenate(parts)


def loss(
  model: Blip2,
  params: Params,
  tower: Params,
  pixels: jax.Array,
  tokens: jax.Array,
) -> jax.Array:
  """Squared distance of the tower's tokens from CLIP's; `params` stay."""

  def see(module, pixels):
    return module.vision_model(pixels)[0]

  variables = {"params": params | {"vision_model": tower}}
  normal = model.normalise(pixels)
  predicted = model.module.apply(variables, normal, method=see)
  return jnp.square(predicted - tokens.astype(jnp.float32)).mean()


def batches(
  pixels: np.ndarray, tokens: np.ndarray, batch_size: int, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """Endless (pixels, tokens) of images drawn at random."""
  rng = np.random.default_rng([seed, 6])
  while True:
    rows = rng.integers(len(pixels), size=batch_size)
    yield pixels[rows], tokens[rows]
