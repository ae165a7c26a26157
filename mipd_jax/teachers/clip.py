"""Loads any CLIP in Hugging Face format: openai's and the small ones.

The towers are transformers' own Flax modules; `hf_weights` reads their weights
strictly. Pixels are normalised inside, so callers pass uint8.
"""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from input_pipeline.io.errors import InputError
from mipd_jax.teachers import token_boxes
from mipd_jax.teachers.checkpoints import hf_config, hf_weights, tokenizer

Params = Any


@dataclasses.dataclass(frozen=True, eq=False)
class Clip:
  """A frozen CLIP, an `interfaces.Encoder`; methods with `params` are pure.

  Letters: B images, N tokens (class token first, then the grid row by row),
  S vision width, n texts, L tokens, X width of the joint space.

  Attributes:
    name: folder or id that it was loaded from.
    revision: sha256 of weights, settings and tokenizer.
    module: transformers' FlaxCLIPModule.
    config: transformers' CLIPConfig.
    params: nested dict of arrays.
    tokenizer: the checkpoint's own.
    mean, std: of the pixel normalisation, RGB, on a scale of 0 to 1.
  """

  name: str
  revision: str
  module: Any
  config: Any
  params: Params
  tokenizer: tokenizer.Tokenizer
  mean: tuple[float, ...] = hf_config.MEAN
  std: tuple[float, ...] = hf_config.STD

  @property
  def image_size(self) -> int:
    """Side of the square input, pixels."""
    return self.config.vision_config.image_size

  @property
  def num_image_tokens(self) -> int:
    """N."""
    patches = self.image_size // self.config.vision_config.patch_size
    return patches**2 + 1

  @property
  def vision_width(self) -> int:
    """S."""
    return self.config.vision_config.hidden_size

  @property
  def text_width(self) -> int:
    """X."""
    return self.config.projection_dim

  @property
  def max_text_length(self) -> int:
    """The most tokens of a text."""
    return self.config.text_config.max_position_embeddings

  @property
  def logit_scale(self) -> float:
    """Factor on cosine similarities, about 100 for openai's models."""
    return float(np.exp(np.asarray(self.params["logit_scale"], np.float32)))

  @property
  def image_params(self) -> Params:
    """All of `params` except the text tower."""
    text = ("text_model", "text_projection")
    return {name: x for name, x in self.params.items() if name not in text}

  def tokenize(
    self, texts: Sequence[str], max_length: int | None = None
  ) -> tuple[np.ndarray, np.ndarray]:
    """Texts -> ids int32 [n, L], mask bool [n, L]; L is at most the model's."""
    length = min(max_length or self.max_text_length, self.max_text_length)
    return self.tokenizer(texts, length)

  def normalise(self, pixels: jax.Array) -> jax.Array:
    """uint8 [..., 3] -> float32: the image tower's input."""
    scaled = jnp.asarray(pixels, jnp.float32) / 255.0
    return (scaled - jnp.array(self.mean)) / jnp.array(self.std)

  def image_tokens(self, params: Params, pixels: jax.Array) -> jax.Array:
    """uint8 [B, H, W, 3] -> [B, N, S]: HF's `last_hidden_state`.

    That is the encoder's output before the post-layernorm, which CLIP gives
    to its class token only.
    """
    return self._vision(params, pixels)[0]

  def image_embedding(self, params: Params, pixels: jax.Array) -> jax.Array:
    """uint8 [B, H, W, 3] -> [B, X]: projected, not normalised."""
    return self._vision(params, pixels)[1]

  def image_features(
    self, params: Params, pixels: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    """Both of the above in one pass: ([B, N, S], [B, X])."""
    return self._vision(params, pixels)

  def region_embedding(
    self, params: Params, tokens: jax.Array, boxes: jax.Array
  ) -> jax.Array:
    """Boxes of images, in the joint space: [B, K, X], not normalised.

    Tokens in a box are averaged and go through the class token's norm and
    projection. openai's towers were not trained for it; the small ones are.

    Args:
      params: of the whole model.
      tokens: from `image_tokens`, [B, N, S].
      boxes: corners [B, K, 4] as shares of the side.
    """

    def run(module, pooled):
      return module.visual_projection(
        module.vision_model.post_layernorm(pooled)
      )

    inside = token_boxes.pooled(tokens, boxes)
    return self.module.apply({"params": params}, inside, method=run)

  def text_tokens(
    self, params: Params, ids: jax.Array, mask: jax.Array
  ) -> jax.Array:
    """ids, mask [n, L] -> [n, L, X]: each token, projected.

    Every token goes through the projection that CLIP gives to the end token,
    so that tokens and `text_embedding` share one space. Tokens where `mask`
    is False are filler.
    """
    return self._text(params, ids, mask)[0]

  def text_embedding(
    self, params: Params, ids: jax.Array, mask: jax.Array
  ) -> jax.Array:
    """ids, mask [n, L] -> [n, X]: projected, not normalised."""
    return self._text(params, ids, mask)[1]

  def _vision(self, params, pixels):
    def run(module, pixels):
      out = module.vision_model(pixel_values=pixels)
      return out.last_hidden_state, module.visual_projection(out.pooler_output)

    variables, normal = {"params": params}, self.normalise(pixels)
    return self.module.apply(variables, normal, method=run)

  def _text(self, params, ids, mask):
    def run(module, ids, mask):
      positions = jnp.broadcast_to(jnp.arange(ids.shape[-1]), ids.shape)
      out = module.text_model(ids, mask.astype(jnp.int32), positions)
      return (
        module.text_projection(out.last_hidden_state),
        module.text_projection(out.pooler_output),
      )

    return self.module.apply({"params": params}, ids, mask, method=run)


def load(folder_or_id: str | os.PathLike, dtype: Any = jnp.float32) -> Clip:
  """Loads a CLIP from a folder, or by id from the local Hugging Face cache.

  Args:
    folder_or_id: a folder with config.json, weights (see `hf_weights`)
      and tokenizer files, or an id such as
      "openai/clip-vit-large-patch14-336" that was downloaded before.
    dtype: of the parameters and of the arithmetic.

  Raises:
    InputError: the folder or a file is missing or unreadable; config.json or
      preprocessor_config.json asks for unsupported features; tokenizer,
      weights and config do not fit together (every such weight is listed).
  """
  folder = hf_weights.find(folder_or_id)
  config = _read_config(folder)
  words = tokenizer.load(folder)
  _check_tokenizer(folder, config, words)
  mean, std = hf_config.pixel_normalisation(
    folder, config.vision_config.image_size
  )
  with hf_config.building(folder / "config.json"):
    module, template = build(config, dtype)
  params, files = _read_weights(folder, template)
  return Clip(
    name=str(folder_or_id),
    revision=hf_weights.revision(files),
    module=module,
    config=config,
    params=jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), params),
    tokenizer=words,
    mean=mean,
    std=std,
  )


