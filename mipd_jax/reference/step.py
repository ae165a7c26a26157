"""One optimizer step of the reference, dropout off."""

from collections.abc import Mapping
from typing import Any

import jax
import optax
from jaxtyping import Array, Float

from mipd_jax.config import TrainConfig
from mipd_jax.reference.network import forward
from mipd_jax.reference.objective import LOSSES, criterion
from mipd_jax.training.state import make_optimizer

# Created after the optimizer in the reference (fault table, row 3), so it is
# never updated, not even by weight decay.
_NOT_OPTIMIZED = "instance_map"


def _optimizer() -> optax.GradientTransformation:
  """AdamW of `TrainConfig`'s defaults, the reference's; no schedule."""

  def optimized(params):
    def here(path, _):
      return path[-1].key != _NOT_OPTIMIZED

    return jax.tree_util.tree_map_with_path(here, params)

  return optax.masked(make_optimizer(TrainConfig(), steps=1), optimized)


def init_optimizer(params: Mapping[str, Any]) -> optax.OptState:
  """The state of `train_step`'s optimizer before the first step."""
  return _optimizer().init(params)


def train_step(
  params: Mapping[str, Any],
  opt_state: optax.OptState,
  batch: Mapping[str, Array],
  *,
  label_emb: Float[Array, "v d"],
  class_emb: Float[Array, "c d"],
) -> tuple[Any, optax.OptState, dict[str, Array], Float[Array, ""]]:
  """Gradient of the total loss, clipped to 0.1, then AdamW 1e-4 / 1e-4.

  Args:
    params: from `params_from_state_dict`.
    opt_state: from `init_optimizer`, or from the step before.
    batch: the inputs of `forward` and the targets of `criterion`.
    label_emb: text embedding of each verb.
    class_emb: text embedding of each noun class.

  Returns:
    New parameters, new optimizer state, losses by name (before the step) and
    the gradient's global norm before clipping. Pure; `jax.jit` takes it.
  """

  def loss_of(params):
    outputs = forward(
      params, batch, label_emb=label_emb, class_emb=class_emb, mode="train"
    )
    losses = criterion(outputs, batch)
    return losses["total"], {name: losses[name] for name in LOSSES}

  (_, losses), grads = jax.value_and_grad(loss_of, has_aux=True)(params)
  updates, opt_state = _optimizer().update(grads, opt_state, params)
  norm = optax.global_norm(grads)
  return optax.apply_updates(params, updates), opt_state, losses, norm
