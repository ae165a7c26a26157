"""BLIP-2 as pure functions of its parameters."""

import contextlib
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from input_pipeline.io.errors import InputError
from mipd_jax.teachers.blip2 import config as configs
from mipd_jax.teachers.blip2.decoders import candidates as trees
from mipd_jax.teachers.blip2.decoders import greedy, language
from mipd_jax.teachers.blip2.decoders.candidates import CandidateTree
from mipd_jax.teachers.blip2.decoders.language import IGNORED, Language, Params
from mipd_jax.teachers.blip2.decoders.opt import Opt
from mipd_jax.teachers.blip2.decoders.t5 import T5
from mipd_jax.teachers.blip2.module import LANGUAGE_TOKENS, Blip2Module


def check_pixels(config: Any, pixels: Any, *, channels_last: bool) -> None:
  """Raises InputError unless it is a batch of square images of its size."""
  side = config.vision_config.image_size
  wanted = (side, side, 3) if channels_last else (3, side, side)
  shape = np.shape(pixels)
  if len(shape) != 4 or shape[1:] != wanted:
    raise InputError(
      f"images have shape {shape}, this BLIP-2 wants "
      f"[batch, {', '.join(map(str, wanted))}]",
      f"resize the images to {side} x {side} pixels of 3 channels",
    )
  if channels_last and pixels.dtype != np.uint8:
    raise InputError(
      f"images are {pixels.dtype}, not uint8",
      "give pixels of 0 to 255; they are normalised inside",
    )
  if not channels_last and not jnp.issubdtype(pixels.dtype, jnp.floating):
    raise InputError(
      f"pixel values are {pixels.dtype}, not floating and normalised",
      "normalise them by mean and std, or use image_features",
    )


def check_prompt(config: Any, images: int | None, ids: Any, mask: Any) -> None:
  """Raises InputError unless ids and mask are both [B, P], or [P] for one.

  Args:
    config: transformers' Blip2Config.
    images: B, or None if one prompt serves all images.
    ids, mask: the prompt.
  """
  shape, axes = np.shape(ids), 1 if images is None else 2
  fits = len(shape) == axes and np.shape(mask) == shape
  if not fits or (images is not None and shape[0] != images):
    batch = "" if images is None else f"{images}, "
    raise InputError(
      f"prompt ids {shape} and mask {np.shape(mask)} should both be "
      f"[{batch}length]",
      "tokenize the prompts with this model's tokenize",
    )
  check_ids(config, "prompt", ids)


def check_targets(config: Any, images: int, ids: Any) -> None:
  """Raises InputError unless ids are [B, T]; -100 is ignored."""
  shape = np.shape(ids)
  if len(shape) != 2 or shape[0] != images or not shape[1]:
    raise InputError(
      f"target ids have shape {shape}, wanted [{images}, length]",
      "give one row of target ids per image, filled with -100",
    )
  if not isinstance(ids, jax.core.Tracer):
    ids = np.asarray(ids)
    check_ids(config, "target", ids[ids != IGNORED])


def check_ids(config: Any, what: str, ids: Any) -> None:
  """Raises InputError for ids that are not rows of the embedding."""
  if isinstance(ids, jax.core.Tracer):
    return
  ids, words = np.asarray(ids), config.text_config.vocab_size
  if not ids.size:
    return
  if ids.dtype.kind not in "iu" or ids.min() < 0 or ids.max() >= words:
    raise InputError(
      f"{what} ids are {ids.dtype} of {ids.min()} to {ids.max()}, the model "
      f"knows integers of 0 to {words - 1}",
      "tokenize with this model's own tokenizer",
    )


