"""One batch through a language model: prefill, then token by token.

A row's text depends only on its own prompt, seed and settings. transformers'
own Flax `generate` draws all rows from one key, so that a text would depend
on the batch that its prompt happens to be in.

Letters: B rows, L prompt tokens, T new tokens, V tokens of the vocabulary.
"""

from typing import Any

import jax
import jax.numpy as jnp

NOT_FINITE = -1  # in place of a token where logits are not finite
Params = Any


def start(
  model: Any,
  params: Params,
  ids: jax.Array,
  mask: jax.Array,
  prefix: tuple[int, ...],
  new_tokens: int,
) -> tuple[jax.Array, dict[str, Any]]:
  """Reads the prompts.

  Args:
    model: a Flax causal or encoder-decoder model of transformers, or a `Llama`.
    params: its parameters.
    ids, mask: int32 [B, L] prompts; padded on the left for causal models, on
      the right for the others.
    prefix: a decoder's first tokens; () for causal models.
    new_tokens: T, the cache's room for new tokens.

  Returns:
    float32 [B, V] logits of the first new token, and the arguments of
    `step`.
  """
  if not prefix:
    inputs = model.prepare_inputs_for_generation(
      ids, ids.shape[1] + new_tokens, attention_mask=mask
    )
    return _advance(model, params, ids, inputs)
  encoded = model.encode(ids, mask, params=params)
  begin = jnp.broadcast_to(
    jnp.array(prefix, jnp.int32), (len(ids), len(prefix))
  )
  inputs = model.prepare_inputs_for_generation(
    begin,
    len(prefix) + new_tokens,
    attention_mask=mask,
    encoder_outputs=encoded,
  )
  return _advance(model, params, begin, inputs)


def _advance(
  model: Any, params: Params, ids: jax.Array, inputs: dict[str, Any]
) -> tuple[jax.Array, dict[str, Any]]:
  call = model.decode if "encoder_outputs" in inputs else model
  out = call(ids, params=params, return_dict=True, **inputs)
  logits = out.logits[:, -1].astype(jnp.float32)
  return logits, model.update_inputs_for_generation(out, inputs)


def choose(
  logits: jax.Array, seeds: jax.Array, step: jax.Array, temperature: jax.Array
) -> jax.Array:
  """The next token of each row: int32 [B].

  Args:
    logits: float32 [B, V].
    seeds: uint32 [B].
    step: number of the token; seed and step give the row's key.
    temperature: 0 takes the likeliest token.
  """

  def one(row: jax.Array, seed: jax.Array) -> jax.Array:
    key = jax.random.fold_in(jax.random.key(seed), step)
    scaled = row / jnp.maximum(temperature, 1e-6)
    drawn = jax.random.categorical(key, scaled)
    return jnp.where(temperature > 0, drawn, row.argmax()).astype(jnp.int32)

  return jax.vmap(one)(logits, seeds)


def generate(
  model: Any,
  params: Params,
  ids: jax.Array,
  mask: jax.Array,
  seeds: jax.Array,
  real: jax.Array,
  temperature: jax.Array,
  *,
  prefix: tuple[int, ...],
  stops: tuple[int, ...],
  pad: int,
  vocabulary: int,
  new_tokens: int,
) -> jax.Array:
  """New tokens of a batch: int32 [B, T], `pad` after a row's end.

  A token is `NOT_FINITE` where a row's logits are NaN or infinite, since any
  choice would be arbitrary; the row ends there.

  Args:
    model, params, ids, mask, prefix, new_tokens: see `start`.
    seeds: uint32 [B].
    real: bool [B]; other rows are filler and end at once.
    temperature: of the draw, 0 for the likeliest tokens.
    stops: tokens that end a text.
    pad: the filler.
    vocabulary: number of the tokenizer's tokens; embeddings often have more.
  """
  rows = len(ids)
  ends = jnp.array(stops, jnp.int32)

  def pick(logits, step):
    in_vocabulary = jnp.arange(logits.shape[-1]) < vocabulary
    masked = jnp.where(in_vocabulary, logits, -jnp.inf)
    token = choose(masked, seeds, step, temperature)
    finite = (jnp.isfinite(logits) | ~in_vocabulary).all(axis=-1)
    return jnp.where(finite, token, NOT_FINITE)

  def put(out, token, done, step):
    token = jnp.where(done, pad, token)
    ended = (token[:, None] == ends).any(axis=1)
    done = done | ended | (token == NOT_FINITE)
    return out.at[:, step].set(token), token, done

  def more(state):
    step, _, _, done, _ = state
    return (step < new_tokens) & ~done.all()

  def body(state):
    step, out, token, done, inputs = state
    logits, inputs = _advance(model, params, token[:, None], inputs)
    out, token, done = put(out, pick(logits, step), done, step)
    return step + 1, out, token, done, inputs

  logits, inputs = start(model, params, ids, mask, prefix, new_tokens)
  out = jnp.full((rows, new_tokens), pad, jnp.int32)
  out, token, done = put(out, pick(logits, 0), ~real, 0)
  state = (jnp.array(1), out, token, done, inputs)
  return jax.lax.while_loop(more, body, state)[1]


def answer_log_odds(
  model: Any,
  params: Params,
  ids: jax.Array,
  mask: jax.Array,
  *,
  prefix: tuple[int, ...],
  yes: tuple[int, ...],
  no: tuple[int, ...],
) -> jax.Array:
  """log p(yes) - log p(no) of the first token: float32 [B]."""
  logits, _ = start(model, params, ids, mask, prefix, 1)
  return jax.nn.logsumexp(logits[:, jnp.array(yes)], axis=1) - (
    jax.nn.logsumexp(logits[:, jnp.array(no)], axis=1)
  )
