"""The authors' code (`caicch/Ov-GSR`, commit 4c6547d), number for number.

Thin adapters over the modules, losses and scores of training: they translate
the reference's names and layouts and compute nothing themselves.
`docs/parity.md` lists how close each quantity is.
"""

from mipd_jax.reference.network import OUTPUTS, forward, model_of
from mipd_jax.reference.objective import LOSSES, METRICS, criterion
from mipd_jax.reference.state_dict import (
  HEADS,
  UNUSED,
  params_from_state_dict,
  state_dict_from_params,
)
from mipd_jax.reference.step import init_optimizer, train_step

__all__ = [
  "HEADS",
  "LOSSES",
  "METRICS",
  "OUTPUTS",
  "UNUSED",
  "criterion",
  "forward",
  "init_optimizer",
  "model_of",
  "params_from_state_dict",
  "state_dict_from_params",
  "train_step",
]
