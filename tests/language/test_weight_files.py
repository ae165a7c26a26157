"""Weight files that are damaged or hostile: one InputError, nothing else."""

import json
import struct

import flax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from input_pipeline.io.errors import InputError
from mipd_jax.teachers.checkpoints import hf_weights

SINGLE = "model.safetensors"
TENSORS = {
  "a.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
  "a.bias": np.ones(2, np.float16),
}
TEMPLATE = {
  "a": {"kernel": np.zeros((3, 2), np.float32), "bias": np.zeros(2, np.float32)}
}


def _file(folder, header, data=bytes(64), length=None):
  text = header if isinstance(header, bytes) else json.dumps(header).encode()
  head = struct.pack("<Q", len(text) if length is None else length)
  (folder / SINGLE).write_bytes(head + text + data)


def _tensor(start=0, end=8, shape=(2,), dtype="F32"):
  return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}


@pytest.mark.parametrize(
  ("header", "told"),
  [
    (b"", "safetensors|not JSON"),
    (b"[]", "expected an object"),
    (b'{"a": 1}', "a is 1, expected an object"),
    (b"\xff\xff", "safetensors"),
    (b'{"a": ' * 50_000, "nested too deeply"),
    (
      b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},'
      b'"a":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}}',
      "the key 'a' twice",
    ),
    ({"a": _tensor(end=2**40)}, "cannot be read as safetensors"),
    ({"a": _tensor(start=-8)}, "cannot be read as safetensors"),
    ({"a": _tensor(shape=(-2,))}, "cannot be read as safetensors"),
    ({"a": _tensor(shape=(2**62, 4))}, "cannot be read as safetensors"),
    ({"a": _tensor(dtype="F33")}, "cannot be read as safetensors"),
    ({"a": _tensor(dtype=["F32"])}, "cannot be read as safetensors"),
    ({"a": _tensor(), "b": _tensor()}, "cannot be read as safetensors"),
    ({"a": _tensor(), "b": _tensor(4, 12)}, "cannot be read as safetensors"),
    ({"a": _tensor(), "b": _tensor(16, 24)}, "cannot be read as safetensors"),
    ({"a": {"dtype": "F32"}}, "cannot be read as safetensors"),
  ],
)
def test_safetensors_headers(tmp_path, header, told):
  _file(tmp_path, header)
  with pytest.raises(InputError, match=told) as caught:
    hf_weights.read(tmp_path)
  assert SINGLE in str(caught.value)


@pytest.mark.parametrize("length", [0, 1, 2**31, 2**40, 2**63, 2**64 - 1])
def test_safetensors_lengths(tmp_path, length):
  _file(tmp_path, {"a": _tensor()}, length=length)
  with pytest.raises(InputError, match=r"safetensors|JSON"):
    hf_weights.read(tmp_path)


def _folder(tmp_path, *files, index=None):
  for name, tensors in files:
    save_file(tensors, tmp_path / name)
  if index is not None:
    path = tmp_path / f"{SINGLE}.index.json"
    path.write_text(index if isinstance(index, str) else json.dumps(index))
  return tmp_path


