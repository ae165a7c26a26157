"""The exported student as a function of arrays; needs jax and numpy alone."""

import json
import pathlib
import sys

import jax
import numpy as np
from jax import export

HERE = pathlib.Path(__file__).resolve().parent
DTYPES = {"F32": "f4", "BF16": jax.numpy.bfloat16, "I8": "i1", "I32": "i4"}


def tensors(path):
  """A safetensors file: name -> array."""
  data = memoryview(path.read_bytes())
  start = 8 + int.from_bytes(data[:8], "little")
  found = {}
  for name, x in json.loads(bytes(data[8:start])).items():
    if name != "__metadata__":
      part = data[slice(*(start + place for place in x["data_offsets"]))]
      dtype = np.dtype(DTYPES.get(x["dtype"], "?"))
      found[name] = np.frombuffer(part, dtype).reshape(x["shape"])
  return found


def load(folder=HERE, form="baked"):
  """(uint8 [b, s, s, 3], int32 [b, 2], int32 [b]) -> outputs of labels.json."""
  # What jax.export reads with; one that is installed comes first.
  sys.path.append(str(folder / "flatbuffers.zip"))
  blob = (folder / f"{form}.stablehlo").read_bytes()
  try:
    program = jax.jit(export.deserialize(bytearray(blob)).call)
  except Exception as error:  # struct.error, IndexError, ...: what it meets
    raise ValueError(
      f"{folder / form}.stablehlo is damaged, or newer than this jax: {error}"
      "; copy the folder again"
    ) from None
  files = ["weights", "words"] if form == "passed" else ["weights"]
  arrays = [tensors(folder / f"{name}.safetensors") for name in files]
  arrays = jax.device_put(arrays)
  return lambda *inputs: jax.device_get(program(*arrays, *inputs))
