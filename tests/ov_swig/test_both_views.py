"""Every image twice: pixels, boxes and words are exchanged together."""

import numpy as np
import pytest

from input_pipeline import schema
from input_pipeline.geometry import letterbox_image
from input_pipeline.ov_swig import builder, mirror
from input_pipeline.ov_swig.mirror import MIRRORED, mirror_image
from input_pipeline.ov_swig.records import RATIONALE_KEYS
from tests.fixtures import swig_fixture

TOLD, UNSAFE = "cooking_train_1.jpg", "jumping_train_0.jpg"
SIZE = 32


@pytest.fixture(scope="module")
def views(tmp_path_factory):
  root = tmp_path_factory.mktemp("views")
  folder = swig_fixture.write(root / "swig", per_verb=2)
  path = folder / "SWiG_jsons" / "train.json"
  records = swig_fixture.load(path)
  for name, text in (
    (TOLD, "a man on the left"),
    (UNSAFE, "the man has left the house"),
  ):
    records[name].update(dict.fromkeys(RATIONALE_KEYS, text))
  swig_fixture.dump(path, records)
  split = builder.prepare(folder, root / "tfds").split("train")
  return mirror.BothViews(split), split


def test_first_views_are_the_images(views):
  both, split = views
  n = len(split)
  views_ = 2 * n - 1  # all but UNSAFE's second
  assert len(both) == both.num_examples == views_ == len(both.names)
  assert both.names[:n] == split.names and len(set(both.names)) == views_
  columns, plain = both.annotations(), split.annotations()
  assert schema.validate(columns, schema.ANNOTATIONS)["B"] == views_
  for key in set(plain) - {schema.INDEX}:
    np.testing.assert_array_equal(columns[key][:n], plain[key])
  np.testing.assert_array_equal(
    both.letterboxed(range(n), SIZE), split.letterboxed(range(n), SIZE)
  )


def test_second_views_are_mirrored(views):
  both, split = views
  n, side = len(split), SIZE
  second = [split.names.index(m.removesuffix(MIRRORED)) for m in both.names[n:]]
  columns = both.annotations()
  np.testing.assert_array_equal(columns[schema.INDEX], np.arange(2 * n - 1))
  boxes, plain = columns[schema.BOXES][n:], columns[schema.BOXES][second]
  there = plain[..., 2] >= 0
  np.testing.assert_array_equal(boxes[~there], -1)
  np.testing.assert_allclose(
    boxes[there] + plain[there] * [1, -1, -1, -1],
    np.broadcast_to([1, 0, 0, 0], boxes[there].shape),
    atol=1e-6,
  )
  order = [n + 1, 0, n, 1]  # any order, both kinds in one read
  got = both.letterboxed(order, side)
  want = split.letterboxed([second[1], 0, second[0], 1], side)
  np.testing.assert_array_equal(got[[1, 3]], want[[1, 3]])
  np.testing.assert_array_equal(got[[0, 2]], want[[0, 2]][:, :, ::-1])
  rows = both.read(np.array(order))
  np.testing.assert_array_equal(rows[schema.BOXES][2], boxes[0])


def test_pixels_lie_where_the_mirrored_image_would(views):
  """Up to the one pixel of an odd margin."""
  both, split = views
  image = both.image(len(split))
  first = split.names.index(both.names[len(split)].removesuffix(MIRRORED))
  np.testing.assert_array_equal(
    np.asarray(image), np.asarray(mirror_image(split.image(first)))
  )
  want = letterbox_image(image, 64).astype(int)
  got = both.letterboxed([len(split)], 64)[0].astype(int)
  shifts = [np.roll(got, s, axis=1) for s in (-1, 0, 1)]
  assert min(np.abs(s - want).mean() for s in shifts) < 2


def test_texts_of_the_records_are_exchanged(views):
  both, _ = views

  def texts(name):
    return both.rationales(both.names.index(name))

  assert texts(TOLD) == ("a man on the left",) * 4
  assert texts(TOLD + MIRRORED) == ("a man on the right",) * 4
  assert texts("raining_train_0.jpg" + MIRRORED) is None


def test_an_image_whose_text_cannot_be_mirrored_has_no_second_view(
  views, caplog
):
  both, split = views
  row = split.names.index(UNSAFE)
  assert "left the house" in both.rationales(row)[0]
  again = mirror.BothViews(split)
  assert UNSAFE + MIRRORED not in again.names
  assert len(again) == 2 * len(split) - 1
  assert f"1 of {len(split)} images" in caplog.text and UNSAFE in caplog.text
