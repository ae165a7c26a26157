"""Trains the small world's BLIP-2 on the tokens of a frozen tower.

Like the real one it is built on the image tower of a contrastive model, here
the small teacher CLIP, and learns through its Q-Former to make a language
model answer: the activity, the filler of a role, a caption. The tower is
CLIP's own, except for CLIP's norm before the first layer, which BLIP-2's
lacks; a short regression to CLIP's tokens compensates for that.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from input_pipeline.io.progress import Progress
from input_pipeline.small_world import lessons
from input_pipeline.small_world.situations.captions import CaptionConfig
from input_pipeline.small_world.situations.world import World
from mipd_jax.teachers import blip2, token_boxes
from mipd_jax.teachers.blip2 import module
from mipd_jax.teachers.blip2.decoders import language
from mipd_jax.teachers.checkpoints import tokenizer
from mipd_jax.teachers.clip import Clip
from mipd_jax.teachers.image_teachers import Blip2Teacher
from mipd_jax.teachers.small import box_nouns, card, muon, questions
from mipd_jax.teachers.small import tower as tower_lib
from mipd_jax.teachers.small.clip_training import Images, by_group

_EVAL_BATCH = 64
Params = Any


@dataclasses.dataclass(frozen=True)
class Blip2Settings:
  """Sizes and schedule; the image tower has the size of the CLIP's.

  Attributes:
    query_width, query_layers, num_queries: of the Q-Former.
    language_width, language_layers: of the T5, encoder and decoder alike.
    captions: the content of captions; the verb question is as frequent as
      captions that name the verb.
    steps, batch_size, learning_rate: of AdamW; a step asks each image of
      the batch several questions.
    muon_rate: learning rate of Muon on the matrices; 0 is AdamW.
    boxes: asked about in each image and step, besides the image itself.
    tower_steps: of the regression; 50 give the accuracy of 200.
  """

  query_width: int = 64
  query_layers: int = 2
  num_queries: int = 8
  language_width: int = 64
  language_layers: int = 1
  captions: CaptionConfig = dataclasses.field(default_factory=CaptionConfig)
  head_width: int = 16
  steps: int = 600
  batch_size: int = 64
  learning_rate: float = 2e-3
  muon_rate: float = 0.0
  boxes: int = 0
  tower_steps: int = 60

  @classmethod
  def debug(cls) -> "Blip2Settings":
    """A few steps of a tiny model: runs, learns nothing."""
    return cls(
      query_width=32,
      query_layers=1,
      language_width=32,
      steps=10,
      batch_size=16,
      tower_steps=4,
      muon_rate=1e-2,
      boxes=2,
    )


def write(
  world: World,
  settings: Blip2Settings,
  clip: Clip,
  images: Images,
  seed: int,
  folder: Path,
) -> dict[str, Any]:
  """Trains a small BLIP-2 and writes it in Hugging Face's format.

  Args:
    world: gives the words.
    settings: sizes and schedule.
    clip: it starts from this image tower.
    images: from `clip_training.draw_images`.
    seed: of weights, questions and order.
    folder: exists; gets config.json, model.safetensors and the tokenizer.

  Returns:
    Verb accuracy on held-out images by group, percent.
  """
  words = sorted({*lessons.of(world).all_words(world), *questions.WORDS})
  tokenizer.save_word_level(folder, words, 77, begin=False)
  config = _config(settings, clip, words)
  built, _ = blip2.build(config)
  model = blip2.Blip2(
    name=folder.name,
    revision="in training",
    module=built,
    config=config,
    params=None,
    tokenizer=tokenizer.load(folder),
    mean=clip.mean,
    std=clip.std,
  )
  params = _train(world, model, clip, settings, images, seed)
  blip2.write_checkpoint(folder, config, jax.tree.map(np.asarray, params))
  return {
    "question": verb_accuracy(world, model, params, images),
    card.NOUNS: {box_nouns.OWN: box_accuracy(world, model, params, images)},
  }


def _config(settings: Blip2Settings, clip: Clip, words: list[str]) -> Any:
  from transformers import Blip2Config, T5Config

  ids, tower = tokenizer.vocabulary(words), clip.config.vision_config
  width = settings.language_width
  text = T5Config(
    vocab_size=len(ids),
    d_model=width,
    d_kv=settings.head_width,
    d_ff=2 * width,
    num_layers=settings.language_layers,
    num_heads=width // settings.head_width,
    feed_forward_proj="gated-gelu",
    tie_word_embeddings=False,
    pad_token_id=ids[tokenizer.PAD],
    eos_token_id=ids[tokenizer.END],
    decoder_start_token_id=ids[tokenizer.PAD],
  )
  vision = {
    "hidden_size": tower.hidden_size,
    "intermediate_size": tower.intermediate_size,
    "num_hidden_layers": tower.num_hidden_layers,
    "num_attention_heads": tower.num_attention_heads,
    "image_size": tower.image_size,
    "patch_size": tower.patch_size,
    "hidden_act": tower.hidden_act,
  }
  queries = settings.query_width
  qformer = {
    "vocab_size": len(ids),
    "hidden_size": queries,
    "num_hidden_layers": settings.query_layers,
    "num_attention_heads": queries // settings.head_width,
    "intermediate_size": 2 * queries,
    "encoder_hidden_size": tower.hidden_size,
    "cross_attention_frequency": 1,
  }
  return Blip2Config(
    vision_config=vision,
    qformer_config=qformer,
    text_config=text.to_dict(),
    num_query_tokens=settings.num_queries,
  )


def _train(
  world: World,
  model: blip2.Blip2,
  clip: Clip,
  settings: Blip2Settings,
  images: Images,
  seed: int,
) -> Params:
  params = _init(model, seed)
  tokens = tower_lib.clip_tokens(clip, images.pixels)
  params = fit(
    "teacher_blip2, answers",
    functools.partial(_answer_loss, model),
    params,
    questions.batches(
      model,
      tokens,
      images.scenes,
      settings.captions,
      settings.batch_size,
      seed,
      lessons.of(world),
      settings.boxes,
    ),
    settings.steps,
    muon.optimizer(settings, _is_matrix),
  )
  params = tower_lib.from_clip(params, clip.params)
  tower = fit(
    "teacher_blip2, image tower",
    functools.partial(tower_lib.loss, model, params),
    params["vision_model"],
    tower_lib.batches(images.pixels, tokens, settings.batch_size, seed),
    settings.tower_steps,
    muon.optimizer(tower_lib.Regression(settings.tower_steps), _is_matrix),
  )
  return params | {"vision_model": tower}


def _is_matrix(names: list[str]) -> bool:
  """Whether Muon trains this parameter: all but the words' output layer."""
  return "lm_head" not in names