@pytest.mark.parametrize(
  ("index", "told"),
  [
    ({"weight_map": {"a": "../x.safetensors"}}, "not beside it"),
    ({"weight_map": {"a": "/etc/passwd"}}, "not beside it"),
    ({"weight_map": {"a": "sub/x.safetensors"}}, "not beside it"),
    ({"weight_map": {"a": ".."}}, "not beside it"),
    ({"weight_map": {"a": ""}}, "not beside it"),
    ({"weight_map": {"a": "absent.safetensors"}}, "not there"),
    ({"weight_map": {"a": 3}}, "weight_map.a is 3"),
    ({"weight_map": ["x"]}, "weight_map is"),
    ({"weight_map": {}}, "names no files"),
    ({}, "weight_map is missing"),
    ([], "expected an object"),
    ("{", "not JSON"),
    (
      {"weight_map": {"a": "x.safetensors", "b": "y.safetensors"}},
      "in another file of the index, too: a.bias, a.weight",
    ),
  ],
)
def test_indices(tmp_path, index, told):
  files = [("x.safetensors", TENSORS), ("y.safetensors", TENSORS)]
  folder = _folder(tmp_path, *files, index=index)
  with pytest.raises(InputError, match=told) as caught:
    hf_weights.read(folder)
  assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
  "content",
  [
    b"",
    b"\xc1",
    flax.serialization.msgpack_serialize([np.ones(2)]),
    flax.serialization.msgpack_serialize({"a": 3}),
    flax.serialization.msgpack_serialize({"a": {"b": "text"}}),
    flax.serialization.msgpack_serialize(
      {"a": {"kernel": np.ones(2), "weight": np.zeros(2)}}
    ),
  ],
)
def test_flax_files(tmp_path, content):
  (tmp_path / "flax_model.msgpack").write_bytes(content)
  with pytest.raises(InputError, match="cannot be read as flax weights"):
    hf_weights.read(tmp_path)


@pytest.mark.parametrize(
  ("name", "value", "told"),
  [
    ("a.weight", np.full((2, 3), np.nan, np.float32), "infinite: a.weight"),
    ("a.bias", np.array([0, np.inf], np.float16), "infinite: a.bias"),
    (
      "a.bias",
      np.array([0, -np.inf], np.float32).astype(ml_dtypes.bfloat16),
      "infinite: a.bias",
    ),
    ("a.bias", np.array([1e300, 0]), "too large for float32: a.bias"),
    ("a.bias", np.ones(2, np.int8), "of another type: a.bias int8"),
    ("a.bias", np.ones(2, np.int64), "of another type: a.bias int64"),
    ("a.bias", np.ones(2, bool), "of another type: a.bias bool"),
    ("a.bias", np.ones(1, np.float32), r"a.bias \(1,\), wanted \(2,\)"),
    ("a.bias", np.ones((1, 2), np.float32), r"\(1, 2\), wanted \(2,\)"),
    ("a.weight", np.ones((3, 2), np.float32), r"\(2, 3\), wanted \(3, 2\)"),
    ("a.scale", np.ones(2, np.float32), "1 unexpected: a.scale"),
  ],
)
def test_tensors_that_are_no_weights(name, value, told):
  with pytest.raises(InputError, match=told):
    hf_weights.to_flax({**TENSORS, name: value}, TEMPLATE, source="memory")


@pytest.mark.parametrize(
  "dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64]
)
def test_finite_is_numpys(dtype):
  rng = np.random.default_rng(0)
  bits = rng.integers(0, 256, (40, 8, 8), np.uint8)
  for one in bits.view(dtype):
    for array in (one, one.T, one[::2]):
      expected = np.isfinite(array.astype(np.float64)).all()
      assert hf_weights.all_finite(array) == expected
  assert hf_weights.all_finite(np.array([np.finfo(np.float32).max, -0.0]))
  assert hf_weights.all_finite(np.empty(0, dtype))
  assert not hf_weights.all_finite(np.array(np.nan, dtype))


def test_damage_is_told_or_leaves_the_tensors_legible(tmp_path):
  """Any change of a byte: an InputError, or tensors of floats."""
  save_file(TENSORS, tmp_path / SINGLE)
  whole = (tmp_path / SINGLE).read_bytes()
  rng = np.random.default_rng(0)
  told = 0
  for _ in range(300):
    data = bytearray(whole)
    for place in rng.integers(0, len(data), rng.integers(1, 4)):
      data[place] ^= 1 << rng.integers(8)
    if rng.random() < 0.1:
      del data[rng.integers(len(data)) :]
    (tmp_path / SINGLE).write_bytes(data)
    try:
      tensors, _ = hf_weights.read(tmp_path)
      hf_weights.to_flax(tensors, TEMPLATE, source="memory")
    except InputError:
      told += 1
  assert told > 100
