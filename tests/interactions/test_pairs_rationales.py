"""JRG writes of interactions: rules, leaks, a run with a scripted model."""

import dataclasses
import pathlib

import numpy as np
import pytest

from input_pipeline.io.findings import Place
from mipd_jax.rationales import jrg, templates
from mipd_jax.rationales.interactions import (
  InteractionFrames,
  InteractionRationales,
)
from mipd_jax.rationales.judging import JrgConfig
from tests.fakes.jrg_fakes import copyist
from tests.hico_det.test_pairs_data import PET, RECORD, RIDE, WORDS, record

CONFIG = JrgConfig(style="terse", images_per_part=1)
OTHERS = [
  int(WORDS.interactions([name], "")[0])
  for name in ("walk bicycle", "feed dog", "hold apple")
]


class Split:
  """Two images: one rides a bicycle and one pets a dog; other seen ones."""

  records = (
    RECORD,
    dataclasses.replace(
      record([(0, 2, OTHERS[0]), (1, 3, OTHERS[1])]),
      place=Place(pathlib.Path("a.json"), pathlib.Path("other.jpg")),
    ),
  )
  names = ("image.jpg", "other.jpg")

  def __len__(self):
    return len(self.records)

  def rationales(self, index):
    del index


@pytest.fixture
def frames():
  return InteractionFrames(WORDS, Split(), CONFIG)


def codes(frames, kind, text):
  found = frames.rules.check(kind, text, frames.frame(0))
  return [fault.code for fault in found]


def test_only_labelled_interactions_are_allowed(frames):
  assert frames.allowed == sorted({RIDE, PET, *OTHERS[:2]})


@pytest.mark.parametrize(
  ("kind", "text", "expected"),
  [
    ("glimpse_pos", "Somebody rides a bicycle past a dog.", []),
    ("glimpse_pos", "Somebody stands by a bicycle.", ["verb not named"]),
    ("glimpse_pos", "Somebody rides along a road.", ["object not named"]),
    ("glimpse_neg", "Somebody walks a bicycle home.", []),
    (
      "glimpse_neg",
      "Somebody rides and walks a bicycle.",
      ["true verb named"],
    ),
    ("glimpse_neg", "Somebody looks at a bicycle.", ["verb not named"]),
    ("gaze_pos", "person: a person, left. bicycle. dog on the right", []),
    ("gaze_pos", "person: a person, left. bicycle below", ["noun not named"]),
    # Nobody of this split washes a bicycle or hoses a dog.
    (
      "gaze_pos",
      "a person washes a bicycle. a dog beside it",
      ["unseen verb"],
    ),
    ("gaze_pos", "a person washes it. a bicycle, a dog", []),
  ],
)
def test_rules(frames, kind, text, expected):
  assert codes(frames, kind, text) == expected


def test_templates_keep_to_the_rules(frames):
  for row in range(2):
    frame = frames.frame(row)
    for kind, text in zip(
      ("glimpse_pos", "glimpse_neg", "gaze_pos"),
      templates.texts(frame),
      strict=False,
    ):
      assert frames.rules.check(kind, text, frame) == [], (kind, text)


def test_annotations_are_part_of_the_settings(frames):
  other = Split()
  other.records = (Split.records[0], record([(0, 2, OTHERS[0])]))
  changed = InteractionFrames(WORDS, other, CONFIG)
  assert frames.digest() == InteractionFrames(WORDS, Split(), CONFIG).digest()
  assert changed.digest() != frames.digest()


def test_a_language_model_writes_and_templates_stand_in(tmp_path):
  def source(model, out):
    return jrg.JrgRationales(
      model,
      out,
      CONFIG,
      frames=lambda split, words, config, allowed: InteractionFrames(
        WORDS, split, config
      ),
    )

  class Names:
    fingerprint = "words"

  model = copyist()
  texts = source(model, tmp_path / "a.json").write(Split(), Names())
  assert model.calls and [len(four) for four in texts] == [4, 4]
  again = source(None, tmp_path / "b.json").write(Split(), Names())
  plain = InteractionRationales(WORDS, CONFIG.seed).write(Split(), Names())
  assert again == plain  # without a model
  assert (np.array(texts) != np.array(plain)).any()