class PureBlip2:
  """BLIP-2 as functions to compile, differentiate or shard.

  Letters as in `model.Blip2`, which has these methods and the attributes.
  """

  module: Blip2Module
  config: Any
  mean: tuple[float, ...]
  std: tuple[float, ...]

  def normalise(self, pixels: jax.Array) -> jax.Array:
    """uint8 [..., 3] -> float32: the vision tower's input."""
    scaled = jnp.asarray(pixels, jnp.float32) / 255.0
    return (scaled - jnp.array(self.mean)) / jnp.array(self.std)

  def image_features(
    self, params: Params, pixels: jax.Array, above: int = 0
  ) -> dict[str, jax.Array]:
    """uint8 [B, H, W, 3] -> `encode_image`'s dict; normalises inside.

    With `above` also lower_tokens [B, N, Dv], before the image tower's last
    `above` layers.
    """
    check_pixels(self.config, pixels, channels_last=True)
    return self._encode(params, self.normalise(pixels), above)

  def region_tokens(
    self,
    params: Params,
    vision_tokens: jax.Array,
    coverage: jax.Array | None,
  ) -> jax.Array:
    """Language tokens [B, Q, Dl] of a part of each image.

    Args:
      params: of the whole model.
      vision_tokens: [B, N, S], from `image_features`.
      coverage: float [B, N], how much of each token is read, see `QFormer`;
        None: all of it.
    """
    with self._precision():
      return self.module.apply(
        {"params": params}, vision_tokens, coverage, method=Blip2Module.read
      )[LANGUAGE_TOKENS]

  def encode(
    self, params: Params, pixel_values: jax.Array
  ) -> dict[str, jax.Array]:
    """See `encode_image`."""
    return self._encode(params, jnp.moveaxis(pixel_values, 1, -1))

  def log_likelihood(
    self,
    params: Params,
    pixel_values: jax.Array,
    prompt_ids: jax.Array,
    prompt_mask: jax.Array,
    target_ids: jax.Array,
  ) -> jax.Array:
    """See `score`."""
    image = self.encode(params, pixel_values)[LANGUAGE_TOKENS]
    logits = self.answer_logits(
      params, image, prompt_ids, prompt_mask, target_ids
    )
    return language.log_likelihood(logits, target_ids)

  def answer_logits(
    self,
    params: Params,
    language_tokens: jax.Array,
    prompt_ids: jax.Array,
    prompt_mask: jax.Array,
    target_ids: jax.Array,
  ) -> jax.Array:
    """See `target_logits`; starts from language tokens [B, Q, Dl]."""
    with self._precision():
      context = self._language.context(
        params, language_tokens, prompt_ids, prompt_mask
      )
      hidden = self._language.hidden(params, context, target_ids)
      return self._language.logits(params, hidden)

  def candidate_scores(
    self,
    params: Params,
    language_tokens: jax.Array,
    prompt_ids: jax.Array,
    prompt_mask: jax.Array,
    candidates: CandidateTree,
  ) -> jax.Array:
    """Log-likelihood of every candidate answer to a question.

    Image and question are read once per image for any number of candidates.
    Equal to `score` of each candidate.

    Args:
      params: of the whole model.
      language_tokens: [B, Q, Dl], from `image_features`.
      prompt_ids, prompt_mask: the question [P], or one per image [B, P].
      candidates: from `tokenize_answers` or `CandidateTree.build`.

    Returns:
      float32 [B, C]; see `normalise_scores`.

    Raises:
      InputError: shapes that do not fit, ids beyond the vocabulary.
    """
    images = language_tokens.shape[0] if np.ndim(prompt_ids) == 2 else None
    check_prompt(self.config, images, prompt_ids, prompt_mask)
    check_ids(self.config, "candidates'", candidates.edge_token)
    shape = (language_tokens.shape[0], np.shape(prompt_ids)[-1])
    with self._precision():
      context = self._language.context(
        params,
        language_tokens,
        jnp.broadcast_to(jnp.asarray(prompt_ids), shape),
        jnp.broadcast_to(jnp.asarray(prompt_mask), shape),
      )
      hidden = self._language.tree_hidden(params, context, candidates)
      kernel = self._language.output_kernel(params)
      return trees.score(candidates, hidden, kernel)

  def greedy(
    self,
    params: Params,
    language_tokens: jax.Array,
    prompt_ids: jax.Array,
    prompt_mask: jax.Array,
    *,
    length: int,
    end: tuple[int, ...],
  ) -> jax.Array:
    """See `generate`; ids int32 [B, length], filled after the end tokens."""
    pad = self.config.text_config.pad_token_id
    with self._precision():
      context = self._language.context(
        params, language_tokens, prompt_ids, prompt_mask
      )
      return greedy.generate(
        self._language,
        params,
        context,
        length=length,
        end=end,
        pad=end[0] if pad is None else pad,
      )

  @functools.cached_property
  def _language(self) -> Language:
    kind = self.config.text_config.model_type
    return {configs.T5: T5, configs.OPT: Opt}[kind](self.module)

  def _encode(
    self, params: Params, pixels: jax.Array, above: int = 0
  ) -> dict[str, jax.Array]:
    with self._precision():
      return self.module.apply(
        {"params": params}, pixels, above, method=Blip2Module.encode
      )

  def _precision(self) -> contextlib.AbstractContextManager:
    """Full float32: accelerators multiply with less by default."""
    if jnp.dtype(self.module.dtype) == jnp.float32:
      return jax.default_matmul_precision("float32")
    return contextlib.nullcontext()
