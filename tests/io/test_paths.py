"""Local paths and buckets by the same calls; files whole or not at all."""

import pathlib
import signal
import subprocess
import sys

import pytest

from input_pipeline.io import atomic, paths
from input_pipeline.io.errors import InputError
from tests.fakes import fake_bucket


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


@pytest.mark.parametrize(
  ("name", "said"),
  [
    ("file", "is a file"),
    ("file/below/it", "is a file"),
    ("dangling", "is a link to nothing"),
    ("dangling/below", "is a link to nothing"),
    ("loop", "link"),
    ("x" * 300, "too long"),
    ("new/" + "y" * 300, "too long"),
    ("/proc/mipd", "/proc"),
    ("/proc", "/proc"),
    ("s3://bucket/x", "copy it to this machine"),
    ("https://example.org/x", "copy it to this machine"),
  ],
)
def test_folders_that_cannot_be_written_are_told(tmp_path, name, said):
  (tmp_path / "file").write_text("x")
  (tmp_path / "dangling").symlink_to(tmp_path / "absent")
  (tmp_path / "loop").symlink_to(tmp_path / "loop")
  where = name if "://" in name else tmp_path / name
  with pytest.raises(InputError, match=said) as error:
    atomic.check_folder(where, "--out")
  assert "://" in name or str(error.value).startswith(f"--out={where}")
  assert {p.name for p in tmp_path.iterdir()} == {"file", "dangling", "loop"}


def test_folders_that_can_be_written(tmp_path, monkeypatch):
  (tmp_path / "there").mkdir()
  (tmp_path / "link").symlink_to(tmp_path / "there")
  monkeypatch.chdir(tmp_path)
  for where in ("there", "link", "new", "a/b/c", ".", "link/new", "gs://b/x"):
    atomic.check_folder(where, "--out")
  assert {p.name for p in tmp_path.iterdir()} == {"there", "link"}
  assert not list((tmp_path / "there").iterdir())


def test_what_killed_processes_left_is_removed(tmp_path):
  """A file and a folder half made; not those of a process that lives."""
  code = f"""
import os, pathlib, signal
from input_pipeline.io import atomic
place = pathlib.Path({str(tmp_path)!r})
with atomic.replacing(place / "sheet.png") as path:
  path.write_text("half")
  with atomic.new_folder(place / "world") as folder:
    (folder / "image.jpg").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
  done = subprocess.run([sys.executable, "-c", code], check=False)
  assert done.returncode == -signal.SIGKILL
  assert len(list(tmp_path.iterdir())) == 2
  others = [".sheet.0000abcd-1.tmp.png", ".hidden", "sheet.tmp"]
  for name in others:
    (tmp_path / name).write_text("somebody's")
  with atomic.replacing(tmp_path / "results.json") as path:
    mine = path.name
    path.write_text("{}")
    found = {p.name for p in tmp_path.iterdir()}
    assert found == {*others, mine}
  assert {p.name for p in tmp_path.iterdir()} == {*others, "results.json"}
