"""Trains the small language model; `language_maker` has the settings.

Its first weights copy words. A random start learns to copy words from a prompt
only after thousands of steps (the induction heads of Olsson et al. 2022, arXiv
2209.11895). Here some heads of layer 0 attend to the tokens just before; the
same heads of layer 1 attend to the place where the same words occurred, and
pass on what they read. So "what followed this word before?" is answered from
the start, and a minute of training learns what to ask.
"""

import dataclasses
import functools
import json
import pathlib
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from input_pipeline import geometry, schema
from input_pipeline.io.progress import Progress
from input_pipeline.ov_swig import layout, vocabulary
from input_pipeline.small_world.situations.folder import space
from input_pipeline.small_world.situations.scenes import Scene, draw_scene
from input_pipeline.small_world.situations.world import World
from mipd_jax.rationales import prompts, templates
from mipd_jax.rationales.frame import AnnotatedFrame
from mipd_jax.teachers.language.tokens import LanguageTokens

Params = Any
_EMBEDDING = 0.1  # standard deviation
_SLOTS = 3  # tokens back that a position encodes
_SHARPNESS = 5.0  # of attention to earlier tokens
_LIKENESS = 1.7  # of attention to equal words


def init_params(network: Any, seed: int) -> Params:
  """Parameters of a Llama of two layers or more with attention biases.

  Args:
    network: transformers' Flax Llama, without parameters.
    seed: of the draw.

  Returns:
    float32 arrays by path, without the head, which is the embedding.
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

  The last dimensions of the residual stream are slots: slot k holds a short
  code of the token k places back, written by head k - 1 of layer 0.
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
  """Head k attends k + 1 tokens back, to any token.

  Keys are one vector; queries are that vector rotated by k + 1 tokens, in its
  three fastest planes.
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
  """Heads attend to positions whose slots hold a token and its slots.

  That is, where the same words preceded the next one; its content is passed on
  by a rotation and its inverse.
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
  # Only slow planes separate content from distance.
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


STYLE = prompts.TERSE
# Marks of target tokens: in a text, in a judgement.
_TEXT, _JUDGEMENT = 1, 2


def world_vocabulary(world: World) -> vocabulary.Vocabulary:
  """The vocabulary of a world, as from a folder without index files."""
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / layout.SPACE_FILE
    path.write_text(json.dumps(space(world)))
    return vocabulary.load(folder)


def draw_frames(world: World, count: int, seed: int) -> list[AnnotatedFrame]:
  """Frames of all verbs in equal number; none is of an image of the folder."""
  words = world_vocabulary(world)
  writer = templates.RationaleWriter(
    words, allowed_verbs=range(len(words.verbs)), seed=seed
  )
  rng = np.random.default_rng([world.config.seed, 5, seed])
  chosen = rng.permutation(count) % len(world.verbs)
  return [
    _frame(writer, words, draw_scene(world, world.verbs[i], rng), f"{n}.jpg")
    for n, i in enumerate(chosen)
  ]


def _frame(
  writer: templates.RationaleWriter,
  words: vocabulary.Vocabulary,
  scene: Scene,
  name: str,
) -> AnnotatedFrame:
  roles = scene.verb.roles
  nouns = [[words.noun_id(f[role]) for f in scene.frames] for role in roles]
  corners = scene.boxes()
  boxes = geometry.Letterbox(scene.height, scene.width).boxes_to_canvas(
    np.array([corners[role] for role in roles], np.float32)
  )
  verb = words.verb_index[scene.verb.name]
  return writer.frame(name, verb, np.array(nouns), boxes)


@dataclasses.dataclass(frozen=True)
class Example:
  """A prompt with its answer."""

  prompt: str
  answer: str


def examples(frame: AnnotatedFrame, *, judge: bool) -> list[Example]:
  """Examples of a frame: its texts, or whether each of them is true."""
  texts = zip(schema.RATIONALES, templates.texts(frame), strict=True)
  written = [(kind, text) for kind, text in texts if text]
  if judge:
    return [
      Example(
        STYLE.ask(kind, frame, text),
        "yes" if kind in prompts.POSITIVE else "no",
      )
      for kind, text in written
    ]
  return [Example(STYLE.write(kind, frame, 0), text) for kind, text in written]


def train(
  network: Any,
  tokens: LanguageTokens,
  frames: Sequence[AnnotatedFrame],
  settings: Any,
  seed: int,
) -> Params:
  """Trains a Llama from scratch.

  Args:
    network: transformers' Flax Llama, without parameters.
    tokens: its tokenizer.
    frames: from `draw_frames`.
    settings: a `language_maker.LanguageSettings`.
    seed: of weights and order.

  Returns:
    The parameters without the head, which is the embedding.
  """
  schedule = optax.warmup_cosine_decay_schedule(
    0.0,
    settings.learning_rate,
    max(1, settings.steps // 10),
    settings.steps,
  )
  optimizer = optax.chain(
    optax.clip_by_global_norm(1.0),
    optax.adamw(schedule, b2=0.98, weight_decay=0.02),
  )
  params = init_params(network, seed)
  state = (params, optimizer.init(params))
  step = jax.jit(functools.partial(_step, network, optimizer), donate_argnums=0)
  batches = _batches(frames, tokens, settings, seed)
  note = ""
  with Progress("language_model", settings.steps, "steps") as progress:
    for index in range(settings.steps):
      state, metrics = step(state, *next(batches))
      if index % 20 == 0:  # reading a metric waits for the step
        note = " ".join(f"{k} {float(v):.2f}" for k, v in metrics.items())
      progress.advance(note=note)
  return jax.tree.map(np.asarray, state[0])


def _step(network, optimizer, state, ids, marks):
  params, opt_state = state
  value_and_grad = jax.value_and_grad(_loss, argnums=1, has_aux=True)
  (_, metrics), grads = value_and_grad(network, params, ids, marks)
  updates, opt_state = optimizer.update(grads, opt_state, params)
  return (optax.apply_updates(params, updates), opt_state), metrics


def _loss(network, params, ids, marks):
  """Mean over the tokens of texts, plus mean over judgements."""
  head = {"kernel": params["model"]["embed_tokens"]["embedding"].T}
  positions = jnp.broadcast_to(jnp.arange(ids.shape[1]), ids.shape)
  # Filler is at the end, where no token of the answer attends.
  out = network.module.apply(
    {"params": {**params, "lm_head": head}},
    ids,
    jnp.ones_like(ids),
    positions,
  )
  each = optax.softmax_cross_entropy_with_integer_labels(
    out.logits[:, :-1], ids[:, 1:]
  )

  def mean(mark):
    here = marks[:, 1:] == mark
    return jnp.sum(each * here) / jnp.maximum(here.sum(), 1)

  text, judgement = mean(_TEXT), mean(_JUDGEMENT)
  return text + judgement, {"text": text, "judgement": judgement}


def _batches(
  frames: Sequence[AnnotatedFrame],
  tokens: LanguageTokens,
  settings: Any,
  seed: int,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """Endless ids and marks, int32 [B, L]; judgements in the first rows."""
  texts = _encoded(frames, tokens, settings.length, judge=False)
  judgements = _encoded(frames, tokens, settings.length, judge=True)
  judged = round(settings.judged * settings.batch_size)
  rng = np.random.default_rng([seed, 6])
  while True:
    ids = np.full((settings.batch_size, settings.length), tokens.pad, np.int32)
    marks = np.zeros_like(ids)
    for row in range(settings.batch_size):
      pool, mark = (judgements, _JUDGEMENT) if row < judged else (texts, _TEXT)
      prompt, answer = pool[rng.integers(len(pool))]
      end = len(prompt) + len(answer)
      ids[row, :end] = prompt + answer
      marks[row, len(prompt) : end] = mark
    yield ids, marks


def _encoded(
  frames: Sequence[AnnotatedFrame],
  tokens: LanguageTokens,
  length: int,
  *,
  judge: bool,
) -> list[tuple[list[int], list[int]]]:
  """Ids of prompts and answers that fit together into `length`."""
  pairs = []
  for frame in frames:
    for example in examples(frame, judge=judge):
      prompt = tokens.encode(example.prompt)
      answer = tokens.encode(example.answer)[1:]  # no begin token
      if not judge:
        answer.append(tokens.stops[0])
      if len(prompt) + len(answer) <= length:
        pairs.append((prompt, answer))
  return pairs
