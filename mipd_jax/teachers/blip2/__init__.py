"""BLIP-2 in Flax: `load` a checkpoint, encode images, score and generate."""

from mipd_jax.teachers.blip2.decoders.candidates import (
  CandidateTree,
  normalise_scores,
)
from mipd_jax.teachers.blip2.model import Blip2
from mipd_jax.teachers.blip2.module import build, init
from mipd_jax.teachers.blip2.weights import load, write_checkpoint

__all__ = [
  "Blip2",
  "CandidateTree",
  "build",
  "init",
  "load",
  "normalise_scores",
  "write_checkpoint",
]
