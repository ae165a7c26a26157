"""Tokens as int8 with one scale a token: a quarter of float32's bytes.

Symmetric: value = code * scale, scale = max |token| / 127. A token's largest
value is exact, so a few large channels, which vision transformers have, cost
only their own token's precision. Encoding is done on the devices, by
`mipd_jax.teachers.encoding`; here are the names and the way back.
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
  """Puts bfloat16 tokens for every int8 field and its scales.

  Args:
    values: fields as stored: int8 [n, ..., D] beside float32 [n, ...] scales,
      and fields of other dtypes, which stay.
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
