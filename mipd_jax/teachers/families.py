"""The families of usable checkpoints, by the `model_type` of config.json.

A new family needs a file of its own and a line in `FAMILIES`; another
checkpoint of a known family needs neither.
"""

import dataclasses
import os
from collections.abc import Callable, Mapping
from typing import Any

from jax.sharding import Mesh

from input_pipeline.io.errors import InputError
from mipd_jax.teachers import clip, image_teachers, siglip
from mipd_jax.teachers.checkpoints import hf_config, hf_weights
from mipd_jax.teachers.image_teachers import ZeroShotTeacher
from mipd_jax.teachers.interfaces import Encoder, ImageTeacher


@dataclasses.dataclass(frozen=True)
class Family:
  """How the checkpoints of one `model_type` are loaded.

  Attributes:
    title: the family's name, for people.
    encoder: (folder or id, dtype) -> `Encoder`; None if it is not one.
    teacher: (folder or id, dtype, question=, verb_score=, mesh=, open_name=)
      -> `ImageTeacher`, see `load_teacher`; None if its encoder is the teacher,
      by its zero-shot logits.
  """

  title: str
  encoder: Callable[..., Encoder] | None = None
  teacher: Callable[..., ImageTeacher] | None = None


FAMILIES: Mapping[str, Family] = {
  "clip": Family("CLIP", encoder=clip.load),
  "siglip": Family("SigLIP", encoder=siglip.load),
  "blip-2": Family("BLIP-2", teacher=image_teachers.load_blip2),
}
# Kinds that are refused, and what to take in their place.
_INSTEAD: Mapping[str, str] = {
  "siglip2": "that is SigLIP 2 for images of any size (NaFlex); take one of a "
  "fixed resolution, such as google/siglip2-base-patch16-224",
}


def load_encoder(folder_or_id: str | os.PathLike, dtype: Any) -> Encoder:
  """Loads a dual encoder of the family that its config.json names.

  Args:
    folder_or_id: a folder, or an id in the local Hugging Face cache.
    dtype: of parameters and arithmetic.

  Raises:
    InputError: the checkpoint cannot be used; the message says why.
  """
  kind = _model_type(folder_or_id)
  family = FAMILIES.get(kind) if isinstance(kind, str) else None
  if family is None or family.encoder is None:
    titles = {k: f.title for k, f in FAMILIES.items() if f.encoder}
    raise InputError(
      f"{hf_weights.find(folder_or_id) / 'config.json'}: model_type is "
      f"{kind!r:.80}, not {' or '.join(map(repr, titles))}",
      _INSTEAD.get(str(kind))
      or f"give the folder of a {' or a '.join(titles.values())} checkpoint",
    )
  return family.encoder(folder_or_id, dtype)


def load_teacher(
  folder_or_id: str,
  dtype: Any,
  *,
  question: str,
  verb_score: str,
  mesh: Mesh | None = None,
  open_name: str = "",
) -> ImageTeacher:
  """Loads a teacher of the family that its config.json names.

  Args:
    folder_or_id: a folder, or an id in the local Hugging Face cache.
    dtype: of parameters and arithmetic.
    question: asked about each image; for a teacher that answers questions.
    verb_score: of `image_teachers.VERB_SCORES`; for the same.
    mesh: places the parameters of a large teacher as they are read: one device
      could not hold them twice.
    open_name: layers that stay open to prompts, of `open_layers.parse`; "" for
      none.

  Raises:
    InputError: the checkpoint cannot be used; the message says why.
  """
  kind = _model_type(folder_or_id)
  family = FAMILIES.get(kind) if isinstance(kind, str) else None
  if family is None:
    titles = [family.title for family in FAMILIES.values()]
    raise InputError(
      f"{folder_or_id}: a teacher of model_type {kind!r} is not supported",
      _INSTEAD.get(str(kind))
      or f"give a {' or a '.join(titles)} checkpoint; "
      "mipd_jax/teachers/families.py is where another one is added",
    )
  if family.teacher is None:
    if open_name:
      raise InputError(
        f"{folder_or_id}: a {family.title} teacher has no layers that stay "
        f"open, --config.teacher.open_layers={open_name} asks for some",
        "leave it empty, or give a BLIP-2",
      )
    return ZeroShotTeacher(load_encoder(folder_or_id, dtype))
  return family.teacher(
    folder_or_id,
    dtype,
    question=question,
    verb_score=verb_score,
    mesh=mesh,
    open_name=open_name,
  )


def _model_type(folder_or_id: str | os.PathLike) -> Any:
  return hf_config.read(hf_weights.find(folder_or_id)).get("model_type")
