"""MIPD on Ov-SWiG at the paper's sizes.

  python -m mipd_jax.main --config=configs/ov_swig.py

Needs, below `data/`: SWiG's images and annotations in `data/swig` (layout in
docs/architecture.md), CLIP checkpoints in Hugging Face format. Whatever is
missing is named, with the way to get it, before anything runs.
"""

import dataclasses

import ml_collections

from configs import common
from mipd_jax.config import DatasetConfig, TeacherConfig


def get_config(variant: str = "") -> ml_collections.ConfigDict:
  """The paper's sizes: hidden 512, 10 epochs, batch 64, AdamW 1e-4."""
  config, debug = common.base("ov_swig", variant)
  config.dataset = dataclasses.asdict(DatasetConfig(folder="data/swig"))
  config.teacher = dataclasses.asdict(
    TeacherConfig(
      student_encoder="data/clip-vit-large-patch14-336",
      teacher_encoder="data/clip-vit-large-patch14",
      cache="data/cache",
    )
  )
  if debug:
    config.train.update(
      steps=12, batch_size=16, log_every=4, eval_every=6, checkpoint_every=6
    )
  return config
