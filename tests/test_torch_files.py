"""PyTorch's own weight files, read without PyTorch."""

import pathlib
import pickle
import zipfile

import ml_dtypes
import numpy as np
import pytest

from input_pipeline.errors import InputError
from mipd_jax.teachers import hf_weights
from mipd_jax.teachers.torch_files import TorchFile

GOLDENS = pathlib.Path(__file__).parent / "goldens" / "torch_files"
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