def build(config: Any, dtype: Any = jnp.float32) -> tuple[Any, Params]:
  """The Flax module of a CLIPConfig and its tree of float32 shapes."""
  from transformers.models.clip.modeling_flax_clip import FlaxCLIPModule

  module = FlaxCLIPModule(config, dtype=dtype)
  side = config.vision_config.image_size
  tokens = jnp.ones((1, 2), jnp.int32)
  init = functools.partial(
    module.init,
    input_ids=tokens,
    pixel_values=jnp.zeros((1, side, side, 3)),
    attention_mask=tokens,
    position_ids=tokens - 1,
  )
  return module, jax.eval_shape(init, jax.random.key(0))["params"]


def _read_config(folder: pathlib.Path) -> Any:
  from transformers import CLIPConfig

  path, content = folder / "config.json", hf_config.read(folder)
  if content.get("model_type") != "clip":
    kind = content.get("model_type")
    raise InputError(
      f"{path}: model_type is {kind!r:.80}, not 'clip'",
      "give the folder of a CLIP checkpoint",
    )
  config = hf_config.make(CLIPConfig, content, path)
  _check_config(config, str(path))
  hf_config.check_dual(content, config, str(path))
  return config


def _check_config(config: Any, source: str) -> None:
  """Raises InputError if a CLIPConfig asks for unsupported features."""
  hf_config.check(config, {"projection_dim": hf_config.COUNT}, source)
  hf_config.check_towers(config, source)


def _check_tokenizer(
  folder: pathlib.Path, config: Any, words: tokenizer.Tokenizer
) -> None:
  """Raises InputError unless its ids are rows and texts end where CLIP reads.

  transformers' CLIP takes the embedding at a text's first `eos_token_id`, or at
  its highest id if `eos_token_id` is 2 (openai's first configs).
  """
  text = config.text_config
  tokenizer.check_ids(str(folder), words, text.vocab_size)
  ids, mask = (rows[0] for rows in words([""], text.max_position_embeddings))
  if text.eos_token_id == 2:
    read = int(ids.argmax())
  else:
    read = int((ids == text.eos_token_id).argmax())
  last = int(np.flatnonzero(mask)[-1]) if mask.any() else -1
  if read != last:
    ends = words.inner.eos_token_id
    raise InputError(
      f"{folder}: CLIP reads a text at the token eos_token_id, "
      f"{text.eos_token_id!r:.80} in text_config of config.json, but the "
      f"tokenizer ends texts with {ends}",
      "use the tokenizer files and the config.json of one and the same model",
    )


def _read_weights(
  folder: pathlib.Path, template: Params
) -> tuple[Params, list[pathlib.Path]]:
  tensors, files = hf_weights.read(folder)
  return hf_weights.to_flax(tensors, template, source=str(folder)), files