def _init(model: blip2.Blip2, seed: int) -> Params:
  """transformers' initialisation, except for two scales that slow learning."""
  key = jax.random.key(seed)
  params = module.init(model.module, key)
  head = params["language_model"]["lm_head"]
  # Otherwise the first loss is 25, while ln(words) is 6.
  head["kernel"] *= 0.05
  # Queries differ from one another from the start.
  shape = params["query_tokens"].shape
  params["query_tokens"] = jax.random.normal(key, shape)
  return params


def fit(
  what: str,
  loss: Callable,
  params: Params,
  batches: Iterator,
  steps: int,
  optimizer: optax.GradientTransformation,
) -> Params:
  """Minimises loss(params, *batch).

  Args:
    what: for the progress line.
    loss: (params, *batch) -> scalar.
    params: the first ones.
    batches: tuples of arrays of equal shapes.
    steps: their number.
    optimizer: with the schedule of these steps.

  Returns:
    The parameters after the last step.
  """

  @functools.partial(jax.jit, donate_argnums=0)
  def step(state, *batch):
    params, opt_state = state
    value, grads = jax.value_and_grad(loss)(params, *batch)
    updates, opt_state = optimizer.update(grads, opt_state, params)
    return (optax.apply_updates(params, updates), opt_state), value

  state = (params, optimizer.init(params))
  note = ""
  with Progress(what, steps, "steps") as progress:
    for index in range(steps):
      state, value = step(state, *next(batches))
      if index % 20 == 0:  # reading it waits for the step
        note = f"loss {float(value):.2f}"
      progress.advance(note=note)
  return state[0]


