"""Data and work directory in a bucket."""

import json
import shutil

import numpy as np
import pytest

from input_pipeline.io import buckets, paths
from input_pipeline.io.errors import InputError
from mipd_jax.report import files
from mipd_jax.stages import prepare
from mipd_jax.training.writers import JsonLinesWriter
from tests.fakes import fake_bucket


@pytest.fixture
def bucket(tmp_path, monkeypatch):
  monkeypatch.setenv(buckets.PLACE, str(tmp_path / "local"))
  fake_bucket.install(monkeypatch, tmp_path / "cloud")
  (tmp_path / "cloud/bucket").mkdir(parents=True)
  return tmp_path / "cloud/bucket"


def test_metrics_grow_and_are_cut(bucket):
  path = paths.path("gs://bucket/run/metrics.jsonl")
  writer = JsonLinesWriter(path)
  for step in (2, 4, 6):
    writer.write_scalars(step, {"loss": step / 2})
    there = (bucket / "run/metrics.jsonl").read_text().splitlines()
    assert json.loads(there[-1])["step"] == step  # a kill now loses none
  writer = JsonLinesWriter(path, first_step=4)
  writer.write_scalars(5, {"loss": 1.0})
  writer.close()
  steps, _ = files.read_metrics(path)["loss"]
  np.testing.assert_array_equal(steps, [2, 4, 5])


def test_results_are_written(bucket, results):
  files.write_results("gs://bucket/run", results)
  found = {p.name for p in (bucket / "run").iterdir()}
  assert found == {"results.json", "results.md"}


def test_data_are_copied_here_and_a_new_cache_back(
  bucket,
  pipeline,
  tmp_path,
):
  shutil.copytree(pipeline.folder / "world", bucket / "world")
  shutil.copytree(pipeline.folder / "cache", bucket / "cache")
  values = {
    "dataset.folder": "gs://bucket/world",
    "dataset.world": None,
    "teacher.foundation": "",
    "teacher.cache": "gs://bucket/cache",
  }
  config = pipeline.config(tmp_path / "work", values=values)
  found = prepare.open_prepared(config)
  assert found.cache.folder == tmp_path / "local/gs/bucket/cache"
  other = pipeline.config(
    tmp_path / "work", values=values | {"teacher.cache": "gs://bucket/new"}
  )
  with pytest.raises(InputError, match="gs://bucket/new"):
    prepare.open_prepared(other)
  # What lies here is taken for the bucket's copy.
  shutil.copytree(pipeline.folder / "cache", tmp_path / "local/gs/bucket/new")
  assert prepare.prepare(other) is not None
  assert (bucket / "new/manifest.json").exists()
  assert prepare.open_prepared(other).cache.plan == found.cache.plan


def test_several_processes_make_no_cache_in_a_bucket(
  bucket,
  pipeline,
  tmp_path,
):
  config = pipeline.config(
    tmp_path,
    values={"teacher.cache": "gs://bucket/new", "teacher.process_count": 2},
  )
  with pytest.raises(InputError, match="several processes"):
    prepare.prepare(config)
