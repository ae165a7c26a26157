"""The optimizer: clipped AdamW."""

import optax

from mipd_jax.config import TrainConfig


def learning_rate(config: TrainConfig, steps: int) -> optax.Schedule:
  """Learning rate by step."""
  if config.schedule == "cosine":
    rest = optax.cosine_decay_schedule(
      config.learning_rate, max(1, steps - config.warmup_steps)
    )
  else:
    rest = optax.constant_schedule(config.learning_rate)
  if not config.warmup_steps:
    return rest
  warmup = optax.linear_schedule(0.0, config.learning_rate, config.warmup_steps)
  return optax.join_schedules([warmup, rest], [config.warmup_steps])


def make_optimizer(
  config: TrainConfig, steps: int
) -> optax.GradientTransformation:
  """Clips by global norm, then AdamW with decay on all parameters.

  As the reference: clip 0.1, AdamW 1e-4, weight decay 1e-4, no schedule.
  """
  return optax.chain(
    optax.clip_by_global_norm(config.clip_norm),
    optax.adamw(learning_rate(config, steps), weight_decay=config.weight_decay),
  )
