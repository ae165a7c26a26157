"""First weights of the small language model: those of a copying machine.

A random start finds out how to copy words from a prompt after thousands of
steps (the induction heads of Olsson et al. 2022, arXiv 2209.11895). This one
begins there: some heads of layer 0 look at the tokens just before, the same
heads of layer 1 look for the place where the same words stood, and hand on
what they see. So "what followed this word before?" is answered from the start,
and a minute of training shapes what to ask.
"""

from typing import Any

import jax
import numpy as np

Params = Any
_EMBEDDING = 0.1  # standard deviation
_SLOTS = 3  # tokens back that a place knows of
_SHARPNESS = 5.0  # of looking back
_LIKENESS = 1.7  # of looking for like words


def init_params(network: Any, seed: int) -> Params:
  """Parameters of a Llama of two layers or more with attention biases.

  Args:
    network: transformers' Flax Llama, without parameters.
    seed: of the draw.

  Returns:
    float32 arrays by path, all but the head, which is the embedding.
  """
  shapes = dict(network.params_shape_tree)
  del shapes["lm_head"]
  depth = network.config.num_hidden_layers
  rng = np.random.default_rng(seed)

  def first(path, leaf):
    *_, owner, last = (entry.key for entry in path)
    if last == "weight":
      return np.ones(leaf.shape, np.float32)
    if last == "bias":
      return np.zeros(leaf.shape, np.float32)
    std = _EMBEDDING if last == "embedding" else 1 / np.sqrt(leaf.shape[0])
    if owner in ("o_proj", "down_proj"):
      std *= _EMBEDDING / np.sqrt(2 * depth)
    return (std * rng.standard_normal(leaf.shape)).astype(np.float32)

  params = jax.tree_util.tree_map_with_path(first, shapes)
  _wire(params["model"], network.config, rng)
  return params


def _wire(model: Params, config: Any, rng: np.random.Generator) -> None:
  """Sets some heads of the first two layers.

  The last dimensions of the residual stream are slots: slot k is to hold a
  short code of the token k places back. Head k - 1 of layer 0 fills it.
  """
  width = config.hidden_size
  code = width // 8
  own = width - _SLOTS * code  # dimensions of the token itself
  model["embed_tokens"]["embedding"][:, own:] = 0
  spread = np.linalg.qr(rng.standard_normal((own, code)))[0]
  slots = [slice(own + k * code, own + (k + 1) * code) for k in range(_SLOTS)]
  first, second = (model["layers"][str(i)]["self_attn"] for i in range(2))
  _look_back(first, config, spread, slots)
  _look_for_like(second, config, spread, slots, rng)


def _look_back(
  attention: Params, config: Any, spread: np.ndarray, slots: list[slice]
) -> None:
  """Head k looks k + 1 tokens back, whatever stands there.

  Keys are one vector; queries are that vector as rotary positions turn it
  over k + 1 tokens, in its three fastest planes.
  """
  heads = config.num_attention_heads
  size, (own, code) = config.hidden_size // heads, spread.shape
  half = size // 2
  planes = np.arange(min(3, half))
  angles = 10000.0 ** (-2.0 * planes / size)
  query, key = np.zeros((2, heads, size), np.float32)
  for head in range(min(_SLOTS, heads)):
    turn = angles * (head + 1)
    key[head, planes] = _SHARPNESS
    query[head, planes] = _SHARPNESS * np.cos(turn)
    query[head, half + planes] = -_SHARPNESS * np.sin(turn)
    here = slice(head * size, (head + 1) * size)
    for name in ("q_proj", "k_proj", "v_proj"):
      attention[name]["kernel"][:, here] = 0
    attention["v_proj"]["kernel"][:own, here][:, :code] = spread
    handed_on = np.zeros((size, config.hidden_size), np.float32)
    handed_on[:code, slots[head]] = _EMBEDDING * np.eye(code)
    attention["o_proj"]["kernel"][here] = handed_on
  attention["q_proj"]["bias"] = query.reshape(-1)
  attention["k_proj"]["bias"] = key.reshape(-1)


def _look_for_like(
  attention: Params,
  config: Any,
  spread: np.ndarray,
  slots: list[slice],
  rng: np.random.Generator,
) -> None:
  """Heads look for places whose slots hold what a token and its slots are.

  That is, where the same words stood before the next one; what stands there
  is handed on by a rotation and its inverse.
  """
  heads, width = config.num_attention_heads, config.hidden_size
  size, (own, code) = width // heads, spread.shape
  half = size // 2
  asks, holds = np.zeros((2, width, code, _SLOTS), np.float32)
  asks[:own, :, 0] = spread
  for k in range(_SLOTS):
    holds[slots[k], :, k] = np.eye(code)
    if k + 1 < _SLOTS:
      asks[slots[k], :, k + 1] = np.eye(code)
  asks, holds = asks.reshape(width, -1), holds.reshape(width, -1)
  # Only slow planes tell contents apart from distances.
  slow = np.arange(half // 2, half)
  slow = np.concatenate([slow, slow + half])
  rotation = np.linalg.qr(rng.standard_normal((width, width)))[0]
  wired = min(_SLOTS, heads)
  for head in range(wired):
    here = slice(head * size, (head + 1) * size)
    part = np.arange(head, asks.shape[1], wired)[: len(slow)]
    for name, source in (("q_proj", asks), ("k_proj", holds)):
      kernel = np.zeros((width, size), np.float32)
      kernel[:, slow[: len(part)]] = _LIKENESS * source[:, part]
      attention[name]["kernel"][:, here] = kernel
    attention["v_proj"]["kernel"][:, here] = rotation[:, here]
    attention["o_proj"]["kernel"][here] = rotation[:, here].T
