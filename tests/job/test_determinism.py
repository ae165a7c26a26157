"""The same config gives the same bits, from the drawn world to the scores."""

import hashlib
import json

import pytest

from input_pipeline.io import json_files
from tests.fixtures import pipeline_fixture


def _digests(folder):
  return {
    str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
    for path in sorted(folder.rglob("*"))
    if path.is_file()
  }


def _losses(workdir):
  rows = (workdir / "metrics.jsonl").read_text().splitlines()
  return [json.loads(row) | {"time": 0} for row in rows]


@pytest.mark.slow
def test_two_runs_agree_bit_for_bit(pipeline, tmp_path):
  """World, encoders, cache, every logged number, every score."""
  other = pipeline_fixture.all_stages(tmp_path, tmp_path / "work")
  for part in ("world", "foundation", "cache"):
    found, wanted = (_digests(run.folder / part) for run in (other, pipeline))
    assert len(found) > 5
    for digests in (found, wanted):  # names folders and times of files
      digests.pop("made_from.json", None)
    assert found == wanted, part
  losses = _losses(other.work)
  assert len(losses) == 6
  assert losses == _losses(pipeline.work)
  results, wanted = (
    json.loads((run.work / "results.json").read_text())
    for run in (other, pipeline)
  )
  # Folders are part of the config, so its hash and the seal over all of it
  # differ; nothing else may.
  assert results.pop(json_files.SEAL) != wanted.pop(json_files.SEAL)
  assert results.pop("config_hash") != wanted.pop("config_hash")
  assert results == wanted
