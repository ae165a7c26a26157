"""Questions about small scenes with their answers, for a small BLIP-2."""

from collections.abc import Iterator, Sequence

import numpy as np

from input_pipeline.small_world import lessons
from input_pipeline.small_world.lessons import Lessons
from input_pipeline.small_world.regions import Region
from input_pipeline.small_world.situations.captions import CaptionConfig
from input_pipeline.small_world.situations.scenes import Scene
from mipd_jax.teachers import blip2
from mipd_jax.teachers.blip2.decoders import language

VERB = "Question: what is the activity in this picture? Answer:"
ROLE = "Question: what is the {role} in this picture? Answer:"
_CAPTION = "describe this picture:"
# Those of the above that captions do not have.
WORDS = ("answer", "describe", "question")
_PROMPT_LENGTH, _ANSWER_LENGTH = 14, 16  # longer captions are cut
_ASKED = 3  # questions per image and step


def batches(
  model: blip2.Blip2,
  tokens: np.ndarray,
  scenes: Sequence[Scene],
  captions: CaptionConfig,
  batch_size: int,
  seed: int,
  told_by: Lessons = lessons.SITUATIONS,
  boxes: int = 0,
) -> Iterator[tuple[np.ndarray, ...]]:
  """Endless (tokens, prompt ids, mask, targets); new questions every epoch.

  Args:
    model: gives the tokenizer.
    tokens: [n, N, D], of the images; with `boxes`, those without a box are
      left out.
    scenes: the n scenes.
    captions: the content of captions; the verb question is as frequent.
    batch_size: B, images per step; each gets three questions.
    seed: of questions and order.
    told_by: the lessons of their world, see `lessons.of`.
    boxes: K, of each image and step, with a question about each.

  Yields:
    tokens [B, N, D], boxes float32 [B, K, 4]; of three questions about the
    image and, after them, those about boxes: ids int32 [B, 3 + K, P], mask
    bool [B, 3 + K, P], targets int32 [B, 3 + K, T]. Targets are filled with
    -100 after their end.
  """
  rng = np.random.default_rng([seed, 5])
  asked_of = [[r for r in told_by.regions(s) if r.name] for s in scenes]
  there = [i for i, of in enumerate(asked_of) if of or not boxes]
  tokens, count = tokens[there], len(there)
  scenes, asked_of = ([some[i] for i in there] for some in (scenes, asked_of))
  while True:
    regions = [_some(of, boxes, rng) for of in asked_of]
    corners = np.array([[r.box for r in some] for some in regions], np.float32)
    corners = corners.reshape(count, boxes, 4)
    asked = [
      _ask(s, told_by, captions, rng)
      + [(ROLE.format(role=r.question), r.name) for r in some]
      for s, some in zip(scenes, regions, strict=True)
    ]
    flat = [pair for pairs in asked for pair in pairs]
    ids, mask = model.tokenizer([q for q, _ in flat], _PROMPT_LENGTH)
    answers = model.tokenizer([a for _, a in flat], _ANSWER_LENGTH)
    targets = np.where(answers[1], answers[0], language.IGNORED)
    arrays = [x.reshape(count, len(asked[0]), -1) for x in (ids, mask, targets)]
    order = rng.permutation(count)
    for start in range(0, count - batch_size + 1, batch_size):
      rows = order[start : start + batch_size]
      yield tokens[rows], corners[rows], *(x[rows] for x in arrays)


def _some(
  regions: Sequence[Region], count: int, rng: np.random.Generator
) -> list[Region]:
  """So many regions, some of them twice where there are fewer."""
  if not count:
    return []
  chosen = rng.permutation(len(regions))[:count]
  return [regions[i] for i in np.resize(chosen, count)]


def _ask(
  scene: Scene,
  told_by: Lessons,
  config: CaptionConfig,
  rng: np.random.Generator,
) -> list[tuple[str, str]]:
  """Questions about an image with answers; one is always a caption."""
  often = config.verb * (config.unseen if scene.verb.group == "unseen" else 1)
  caption = told_by.caption(scene, config, rng)
  pairs = [(_CAPTION, caption)]
  if rng.random() < often:
    pairs.append((VERB, told_by.answer(scene)))
  roles = [r for r, noun in scene.fillers.items() if noun is not None]
  while len(pairs) < _ASKED:
    if not roles:
      pairs.append((_CAPTION, caption))
      continue
    role = roles[int(rng.integers(len(roles)))]
    pairs.append((ROLE.format(role=role), scene.fillers[role].gloss))
  return pairs
