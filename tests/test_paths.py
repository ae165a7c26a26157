"""Local paths and buckets by the same calls; files whole or not at all."""

import pathlib

import pytest

from input_pipeline import atomic, paths
from tests import fake_bucket


@pytest.fixture
def bucket(tmp_path, monkeypatch):
  fake_bucket.install(monkeypatch, tmp_path / "cloud")
  (tmp_path / "cloud/bucket").mkdir(parents=True)
  return tmp_path / "cloud/bucket"


def test_local_paths_are_pathlibs(tmp_path):
  assert paths.path(str(tmp_path)) == tmp_path
  assert isinstance(paths.path("a/b"), pathlib.Path)
  assert not paths.is_remote(tmp_path)


def test_buckets_are_read_and_written(bucket):
  folder = paths.path("gs://bucket/run")
  assert paths.is_remote(folder) and not folder.exists()
  with atomic.replacing(folder / "a" / "config.json") as path:
    assert path.suffix == ".json" and not paths.is_remote(path)
    path.write_text("{}")
  assert (bucket / "run/a/config.json").read_text() == "{}"
  assert (folder / "a/config.json").read_text() == "{}"
  assert [p.name for p in (folder / "a").iterdir()] == ["config.json"]


@pytest.mark.parametrize("where", ["gs://bucket/x.txt", "x.txt"])
def test_a_failed_write_leaves_what_was_there(bucket, where):
  path = paths.path(where if "://" in where else bucket / where)
  with atomic.replacing(path) as temporary:
    temporary.write_text("first")
  with pytest.raises(KeyError), atomic.replacing(path) as temporary:
    temporary.write_text("second")
    raise KeyError
  assert path.read_text() == "first"
  assert [p.name for p in bucket.iterdir()] == ["x.txt"]
