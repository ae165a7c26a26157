"""Loads a SigLIP in Hugging Face format, as an `interfaces.Encoder`.

Also SigLIP 2 of a fixed resolution, which has the same form. The towers are in
`towers`; `hf_weights` reads their weights strictly. Pixels are normalised
inside, so callers pass uint8.
"""

import dataclasses
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from input_pipeline.io.errors import InputError
from mipd_jax.teachers.checkpoints import hf_config, hf_weights, tokenizer
from mipd_jax.teachers.siglip.towers import TextTower, VisionTower

Params = Any
KIND = "siglip"
# SigLIP 2 resamples bilinearly; here every image is resampled bicubically.
_PROCESSING = hf_config.Processing(
  mean=(0.5,) * 3,
  std=(0.5,) * 3,
  processors=("Siglip",),
  resample=(3, "bicubic", 2, "bilinear"),
)


@dataclasses.dataclass(frozen=True, eq=False)
class Siglip:
  """A frozen SigLIP, an `interfaces.Encoder`; methods with `params` are pure.

  Two things differ from CLIP.

  - There is no class token. Token 0 is what the attention-pooling head makes of
    the patches, which is the image's embedding; the patches follow, after the
    tower's last norm.
  - Texts are read at the tower's last position, and filler is read, too: every
    text is filled up to all positions with the tokenizer's padding, however
    long the given rows are, as torch does with padding="max_length".

  Letters: B images, N tokens, S vision width, n texts, L tokens, X width of the
  joint space, which is S.

  Attributes:
    name: folder or id that it was loaded from.
    revision: sha256 of weights, settings and tokenizer.
    vision, text: the towers.
    config: transformers' SiglipConfig.
    params: nested dict of arrays.
    tokenizer: the checkpoint's own.
    mean, std: of the pixel normalisation, RGB, on a scale of 0 to 1.
  """

  name: str
  revision: str
  vision: VisionTower
  text: TextTower
  config: Any
  params: Params
  tokenizer: tokenizer.Tokenizer
  mean: tuple[float, ...] = _PROCESSING.mean
  std: tuple[float, ...] = _PROCESSING.std

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
    return self.config.text_config.projection_size

  @property
  def max_text_length(self) -> int:
    """The tower's positions, all of which are always read."""
    return self.config.text_config.max_position_embeddings

  @property
  def logit_scale(self) -> float:
    """Factor on cosine similarities, about 110 for Google's models.

    `logit_bias`, which SigLIP adds, is the same for all texts: no softmax over
    texts sees it.
    """
    scale = np.asarray(self.params["logit_scale"], np.float32)
    return float(np.exp(scale).item())

  @property
  def image_params(self) -> Params:
    """The image tower's part of `params`."""
    return {"vision_model": self.params["vision_model"]}

  def tokenize(
    self, texts: Sequence[str], max_length: int | None = None
  ) -> tuple[np.ndarray, np.ndarray]:
    """Texts -> ids int32 [n, L], mask bool [n, L]; L is at most the model's.

    In lower case, as both SigLIPs were trained: the first one's tokenizer sees
    to it itself, the second one's (Gemma's) does not.
    """
    length = min(max_length or self.max_text_length, self.max_text_length)
    return self.tokenizer([text.lower() for text in texts], length)

  def normalise(self, pixels: jax.Array) -> jax.Array:
    """uint8 [..., 3] -> float32: the image tower's input."""
    scaled = jnp.asarray(pixels, jnp.float32) / 255.0
    return (scaled - jnp.array(self.mean)) / jnp.array(self.std)

  def image_tokens(self, params: Params, pixels: jax.Array) -> jax.Array:
    """uint8 [B, H, W, 3] -> [B, N, S]: the pooled image, then the patches."""
    return self.image_features(params, pixels)[0]

  def image_embedding(self, params: Params, pixels: jax.Array) -> jax.Array:
    """uint8 [B, H, W, 3] -> [B, X], not normalised."""
    return self.image_features(params, pixels)[1]

  def image_features(
    self, params: Params, pixels: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    """Both of the above in one pass: ([B, N, S], [B, X])."""
    variables = {"params": params["vision_model"]}
    patches, image = self.vision.apply(variables, self.normalise(pixels))
    return jnp.concatenate([image[:, None], patches], axis=1), image

  def text_tokens(
    self, params: Params, ids: jax.Array, mask: jax.Array
  ) -> jax.Array:
    """ids, mask [n, L] -> [n, L, X]: each token through last norm and head.

    The row of a text's last token is `text_embedding`'s: that of the tower's
    last position, in place of what the end token itself became.
    """
    tokens = self._text(params, ids, mask, every=True)
    length = ids.shape[-1]
    last = jnp.maximum(mask.sum(axis=-1), 1) - 1
    is_last = (jnp.arange(length) == last[:, None])[..., None]
    return jnp.where(is_last, tokens[:, -1:], tokens[:, :length])

  def text_embedding(
    self, params: Params, ids: jax.Array, mask: jax.Array
  ) -> jax.Array:
    """ids, mask [n, L] -> [n, X]: projected, not normalised."""
    return self._text(params, ids, mask)

  def _text(self, params, ids, mask, every=False):
    filler = self.tokenizer.inner.pad_token_id
    room = self.max_text_length - ids.shape[-1]
    ids = jnp.where(mask, ids, filler)
    ids = jnp.pad(ids, [(0, 0), (0, room)], constant_values=filler)
    variables = {"params": params["text_model"]}
    return self.text.apply(variables, ids, every=every)


def load(folder_or_id: str | os.PathLike, dtype: Any = jnp.float32) -> Siglip:
  """Loads a SigLIP from a folder, or by id from the local Hugging Face cache.

  Args:
    folder_or_id: a folder with config.json, weights (see `hf_weights`) and
      tokenizer files, or an id such as "google/siglip-base-patch16-224" that
      was downloaded before.
    dtype: of the parameters and of the arithmetic.

  Raises:
    InputError: the folder or a file is missing or unreadable; config.json or
      preprocessor_config.json asks for unsupported features; tokenizer,
      weights and config do not fit together (every such weight is listed).
  """
  folder = hf_weights.find(folder_or_id)
  config = _read_config(folder)
  words = tokenizer.load(folder)
  tokenizer.check_ids(str(folder), words, config.text_config.vocab_size)
  mean, std = hf_config.pixel_normalisation(
    folder, config.vision_config.image_size, _PROCESSING
  )
  with hf_config.building(folder / "config.json"):
    vision, text, template = build(config, dtype)
  tensors, files = hf_weights.read(folder)
  params = hf_weights.to_flax(tensors, template, source=str(folder))
  return Siglip(
    name=str(folder_or_id),
    revision=hf_weights.revision(files),
    vision=vision,
    text=text,
    config=config,
    params=jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), params),
    tokenizer=words,
    mean=mean,
    std=std,
  )


