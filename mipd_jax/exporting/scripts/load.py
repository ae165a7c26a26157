"""The exported student as a function of arrays; needs only jax and numpy."""

import hashlib
import json
import pathlib
import sys

import jax
import numpy as np
from jax import export

READER = "flatbuffers.zip"
FORMAT = 2  # of labels.json
HERE = pathlib.Path(__file__).resolve().parent
DTYPES = {"F32": "f4", "BF16": jax.numpy.bfloat16, "I8": "i1", "I32": "i4"}


def tensors(data):
  """Bytes of a safetensors file: name -> array."""
  data = memoryview(data)
  start = 8 + int.from_bytes(data[:8], "little")
  arrays = {}
  for name, x in json.loads(bytes(data[8:start])).items():
    if name != "__metadata__":
      part = data[slice(*(start + place for place in x["data_offsets"]))]
      dtype = np.dtype(DTYPES.get(x["dtype"], "?"))
      arrays[name] = np.frombuffer(part, dtype).reshape(x["shape"])
  return arrays


def read_labels(folder=HERE):
  """The content of labels.json; ValueError if it is damaged."""
  path = folder / "labels.json"
  try:
    labels = json.loads(path.read_text("utf-8"))
    if labels["format"] != FORMAT:
      raise ValueError(f"format {labels['format']} is not {FORMAT}")
    seal = labels.pop("sha256")
    text = json.dumps(labels, sort_keys=True).encode()
    if hashlib.sha256(text).hexdigest() != seal:
      raise ValueError("its digest is another one")
  except (ValueError, LookupError, TypeError, RecursionError) as error:
    raise ValueError(f"{path} is damaged ({error!r}): export again") from None
  return labels


def checked(folder, name, digest):
  """A file's bytes, if they have the digest that another file states."""
  data = (folder / name).read_bytes()
  if hashlib.sha256(data).hexdigest() != digest:
    raise ValueError(
      f"{folder / name} is not the file that the others were written with: "
      "damaged, or of another export; copy the folder again"
    )
  return data


def read_program(folder, form, labels):
  """Bytes of a program. "passed" goes with other words' labels.json too."""
  name = f"{form}.stablehlo"
  if form == "passed":
    path = folder / "passed.sha256"
    return checked(
      folder, name, path.read_text("ascii", "replace").split(" ")[0]
    )
  return checked(folder, name, labels["files"].get(name))


def load(folder=HERE, form="baked"):
  """(uint8 [b, s, s, 3], int32 [b, 2], int32 [b]) -> outputs of labels.json."""
  folder = pathlib.Path(folder)
  labels = read_labels(folder)
  files = ["weights", "words"] if form == "passed" else ["weights"]
  names = [f"{name}.safetensors" for name in files]
  digests = labels["files"]
  arrays = [tensors(checked(folder, x, digests.get(x))) for x in names]
  blob = read_program(folder, form, labels)
  # jax.export reads with it; an installed one comes first.
  checked(folder, READER, digests[READER])
  sys.path.append(str(folder / READER))
  try:
    program = jax.jit(export.deserialize(bytearray(blob)).call)
  except Exception as error:  # struct.error, IndexError, ...
    raise ValueError(
      f"{folder / form}.stablehlo cannot be read; is it newer than jax "
      f"{jax.__version__}? {error}"
    ) from None
  arrays = jax.device_put(arrays)
  return lambda *inputs: jax.device_get(program(*arrays, *inputs))
