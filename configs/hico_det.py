"""MIPD on HICO-DET: unseen human-object interactions.

  python -m mipd_jax.main --config=configs/hico_det.py
  python -m mipd_jax.main --config=configs/hico_det.py:small_world
  python -m mipd_jax.main --config=configs/hico_det.py:debug

Variants, joined by commas: a preset (mipd, no_distillation), `small_world`
(drawn by the run, nothing is downloaded), `grounded` (the same with encoders
that have learnt what is in a box, asked about every pair), `debug` (tiny: every
stage takes less than a minute, figures are meaningless), `jrg` (at true sizes:
a language model writes and judges the rationales, in its own cache).

At true sizes it needs HICO-DET in `data/hico_det` (docs/hico_det.md) and the
checkpoints named here, by their Hugging Face ids after `hf download ID`, or as
folders. Before anything runs, a message names all that is missing and how to
get it. Boxes are the annotated ones (an oracle), unless
--config.interactions.test_detections=FILE gives a detector's.
"""

import dataclasses

import ml_collections

from configs import common
from input_pipeline.io.errors import InputError
from input_pipeline.small_world.interactions.config import PairWorldConfig
from mipd_jax.config import (
  DatasetConfig,
  InstancesConfig,
  InteractionsConfig,
  TeacherConfig,
)

_SMALL_WORLD, _GROUNDED = "small_world", "grounded"
_QUESTION = "Question: what is the person in this picture doing? Answer:"
_PAIR_QUESTION = "Question: what is the person doing with the {object}? Answer:"
# The small BLIP-2 is trained on this question.
_SMALL_QUESTION = TeacherConfig("", "", "").question


def get_config(variant: str = "") -> ml_collections.ConfigDict:
  """True sizes, or the small world's; the preset sets the method."""
  given = [word for word in variant.split(",") if word]
  rest = ",".join(word for word in given if word != _SMALL_WORLD)
  config, words = common.base("hico_det", rest, (_GROUNDED,))
  debug, jrg, grounded = (w in words for w in ("debug", "jrg", _GROUNDED))
  small = grounded or _SMALL_WORLD in given
  config.name = "-".join(["hico_det", *given])
  config.workdir = f"runs/{config.name}"
  config.task = "interactions"
  # An object has few untrained interactions, often one, so the KL takes them
  # together with the trained ones.
  config.loss.verb_kl_names = "all"
  if small or debug:
    if jrg:
      raise InputError(
        "configs/hico_det.py: the small world has no language model for jrg",
        "leave jrg out, or use the true sizes",
      )
    _small(config, debug, grounded)
    return config
  config.dataset = dataclasses.asdict(DatasetConfig(folder="data/hico_det"))
  config.interactions = dataclasses.asdict(InteractionsConfig())
  config.teacher = dataclasses.asdict(
    TeacherConfig(
      student_encoder="openai/clip-vit-large-patch14-336",
      teacher_encoder="Salesforce/blip2-flan-t5-xl",
      text_encoder="openai/clip-vit-large-patch14",
      cache="data/cache-hico-jrg" if jrg else "data/cache-hico",
      language_model="google/flan-t5-xl" if jrg else "",
      question=_QUESTION,
    )
  )
  config.train.update(epochs=30, schedule="cosine", warmup_steps=500)
  config.eval.batch_size = 64
  return config


def _small(
  config: ml_collections.ConfigDict, debug: bool, grounded: bool
) -> None:
  """Sets the sizes and rates of the small world."""
  data = "runs/data/hico_small_world"
  if grounded:
    data = "runs/data/hico_grounded_world"
  if debug:
    data = "runs/data/hico_debug"
  config.dataset = dataclasses.asdict(DatasetConfig(folder=f"{data}/world"))
  config.interactions = dataclasses.asdict(
    InteractionsConfig(
      world=PairWorldConfig.tiny() if debug else PairWorldConfig(),
      slots=8 if debug else 12,
      dev_share=0.15,
      max_people=6,
      max_objects=8,
      train_detections=f"{data}/world/detections/train.json",
      test_detections=f"{data}/world/detections/test.json",
    )
  )
  config.teacher = dataclasses.asdict(
    TeacherConfig(
      student_encoder=f"{data}/foundation/student_clip",
      teacher_encoder=f"{data}/foundation/teacher_blip2",
      foundation="debug" if debug else _GROUNDED if grounded else "standard",
      text_encoder=f"{data}/foundation/teacher_clip",
      cache=f"{data}/cache",
      text_length=56,
      instances=InstancesConfig(show="tokens" if debug or grounded else ""),
      question=_SMALL_QUESTION,
    )
  )
  common.set_small_student(config, steps=1000, eval_every=250, debug=debug)
