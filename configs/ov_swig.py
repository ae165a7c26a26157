"""MIPD on Ov-SWiG at the paper's sizes.

  python -m mipd_jax.main --config=configs/ov_swig.py
  python -m mipd_jax.main --config=configs/ov_swig.py:jrg

It needs SWiG's images and annotations in `data/swig` (layout in
docs/formats.md) and the checkpoints named here, by their Hugging Face
ids once `hf download ID` has fetched them, or as folders. Whatever is missing
is named, with the way to get it, before anything runs. Rationales are taken
from the annotations where they have them (the authors' files do); with `jrg`
a language model writes the missing ones, else templates do.
"""

import dataclasses

import ml_collections

from configs import common
from mipd_jax.config import DatasetConfig, TeacherConfig


def get_config(variant: str = "") -> ml_collections.ConfigDict:
  """The paper's sizes: hidden 512, 10 epochs, batch 64, AdamW 1e-4."""
  config, words = common.base("ov_swig", variant)
  config.dataset = dataclasses.asdict(DatasetConfig(folder="data/swig"))
  config.teacher = dataclasses.asdict(
    TeacherConfig(
      student_encoder="openai/clip-vit-large-patch14-336",
      teacher_encoder="Salesforce/blip2-flan-t5-xl",
      text_encoder="openai/clip-vit-large-patch14",
      cache="data/cache-jrg" if "jrg" in words else "data/cache",
      language_model="google/flan-t5-xl" if "jrg" in words else "",
    )
  )
  if "debug" in words:
    config.train.update(
      steps=12, batch_size=16, log_every=4, eval_every=6, checkpoint_every=6
    )
  return config
