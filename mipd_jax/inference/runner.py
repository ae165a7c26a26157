"""Runs batches through the student's compiled programs, back into words."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from input_pipeline import geometry, schema
from mipd_jax.devices import sharding
from mipd_jax.inference import programs
from mipd_jax.inference.lexicon import Lexicon
from mipd_jax.inference.results import (
  Box,
  NounGuess,
  Prediction,
  RoleGuess,
  VerbGuess,
  sentence,
)
from mipd_jax.inference.workdir import Opened
from mipd_jax.metrics import swig_scores

BANKS = ("verb_text", "role_text", "noun_text")  # what the student reads


@dataclasses.dataclass(frozen=True, eq=False)
class Seen:
  """One decoded image.

  Attributes:
    name: of the image.
    place: its position on the canvas.
    pixels: uint8 [s, s, 3].
    notes: for people.
    verb: position of the given verb, None for the best one.
  """

  name: str
  place: geometry.Letterbox
  pixels: np.ndarray
  notes: tuple[str, ...]
  verb: int | None


@dataclasses.dataclass(frozen=True, eq=False)
class Lists:
  """A lexicon, and its arrays on the devices."""

  lexicon: Lexicon
  ranked: Mapping[str, jax.Array]  # banks that verbs are ranked with
  verb_mask: jax.Array
  banks: Mapping[str, jax.Array]  # banks that roles are filled with
  nouns: Mapping[str, jax.Array]


class Runner:
  """Runs batches of one size.

  A program is compiled at its first use, once per size of lists and `top_k`.
  """

  def __init__(self, opened: Opened, mesh: Mesh, batch_size: int):
    """`batch_size` is a multiple of the devices."""
    self.batch_size = batch_size
    self._model, self._params = opened.model, opened.params
    self._mesh, self._whole = mesh, sharding.replicated(mesh)
    eyes, encoder = opened.eyes, opened.encoder
    params = encoder.params if eyes.uses_encoder else {}
    self._encoder_params = jax.device_put(params, self._whole)
    self._see = jax.jit(programs.see(encoder, eyes, opened.token_dtype))
    self._made: dict[tuple, Callable] = {}

  def lists(self, lexicon: Lexicon) -> Lists:
    """Puts a lexicon's arrays on the devices."""
    banks = {name: lexicon.banks[name] for name in BANKS}
    ranked = {**banks, "verb_text": lexicon.verb_text}
    arrays = (ranked, lexicon.verb_mask, banks, dict(lexicon.nouns.arrays))
    return Lists(lexicon, *jax.device_put(arrays, self._whole))

  def run(
    self,
    seen: Sequence[Seen],
    lists: Lists,
    top_k: int,
    every_frame: bool = False,
  ) -> list[Prediction]:
    """Predicts for 1 to `batch_size` images.

    `every_frame` also fills the frames of all listed verbs.
    """
    pixels = _padded([item.pixels for item in seen], self.batch_size)
    tokens = self._see(self._encoder_params, self._put(pixels=pixels)["pixels"])
    verbs = self._verbs(tokens, lists, top_k)
    chosen = [
      int(verbs["verb"][row, 0]) if item.verb is None else item.verb
      for row, item in enumerate(seen)
    ]
    frames = self._frames(seen, chosen, lists.lexicon)
    roles = self._roles(tokens, frames, lists, top_k)
    predictions = [
      prediction(
        item,
        chosen[row],
        {key: value[row] for key, value in verbs.items()},
        {key: value[row] for key, value in roles.items()},
        lists.lexicon,
      )
      for row, item in enumerate(seen)
    ]
    if not every_frame:
      return predictions
    listed = verbs["verb"][: len(seen)]
    filled = self._listed(tokens, seen, listed, lists, top_k)
    return [
      dataclasses.replace(one, frames=frames)
      for one, frames in zip(predictions, filled, strict=True)
    ]

  def _listed(self, tokens, seen, verbs, lists: Lists, top_k: int):
    """The frames of each image's verbs [n, k], by the verb's name."""
    lexicon = lists.lexicon
    filled: list[dict[str, tuple[RoleGuess, ...]]] = [{} for _ in seen]
    for chosen in verbs.T:
      if (chosen >= len(lexicon.verbs)).any():  # filler comes last for all
        break
      frames = self._frames(seen, chosen, lexicon)
      roles = self._roles(tokens, frames, lists, top_k)
      for row, item in enumerate(seen):
        mine = {key: value[row] for key, value in roles.items()}
        name = lexicon.verbs[chosen[row]]
        filled[row][name] = _guesses(item, chosen[row], mine, lexicon)
    return filled

  def _verbs(self, tokens, lists: Lists, top_k: int) -> dict:
    k = min(top_k, len(lists.verb_mask))
    program = self._program(programs.rank_verbs, k)
    return jax.device_get(
      program(self._params, tokens, lists.ranked, lists.verb_mask)
    )

  def _roles(self, tokens, frames, lists: Lists, top_k: int) -> dict:
    k, rule = min(top_k, len(lists.nouns["mask"])), lists.lexicon.nouns.rule
    program = self._program(programs.fill_roles, rule, k)
    return jax.device_get(
      program(self._params, tokens, frames, lists.banks, lists.nouns)
    )

  def _program(self, make: Callable, *options: Any) -> Callable:
    key = (make, *options)
    if key not in self._made:
      self._made[key] = jax.jit(make(self._model, *options))
    return self._made[key]

  def _frames(self, seen, chosen, lexicon: Lexicon) -> dict[str, jax.Array]:
    """The verb and the roles asked for in each image."""
    size = self.batch_size
    batch = {
      schema.VERB: np.zeros(size, np.int32),
      schema.ROLES: np.full((size, schema.MAX_ROLES), -1, np.int32),
      schema.IMAGE_SIZE: np.ones((size, 2), np.int32),
    }
    for row, (item, verb) in enumerate(zip(seen, chosen, strict=True)):
      roles = lexicon.frames[verb].rows
      batch[schema.VERB][row] = lexicon.verb_rows[verb]
      batch[schema.ROLES][row, : len(roles)] = roles
      batch[schema.IMAGE_SIZE][row] = item.place.height, item.place.width
    batch[schema.ROLE_MASK] = batch[schema.ROLES] >= 0
    return self._put(**batch)

  def _put(self, **batch: np.ndarray) -> dict[str, jax.Array]:
    return sharding.put_batch(self._mesh, batch)


