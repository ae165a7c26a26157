"""Folders of a bucket are copied once, whole, and continue where stopped."""

import pytest

from input_pipeline.io import atomic, buckets
from input_pipeline.io.errors import InputError
from tests.fakes import fake_bucket

FILES = {"manifest.json": "{}", "train/a.bin": "aaaa", "train/deep/b": ""}


@pytest.fixture
def cloud(tmp_path, monkeypatch):
  """The bucket's folder; copies go to tmp_path/local."""
  monkeypatch.setenv(buckets.PLACE, str(tmp_path / "local"))
  fake_bucket.install(monkeypatch, tmp_path / "cloud")
  folder = tmp_path / "cloud/bucket/cache"
  for name, text in FILES.items():
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
  return folder


def contents(folder):
  return {
    str(p.relative_to(folder)): p.read_text()
    for p in folder.rglob("*")
    if p.is_file()
  }


def test_local_folders_are_left_alone(tmp_path):
  assert buckets.fetch(tmp_path / "x") == tmp_path / "x"
  assert buckets.local("a/b").parts == ("a", "b")


def test_a_folder_is_copied_once(cloud, tmp_path):
  here = buckets.fetch("gs://bucket/cache", "manifest.json")
  assert here == tmp_path / "local/gs/bucket/cache"
  assert contents(here) == FILES
  stamps = {p: p.stat().st_mtime_ns for p in here.rglob("*") if p.is_file()}
  (here / "train/a.bin").write_text("a")  # cut off
  assert contents(buckets.fetch("gs://bucket/cache")) == FILES
  again = {p: p.stat().st_mtime_ns for p in stamps}
  assert [p.name for p in stamps if again[p] != stamps[p]] == ["a.bin"]


def test_what_means_whole_comes_last(cloud, monkeypatch):
  copy = atomic.copy

  def broken(source, target):
    if source.name == "a.bin":
      raise OSError("the line broke")
    copy(source, target)

  monkeypatch.setattr(atomic, "copy", broken)
  with pytest.raises(InputError, match="the line broke"):
    buckets.fetch("gs://bucket/cache", "manifest.json")
  here = buckets.local("gs://bucket/cache")
  assert "manifest.json" not in contents(here)
  monkeypatch.setattr(atomic, "copy", copy)
  assert contents(buckets.fetch("gs://bucket/cache", "manifest.json")) == FILES


def test_upload_is_the_way_back(cloud, tmp_path):
  here = buckets.local("gs://bucket/new")
  for name, text in FILES.items():
    (here / name).parent.mkdir(parents=True, exist_ok=True)
    (here / name).write_text(text)
  buckets.upload("gs://bucket/new", "manifest.json")
  assert contents(tmp_path / "cloud/bucket/new") == FILES
  buckets.upload("gs://bucket/new", "manifest.json")
  assert contents(tmp_path / "cloud/bucket/new") == FILES


def test_an_absent_folder_is_named(cloud):
  with pytest.raises(InputError, match="gs://bucket/nothing"):
    buckets.fetch("gs://bucket/nothing")
