"""The batch contract: all keys that modules exchange, in one place.

The pipeline, the teachers, the model, the losses, the metrics and the
drawings share only this. Shapes are written with these letters:

  B  batch               R  roles, padded to `MAX_ROLES`
  A  annotators (3)      V  verbs          C  noun classes
  N  student tokens (token 0 is the class token, then a square grid)
  M  teacher tokens (the same layout)
  K  rationales (4, in the order of `RATIONALES`)     L  text tokens
  S, T, X  widths of student, teacher and text features
  I  instances: roles or, where a dataset annotates pairs, pairs
  J  answers kept of each instance

and, where a dataset annotates pairs of a person and an object instead:

  P  pairs               H  interactions of a pair, padded
  (V are the interactions then)

Boxes are (centre x, centre y, width, height), divided by the side of the
square canvas on which `geometry.Letterbox` places an image; -1 marks an absent
box.
"""

import dataclasses
from collections.abc import Iterable, Mapping

import numpy as np

from input_pipeline.io.errors import InputError

MAX_ROLES = 6
ANNOTATORS = 3
RATIONALES = ("glimpse_pos", "glimpse_neg", "gaze_pos", "gaze_neg")
GROUPS = ("seen", "rare", "unseen")

# Annotations: known for every image of every split.
EXAMPLE_MASK = "example_mask"
INDEX = "index"
VERB = "verb"
GROUP = "group"
ROLES = "roles"
ROLE_MASK = "role_mask"
NOUNS = "nouns"
BOXES = "boxes"
BOX_MASK = "box_mask"
IMAGE_SIZE = "image_size"
PAIR_MASK = "pair_mask"
PAIR_BOXES = "pair_boxes"
PAIR_OBJECT = "pair_object"
PAIR_LABELS = "pair_labels"
PAIR_DETECTION = "pair_detection"
# Features: written by the frozen encoders, see `feature_cache`.
STUDENT_TOKENS = "student_tokens"
TEACHER_TOKENS = "teacher_tokens"
RATIONALE_TOKENS = "rationale_tokens"
RATIONALE_MASK = "rationale_mask"
VERB_LOGITS = "verb_logits"
CLIP_LOGITS = "clip_logits"
ANSWER_CLASSES = "answer_classes"
ANSWER_LOG_SHARES = "answer_log_shares"
ANSWER_LOG_REST = "answer_log_rest"
ANSWER_KEYS = (ANSWER_CLASSES, ANSWER_LOG_SHARES, ANSWER_LOG_REST)
INSTANCE_TEXT = "instance_text"
INSTANCE_TEXT_MASK = "instance_text_mask"


@dataclasses.dataclass(frozen=True)
class Key:
  """One entry of a batch: axes by letter, dtype, and what it means."""

  axes: str
  dtype: str
  meaning: str


