"""Parameters as named arrays of a chosen dtype, and back inside a program.

"int8" keeps codes of matrices and larger arrays, with one float32 scale per
index of the last axis (the output channel of a kernel), named `<array>.scale`;
vectors stay as they are. It saves storage; the arithmetic stays in the
parameters' own dtype.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jaxtyping import Array

DTYPES = ("float32", "bfloat16", "int8")
_SCALE = ".scale"
_LEVELS = 127
Params = Any
Arrays = dict[str, np.ndarray]


def flat(params: Params) -> Arrays:
  """A tree of arrays by dotted names, on the host."""
  return {
    name: np.asarray(jax.device_get(x)) for name, x in names(params).items()
  }


def names(params: Params) -> dict[str, Any]:
  """The leaves of a tree by dotted names."""
  return traverse_util.flatten_dict(params, sep=".")


def stored(arrays: Mapping[str, np.ndarray], dtype: str) -> Arrays:
  """Arrays as they are kept.

  Args:
    arrays: of `flat`; floats.
    dtype: of DTYPES. A dtype wider than an array's own leaves it as it is.
  """
  kept: Arrays = {}
  for name, array in arrays.items():
    if dtype == "int8" and array.ndim > 1:
      kept[name], kept[name + _SCALE] = _codes(array)
    elif dtype == "bfloat16":
      kept[name] = array.astype(jnp.bfloat16)
    else:
      kept[name] = array
  return {name: np.asarray(x, order="C") for name, x in kept.items()}


def restored(
  arrays: Mapping[str, Array], dtypes: Mapping[str, np.dtype]
) -> Params:
  """The tree of parameters again; to be traced.

  Args:
    arrays: of `stored`.
    dtypes: the dtype of each parameter before.
  """
  params = {}
  for name, dtype in dtypes.items():
    array = arrays[name]
    if name + _SCALE in arrays:
      array = array.astype(jnp.float32) * arrays[name + _SCALE]
    params[name] = array.astype(dtype)
  return traverse_util.unflatten_dict(params, sep=".")


def _codes(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """int8 of the array's shape, float32 [last axis]; zeros stay zeros."""
  values = np.asarray(array, np.float32)
  largest = np.abs(values).max(axis=tuple(range(values.ndim - 1)))
  scale = np.maximum(largest / _LEVELS, np.finfo(np.float32).tiny)
  return np.rint(values / scale).astype(np.int8), scale.astype(np.float32)
