"""PyTorch's own weight files, read without PyTorch."""

import pathlib
import pickle
import zipfile

import ml_dtypes
import numpy as np
import pytest

from input_pipeline.io.errors import InputError
from mipd_jax.teachers.checkpoints import hf_weights
from mipd_jax.teachers.checkpoints.torch_files import TorchFile

GOLDENS = pathlib.Path(__file__).parents[1] / "goldens" / "torch_files"
NAME = "pytorch_model.bin"


def test_tensors_are_those_that_torch_saved():
  expected = np.load(GOLDENS / "expected.npz")
  with TorchFile(GOLDENS / NAME) as file:
    assert list(file.keys()) == list(expected)
    for name, wanted in expected.items():
      got = file.get_tensor(name)
      assert tuple(file.get_slice(name).get_shape()) == wanted.shape
      assert got.flags.c_contiguous
      np.testing.assert_array_equal(got.astype(wanted.dtype), wanted)
    kinds = [file.get_slice(name).get_dtype() for name in expected]
    assert kinds[4:7] == ["F16", "BF16", "I64"]
    assert file.get_tensor("bfloat").dtype == ml_dtypes.bfloat16


def test_a_folder_with_nothing_else_is_read():
  tensors, files = hf_weights.read(GOLDENS)
  assert [path.name for path in files] == [NAME]
  assert set(tensors) == set(np.load(GOLDENS / "expected.npz"))


def test_safetensors_are_preferred(tmp_path):
  (tmp_path / NAME).write_bytes((GOLDENS / NAME).read_bytes())
  (tmp_path / "pytorch_model.bin.index.json").write_text("{")
  hf_weights.write(tmp_path / "model.safetensors", {"a": {"bias": np.ones(2)}})
  assert list(hf_weights.read(tmp_path)[0]) == ["a.bias"]


def test_more_than_tensors_is_refused():
  with pytest.raises(InputError, match=r"more\.bin: holds a torch\.device"):
    TorchFile(GOLDENS / "more.bin")


class _Attack:
  def __reduce__(self):
    return pathlib.Path.touch, (pathlib.Path("attacked"),)


def _rewritten(tmp_path, change):
  """The golden with the content of its archive's members changed."""
  path = tmp_path / NAME
  with (
    zipfile.ZipFile(GOLDENS / NAME) as old,
    zipfile.ZipFile(path, "w") as new,
  ):
    for name in old.namelist():
      content = change(name, old.read(name))
      if content is not None:
        new.writestr(name, content)
  return path


def test_code_in_a_file_is_not_run(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  attack = pickle.dumps({"weight": _Attack()})
  path = _rewritten(
    tmp_path,
    lambda name, data: attack if name.endswith("data.pkl") else data,
  )
  with pytest.raises(InputError, match="not only tensors"):
    TorchFile(path)
  assert not (tmp_path / "attacked").exists()


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (lambda n, d: d[:-4] if "/data/" in n else d, "larger than its bytes"),
    (lambda n, d: None if "/data/" in n else d, "cannot be read"),
    (lambda n, d: d[:50] if n.endswith("pkl") else d, "truncated"),
    (
      lambda n, d: pickle.dumps([1]) if n.endswith("pkl") else d,
      "not a dict",
    ),
    (
      lambda n, d: pickle.dumps({"a": 1}) if n.endswith("pkl") else d,
      "not tensors",
    ),
    (lambda n, d: None if n.endswith("pkl") else d, "not a weight file"),
  ],
)
def test_broken_files(tmp_path, change, message):
  path = _rewritten(tmp_path, change)
  with pytest.raises(InputError, match=message) as caught, TorchFile(path) as f:
    names = f.keys()
    for name in names:
      f.get_tensor(name)
  assert str(path) in str(caught.value)


def test_a_cut_off_file(tmp_path):
  path = tmp_path / NAME
  path.write_bytes((GOLDENS / NAME).read_bytes()[:-200])
  with pytest.raises(InputError, match="cut off"):
    TorchFile(path)


def _op(value) -> bytes:
  """A value's own instructions, as pickle writes them."""
  return pickle.dumps(value, 2)[2:-1]


def _name(module: str, name: str) -> bytes:
  return b"c" + f"{module}\n{name}\n".encode()


def _id(kind="FloatStorage", key="0", count=2, what="storage", more=b""):
  parts = _op(what) + _name("torch", kind) + _op(key) + _op("cpu")
  return b"(" + parts + _op(count) + more + b"tQ"


def _tensor(offset=0, shape=(2,), strides=(1,), storage=None) -> bytes:
  arguments = b"(" + (storage or _id()) + _op(offset) + _op(shape)
  arguments += _op(strides) + _op(False) + b"}t"
  return _name("torch._utils", "_rebuild_tensor_v2") + arguments + b"R"


def _pickle(value: bytes) -> bytes:
  return b"\x80\x02}" + _op("w") + value + b"s."