ANNOTATIONS: Mapping[str, Key] = {
  EXAMPLE_MASK: Key("B", "bool", "False: filler that fills up a batch"),
  INDEX: Key("B", "int32", "position of the image in its split"),
  VERB: Key("B", "int32", "true verb, 0..V-1"),
  GROUP: Key("B", "int32", "group of the true verb, an index into GROUPS"),
  ROLES: Key("B R", "int32", "role ids in the frame's order, -1 = padding"),
  ROLE_MASK: Key("B R", "bool", "True where the frame has a role"),
  NOUNS: Key("B R A", "int32", "noun classes of the annotators; C-1 = padding"),
  BOXES: Key("B R 4", "float32", "cx cy w h over the canvas side; -1 absent"),
  BOX_MASK: Key("B R", "bool", "True where the role has a box"),
  IMAGE_SIZE: Key("B 2", "int32", "height, width of the original, pixels"),
}
# The annotations of a dataset of interactions (`input_pipeline.hico_det`).
PAIR_ANNOTATIONS: Mapping[str, Key] = {
  EXAMPLE_MASK: ANNOTATIONS[EXAMPLE_MASK],
  INDEX: ANNOTATIONS[INDEX],
  PAIR_MASK: Key("B P", "bool", "True where there is a pair"),
  PAIR_BOXES: Key(
    "B P 8", "float32", "cx cy w h of the person, then of the object; -1 absent"
  ),
  PAIR_OBJECT: Key("B P", "int32", "what the object is; 0 absent"),
  PAIR_LABELS: Key("B P H", "int32", "true interactions, -1 = padding"),
  PAIR_DETECTION: Key(
    "B P 2", "float32", "scores of the detected person and object; 0 absent"
  ),
  IMAGE_SIZE: ANNOTATIONS[IMAGE_SIZE],
}
FEATURES: Mapping[str, Key] = {
  STUDENT_TOKENS: Key("B N S", "bfloat16", "student encoder's image tokens"),
  TEACHER_TOKENS: Key("B M T", "bfloat16", "teacher's image tokens"),
  RATIONALE_TOKENS: Key("B K L X", "bfloat16", "text tokens of rationales"),
  RATIONALE_MASK: Key("B K L", "bool", "True where there is a text token"),
  VERB_LOGITS: Key("B V", "float32", "teacher's logits over the verbs"),
  CLIP_LOGITS: Key("B V", "float32", "student encoder's zero-shot logits"),
  # Only where the teacher was asked; log shares are -1e4 where nothing is.
  ANSWER_CLASSES: Key("B I J", "int32", "classes it answers, best first; -1"),
  ANSWER_LOG_SHARES: Key("B I J", "float32", "logarithms of their shares"),
  ANSWER_LOG_REST: Key("B I", "float32", "that of all other candidates"),
  # Of the positive and the negative gaze text, where they were split.
  INSTANCE_TEXT: Key("B I 2 X", "bfloat16", "embedding of an instance's text"),
  INSTANCE_TEXT_MASK: Key("B I 2", "bool", "True where there is such a text"),
}
CONTRACT: Mapping[str, Key] = {**ANNOTATIONS, **FEATURES}

# The keys that an evaluation step may read: no teacher, no rationales.
STUDENT_KEYS = (*ANNOTATIONS, STUDENT_TOKENS)
PAIR_STUDENT_KEYS = (*PAIR_ANNOTATIONS, STUDENT_TOKENS)
# Training features, without those about instances, which are made on demand.
_ON_DEMAND = (*ANSWER_KEYS, INSTANCE_TEXT, INSTANCE_TEXT_MASK)
_STANDARD = tuple(key for key in FEATURES if key not in _ON_DEMAND)
TRAIN_KEYS = (*ANNOTATIONS, *_STANDARD)
PAIR_TRAIN_KEYS = (*PAIR_ANNOTATIONS, *_STANDARD)
_ALL_KEYS: Mapping[str, Key] = {**CONTRACT, **PAIR_ANNOTATIONS}


def validate(
  batch: Mapping[str, np.ndarray], keys: Iterable[str] = STUDENT_KEYS
) -> dict[str, int]:
  """Checks a host batch against the contract.

  Args:
    batch: arrays by key; unknown and missing keys are errors.
    keys: the expected keys.

  Returns:
    The size of every axis letter.

  Raises:
    InputError: a key is missing or unknown, or its dtype, rank or axis size
      contradicts the contract or the rest of the batch.
  """
  keys = tuple(keys)
  missing, unknown = set(keys) - set(batch), set(batch) - set(keys)
  if missing or unknown:
    raise InputError(
      f"batch keys: missing {sorted(missing)}, unknown {sorted(unknown)}",
      "build batches with input_pipeline.stream, see input_pipeline/schema.py",
    )
  sizes = {"R": MAX_ROLES, "A": ANNOTATORS, "K": len(RATIONALES)}
  for name in keys:
    _check_array(name, batch[name], sizes)
  return sizes


def _check_array(name: str, value: np.ndarray, sizes: dict[str, int]) -> None:
  key = _ALL_KEYS[name]
  axes = key.axes.split()
  if str(value.dtype) != key.dtype or value.ndim != len(axes):
    raise InputError(
      f"batch[{name!r}] is {value.dtype}{list(value.shape)}; "
      f"the contract says {key.dtype}[{key.axes}]: {key.meaning}",
      "see input_pipeline/schema.py",
    )
  for axis, size in zip(axes, value.shape, strict=True):
    expected = int(axis) if axis.isdigit() else sizes.setdefault(axis, size)
    if size != expected:
      raise InputError(
        f"batch[{name!r}] has {size} on axis {axis}, expected {expected}",
        "see input_pipeline/schema.py",
      )