def build(
  config: Any, dtype: Any = jnp.float32
) -> tuple[VisionTower, TextTower, Params]:
  """The towers of a SiglipConfig, and the whole's tree of float32 shapes."""
  vision = VisionTower(config.vision_config, dtype)
  text = TextTower(config.text_config, dtype)
  side = config.vision_config.image_size
  ids = jnp.zeros((1, config.text_config.max_position_embeddings), jnp.int32)

  def shapes(tower: Any, *inputs: jax.Array) -> Params:
    return jax.eval_shape(tower.init, jax.random.key(0), *inputs)["params"]

  number = jax.ShapeDtypeStruct((1,), jnp.float32)
  return (
    vision,
    text,
    {
      "vision_model": shapes(vision, jnp.zeros((1, side, side, 3))),
      "text_model": shapes(text, ids),
      "logit_scale": number,
      "logit_bias": number,
    },
  )


def _read_config(folder: pathlib.Path) -> Any:
  from transformers import SiglipConfig

  path, content = folder / "config.json", hf_config.read(folder)
  if content.get("model_type") != KIND:
    kind = content.get("model_type")
    raise InputError(
      f"{path}: model_type is {kind!r:.80}, not {KIND!r}",
      "give the folder of a SigLIP checkpoint of a fixed resolution",
    )
  config = hf_config.make(SiglipConfig, content, path)
  _check_config(config, str(path))
  hf_config.check_dual(content, config, str(path))
  return config


def _check_config(config: Any, source: str) -> None:
  """Raises InputError if a SiglipConfig asks for unsupported features."""
  hf_config.check_towers(config, source)
  rules = {"projection_size": hf_config.COUNT}
  hf_config.check(config.text_config, rules, source, "text_config")
  width = config.vision_config.hidden_size
  if config.text_config.projection_size != width:
    raise InputError(
      f"{source}: text_config.projection_size is "
      f"{config.text_config.projection_size}, expected {width}, the image "
      "tower's hidden_size: their embeddings are compared",
      "give a folder with the model's own config.json",
    )