def _archive(path, pickled: bytes, **members: bytes) -> pathlib.Path:
  with zipfile.ZipFile(path, "w") as archive:
    archive.writestr("archive/data.pkl", pickled)
    for name, data in {"data/0": bytes(8), **members}.items():
      archive.writestr(f"archive/{name}", data)
  return path


def test_a_pickle_of_our_own_is_read(tmp_path):
  data = np.arange(6, dtype=np.float32).tobytes()
  pickled = _pickle(_tensor(1, (2, 2), (1, 2), _id(count=6)))
  with TorchFile(_archive(tmp_path / NAME, pickled, **{"data/0": data})) as f:
    np.testing.assert_array_equal(f.get_tensor("w"), [[1, 3], [2, 4]])


_NESTED = b"".join([b"N", *[b"\x85"] * 100_000])
_DOUBLED = b")q\x00" + b"h\x00h\x00\x86q\x00" * 60


@pytest.mark.parametrize(
  ("arguments", "wanted"),
  [
    ((0, (3, 4), (1, 3)), np.arange(12).reshape(4, 3).T),
    ((1, (5,), (2,)), np.arange(1, 11, 2)),
    ((11, (), ()), 11),
    ((2, (2, 3), (4, 1)), [[2, 3, 4], [6, 7, 8]]),
    ((0, (1, 12), (0, 1)), [np.arange(12)]),  # expanded, as position_ids are
    ((0, (4, 3), (0, 1)), [[0, 1, 2]] * 4),
    ((0, (1, 3), (2**62, 1)), [[0, 1, 2]]),
    ((12, (0, 4), (4, 1)), np.zeros((0, 4))),
  ],
)
@pytest.mark.parametrize(
  "kind", ["FloatStorage", "ShortStorage", "CharStorage"]
)
def test_views_of_a_storage(tmp_path, arguments, wanted, kind):
  dtype = {"F": np.float32, "S": np.int16, "C": np.int8}[kind[0]]
  pickled = _pickle(_tensor(*arguments, _id(kind=kind, count=12)))
  data = np.arange(12, dtype=dtype).tobytes()
  with TorchFile(_archive(tmp_path / NAME, pickled, **{"data/0": data})) as f:
    got = f.get_tensor("w")
  assert got.dtype == dtype
  np.testing.assert_array_equal(got, wanted, strict=False)
  assert got.shape == np.shape(wanted)


@pytest.mark.parametrize(
  ("pickled", "told"),
  [
    (_pickle(_tensor(offset=-2000, shape=(2000,))), "not whole numbers"),
    (_pickle(_tensor(offset=-(10**10), strides=(10**10,))), "whole numbers"),
    (_pickle(_tensor(offset=2**70)), "not whole numbers"),
    (_pickle(_tensor(offset=1)), "larger than its bytes"),
    (_pickle(_tensor(offset=True)), "not whole numbers"),
    (_pickle(_tensor(shape=(3,))), "larger than its bytes"),
    (_pickle(_tensor(shape=(-1,))), "not whole numbers"),
    (_pickle(_tensor(shape=(2.0,))), "not whole numbers"),
    (_pickle(_tensor(shape=[2])), "not whole numbers"),
    (_pickle(_tensor(shape=(2,), strides=(-1,))), "not whole numbers"),
    (_pickle(_tensor(shape=(2,), strides=())), "1 axes and 0 strides"),
    (_pickle(_tensor(shape=(1,) * 70, strides=(1,) * 70)), "70 axes"),
    (_pickle(_tensor(shape=(2**40,), strides=(0,))), "it repeats 2 numbers"),
    (_pickle(_tensor(shape=(2**40, 0, 2), strides=(1, 1, 1))), None),
    (_pickle(_tensor(shape=(0, 2**40), strides=(2**62, 1))), None),
    (_pickle(_tensor(shape=(0, 2**62), strides=(1, 1))), "has the shape"),
    (_pickle(_tensor(shape=(2**31, 0, 2**31), strides=(1,) * 3)), "the shape"),
    (_pickle(_tensor(storage=_id(count=3))), "larger than its bytes"),
    (_pickle(_tensor(storage=_id(count=-1))), "a storage has -1 elements"),
    (_pickle(_tensor(storage=_id(count="2"))), "a storage has 2 elements"),
    (_pickle(_tensor(storage=_id(key=0))), "a storage's key is 0"),
    (_pickle(_tensor(storage=_id(key="../0"))), r"key is \.\./0"),
    (_pickle(_tensor(storage=_id(key="9"))), "no member archive/data/9"),
    (_pickle(_tensor(storage=_id(kind="QInt8Storage"))), "QInt8Storage"),
    (_pickle(_tensor(storage=_id(what="module"))), "else than a storage"),
    (_pickle(_tensor(storage=_op("storage") + b"Q")), "else than a storage"),
    (_pickle(_tensor(storage=_op(0))), "not whole numbers"),
    (_pickle(_tensor() + _tensor() + b"b"), "objects with a state"),
    (_pickle(_name("os", "system") + b"(" + _op("x") + b"tR"), "os.system"),
    (_pickle(_op("x") + b")R"), "no function"),
    (_pickle(_name("torch._utils", "_rebuild_parameter") + b")R"), "arguments"),
    (_pickle(_name("torch._utils", "_rebuild_tensor_v2") + b"NR"), "no tuple"),
    (_pickle(b"cos\nsystem\n)\x81"), "NEWOBJ"),
    (_pickle(b"(cos\nsystem\no"), "OBJ"),
    (_pickle(b"(ios\nsystem\n"), "INST"),
    (_pickle(b"\x82\x01"), "EXT1"),
    (_pickle(b"P1\n"), "PERSID"),
    (_pickle(b"I7\n"), "holds a pickle's INT"),
    (_pickle(b"\x8b\xff\xff\xff\x7f"), "LONG4|truncated"),
    (_pickle(b"Nr\xff\xff\xff\xff"), "not tensors: w"),
    (_pickle(b"j\xff\xff\xff\xff"), "not a weight file"),
    (_pickle(_NESTED), "not tensors: w"),
    (_pickle(_tensor(storage=_DOUBLED + b"Q")), "else than a storage"),
    (_pickle(_tensor(shape=(2,), strides=(1,), storage=_DOUBLED)), "numbers"),
    (b"\x80\x02}" + _op("w") + _tensor() + b"s" + _op("w") + b"Ns.", "two ten"),
    (b"\x80\x02}" + _op(3) + _tensor() + b"s.", "by name"),
    (b"\x80\x02.", "not a weight file"),
    (b"\x80\x02R.", "not a weight file"),
    (b"\x80\x02}(.", "not a dict"),
    (b"\x80\x02}" + b"q\x00h\x00" + b"s.", "not a weight file"),
    (b"\x80\x02" + b"}" * (1 << 22) + b".", "more than"),
  ],
)
def test_hostile_pickles(tmp_path, pickled, told):
  path = _archive(tmp_path / NAME, pickled)
  if told is None:
    with TorchFile(path) as file:
      assert file.get_tensor("w").size == 0
    return
  with pytest.raises(InputError, match=told) as caught:
    TorchFile(path)
  assert str(path) in str(caught.value)


