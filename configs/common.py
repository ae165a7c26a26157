"""Shared code of the config files. Import it; it has no `get_config`."""

import dataclasses
import difflib

import ml_collections

from input_pipeline.io.errors import InputError
from mipd_jax import presets
from mipd_jax.config import EvalConfig, MeshConfig, TrainConfig

VARIANTS = (*presets.PRESETS, "debug", "jrg")


def base(
  name: str, variant: str, own: tuple[str, ...] = ()
) -> tuple[ml_collections.ConfigDict, frozenset[str]]:
  """A config with preset, defaults and run name filled in.

  Args:
    name: name of the config file.
    variant: the words after the colon in --config=FILE:VARIANT, of VARIANTS,
      joined by commas: at most one preset, `debug`, and `jrg`.
    own: further words that this file knows.

  Returns:
    The config, and the words of the variant.
  """
  words = [word for word in variant.split(",") if word]
  known = (*VARIANTS, *own)
  unknown = [word for word in words if word not in known]
  if unknown:
    near = difflib.get_close_matches(unknown[0], known, 1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise InputError(
      f"configs/{name}.py has no variant {unknown[0]!r}",
      f"{hint}there are {known}, joined by commas",
    )
  chosen = [word for word in words if word in presets.PRESETS]
  if len(chosen) > 1:
    raise InputError(
      f"configs/{name}.py:{variant} names {len(chosen)} presets",
      f"name one of {tuple(presets.PRESETS)}",
    )
  preset = chosen[0] if chosen else "mipd"
  model, loss = presets.preset_defaults(preset)
  config = ml_collections.ConfigDict()
  config.name = "-".join([name, *words])
  config.preset = preset
  config.workdir = f"runs/{config.name}"
  config.seed = 0
  config.quick_compile = "debug" in words
  config.model = dataclasses.asdict(model)
  config.loss = dataclasses.asdict(loss)
  config.train = dataclasses.asdict(TrainConfig())
  config.eval = dataclasses.asdict(EvalConfig())
  config.mesh = dataclasses.asdict(MeshConfig())
  return config, frozenset(words)


def set_small_student(
  config: ml_collections.ConfigDict,
  *,
  steps: int,
  eval_every: int,
  debug: bool,
) -> None:
  """Sets sizes and schedule of a student on a small world.

  Args:
    config: changed in place.
    steps: training steps; 12 with `debug`.
    eval_every: steps between dev scores and checkpoints; 6 with `debug`.
    debug: whether the student trains in seconds.
  """
  # Preset `reference` needs hidden to be the text encoder's joint width.
  hidden = 32 if debug else 128
  config.model.update(hidden=hidden, heads=4, feed_forward=2 * hidden)
  # The paper's dropout and rates suit 75,702 images and width 512.
  config.model.dropout.student = 0.1
  config.train.update(
    steps=12 if debug else steps,
    batch_size=16 if debug else 64,
    learning_rate=1e-3,
    weight_decay=1e-2,
    clip_norm=1.0,
    schedule="cosine",
    warmup_steps=2 if debug else 50,
    log_every=4 if debug else 50,
    eval_every=6 if debug else eval_every,
    checkpoint_every=6 if debug else eval_every,
  )
  config.eval.sheet_examples = 9
  config.eval.batch_size = 16 if debug else 128
