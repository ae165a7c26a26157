"""Rows 1 to 8 of the fault table, one after another.

For each: the option that switches between the reference's behaviour and
ours, if it is one, and a test that shows both. Rows 1, 2, 3, 8 and 9 have
more tests in `test_models`.
"""

import dataclasses

import jax
import numpy as np
import pytest
from PIL import Image

from input_pipeline import geometry, schema
from mipd_jax import presets
from mipd_jax.models import outputs as out
from mipd_jax.reference import box_layout as reference_geometry
from mipd_jax.teachers import labels
from tests.fixtures import batches, models
from tests.reference import parity_parts

# Row -> {option: (reference's value, ours)}. Rows 3, 4 and 5 are no option:
# the functions take boxes, placements and text banks from outside.
OPTIONS = {
  1: {"model.teacher_pooling": ("cls", "text")},
  2: {"model.gaze": (False, True), "loss.gaze_distill": (0.0, 1.0)},
  6: {
    "model.role_queries": ("embedding", "text"),
    "model.noun_head": ("closed", "sum"),
  },
  7: {
    "model.verb_temperature": (False, True),
    "loss.detach_teacher": (False, True),
  },
  8: {"model.mask_padding": (False, True)},
}


@pytest.mark.parametrize("row", OPTIONS)
@pytest.mark.parametrize(("preset", "which"), [("reference", 0), ("mipd", 1)])
def test_presets_stand_on_either_side(row, preset, which):
  parts = dict(
    zip(("model", "loss"), presets.preset_defaults(preset), strict=True)
  )
  for option, values in OPTIONS[row].items():
    part, field = option.split(".")
    assert getattr(parts[part], field) == values[which], option


def _results(preset, batch=None, **changes):
  """(outputs, gradients) at the small sizes, with banks changed at will."""
  if changes:
    model, _, params = models.make(preset)
    banks = batches.banks() | changes
    return model.apply({"params": params}, batch or batches.batch(), banks), {}
  found = models.loss_and_grads(preset, batch or batches.batch())
  return found[2], found[3]


def _size(tree) -> float:
  return float(sum(np.abs(x).sum() for x in _leaves(tree)))


def _leaves(tree):
  if isinstance(tree, dict):
    return [leaf for value in tree.values() for leaf in _leaves(value)]
  return [np.asarray(tree)]


def test_row_1_prompts_get_no_gradient_in_the_reference():
  for preset, alive in (("reference", False), ("mipd", True)):
    branch = _results(preset)[1]["teacher_branch"]
    for name in ("scene_top", "instance_map"):
      assert (_size(branch[name]) > 0) == alive


def test_row_2_one_gaze_vector_an_image_or_one_a_role():
  b, r = 6, schema.MAX_ROLES
  assert _results("reference")[0][out.GAZE_TARGET].shape == (b, models.HIDDEN)
  assert _results("mipd")[0][out.GAZE_TARGET].shape == (b, r, models.HIDDEN)


def test_row_3_one_image_boxes_for_the_whole_batch():
  """The function does both: the bug is in what it is called with."""
  own, shared, _ = parity_parts.box_prompter(224)
  assert own.equal
  assert shared.equal
  assert np.abs(np.asarray(own.ours) - np.asarray(shared.ours)).max() > 0.1
  # 224 where boxes live on 336: the same boxes land elsewhere.
  elsewhere = parity_parts.box_prompter(336)[0]
  assert np.abs(np.asarray(own.ours) - elsewhere.ours).max() > 0.1


def test_row_4_one_geometry_for_boxes_and_tokens():
  """Its boxes live on a canvas that no encoder sees; ours are where the
  encoders' pixels are."""
  width, height = 600, 300
  box = np.array([[0, 0, width, height]], np.float32)  # the whole image
  placement = reference_geometry.place(width, height)
  pixels = reference_geometry.to_canvas(box, placement)
  theirs = reference_geometry.normalise(pixels, truth=True)[0]
  # CLIP crops the centre square: half of this image, on all of its tokens.
  np.testing.assert_allclose(theirs, [0.5, 0.5, 1.0, 0.5], atol=1e-6)
  square = np.zeros((height, width, 3), np.uint8)
  square[:] = 255
  canvas = geometry.letterbox_image(Image.fromarray(square), 64)
  ours = geometry.Letterbox(height, width).boxes_to_canvas(box)[0]
  rows = np.flatnonzero((canvas == 255).all(axis=(1, 2)))
  assert ours[3] * 64 == pytest.approx(len(rows), abs=1)
  assert (ours[1] - ours[3] / 2) * 64 == pytest.approx(rows[0], abs=1)
  # At 4 : 3 the reference leaves a margin on every side, ours on two.
  near = reference_geometry.place(512, 384)
  assert (near.width, near.shift_1) == (328, 4)
  assert geometry.Letterbox(384, 512).offset[0] == 0


