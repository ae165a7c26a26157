"""How the small language model is trained; `foundation_language` says which."""

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
from input_pipeline.ov_swig import vocabulary
from input_pipeline.small_world.situations.folder import space
from input_pipeline.small_world.situations.scenes import Scene, draw_scene
from input_pipeline.small_world.situations.world import World
from mipd_jax.rationales import prompts, templates
from mipd_jax.rationales.frame import AnnotatedFrame
from mipd_jax.teachers.language.tokens import LanguageTokens
from mipd_jax.teachers.small import language_start

STYLE = prompts.TERSE
Params = Any
# Marks of target tokens: of a text, of a judgement.
_TEXT, _JUDGEMENT = 1, 2


def world_vocabulary(world: World) -> vocabulary.Vocabulary:
  """The vocabulary of a world, as a folder without index files would give."""
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / vocabulary.SPACE_FILE
    path.write_text(json.dumps(space(world)))
    return vocabulary.load(folder)


def draw_frames(world: World, count: int, seed: int) -> list[AnnotatedFrame]:
  """Frames of all verbs equally often; none is an image of the folder."""
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
  """What a frame teaches: its texts, or whether each of them is true."""
  texts = zip(schema.RATIONALES, templates.texts(frame), strict=True)
  told = [(kind, text) for kind, text in texts if text]
  if judge:
    return [
      Example(
        STYLE.ask(kind, frame, text),
        "yes" if kind in prompts.POSITIVE else "no",
      )
      for kind, text in told
    ]
  return [Example(STYLE.write(kind, frame, 0), text) for kind, text in told]


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
    settings: a `foundation_language.LanguageSettings`.
    seed: of weights and order.

  Returns:
    The parameters but the head, which is the embedding.
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
  params = language_start.init_params(network, seed)
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
  # Filler stands at the end, where no token of the answer looks.
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
  found = []
  for frame in frames:
    for example in examples(frame, judge=judge):
      prompt = tokens.encode(example.prompt)
      answer = tokens.encode(example.answer)[1:]  # no begin token
      if not judge:
        answer.append(tokens.stops[0])
      if len(prompt) + len(answer) <= length:
        found.append((prompt, answer))
  return found
