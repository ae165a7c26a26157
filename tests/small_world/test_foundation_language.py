"""The small language model: learns, is written, and runs JRG end to end."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from input_pipeline import schema
from input_pipeline.small_world import WorldConfig, draw_world
from input_pipeline.small_world.situations.folder import scenes
from mipd_jax.devices import sharding
from mipd_jax.rationales import jrg, prompts
from mipd_jax.rationales.judging import JrgConfig
from mipd_jax.teachers.language import language_model, weights
from mipd_jax.teachers.language import tokens as tokens_lib
from mipd_jax.teachers.small import language_maker, language_training
from tests.fakes.jrg_fakes import WORDS, Split

WORLD = draw_world(WorldConfig.tiny())
DEBUG = language_maker.LanguageSettings.debug()


@pytest.fixture(scope="module")
def written(tmp_path_factory):
  """Folder and scores of a model that has learnt nothing."""
  folder = tmp_path_factory.mktemp("language") / "model"
  return folder, language_maker.write(WORLD, DEBUG, 0, folder)


@pytest.fixture(scope="module")
def model(written):
  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  return language_model.load(written[0], mesh=mesh, batch_size=8)


def test_the_folder_is_a_checkpoint(written, model):
  folder, scores = written
  names = {path.name for path in folder.iterdir()}
  assert {"config.json", "model.safetensors", "tokenizer.json"} <= names
  assert set(scores) == {
    "accepted_at_first",
    "accepted",
    "judged_true",
    "judged_false",
  }
  assert all(0 <= score <= 100 for score in scores.values())
  assert json.loads((folder / "config.json").read_text())["model_type"] == (
    "llama"
  )
  head = model.params["lm_head"]["kernel"]
  embedding = model.params["model"]["embed_tokens"]["embedding"]
  np.testing.assert_array_equal(head, embedding.T)


def test_every_word_of_the_world_s_prompts_is_known(model):
  unknown = model.tokens.inner.unk_token_id
  for frame in language_training.draw_frames(WORLD, 30, seed=7):
    for judge in (False, True):
      for example in language_training.examples(frame, judge=judge):
        ids = model.tokens.encode(f"{example.prompt} {example.answer}")
        assert unknown not in ids


def test_texts_survive_the_tokenizer(model):
  (frame,) = language_training.draw_frames(WORLD, 1, seed=7)
  for example in language_training.examples(frame, judge=False):
    ids = np.array([model.tokens.encode(example.answer)])
    assert model.tokens.decode(ids) == [example.answer]
    assert ids[0, -1] != model.tokens.inner.eos_token_id


def test_frames_are_none_of_the_folder_s():
  def things(frame):
    return (
      frame.true.verb,
      tuple((one.role, one.noun, one.place) for one in frame.instances),
    )

  first = language_training.draw_frames(WORLD, 40, seed=0)
  second = language_training.draw_frames(WORLD, 40, seed=1)
  assert {f.true.verb for f in first} == {v.name for v in WORLD.verbs}
  assert [things(f) for f in first] != [things(f) for f in second]
  # Boxes are drawn anew: equal only if the random streams were the same.
  folder = [scene.actor for _, scene in scenes(WORLD, "train")]
  rng = np.random.default_rng([WORLD.config.seed, 5, 0])
  rng.permutation(40)
  drawn = language_training.draw_scene(WORLD, WORLD.verbs[0], rng)
  assert drawn.actor not in folder


def test_examples_teach_tasks_and_judgements():
  (frame,) = language_training.draw_frames(WORLD, 1, seed=3)
  texts = language_training.examples(frame, judge=False)
  asked = language_training.examples(frame, judge=True)
  assert [e.answer for e in asked] == ["yes", "no", "yes", "no"]
  for text, question in zip(texts, asked, strict=True):
    assert text.answer in question.prompt
  kinds = [prompts.TERSE.write(kind, frame, 0) for kind in schema.RATIONALES]
  assert [e.prompt for e in texts] == kinds


def test_wired_heads_look_back(written):
  """Initially a token attends to the one before it, for any words."""
  network = weights.build(written[0])
  config = network.config
  params = language_training.init_params(network, seed=0)
  attention = params["model"]["layers"]["0"]["self_attn"]
  size = config.hidden_size // config.num_attention_heads
  query = attention["q_proj"]["bias"].reshape(-1, size)[0]
  key = attention["k_proj"]["bias"].reshape(-1, size)[0]
  half = size // 2
  angles = 10000.0 ** (-2.0 * np.arange(half) / size)

  def turned(vector, position):
    a, b = vector[:half], vector[half:]
    cos, sin = np.cos(angles * position), np.sin(angles * position)
    return np.concatenate([a * cos - b * sin, b * cos + a * sin])

  scores = [turned(query, 20) @ turned(key, p) for p in range(21)]
  assert int(np.argmax(scores)) == 19


def test_training_learns(written):
  """A few dozen steps on two frames: the loss falls by a lot."""
  network = weights.build(written[0])
  tokens = tokens_lib.load(written[0], network.config)
  frames = language_training.draw_frames(WORLD, 2, seed=0)
  settings = dataclasses.replace(DEBUG, steps=40, learning_rate=1e-2)
  batch = next(language_training._batches(frames, tokens, settings, 1))

  def loss(params):
    run = jax.jit(language_training._loss, static_argnums=0)
    return run(network, params, *batch)[1]

  before = loss(language_training.init_params(network, 0))
  after = loss(
    language_training.train(network, tokens, frames, settings, seed=0)
  )
  assert after["text"] < 0.5 * before["text"]


def test_jrg_runs_end_to_end_with_a_real_model(model, tmp_path):
  """It also writes the same in any batch."""
  config = JrgConfig(style="terse", attempts=2, max_new_tokens=12)
  split = Split(4)
  texts = jrg.write_rationales(split, WORDS, model, tmp_path / "a.json", config)
  assert list(texts) == list(split.names)
  assert all(all(four) for four in texts.values())
  report = json.loads((tmp_path / "a.report.json").read_text())
  for kind in report["kinds"].values():
    assert kind["written_by_model"] + kind["written_by_template"] == 4
  # It knows few of these words: what it writes is rejected with reasons.
  assert sum(sum(k["reasons"].values()) for k in report["kinds"].values()) > 0
  other = dataclasses.replace(model, batch_size=3)
  jrg.write_rationales(split, WORDS, other, tmp_path / "b.json", config)
  for name in ("{}.json", "{}.report.json", "{}.report.md"):
    ours, theirs = (tmp_path / name.format(x) for x in "ab")
    assert ours.read_bytes() == theirs.read_bytes()


@pytest.mark.slow
def test_the_standard_model_is_of_use(tmp_path):
  settings = language_maker.LanguageSettings()
  world = draw_world(WorldConfig())
  scores = language_maker.write(world, settings, 0, tmp_path / "model")
  assert scores["accepted"] > 60
  assert min(scores["judged_true"], scores["judged_false"]) > 60
