"""The SWiG scores against a slow implementation, and their sums."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from input_pipeline import schema
from mipd_jax.devices import sharding
from mipd_jax.evaluation import situations
from mipd_jax.losses import box_ops
from mipd_jax.metrics import scores, swig_scores
from mipd_jax.models import outputs as out
from tests.fixtures import batches


def _outputs(batch, seed):
  """Predictions that are right about half of the time."""
  rng = np.random.default_rng(seed)
  size = len(batch[schema.VERB])
  verb = rng.normal(size=(size, batches.SIZES.num_verbs))
  verb[np.arange(size), batch[schema.VERB]] += 1.5
  noun = rng.normal(size=(size, schema.MAX_ROLES, batches.SIZES.num_nouns))
  right = rng.random(noun.shape[:2]) < 0.6
  annotator = rng.integers(0, 3, noun.shape[:2])
  for i, j in np.argwhere(right):
    noun[i, j, batch[schema.NOUNS][i, j, annotator[i, j]]] += 9
  box = batch[schema.BOXES] + rng.normal(size=batch[schema.BOXES].shape) * 0.06
  confidence = np.where(batch[schema.BOX_MASK], 1.0, -1.0)
  confidence *= np.where(rng.random(confidence.shape) < 0.8, 1, -1)
  return {
    out.VERB_SCORES: verb.astype(np.float32),
    out.NOUN_SCORES: noun.astype(np.float32),
    out.BOX: np.abs(box).astype(np.float32),
    out.BOX_CONFIDENCE: confidence.astype(np.float32),
  }


def _iou(a, b):
  ax, ay, aX, aY = (a[0] - a[2] / 2, a[1] - a[3] / 2, a[0] + a[2] / 2,
                      a[1] + a[3] / 2)  # fmt: skip
  bx, by, bX, bY = (b[0] - b[2] / 2, b[1] - b[3] / 2, b[0] + b[2] / 2,
                      b[1] + b[3] / 2)  # fmt: skip
  inter = max(0, min(aX, bX) - max(ax, bx)) * max(0, min(aY, bY) - max(ay, by))
  return inter / (a[2] * a[3] + b[2] * b[3] - inter)


def _slow_scores(outputs, batch, i):
  order = np.argsort(-outputs[out.VERB_SCORES][i], kind="stable")
  verb = batch[schema.VERB][i]
  top = {"top1": verb == order[0], "top5": verb in order[:5], "gt": True}
  nouns, grounded = [], []
  for r in range(schema.MAX_ROLES):
    if not batch[schema.ROLE_MASK][i, r]:
      continue
    guess = outputs[out.NOUN_SCORES][i, r].argmax()
    nouns.append(guess in batch[schema.NOUNS][i, r])
    present = outputs[out.BOX_CONFIDENCE][i, r] >= 0
    if batch[schema.BOX_MASK][i, r]:
      iou = _iou(outputs[out.BOX][i, r], batch[schema.BOXES][i, r])
      box = present and iou >= 0.5
    else:
      box = not present
    grounded.append(nouns[-1] and box)
  frame = {
    "value": np.mean(nouns),
    "value_all": all(nouns),
    "grnd": np.mean(grounded),
    "grnd_all": all(grounded),
  }
  scores = {f"verb_{c}": top[c] for c in ("top1", "top5")}
  for c, counts in top.items():
    scores |= {f"{n}_{c}": x * counts for n, x in frame.items()}
  return scores


def test_scores_equal_a_loop():
  batch = batches.batch(60, seed=4)
  outputs = _outputs(batch, 0)
  got = np.asarray(scores.example_scores(outputs, batch))
  for i in range(60):
    want = _slow_scores(outputs, batch, i)
    for k, name in enumerate(swig_scores.NAMES):
      np.testing.assert_allclose(got[i, k], want[name], rtol=1e-6, err_msg=name)
  assert 0 < got.mean() < 1
  assert (got.std(axis=0) > 0).all()  # no column is always right or wrong


def test_ties_are_broken_by_index():
  batch = batches.batch(2)
  batch[schema.VERB] = np.array([0, 3], np.int32)
  flat = jnp.zeros((2, batches.SIZES.num_verbs))
  np.testing.assert_array_equal(scores.ranks(flat, batch), [0, 3])


def _totals(batch, outputs):
  keep = batch[schema.EXAMPLE_MASK]
  found = np.asarray(scores.example_scores(outputs, batch), np.float64)[keep]
  columns = swig_scores.ImageScores(
    swig_scores.NAMES, found, np.ones(found.shape, bool)
  )
  verb = batch[schema.VERB][keep]
  return swig_scores.VerbTotals.of(columns, verb, batches.SIZES.num_verbs)


def test_sums_merge_and_filler_counts_nothing():
  batch = batches.batch(9)
  outputs = _outputs(batch, 1)
  whole = _totals(batch, outputs)
  parts = []
  for rows in (np.arange(4), np.arange(4, 9)):
    part = {k: x[rows] for k, x in batch.items()}
    guess = {k: x[rows] for k, x in outputs.items()}
    # A filler row that repeats the first one, as the stream makes it.
    part = {k: np.concatenate([x, x[:1]]) for k, x in part.items()}
    guess = {k: np.concatenate([x, x[:1]]) for k, x in guess.items()}
    part[schema.EXAMPLE_MASK][-1] = False
    parts.append(_totals(part, guess))
  merged = parts[0] + parts[1]
  np.testing.assert_array_equal(merged.counts, whole.counts)
  np.testing.assert_allclose(merged.sums, whole.sums, rtol=1e-6)


def test_summary_groups_micro_macro_and_harmonic_mean():
  names = ("verb_top1", "verb_top5")
  sums = np.array([[1.0, 2], [3, 3], [1, 1], [0, 0]])
  counts = np.array([2.0, 6, 4, 0])
  groups = np.array([0, 0, 2, 1])
  totals = swig_scores.VerbTotals(
    names, sums, np.stack([counts, counts], axis=-1), counts
  )
  found = swig_scores.summarise(totals, groups)
  assert found["seen"] == {"images": 8, "verb_top1": 50.0, "verb_top5": 62.5}
  assert found["macro"]["seen"]["verb_top1"] == 50.0  # of 50 % and 50 %
  assert found["macro"]["seen"]["verb_top5"] == 75.0
  assert found["unseen"]["verb_top1"] == 25.0
  assert found["rare"] == {"images": 0}
  assert found["all"]["images"] == 12
  assert found["harmonic_mean"] == pytest.approx(2 * 50 * 25 / 75)


def test_selection_never_looks_at_unseen():
  """Fault table, row 11."""
  batch = batches.batch(40, seed=2)
  outputs = _outputs(batch, 2)
  totals = _totals(batch, outputs)
  groups = np.arange(batches.SIZES.num_verbs) % 3
  score = swig_scores.selection_score(swig_scores.summarise(totals, groups))
  worse = totals.sums.copy()
  worse[groups == 2] = 0
  blind = dataclasses.replace(totals, sums=worse)
  assert (
    swig_scores.selection_score(swig_scores.summarise(blind, groups)) == score
  )
  worse[groups == 1] = 0
  seeing = dataclasses.replace(totals, sums=worse)
  assert (
    swig_scores.selection_score(swig_scores.summarise(seeing, groups)) < score
  )


def test_boxes_are_cut_to_the_image_and_no_further():
  """A 50 x 100 image fills the canvas' width and half of its height."""
  sizes = np.array([[50, 100], [100, 50], [80, 80]], np.int32)
  corners = np.array(
    [
      [[-0.1, 0.1, 0.6, 0.9], [0.2, 0.3, 0.4, 0.7]],
      [[-0.1, 0.1, 0.6, 0.9], [0.2, 0.3, 0.4, 0.7]],
      [[-0.1, 0.1, 0.6, 1.2], [0.2, 0.3, 0.4, 0.7]],
    ],
    np.float32,
  )
  wanted = [
    [[0.0, 0.25, 0.6, 0.75], [0.2, 0.3, 0.4, 0.7]],
    [[0.25, 0.1, 0.6, 0.9], [0.25, 0.3, 0.4, 0.7]],
    [[0.0, 0.1, 0.6, 1.0], [0.2, 0.3, 0.4, 0.7]],
  ]
  cut = scores.cut_to_image(box_ops.to_centres(corners), sizes)
  np.testing.assert_allclose(box_ops.to_corners(cut), wanted, atol=1e-6)


