"""Tokens as int8 with one scale per token: a quarter of float32's bytes.

Symmetric: value = code * scale, scale = max |token| / 127. Each token has its
own scale, so the few large channels of vision transformers reduce the
precision of their own token only. `mipd_jax.teachers.encoding` encodes on the
devices; this module has the names and decodes.
"""

from collections.abc import Mapping

import ml_dtypes
import numpy as np

INT8 = "int8"
LEVELS = 127
_SCALE = "_scale"


def scale_name(key: str) -> str:
  """The field that holds the scales of an int8 field."""
  return key + _SCALE


def dequantise(values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Replaces every int8 field and its scales by bfloat16 tokens.

  Args:
    values: fields as stored: int8 [n, ..., D] with float32 scales [n, ...],
      and fields of other dtypes, which stay as they are.
  """
  decoded = {}
  for name, value in values.items():
    scale = values.get(scale_name(name))
    if scale is not None:
      tokens = value.astype(np.float32) * scale[..., None]
      decoded[name] = tokens.astype(ml_dtypes.bfloat16)
    elif not (name.endswith(_SCALE) and name[: -len(_SCALE)] in values):
      decoded[name] = value
  return decoded