def _compressed(path):
  with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
    archive.writestr("archive/data.pkl", _pickle(_tensor()))
    archive.writestr("archive/data/0", bytes(1 << 20))


def _twice(path):
  with zipfile.ZipFile(path, "w") as archive:
    archive.writestr("archive/data.pkl", _pickle(_tensor()))
    for _ in range(2):
      archive.writestr("archive/data/0", bytes(8))


def _sized(path, size: int):
  """The storage's member says another size in the directory."""
  data = _archive(path, _pickle(_tensor())).read_bytes()
  at = data.index(b"PK\x01\x02", data.index(b"PK\x01\x02") + 1)
  sizes = size.to_bytes(4, "little") * 2
  path.write_bytes(data[: at + 20] + sizes + data[at + 28 :])


@pytest.mark.parametrize(
  ("make", "told"),
  [
    (_compressed, "compressed"),
    pytest.param(
      _twice,
      "two members",
      marks=pytest.mark.filterwarnings("ignore:Duplicate name"),
    ),
    (lambda p: _sized(p, 2**31), "overlaps|cut off"),
    (lambda p: _sized(p, 200), "overlaps"),
    (lambda p: _archive(p, _pickle(_tensor()), **{"../x": b""}), "is named"),
    (lambda p: _archive(p, _pickle(_tensor()), byteorder=b"big"), "little-end"),
    (lambda p: _archive(p, _pickle(_tensor()), **{"b/data.pkl": b""}), "2 mem"),
    (lambda p: p.write_bytes(b""), "cut off"),
    (lambda p: p.write_bytes(b"PK\x05\x06" + bytes(18)), "0 members"),
    (lambda p: p.mkdir(), "not a weight file"),
  ],
)
def test_hostile_archives(tmp_path, make, told):
  path = tmp_path / NAME
  make(path)
  with pytest.raises(InputError, match=told):
    TorchFile(path)


def test_damage_is_told_or_changes_nothing(tmp_path):
  """zip's checksums see a changed byte of a tensor or of the pickle."""
  path = tmp_path / NAME
  whole = (GOLDENS / NAME).read_bytes()
  expected = np.load(GOLDENS / "expected.npz")
  rng = np.random.default_rng(0)
  told = 0
  for _ in range(300):
    data = bytearray(whole)
    for place in rng.integers(0, len(data), rng.integers(1, 4)):
      data[place] ^= 1 << rng.integers(8)
    path.write_bytes(data)
    try:
      with TorchFile(path) as file:
        for name in file.keys():  # noqa: SIM118 - it is no dict
          got = file.get_tensor(name).astype(expected[name].dtype)
          np.testing.assert_array_equal(got, expected[name])
    except InputError:
      told += 1
  assert told > 100
