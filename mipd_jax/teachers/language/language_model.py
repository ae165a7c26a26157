"""Any language model in Hugging Face format that runs in Flax.

Decoder-only (GPT-2, OPT, Llama, Qwen2, Gemma, Mistral ...) and encoder-decoder
(T5, BART ...); `weights` chooses the network. Prompts are sorted into buckets
of length, one compiled program per bucket; every batch has the same number of
rows. So a text depends on its prompt, its seed and the settings, not on its
neighbours.
"""

import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from input_pipeline.io.errors import InputError
from mipd_jax.devices import sharding
from mipd_jax.teachers.checkpoints import hf_weights
from mipd_jax.teachers.language import decoding, weights
from mipd_jax.teachers.language import tokens as tokens_lib

# Prompts are padded to a multiple of this many tokens.
_BUCKET = 64
YES = ("yes", " yes", "Yes", " Yes")
NO = ("no", " no", "No", " No")


@dataclasses.dataclass(frozen=True, eq=False)
class LanguageModel:
  """A frozen language model that writes and judges texts.

  Attributes:
    name: folder or id that it was loaded from.
    revision: sha256 of weights, settings and tokenizer, and the dtype of the
      arithmetic.
    network: transformers' Flax model or a `Llama`, without parameters.
    params: nested dict of arrays, on the mesh.
    tokens: the checkpoint's own tokenizer.
    mesh: its devices; rows lie along `data`.
    batch_size: rows of every batch.
  """

  name: str
  revision: str
  network: Any
  params: Any
  tokens: tokens_lib.LanguageTokens
  mesh: Mesh
  batch_size: int

  @property
  def max_length(self) -> int | None:
    """The number of its positions; None if unlimited."""
    return getattr(self.network.config, "max_position_embeddings", None)

  def generate(
    self,
    prompts: Sequence[str],
    *,
    max_new_tokens: int,
    temperature: float,
    seeds: Sequence[int],
  ) -> list[str]:
    """Continues or answers each prompt.

    Args:
      prompts: any number of them.
      max_new_tokens: length at which a text is cut off.
      temperature: of the draw; 0 takes the likeliest tokens.
      seeds: one below 2**32 per prompt.

    Returns:
      One text per prompt, without special tokens.

    Raises:
      InputError: a prompt is longer than the model reads, or its logits are
        NaN or infinite.
    """
    run = self._programs.generate(max_new_tokens)
    seeds = np.asarray(seeds, np.uint32)
    warmth = jnp.float32(temperature)
    texts = [""] * len(prompts)
    pending = []
    for rows, ids, mask in self._batches(prompts, max_new_tokens):
      count = len(rows)
      some = np.zeros(self.batch_size, np.uint32)
      some[:count] = seeds[rows]
      real = np.arange(self.batch_size) < count
      placed = self._put(ids, mask, some, real)
      pending.append((rows, run(self.params, *placed, warmth)))
    for rows, out in pending:  # all batches were started before the first wait
      ids = np.asarray(out)[: len(rows)]
      self._refuse(prompts, rows, (ids == decoding.NOT_FINITE).any(1))
      decoded = self.tokens.decode(ids)
      for row, text in zip(rows, decoded, strict=True):
        texts[row] = text
    return texts

  def answer_probability(
    self,
    prompts: Sequence[str],
    yes: Sequence[str] = YES,
    no: Sequence[str] = NO,
  ) -> np.ndarray:
    """p(yes) / (p(yes) + p(no)) of the first token of the answer.

    Args:
      prompts: questions.
      yes, no: spellings of each answer; first tokens of both do not count.

    Returns:
      float32 [n].

    Raises:
      InputError: the tokenizer does not tell the answers apart, a prompt is
        longer than the model reads, or its scores are NaN or infinite.
    """
    run = self._programs.answer(*self.tokens.first_tokens(yes, no))
    odds = np.zeros(len(prompts), np.float32)
    pending = []
    for rows, ids, mask in self._batches(prompts, 1):
      pending.append((rows, run(self.params, *self._put(ids, mask))))
    for rows, out in pending:
      odds[rows] = np.asarray(out)[: len(rows)]
      self._refuse(prompts, rows, ~np.isfinite(odds[rows]))
    return 1 / (1 + np.exp(-odds))

  def _refuse(
    self, prompts: Sequence[str], rows: np.ndarray, bad: np.ndarray
  ) -> None:
    """Raises InputError if a row's logits were NaN or infinite."""
    if bad.any():
      prompt = prompts[rows[int(np.argmax(bad))]]
      raise InputError(
        f"{self.name} gives NaN or infinite scores for the prompt "
        f"{prompt!r:.200}",
        "check its weights and config.json, or use float32 or bfloat16",
      )

  def _batches(
    self, prompts: Sequence[str], new_tokens: int
  ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yields (rows, ids [batch, L], mask): prompts of one bucket together.

    Filler rows of a bucket's last batch are copies of its first row.
    """
    tokens = [self.tokens.encode(prompt) for prompt in prompts]
    buckets: dict[int, list[int]] = {}
    for row, ids in enumerate(tokens):
      length = self._bucket(len(ids), new_tokens)
      buckets.setdefault(length, []).append(row)
    for length, members in sorted(buckets.items()):
      for begin in range(0, len(members), self.batch_size):
        rows = members[begin : begin + self.batch_size]
        filled = rows + rows[:1] * (self.batch_size - len(rows))
        yield np.array(rows), *self._pad([tokens[r] for r in filled], length)

  def _bucket(self, length: int, new_tokens: int) -> int:
    """The padded length of a prompt."""
    rounded = -(-max(length, 1) // _BUCKET) * _BUCKET
    if self.max_length is None:
      return rounded
    if self.tokens.prefix and new_tokens + len(self.tokens.prefix) > (
      self.max_length
    ):
      raise InputError(
        f"{new_tokens} new tokens were asked for, but {self.name} has "
        f"positions for {self.max_length}",
        "ask for fewer new tokens",
      )
    # A decoder has its own positions; a causal model's text continues them.
    room = self.max_length - (0 if self.tokens.prefix else new_tokens)
    if length > room:
      raise InputError(
        f"a prompt has {length} tokens, but {self.name} reads {room} and "
        f"then {new_tokens} new ones",
        "choose a model that reads more, terse prompts or fewer new tokens",
      )
    return min(rounded, room)

  def _pad(
    self, tokens: list[list[int]], length: int
  ) -> tuple[np.ndarray, np.ndarray]:
    ids = np.full((len(tokens), length), self.tokens.pad, np.int32)
    mask = np.zeros((len(tokens), length), np.int32)
    for row, some in enumerate(tokens):
      if self.tokens.prefix:
        place = slice(0, len(some))
      else:
        place = slice(length - len(some), length)
      ids[row, place] = some
      mask[row, place] = 1
    return ids, mask

  def _put(self, *arrays: np.ndarray) -> list[jax.Array]:
    over_rows = sharding.batch_sharding(self.mesh)
    return [jax.device_put(array, over_rows) for array in arrays]

  @functools.cached_property
  def _programs(self) -> "_Programs":
    return _Programs(self)


class _Programs:
  """Compiled functions by their fixed arguments."""

  def __init__(self, model: LanguageModel):
    self._model = model
    self._made: dict[Any, Callable] = {}

  def generate(self, new_tokens: int) -> Callable[..., jax.Array]:
    model = self._model
    return self._make(
      ("generate", new_tokens),
      decoding.generate,
      stops=model.tokens.stops,
      pad=model.tokens.pad,
      vocabulary=model.tokens.size,
      new_tokens=new_tokens,
    )

  def answer(
    self, yes: tuple[int, ...], no: tuple[int, ...]
  ) -> Callable[..., jax.Array]:
    return self._make(
      ("answer", yes, no), decoding.answer_log_odds, yes=yes, no=no
    )

  def _make(self, key: Any, function: Callable, **fixed: Any) -> Callable:
    if key not in self._made:
      model = self._model
      run = functools.partial(
        function, model.network, prefix=model.tokens.prefix, **fixed
      )
      rows = sharding.batch_sharding(model.mesh)
      self._made[key] = jax.jit(run, out_shardings=rows)
    return self._made[key]


def load(
  folder_or_id: str | os.PathLike,
  dtype: Any = jnp.float32,
  *,
  mesh: Mesh | None = None,
  batch_size: int = 32,
) -> LanguageModel:
  """Loads a language model from a folder, or by id from the local cache.

  Args:
    folder_or_id: a folder with config.json, weights (see `hf_weights`)
      and tokenizer files, or the id of a model that was
      downloaded before, such as "google/flan-t5-xl".
    dtype: of the parameters and of the arithmetic.
    mesh: devices; all of this process along `data` if None. With a `model`
      axis the parameters are divided over it.
    batch_size: rows per batch; does not change any text.

  Raises:
    InputError: something is missing or unreadable; weights, config and
      tokenizer do not fit together; the Flax class cannot run this model.
  """
  mesh = mesh or sharding.make_mesh(devices=jax.local_devices())
  sharding.check_batch_size(mesh, batch_size)
  folder = hf_weights.find(folder_or_id)
  network = weights.build(folder, dtype)
  tokens = tokens_lib.load(folder, network.config)
  params, revision = weights.read(folder, network)
  return LanguageModel(
    name=str(folder_or_id),
    revision=f"{revision} {jnp.dtype(dtype).name}",
    network=network,
    params=place(params, mesh, dtype),
    tokens=tokens,
    mesh=mesh,
    batch_size=batch_size,
  )


def place(params: Any, mesh: Mesh, dtype: Any) -> Any:
  """Copies parameters to the devices, divided over the mesh's `model` axis.

  A matrix is split along its last axis that divides evenly; XLA adds the
  communication. Where `model` is 1, every device has all of it.
  """
  parts = mesh.shape[sharding.MODEL]

  def spec(shape: tuple[int, ...]) -> PartitionSpec:
    if parts > 1 and len(shape) > 1:
      for axis in reversed(range(len(shape))):
        if shape[axis] % parts == 0:
          return PartitionSpec(*[None] * axis, sharding.MODEL)
    return PartitionSpec()

  def put(leaf: np.ndarray) -> jax.Array:
    where = NamedSharding(mesh, spec(leaf.shape))
    return jax.device_put(np.asarray(leaf).astype(dtype), where)

  return jax.tree.map(put, params)
