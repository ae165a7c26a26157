"""From scores of pairs to hypotheses and to the metric."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from input_pipeline import schema
from mipd_jax.devices import sharding
from mipd_jax.evaluation import interactions as pair_eval
from mipd_jax.evaluation import situations as eval_lib
from mipd_jax.evaluation.interactions import suppress
from mipd_jax.metrics import hico_det
from mipd_jax.metrics.hico_det_matching import Detections
from mipd_jax.models import outputs as out
from mipd_jax.models.pairs import VERB_OBJECT, of_the_object
from mipd_jax.report import tables
from mipd_jax.tasks import interactions
from tests.fixtures import pair_batches, pair_world_fixture
from tests.fixtures.pair_batches import OBJECT_OF, PAIRS


def knows(params, batch, banks):
  """The labels as scores."""
  del params
  labels = batch[schema.PAIR_LABELS]
  hot = jax.nn.one_hot(labels, len(banks[VERB_OBJECT])).sum(axis=-2) > 0
  return {out.PAIR_SCORES: of_the_object(jnp.where(hot, 9, -9), batch, banks)}


class Source:
  """A split's columns."""

  def __init__(self, split):
    self.num_examples = split.num_examples
    self._columns = split.annotations()

  def read(self, indices):
    names = (schema.EXAMPLE_MASK, schema.INDEX)
    return {k: x[indices] for k, x in self._columns.items() if k not in names}


def score(found_dataset, split="test", predict=knows):
  banks = {VERB_OBJECT: found_dataset.words.object_of}
  step = pair_eval.compile_pair_step(
    predict,
    slots=found_dataset.settings.slots,
    top_k=50,
    detection_power=1.0,
  )
  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  evaluator = eval_lib.Evaluator(step, {}, banks, mesh, 8)
  source = Source(found_dataset.split(split))
  found = pair_eval.evaluate(evaluator, source, top_k=50)
  truth = interactions._truth(found_dataset, split)
  return hico_det.score(
    found, truth, found_dataset.words, found_dataset.zero_shot
  )


def annotated(words, truth):
  """Share of the interactions that anything is annotated of, percent."""
  return 100 * (truth.counts > 0).mean()


def test_who_knows_the_labels_gets_all_of_them(dataset, folder):
  """Through columns, chunks of slots, best hypotheses and the metric."""
  oracle = pair_world_fixture.pairs(folder, test_detections="")
  truth = interactions._truth(oracle, "test")
  ceiling = annotated(oracle.words, truth)
  assert score(oracle)["full"] == pytest.approx(ceiling)
  # Boxes that are missed or mistaken cannot be made good.
  noisy = score(dataset)
  assert 0 < noisy["full"] < ceiling
  assert noisy["known_object"]["full"] >= noisy["full"]
  few = oracle.split("test").annotations()[schema.PAIR_MASK]
  assert few.shape[1] > pair_world_fixture.SLOTS


def test_pairs_beyond_the_slots_get_what_they_get_alone():
  model, _, params = pair_batches.make()
  banks = pair_batches.banks()
  keys = [k for k, x in schema.PAIR_ANNOTATIONS.items() if "P" in x.axes]
  first, second = pair_batches.batch(seed=0), pair_batches.batch(seed=1)
  both = dict(first)
  for key in keys:
    both[key] = np.concatenate([first[key], second[key]], axis=1)

  def predict(params, batch, banks):
    return model.apply({"params": params}, batch, banks, method=model.predict)

  @jax.jit
  def run(params, batch):
    return pair_eval.by_slots(predict, params, batch, banks, PAIRS)

  student = {k: first[k] for k in schema.PAIR_STUDENT_KEYS}
  student |= {k: both[k] for k in keys}
  found = np.asarray(run(params, student))
  for place, part in ((slice(PAIRS), first), (slice(PAIRS, None), second)):
    alone = dict(student) | {k: part[k] for k in keys}
    np.testing.assert_allclose(
      found[:, place], run(params, alone), rtol=1e-5, atol=1e-5
    )


