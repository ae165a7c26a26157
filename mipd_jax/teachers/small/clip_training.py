"""Trains and scores a small CLIP; `foundation` has the settings."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from input_pipeline.io.progress import Progress
from input_pipeline.schema import GROUPS
from input_pipeline.small_world import lessons, regions
from input_pipeline.small_world.situations.scenes import Scene
from input_pipeline.small_world.situations.world import World
from mipd_jax.teachers.clip import Clip, Params
from mipd_jax.teachers.small import muon

_CAPTION_LENGTH = 28  # tokens; 95 of 100 captions are shorter
_UNKNOWN_RATE = 0.02
_FIRST_SCALE = 20.0
_EVAL_BATCH = 64
_WHITENING_IMAGES = 2000
_WHITENING_FLOOR = 0.01


@dataclasses.dataclass(frozen=True)
class Images:
  """Captioned images for training and held-out ones for scores."""

  pixels: np.ndarray
  scenes: list[Scene]
  eval_pixels: np.ndarray
  eval_scenes: list[Scene]
  eval_verbs: np.ndarray


def draw_images(
  world: World, num_images: int, eval_images: int, size: int
) -> Images:
  """Draws `num_images` for training, `eval_images` per verb for scores."""
  draw_pool = lessons.of(world).draw_pool
  pixels, scenes = draw_pool(world, num_images, size, seed=0)
  held, held_scenes = draw_pool(
    world, eval_images * len(world.verbs), size, seed=1
  )
  names = [verb.name for verb in world.verbs]
  verbs = np.array([names.index(scene.verb.name) for scene in held_scenes])
  return Images(pixels, scenes, held, held_scenes, verbs)


def init_params(template: Params, seed: int) -> Params:
  """Fan-in initialisation of a CLIP's tree of shapes.

  Outputs of residual branches start smaller by sqrt(2 layers), so that the
  residual stream keeps its scale.
  """
  leaves, tree = jax.tree_util.tree_flatten_with_path(template)
  depth = {
    tower: len(template[tower]["encoder"]["layers"])
    for tower in ("text_model", "vision_model")
  }
  rng = np.random.default_rng(seed)
  values = []
  for path, leaf in leaves:
    names = [entry.key for entry in path]
    values.append(_init_leaf(names, leaf.shape, depth, rng))
  return jax.tree.unflatten(tree, values)


def _init_leaf(
  names: list[str],
  shape: tuple[int, ...],
  depth: dict[str, int],
  rng: np.random.Generator,
) -> np.ndarray:
  last = names[-1]
  if last == "logit_scale":
    return np.float32(np.log(_FIRST_SCALE))
  if last == "scale":
    return np.ones(shape, np.float32)
  if last == "bias":
    return np.zeros(shape, np.float32)
  std = 0.1  # class token, text positions
  if last == "kernel":
    std = 1 / np.sqrt(np.prod(shape[:-1]))
    if names[-2] in ("out_proj", "fc2"):
      std /= np.sqrt(2 * depth[names[0]])
  elif names[-2] == "token_embedding" or (
    names[0] == "vision_model" and names[-2] == "position_embedding"
  ):
    std = 0.5
  return (std * rng.standard_normal(shape)).astype(np.float32)


def whitening_kernel(pixels: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
  """A patch embedding that whitens patches: [P, P, 3, width], float32.

  Neighbouring pixels are similar, so random filters respond mostly to the mean
  colour and training must first learn the details. Principal components
  divided by their standard deviation show both from the start.

  Args:
    pixels: normalised images, [n, side, side, 3].
    shape: of the kernel; its width is at most the patch's 3 P P values.
  """
  patch, width = shape[0], shape[-1]
  count, grid = len(pixels), pixels.shape[1] // patch
  cells = pixels.reshape(count, grid, patch, grid, patch, 3)
  flat = cells.transpose(0, 1, 3, 2, 4, 5).reshape(-1, patch * patch * 3)
  variances, directions = np.linalg.eigh(flat.T @ flat / len(flat))
  strongest = np.argsort(variances)[::-1][:width]
  kernel = directions[:, strongest] / np.sqrt(
    variances[strongest] + _WHITENING_FLOOR
  )
  return kernel.reshape(shape).astype(np.float32)


def train(
  world: World, model: Clip, settings: Any, images: Images, *, seed: int
) -> Params:
  """Trains `model` from scratch on captioned images.

  Args:
    world: gives the words.
    model: its module, config and tokenizer; its params are only shapes.
    settings: a `foundation.ClipSettings`.
    images: from `draw_images`.
    seed: of weights, captions and order.

  Returns:
    The trained parameters.
  """
  told_by = lessons.of(world)
  content = told_by.content_words(world)
  words, _ = model.tokenize(content, 3)
  optimizer = muon.optimizer(settings, _is_matrix)
  params = init_params(model.params, seed)
  patches = params["vision_model"]["embeddings"]["patch_embedding"]
  some = np.asarray(model.normalise(images.pixels[:_WHITENING_IMAGES]))
  patches["kernel"] = whitening_kernel(some, patches["kernel"].shape)
  state = (params, optimizer.init(params))
  weights = {"word": settings.word_weight, "region": settings.region_weight}
  step = jax.jit(
    functools.partial(_step, model, optimizer, weights, jnp.asarray(words)),
    donate_argnums=0,
  )
  boxes = regions.arrays([told_by.regions(s) for s in images.scenes], content)
  batches = _batches(model, settings, images, boxes, seed, told_by.caption)
  note = ""
  with Progress(model.name, settings.steps, "steps") as progress:
    for index in range(settings.steps):
      state, metrics = step(state, *next(batches))
      if index % 20 == 0:  # reading a metric waits for the step
        note = " ".join(f"{k} {float(v):.2f}" for k, v in metrics.items())
      progress.advance(note=note)
  return state[0]


def _is_matrix(names: list[str]) -> bool:
  """Whether Muon trains this parameter: layers of the image tower."""
  return names[0] == "vision_model" and "layers" in names


def _batches(
  model: Clip,
  settings: Any,
  images: Images,
  boxes: tuple[np.ndarray, np.ndarray],
  seed: int,
  caption: Callable,
):
  """Endless (pixels, ids, mask, positions, boxes, their words).

  Captions are new every epoch.
  """
  rng = np.random.default_rng([seed, 4])
  size, count = settings.batch_size, len(images.scenes)
  while True:
    captions = [caption(s, settings.captions, rng) for s in images.scenes]
    ids, mask = model.tokenize(captions, _CAPTION_LENGTH)
    unknown = mask & (rng.random(ids.shape) < _UNKNOWN_RATE)
    unknown[:, 0] = unknown[np.arange(count), mask.sum(1) - 1] = False
    ids = np.where(unknown, 1, ids)
    positions = _positions(count, settings.max_text_length, rng)
    order = rng.permutation(count)
    for start in range(0, count - size + 1, size):
      rows = order[start : start + size]
      arrays = (images.pixels, ids, mask, positions, *boxes)
      yield tuple(array[rows] for array in arrays)


def _positions(
  count: int, longest: int, rng: np.random.Generator
) -> np.ndarray:
  """Position ids; half of the captions are shifted to the right.

  Captions are shorter than later texts; the shift trains every position.
  """
  moves = rng.integers(longest - _CAPTION_LENGTH + 1, size=(count, 1))
  moves *= rng.random((count, 1)) < 0.5
  steps = np.arange(_CAPTION_LENGTH)
  return np.where(steps == 0, 0, steps + moves).astype(np.int32)


def _step(model, optimizer, weights, words, state, *batch):
  params, opt_state = state
  value_and_grad = jax.value_and_grad(_loss, argnums=2, has_aux=True)
  (_, metrics), grads = value_and_grad(model, weights, params, words, *batch)
  updates, opt_state = optimizer.update(grads, opt_state, params)
  params = optax.apply_updates(params, updates)
  return (params, opt_state), metrics


def _loss(
  model, weights, params, words, pixels, ids, mask, positions, boxes, said
):
  """InfoNCE over the batch, words of captions, words of boxes.

  boxes [B, K, 4], said [B, K, W]; a box without area does not count.
  """
  tokens, image = model.image_features(params, pixels)
  image = _unit(image)
  text = _unit(_text_at(model, params, ids, mask, positions))
  word = _unit(model.text_embedding(params, words, jnp.ones_like(words)))
  scale = jnp.exp(jnp.minimum(params["logit_scale"], jnp.log(100.0)))
  logits = scale * image @ text.T
  matches = -jnp.diagonal(
    jax.nn.log_softmax(logits, 0) + jax.nn.log_softmax(logits, 1)
  )
  metrics = {"nce": matches.mean() / 2, "scale": scale}
  present = (ids[:, None, :] == words[None, :, 1, None]).any(-1)
  metrics["word"] = _word_loss(scale * image @ word.T, present)
  loss = metrics["nce"] + weights["word"] * metrics["word"]
  if weights["region"]:
    inside = _unit_or_zero(model.region_embedding(params, tokens, boxes))
    metrics["region"] = _word_loss(scale * inside @ word.T, said)
    loss += weights["region"] * metrics["region"]
  return loss, metrics


def _word_loss(logits: jax.Array, present: jax.Array) -> jax.Array:
  """Each present word against all absent ones; logits, present [..., W]."""
  absent = jax.nn.logsumexp(logits, axis=-1, keepdims=True, where=~present)
  each = jnp.logaddexp(absent, logits) - logits
  return jnp.sum(each * present) / jnp.maximum(present.sum(), 1)


def _text_at(model, params, ids, mask, positions):
  """`Clip.text_embedding` with given position ids."""

  def run(module, ids, mask, positions):
    out = module.text_model(ids, mask.astype(jnp.int32), positions)
    return module.text_projection(out.pooler_output)

  variables = {"params": params}
  return model.module.apply(variables, ids, mask, positions, method=run)


def _unit(x: jax.Array) -> jax.Array:
  return x / (jnp.linalg.norm(x, axis=-1, keepdims=True) + 1e-6)


def _unit_or_zero(x: jax.Array) -> jax.Array:
  """Zero, as of filler, stays so, and has a gradient."""
  return x * jax.lax.rsqrt(jnp.sum(x * x, axis=-1, keepdims=True) + 1e-12)


def zero_shot(
  world: World, model: Clip, params: Params, images: Images
) -> dict[str, dict[str, float]]:
  """Verb accuracy among all verbs, percent: prompt -> group -> value.

  Prompts are the name alone and the name with the definition.
  """
  encode = jax.jit(model.image_embedding)
  embedded = [
    encode(params, images.eval_pixels[start : start + _EVAL_BATCH])
    for start in range(0, len(images.eval_pixels), _EVAL_BATCH)
  ]
  image = np.asarray(_unit(jnp.concatenate(embedded)))
  prompts = {
    "name": [verb.name for verb in world.verbs],
    "name and definition": [
      f"{verb.name}: {verb.definition}" for verb in world.verbs
    ],
  }
  scores = {}
  for prompt, texts in prompts.items():
    tokens = model.tokenize(texts, _CAPTION_LENGTH)
    text = np.asarray(_unit(jax.jit(model.text_embedding)(params, *tokens)))
    right = (image @ text.T).argmax(1) == images.eval_verbs
    scores[prompt] = by_group(world, right, images.eval_verbs)
  return scores


def by_group(
  world: World, right: np.ndarray, verbs: np.ndarray
) -> dict[str, float]:
  """Share of True in bool [n], percent, by the group of verbs int [n]."""
  group = np.array([GROUPS.index(verb.group) for verb in world.verbs])
  of = group[verbs]
  return {
    name: round(100 * float(right[of == index].mean()), 1)
    for index, name in enumerate(GROUPS)
    if (of == index).any()
  }