def prediction(
  item: Seen,
  verb: int,
  verbs: Mapping[str, np.ndarray],
  roles: Mapping[str, np.ndarray],
  lexicon: Lexicon,
) -> Prediction:
  """One image's rows of the programs' output, in words and pixels."""
  name, frame = lexicon.verbs[verb], lexicon.frames[verb]
  guesses = _guesses(item, verb, roles, lexicon)
  best = {guess.role.lower(): guess.nouns[0].noun for guess in guesses}
  return Prediction(
    name=item.name,
    width=item.place.width,
    height=item.place.height,
    verbs=tuple(
      VerbGuess(lexicon.verbs[index], float(share))
      for index, share in zip(verbs["verb"], verbs["probability"], strict=True)
      if index < len(lexicon.verbs)
    ),
    verb=name,
    roles=guesses,
    sentence=sentence(name, best, frame.abstract),
    notes=item.notes,
  )


def _guesses(
  item: Seen, verb: int, roles: Mapping[str, np.ndarray], lexicon: Lexicon
) -> tuple[RoleGuess, ...]:
  """What fills the frame of a verb, from one image's rows."""
  boxes = _boxes(item.place, roles["box"], roles["confidence"])
  return tuple(
    RoleGuess(
      role=role,
      nouns=_nouns(roles["noun"][i], roles["probability"][i], lexicon),
      box=boxes[i],
      confidence=float(1 / (1 + np.exp(-roles["confidence"][i]))),
    )
    for i, role in enumerate(lexicon.frames[verb].roles)
  )


def _nouns(indices, probabilities, lexicon: Lexicon) -> tuple[NounGuess, ...]:
  nouns = lexicon.nouns
  return tuple(
    NounGuess(nouns.names[index], float(share), nouns.classes[index])
    for index, share in zip(indices, probabilities, strict=True)
    if index < len(nouns.names)
  )


def _boxes(
  place: geometry.Letterbox, boxes: np.ndarray, confidence: np.ndarray
) -> list[Box | None]:
  """Boxes [R, 4] in original pixels, by the rule of the evaluation."""
  size = np.array([[place.height, place.width]])
  pixels = swig_scores.predicted_boxes(boxes[None], confidence[None], size)[0]
  return [
    None if np.isnan(box[0]) else tuple(map(float, box)) for box in pixels
  ]


def _padded(rows: Sequence[np.ndarray], size: int) -> np.ndarray:
  """Rows stacked and padded with zeros to `size`; filler is never read."""
  batch = np.zeros((size, *rows[0].shape), rows[0].dtype)
  batch[: len(rows)] = rows
  return batch