def _answer_loss(model, params, tokens, boxes, ids, mask, targets):
  """Negative log-likelihood per token, mean over answers.

  Every answer has equal weight: a verb is one word, a caption a dozen.
  tokens [B, N, D], boxes [B, K, 4]; ids and mask [B, Q + K, P], targets
  [B, Q + K, T], of questions about the image and about each box.
  """
  tokens = tokens.astype(jnp.float32)
  count, num_boxes = boxes.shape[:2]
  whole = ids.shape[1] - num_boxes
  if num_boxes:
    parts = num_boxes + 1  # the whole image is one of them
    every = jnp.repeat(tokens, parts, axis=0)
    covered = token_boxes.token_coverage(boxes, tokens.shape[1])
    ones = jnp.ones_like(covered[:, :1])
    covered = jnp.concatenate([ones, covered], axis=1).reshape(every.shape[:2])
    read = model.region_tokens(params, every, covered)
    read = read.reshape(count, parts, *read.shape[1:])
    part = np.array([0] * whole + list(range(1, parts)))
    image = read[:, part].reshape(-1, *read.shape[2:])
  else:
    read = model.region_tokens(params, tokens, None)
    image = jnp.repeat(read, whole, axis=0)
  flat = [x.reshape(-1, x.shape[-1]) for x in (ids, mask, targets)]
  logits = model.answer_logits(params, image, *flat)
  likelihood = language.log_likelihood(logits, flat[2])
  return -(likelihood / (flat[2] != language.IGNORED).sum(axis=-1)).mean()


def verb_accuracy(
  world: World, model: blip2.Blip2, params: Params, images: Images
) -> dict[str, float]:
  """Verb top-1 among all verbs on held-out images, percent by group."""
  teacher = Blip2Teacher(model, questions.VERB)
  score = teacher.scorer([verb.name for verb in world.verbs], {})
  run = jax.jit(
    lambda params, pixels: score(params, teacher.see(params, pixels))
  )
  scores = [
    np.asarray(run(params, images.eval_pixels[start : start + _EVAL_BATCH]))
    for start in range(0, len(images.eval_pixels), _EVAL_BATCH)
  ]
  right = np.concatenate(scores).argmax(axis=1) == images.eval_verbs
  return by_group(world, right, images.eval_verbs)


def box_accuracy(
  world: World, model: blip2.Blip2, params: Params, images: Images
) -> float:
  """Share of held-out boxes whose noun is the best answer, percent.

  Among all nouns of boxes; asked by role, of the tokens in the box.
  """
  teacher = Blip2Teacher(model, questions.VERB)
  nouns = lessons.of(world).nouns(world)
  asked = box_nouns.Boxes(world, images.eval_scenes, nouns)
  tree = teacher.candidates(nouns)

  @jax.jit
  def answer(params, pixels, boxes, ids, mask):
    count, num_boxes = boxes.shape[:2]
    tokens = teacher.see(params, pixels)["tokens"]
    covered = token_boxes.token_coverage(boxes, tokens.shape[1])
    seen = teacher.see_part(
      params,
      jnp.repeat(tokens, num_boxes, axis=0),
      covered.reshape(count * num_boxes, -1),
    )
    question = (ids.reshape(-1, ids.shape[-1]), mask.reshape(-1, ids.shape[-1]))
    scores = teacher.answer_scores(params, seen, question, tree)
    return scores.argmax(axis=1).reshape(count, num_boxes)

  texts = [questions.ROLE.format(role=role) for role in asked.questions]
  question = teacher.questions(texts)
  shape = (*asked.boxes.shape[:2], -1)
  (answers,) = asked.seen(
    lambda *arrays: (answer(params, *arrays),),
    images.eval_pixels,
    *(x.reshape(shape) for x in question),
  )
  return box_nouns.percent(answers == asked.nouns)