def test_scores_are_those_of_the_formula():
  batch, banks = pair_batches.batch(), pair_batches.banks()
  logits = np.random.default_rng(0).normal(size=(4, PAIRS, len(OBJECT_OF)))

  def predict(params, batch, banks):
    del params
    return {out.PAIR_SCORES: of_the_object(jnp.asarray(logits), batch, banks)}

  step = pair_eval.compile_pair_step(
    predict, slots=PAIRS, top_k=100, detection_power=0.5
  )
  found = jax.device_get(step({}, batch, banks))
  expected = {}
  for row in range(4):
    for pair in np.flatnonzero(batch[schema.PAIR_MASK][row]):
      detection = batch[schema.PAIR_DETECTION][row, pair].prod() ** 0.5
      kind = batch[schema.PAIR_OBJECT][row, pair]
      for verb in np.flatnonzero(kind == OBJECT_OF):
        p = 1 / (1 + np.exp(-logits[row, pair, verb]))
        expected[row, int(pair), int(verb)] = p * detection
  got = {
    (row, int(found["pair"][row, k]), int(found["interaction"][row, k])): s
    for row in range(4)
    for k, s in enumerate(found["score"][row])
    if s >= 0
  }
  assert got.keys() == expected.keys()
  for key, value in expected.items():
    assert got[key] == pytest.approx(value, rel=1e-5)
  assert (np.diff(found["score"], axis=1) <= 0).all()


def test_zero_shot_is_a_softmax_among_the_objects_interactions():
  batch, banks = pair_batches.batch(), pair_batches.banks()
  predict = pair_eval.cached_pair_logits(schema.VERB_LOGITS)
  scores = np.asarray(predict({}, batch, banks)[out.PAIR_SCORES])
  row, pair = 0, 0
  own = batch[schema.PAIR_OBJECT][row, pair] == OBJECT_OF
  logits = batch[schema.VERB_LOGITS][row, own].astype(float)
  share = np.exp(logits) / np.exp(logits).sum()
  found = 1 / (1 + np.exp(-scores[row, pair, own].astype(float)))
  np.testing.assert_allclose(found, np.clip(share, 1e-6, 1 - 1e-6), rtol=1e-4)
  assert (scores[row, pair, ~own] == out.NEVER).all()


def test_suppression_by_hand():
  """Of one interaction the worse of two pairs that overlap goes."""
  base = [0, 0, 9, 9, 20, 0, 29, 9]
  shifted = [0, 0, 9, 9, 20, 0, 29, 7]  # objects: 80 of 100; ** 0.5 = .894
  away = [0, 0, 9, 9, 50, 0, 59, 9]
  found = Detections(
    image=np.zeros(5, np.int32),
    boxes=np.array([shifted, base, away, base, base], float),
    interaction=np.array([1, 1, 1, 2, 1], np.int32),
    score=np.array([0.4, 0.9, 0.3, 0.2, 0.9]),
  )
  kept = suppress(found, 0.7)
  assert kept.score.tolist() == [0.9, 0.3, 0.2]
  assert kept.interaction.tolist() == [1, 1, 2]
  assert suppress(found, 0.85).score.tolist() == [0.9, 0.3, 0.2]
  assert suppress(found, 0.9).score.tolist() == [0.9, 0.4, 0.3, 0.2]
  assert len(suppress(found, 1.0).score) == 5


def test_tables_name_detector_and_split():
  scores = {"full": 12.5, "rare": None, "non_rare": 12.0, "seen": 15.0}
  scores |= {"unseen": 10.0, "hm": 12.0}
  results = {
    "dataset": "tiny",
    "detector": "imagined",
    "zero_shot": "UV",
    "models": {"student": scores | {"known_object": scores | {"full": 20.0}}},
  }
  text = tables.markdown(results, tables.interaction_blocks)
  assert "imagined" in text and "split UV" in text
  row = f"| student | UV | 12.50 | {tables.DASH} | 12.00 | 15.00 | 10.00 |"
  assert row in text
  assert "| student | UV | 20.00 |" in text.split("Known Object")[1]