def test_row_4_mirroring_moves_the_reference_s_boxes_only():
  box = np.array([[10, 20, 60, 80], [-1, -1, -1, -1]], np.float32)
  mirrored = reference_geometry.mirror(box, width=100)
  np.testing.assert_array_equal(mirrored, [[40, 20, 90, 80], [-1, -1, -1, -1]])


def test_row_5_nouns_are_told_in_words():
  """The reference embeds the id itself, "n10287213"."""
  words = type(
    "Words",
    (),
    {
      "nouns": ("blank", "n10287213", "oov", "Pad"),
      "noun_glosses": (("nothing",), ("man",), ("something else",), ("pad",)),
      "noun_definitions": ("", "an adult male", "", ""),
    },
  )
  told = labels.noun_prompts(words)[1]
  assert any("man" in text for text in told)
  assert not any("n10287213" in text for text in told)


def test_row_6_roles_and_nouns_by_table_or_by_text():
  rng = np.random.default_rng(0)
  banks = batches.banks()
  for preset, by_text in (("reference", False), ("mipd", True)):
    before = _results(preset, role_text=banks["role_text"])[0]
    for bank in ("role_text", "noun_text"):
      other = rng.normal(size=banks[bank].shape).astype(np.float32)
      after = _results(preset, **{bank: other})[0]
      difference = np.abs(before[out.NOUN_SCORES] - after[out.NOUN_SCORES])
      assert (difference.max() > 1e-3) == by_text, (preset, bank)


def test_row_6_verbs_without_images_are_never_trained_as_queries():
  """Their rows of the reference's table stay as they were drawn."""
  grads = _results("reference")[1]["student"]["verb_embedding"]
  seen = np.unique(batches.batch()[schema.VERB])
  moved = np.flatnonzero(np.abs(grads).sum(axis=-1))
  np.testing.assert_array_equal(moved, seen)


def test_row_7_student_pulls_its_own_target_in_the_reference():
  for preset, attached in (("reference", True), ("mipd", False)):
    losses = models.make(preset)[1]
    used = models.objective(losses).teacher_terms
    distil = dict.fromkeys(used, 0.0)
    distil["scene_distill"] = losses.scene_distill
    alone = dataclasses.replace(losses, verb_kl=0.0, **distil)
    outputs = _results(preset)[0]

    def total(target, preset_outputs=outputs, weights=alone):
      changed = preset_outputs | {out.SCENE_TARGET: target}
      batch, banks = batches.batch(), batches.banks()
      return models.objective(weights)(changed, batch, banks)[0]

    pull = jax.grad(total)(outputs[out.SCENE_TARGET])
    assert (_size(pull) > 0) == attached


def test_row_7_temperature():
  """Verb logits: bare similarities, or times a learned scale."""
  params = {p: models.make(p)[2]["student"] for p in ("reference", "mipd")}
  assert "verb_scale" not in params["reference"]
  assert "verb_scale" in params["mipd"]


def test_row_8_padding_of_rationales():
  batch = batches.batch()
  noisy = dict(batch)
  padding = ~batch[schema.RATIONALE_MASK][..., None]
  noisy[schema.RATIONALE_TOKENS] = np.where(
    padding, 5, batch[schema.RATIONALE_TOKENS]
  ).astype(batch[schema.RATIONALE_TOKENS].dtype)
  for preset, read in (("reference", True), ("mipd", False)):
    a, b = (_results(preset, x)[0][out.SCENE_TARGET] for x in (batch, noisy))
    assert (np.abs(a - b).max() > 1e-3) == read
