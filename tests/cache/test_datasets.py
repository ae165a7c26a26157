"""All datasets and splits offer what the protocols of `dataset` say."""

import pytest

from input_pipeline import dataset
from input_pipeline.hico_det import pair_dataset
from input_pipeline.ov_swig import builder
from input_pipeline.ov_swig.image_split import ImageSplit
from input_pipeline.ov_swig.mirror import BothViews
from input_pipeline.ov_swig.splits.groups import VerbGroups
from tests.fixtures import protocols


@pytest.mark.parametrize(
  ("kind", "protocol"),
  [
    (builder.SwigDataset, dataset.Dataset),
    (pair_dataset.PairDataset, dataset.Dataset),
    (ImageSplit, dataset.Split),
    (BothViews, dataset.Split),
    (pair_dataset.PairSplit, dataset.Split),
    (VerbGroups, dataset.Groups),
    (pair_dataset.Groups, dataset.Groups),
  ],
)
def test_has_what_the_protocol_asks_for(kind, protocol):
  assert protocols.problems(kind, protocol) == []


def test_what_is_missing_is_seen():
  class Half:
    def __init__(self):
      self.name = "train"

    def __len__(self):
      return 0

    def image(self, name):
      return name

  found = "\n".join(protocols.problems(Half, dataset.Split))
  for name in ("annotations", "names", "letterboxed_sizes", "rationales"):
    assert f"has no {name}" in found
  assert "Half.image takes ['self', 'name'], not ['self', 'index']" in found
  assert "no name\n" not in found
