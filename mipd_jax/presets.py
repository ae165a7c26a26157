"""Presets: named values of the model's and the losses' choices.

`mipd` is ours and the default; `reference` leaves rows 1 to 8 of the fault
table (docs/method.md) as in the authors' code; `no_distillation` is `mipd`
with the teacher switched off, the baseline that shows what MIPD adds.
"""

import dataclasses

from mipd_jax.losses.config import LossConfig
from mipd_jax.models.config import ModelConfig
from mipd_jax.tasks.config import TERMS

# Every term, of any task, that needs a frozen model is off.
_NO_TEACHER = {
  term.name: 0.0 for terms in TERMS.values() for term in terms if term.distils
}
_REFERENCE_MODEL = {
  "verb_pooling": "cls",
  "verb_temperature": False,
  "role_queries": "embedding",
  "noun_head": "closed",
  "teacher_pooling": "cls",
  "gaze": False,
  "mask_padding": False,
}
_REFERENCE_LOSS = _NO_TEACHER | {
  "verb_smoothing": 0.3,
  "verb_prior": False,
  "verb_names": "all",
  "scene_distill": 2.0,
  "scene_distill_form": "l1",
  "detach_teacher": False,
  "scene_contrast": 5.0,
  "noun_sum": 0.0,
  "noun_closed": 1.0,
  "noun_text": 0.02,  # 2 x 0.01
  "noun_smoothing": 0.2,
  "gaze_contrast": 1.0,
}

PRESETS: dict[str, tuple[dict, dict]] = {
  "mipd": ({}, {}),
  "no_distillation": ({"teacher_branch": False}, _NO_TEACHER),
  "reference": (_REFERENCE_MODEL, _REFERENCE_LOSS),
}


def preset_defaults(name: str) -> tuple[ModelConfig, LossConfig]:
  """The model and loss choices of a preset."""
  if name not in PRESETS:
    raise ValueError(f"preset={name!r} is not one of {tuple(PRESETS)}")
  model, loss = PRESETS[name]
  return (
    dataclasses.replace(ModelConfig(), **model),
    dataclasses.replace(LossConfig(), **loss),
  )
