"""Which layers of a BLIP-2 stay open to prompts, and their weights."""

import flax
import numpy as np

from input_pipeline.io.errors import InputError
from mipd_jax.models.teaching import open_layers
from mipd_jax.models.teaching.open_layers import OpenLayers, Params
from mipd_jax.teachers.blip2.model import Blip2


def opened(model: Blip2, which: str) -> OpenLayers:
  """What the named layers compute.

  Args:
    model: the teacher.
    which: a name of `open_layers.parse`.

  Raises:
    InputError: the tower has fewer layers, or a layer is of an unknown kind.
  """
  kind, layers = open_layers.parse(which)
  config = model.config.vision_config
  if kind == open_layers.QFORMER:
    config = model.config.qformer_config
    layers = config.num_hidden_layers
  elif layers > config.num_hidden_layers:
    raise InputError(
      f"{model.name}: the image tower has {config.num_hidden_layers} layers, "
      f"--config.teacher.open_layers={which} opens more",
      f"give {open_layers.TOWER}-1 to "
      f"{open_layers.TOWER}-{config.num_hidden_layers}",
    )
  if config.hidden_act not in open_layers.ACTIVATIONS:
    raise InputError(
      f"{model.name}: open layers have the activation {config.hidden_act!r}, "
      f"which is none of {', '.join(open_layers.ACTIVATIONS)}",
      "leave --config.teacher.open_layers empty",
    )
  return OpenLayers(
    kind=kind,
    layers=layers,
    heads=config.num_attention_heads,
    activation=config.hidden_act,
    epsilon=config.layer_norm_eps,
    cross_every=getattr(config, "cross_attention_frequency", 1),
  )


def their_part(params: Params, layers: OpenLayers) -> dict[str, Params]:
  """Of a BLIP-2's parameters those of the open layers, as they read them."""
  if layers.kind == open_layers.QFORMER:
    return {name: params[name] for name in ("query_tokens", "qformer")}
  tower = params["vision_model"]
  blocks = tower["encoder"]["layers"]
  first = len(blocks) - layers.layers
  chosen = {str(i): blocks[str(first + i)] for i in range(layers.layers)}
  return chosen | {"post_layernorm": tower["post_layernorm"]}


def weights(model: Blip2, layers: OpenLayers) -> dict[str, np.ndarray]:
  """Their weights for the cache's labels, float32, by flat names."""
  chosen = their_part(model.params, layers)
  flat = flax.traverse_util.flatten_dict(chosen, sep="/")
  return {
    f"{open_layers.WEIGHTS}/{name}": np.asarray(value, np.float32)
    for name, value in flat.items()
  }
