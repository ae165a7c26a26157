"""What the config files share. Import it; it has no `get_config`."""

import dataclasses
import difflib

import ml_collections

from input_pipeline.errors import InputError
from mipd_jax import presets
from mipd_jax.config import EvalConfig, MeshConfig, TrainConfig

VARIANTS = (*presets.PRESETS, "debug", "jrg")


def base(
  name: str, variant: str
) -> tuple[ml_collections.ConfigDict, frozenset[str]]:
  """A config with preset, defaults and run name filled in.

  Args:
    name: of the config file.
    variant: what follows the colon in --config=FILE:VARIANT; any of
      VARIANTS, joined by commas: at most one preset, `debug`, and `jrg`.

  Returns:
    The config, and the words of the variant.
  """
  words = [word for word in variant.split(",") if word]
  unknown = [word for word in words if word not in VARIANTS]
  if unknown:
    near = difflib.get_close_matches(unknown[0], VARIANTS, 1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise InputError(
      f"configs/{name}.py has no variant {unknown[0]!r}",
      f"{hint}there are {VARIANTS}, joined by commas",
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