def _evaluated(batch, outputs) -> situations.Evaluation:
  """What the evaluation makes of given outputs."""
  source = _Source(batch)
  step = situations.compile_eval_step(
    lambda params, batch, banks: {
      name: jnp.asarray(x)[batch[schema.INDEX]] for name, x in outputs.items()
    }
  )
  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  return situations.evaluate(
    situations.Evaluator(step, {}, {}, mesh, 8), source
  )


class _Source:
  """A batch as a source of the stream."""

  def __init__(self, batch):
    self._batch = {
      key: x for key, x in batch.items() if key != schema.EXAMPLE_MASK
    }
    self.num_examples = len(batch[schema.VERB])

  def read(self, indices):
    return {key: x[indices] for key, x in self._batch.items()}


def test_evaluation_equals_the_device_and_a_loop():
  """The host's rule, the devices' and a loop agree on 60 images."""
  batch = batches.batch(60, seed=4)
  batch[schema.IMAGE_SIZE][::2] = [48, 64]
  outputs = _outputs(batch, 0)
  found = _evaluated(batch, outputs).totals
  cut = scores.cut_to_image(outputs[out.BOX], batch[schema.IMAGE_SIZE])
  outputs[out.BOX] = np.asarray(cut)
  on_device = _totals(batch, outputs)
  np.testing.assert_array_equal(found.counts, on_device.counts)
  np.testing.assert_allclose(found.sums, on_device.sums, rtol=1e-6)
  rows = [_slow_scores(outputs, batch, i) for i in range(60)]
  for k, name in enumerate(swig_scores.NAMES):
    wanted = sum(float(row[name]) for row in rows)
    np.testing.assert_allclose(found.sums[:, k].sum(), wanted, rtol=1e-9)


