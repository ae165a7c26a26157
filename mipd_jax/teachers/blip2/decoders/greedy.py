"""Greedy decoding with a cache, in static shapes."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from mipd_jax.teachers.blip2.decoders.language import Context, Language, Params


def generate(
  language: Language,
  params: Params,
  context: Context,
  *,
  length: int,
  end: Sequence[int],
  pad: int,
) -> jax.Array:
  """Greedy decoding: the likeliest next token at each step.

  Args:
    language: T5 or OPT.
    params: of the whole model.
    context: image and prompt.
    length: most tokens.
    end: ids after which an answer is finished.
    pad: id of the filler after the end.

  Returns:
    int32 [B, length] with end tokens; stops when all are finished.
  """
  end = jnp.asarray(end, jnp.int32)

  def choose(hidden, done):
    best = language.logits(params, hidden).argmax(axis=-1).astype(jnp.int32)
    best = jnp.where(done, pad, best)
    return best, done | jnp.isin(best, end)

  def going(state):
    index, _, done, _, _ = state
    return (index < length) & ~done.all()

  def turn(state):
    index, token, done, ids, cache = state
    hidden, cache = language.step(params, context, cache, token, index)
    token, done = choose(hidden, done)
    return index + 1, token, done, ids.at[:, index].set(token), cache

  hidden, cache = language.start(params, context, length)
  token, done = choose(hidden, jnp.zeros(hidden.shape[:1], bool))
  ids = jnp.full((hidden.shape[0], length), pad, jnp.int32)
  ids = ids.at[:, 0].set(token)
  state = (jnp.int32(1), token, done, ids, cache)
  return jax.lax.while_loop(going, turn, state)[3]


def trimmed(ids: np.ndarray, end: Sequence[int]) -> np.ndarray:
  """Without the columns after the longest answer, as torch returns them."""
  ended = np.isin(ids, list(end))
  first = np.where(ended.any(axis=1), ended.argmax(axis=1), ids.shape[1] - 1)
  return ids[:, : first.max() + 1]
