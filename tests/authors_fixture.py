"""The layout of the authors' Ov-SWiG files, made from the SWiG fixture."""

import pathlib

from input_pipeline.ov_swig.records import RATIONALE_KEYS
from tests import swig_fixture

ENDING = "with_obj_cap_refined"
TRAIN = f"train_L10_{ENDING}.json"
NUMBERS = {"unseen": "L10", "rare": "L20"}


def group_file(split: str, group: str) -> str:
  """Such as 'dev_L10_unseen_with_obj_cap_refined.json'."""
  return f"{split}_{NUMBERS[group]}_{group}_{ENDING}.json"


def write(
  folder: pathlib.Path, *, per_verb: int = 2, overlap: bool = True
) -> pathlib.Path:
  """Writes a folder with the authors' names of files.

  Training holds seen and rare verbs with four texts each. dev.json and
  test.json hold all images of their split if `overlap`, else those of seen
  verbs alone; the other files hold the images of their group, with texts.
  """
  swig_fixture.write(folder, per_verb=per_verb, ov_splits=False)
  jsons = folder / "SWiG_jsons"
  train = swig_fixture.load(jsons / "train.json")
  unseen = swig_fixture.GROUPS["unseen"]
  kept = {n: told(e, n) for n, e in train.items() if e["verb"] not in unseen}
  swig_fixture.dump(jsons / TRAIN, kept)
  (jsons / "train.json").unlink()
  for split in ("dev", "test"):
    path = jsons / f"{split}.json"
    records = swig_fixture.load(path)
    for group in NUMBERS:
      verbs = swig_fixture.GROUPS[group]
      part = {n: told(e, n) for n, e in records.items() if e["verb"] in verbs}
      swig_fixture.dump(jsons / group_file(split, group), part)
    if not overlap:
      seen = swig_fixture.GROUPS["seen"]
      records = {n: e for n, e in records.items() if e["verb"] in seen}
      swig_fixture.dump(path, records)
  return folder


def told(entry: dict, name: str) -> dict:
  """A record with the four texts."""
  return entry | {key: f"{name}: {key} of it" for key in RATIONALE_KEYS}