def test_padding_is_never_a_predicted_noun():
  """The best class is padding, the second best is right."""
  batch = batches.batch(5)
  outputs = _outputs(batch, 0)
  noun = np.zeros_like(outputs[out.NOUN_SCORES])
  np.put_along_axis(noun, batch[schema.NOUNS][..., :1], 1.0, axis=-1)
  noun[..., -1] = 2
  outputs[out.NOUN_SCORES] = noun
  found = _evaluated(batch, outputs)
  value = swig_scores.NAMES.index("value_all_gt")
  assert found.totals.sums[:, value].sum() == 5
  assert (found.frames.noun < batches.SIZES.num_nouns - 1).all()
  hits, _ = scores.role_hits(outputs, batch)
  assert np.asarray(hits)[batch[schema.ROLE_MASK]].all()


def test_evaluation_scores_the_cut_boxes():
  """Below IoU 0.5 as predicted, above it within the image."""
  batch = batches.batch(3)
  outputs = _outputs(batch, 0)
  batch[schema.IMAGE_SIZE][:] = [50, 100]  # y from 0.25 to 0.75
  batch[schema.BOX_MASK] = batch[schema.ROLE_MASK]
  batch[schema.BOXES][:] = [0.5, 0.5, 1.0, 0.5]
  outputs[out.BOX] = np.full_like(batch[schema.BOXES], [0.5, 0.5, 1.0, 1.2])
  outputs[out.BOX_CONFIDENCE] = np.ones_like(outputs[out.BOX_CONFIDENCE])
  totals = _evaluated(batch, outputs).totals
  found = dict(zip(swig_scores.NAMES, totals.sums.sum(axis=0), strict=True))
  assert found["grnd_gt"] == found["value_gt"] > 0
