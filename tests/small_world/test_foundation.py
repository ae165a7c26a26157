"""The small foundation models: folders, restart, initialisation, loss."""

import dataclasses
import functools
import shutil
import subprocess
import sys
import threading

import jax
import numpy as np
import pytest

from input_pipeline.io.errors import InputError
from input_pipeline.small_world import WorldConfig, draw_world
from input_pipeline.small_world import regions as region_lib
from input_pipeline.small_world.situations import captions
from input_pipeline.small_world.situations.captions import content_words
from mipd_jax.teachers import blip2, clip, foundation, token_boxes
from mipd_jax.teachers.checkpoints import tokenizer
from mipd_jax.teachers.small import (
  box_nouns,
  clip_training,
  muon,
  questions,
  tower,
)

WORLD = WorldConfig.tiny()


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
  out = tmp_path_factory.mktemp("foundation")
  return foundation.train_foundation(
    WORLD, out, foundation.FoundationConfig.debug()
  )


@pytest.fixture(scope="module")
def model(folders) -> clip.Clip:
  return clip.load(folders["student_clip"])


def test_folders_load_and_have_scores(folders, model):
  teacher = clip.load(folders["teacher_clip"])
  assert teacher.revision != ""
  assert model.image_size == teacher.image_size == 48
  assert model.num_image_tokens == 37
  for name, folder in folders.items():
    scores = foundation.zero_shot(folder)
    nouns = scores.pop("nouns in boxes")
    probe = {"probe"} if name != "teacher_blip2" else set()
    assert set(nouns) == probe | {"own answers"}
    for verbs in scores.values():
      assert set(verbs) == {"seen", "rare", "unseen"}
  parent = folders["student_clip"].parent
  assert {p.name for p in parent.iterdir()} == set(foundation.STANDARD)


def test_blip2_answers_and_has_the_tower_of_the_clip(folders):
  """Its tokens are CLIP's through CLIP's last norm, but for a regression."""
  teacher = clip.load(folders["teacher_clip"])
  model = blip2.load(folders["teacher_blip2"])
  layer = model.params["vision_model"]["encoder"]["layers"]["0"]
  ours = tower.from_clip(model.params, teacher.params)
  start = ours["vision_model"]["encoder"]["layers"]["0"]
  kernels = [x["self_attn"]["qkv"]["kernel"] for x in (layer, start)]
  moved = np.abs(kernels[0] - kernels[1]).max()
  assert 0 < moved < 0.02  # a few steps of 1e-3 from CLIP's weights
  attention = teacher.params["vision_model"]["encoder"]["layers"]["0"]
  query = attention["self_attn"]["q_proj"]["kernel"]
  np.testing.assert_array_equal(kernels[1][:, : query.shape[1]], query)
  names = [verb.name for verb in draw_world(WORLD).verbs]
  assert model.tokenize_answers(names).lengths.tolist() == [2] * len(names)


def test_questions_know_all_their_words(folders):
  model = blip2.load(folders["teacher_blip2"])
  scenes = captions.draw_pool(draw_world(WORLD), 8, 48)[1]
  tokens = np.arange(8)[:, None, None] * np.ones((1, 2, 3))
  told = captions.CaptionConfig(verb=1.0)
  batches = questions.batches(model, tokens, scenes, told, 4, seed=0, boxes=2)
  seen, boxes, ids, _, targets = next(batches)
  assert boxes.shape == (4, 2, 4) and ids.shape[1] == 5
  unknown = tokenizer.vocabulary([])[tokenizer.UNKNOWN]
  assert not (ids == unknown).any() and not (targets == unknown).any()
  verbs = {verb.name for verb in draw_world(WORLD).verbs}
  asked, _ = model.tokenize([questions.VERB])
  for row, image in enumerate(seen[:, 0, 0].astype(int)):
    answers = [
      model.tokenizer.inner.decode(t[t >= 0], skip_special_tokens=True)
      for t in targets[row]
    ]
    answered = {
      answer
      for question, answer in zip(ids[row], answers, strict=True)
      if (question == asked[0, : ids.shape[-1]]).all()
    }
    assert answered == {scenes[image].verb.name} <= verbs
    # The last two are about boxes, in the order of the boxes.
    told = {r.box: r for r in captions.regions(scenes[image])}
    for box, question, answer in zip(
      boxes[row], ids[row, 3:], answers[3:], strict=True
    ):
      region = next(r for b, r in told.items() if np.allclose(b, box))
      text = questions.ROLE.format(role=region.question)
      wanted, _ = model.tokenize([text], ids.shape[-1])
      assert answer == region.name
      assert (question == wanted[0]).all()


def test_every_word_of_the_world_is_known(model):
  world = draw_world(WORLD)
  texts = [f"{verb.name}: {verb.definition}" for verb in world.verbs]
  texts += [f"a photo of {n.gloss}, {n.definition}" for n in world.nouns]
  ids, _ = model.tokenize(texts, 32)
  assert not (ids == 1).any()


def test_complete_models_are_kept_and_others_refused(folders, monkeypatch):
  def never(*_, **__):
    raise AssertionError("trained again")

  monkeypatch.setattr(clip_training, "train", never)
  monkeypatch.setattr(clip_training, "draw_images", never)
  out = folders["student_clip"].parent
  config = foundation.FoundationConfig.debug()
  assert foundation.train_foundation(WORLD, out, config) == folders
  with pytest.raises(InputError, match="other settings"):
    foundation.train_foundation(WorldConfig.tiny(seed=1), out, config)
  with pytest.raises(InputError, match="other settings"):
    foundation.train_foundation(WORLD, out, dataclasses.replace(config, seed=1))


def test_interrupted_training_leaves_nothing(tmp_path, monkeypatch):
  def interrupted(*_, **__):
    raise KeyboardInterrupt

  monkeypatch.setattr(clip_training, "train", interrupted)
  with pytest.raises(KeyboardInterrupt):
    foundation.train_foundation(
      WORLD, tmp_path, foundation.FoundationConfig.debug()
    )
  assert list(tmp_path.iterdir()) == []


def test_foreign_folder_is_not_overwritten(tmp_path):
  (tmp_path / "teacher_clip").mkdir()
  with pytest.raises(InputError, match="in the way"):
    foundation.train_foundation(
      WORLD, tmp_path, foundation.FoundationConfig.debug()
    )


def test_leftovers_of_killed_processes_are_removed(
  folders, tmp_path, monkeypatch
):
  """Those of a process that is still at work stay, until it has ended."""
  config = foundation.FoundationConfig.debug()
  out = tmp_path / "foundation"
  left = out / ".teacher_clip.abcd"
  other = out / ".teacher_clipped"
  for folder in (left / "teacher_clip", other):
    folder.mkdir(parents=True)
  source = folders["teacher_clip"]
  made = []

  def write(*arguments):
    part = arguments[-1]
    made.append([path.name for path in sorted(out.iterdir())])
    shutil.copytree(source, part, dirs_exist_ok=True)
    return {}

  monkeypatch.setattr(foundation.clip_maker, "write", write)
  holder = subprocess.Popen(
    [
      sys.executable,
      "-c",
      "import fcntl, os, sys\n"
      "fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX)\n"
      "print('held', flush=True)\n"
      "input()",
      str(out),
    ],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
  )
  assert holder.stdout.readline() == "held\n"
  train = threading.Thread(
    target=foundation.train_foundation,
    args=(WORLD, out, config, ["teacher_clip"]),
  )
  train.start()
  train.join(1)
  assert train.is_alive() and left.exists()
  holder.kill()
  holder.wait()
  train.join(60)
  (during,) = made
  assert ".teacher_clip.abcd" not in during
  assert {p.name for p in out.iterdir()} == {other.name, "teacher_clip"}


@pytest.mark.parametrize(
  ("content", "told"),
  [
    ("[]", "expected an object"),
    ('{"fingerprint": 3, "scores": {}}', "fingerprint is 3"),
    ('{"fingerprint": "x"}', "scores is missing"),
    ("{", "cut off"),
    ("[" * 100_000, "nested too deeply"),
  ],
)
def test_a_broken_record_is_told(tmp_path, content, told):
  folder = tmp_path / "teacher_clip"
  folder.mkdir()
  (folder / "foundation.json").write_text(content)
  with pytest.raises(InputError, match=told):
    foundation.train_foundation(
      WORLD, tmp_path, foundation.FoundationConfig.debug()
    )
  with pytest.raises(InputError, match=told):
    foundation.zero_shot(folder)


def test_command_line_refuses_with_a_remedy(folders, capsys):
  out = folders["student_clip"].parent
  assert foundation.main([f"--out={out}", "--world_seed=7"]) == 2
  assert "Remedy" in capsys.readouterr().err


def test_initialisation_is_fan_in(model):
  template = jax.eval_shape(lambda: model.params)
  params = clip_training.init_params(template, 0)
  layer = params["vision_model"]["encoder"]["layers"]["0"]
  width = layer["mlp"]["fc1"]["kernel"].shape[0]
  assert np.std(layer["mlp"]["fc1"]["kernel"]) == pytest.approx(
    width**-0.5, rel=0.1
  )
  residual = layer["mlp"]["fc2"]["kernel"]
  assert np.std(residual) == pytest.approx(
    (2 * residual.shape[0]) ** -0.5, rel=0.1
  )
  again = clip_training.init_params(template, 0)
  assert all(jax.tree.leaves(jax.tree.map(np.array_equal, params, again)))


def test_whitened_patches_are_uncorrelated_and_unit():
  rng = np.random.default_rng(0)
  smooth = rng.standard_normal((400, 2, 2, 3)).repeat(4, 1).repeat(4, 2)
  pixels = smooth + 0.5 * rng.standard_normal(smooth.shape)
  kernel = clip_training.whitening_kernel(pixels, (4, 4, 3, 8))
  cells = pixels.reshape(400, 2, 4, 2, 4, 3).transpose(0, 1, 3, 2, 4, 5)
  answers = np.einsum("nijabc,abcw->nijw", cells, kernel).reshape(-1, 8)
  moments = answers.T @ answers / len(answers)
  np.testing.assert_allclose(moments, np.eye(8), atol=0.06)


def test_loss_is_the_formula(model):
  """InfoNCE and the losses on words against plain loops over numpy."""
  world = draw_world(WORLD)
  words, _ = model.tokenize(content_words(world)[:12], 3)
  texts = [" ".join(content_words(world)[k : k + 3]) for k in range(4)]
  ids, mask = model.tokenize(texts, 28)
  positions = np.broadcast_to(np.arange(28), ids.shape)
  pixels = np.random.default_rng(0).integers(0, 256, (4, 48, 48, 3), np.uint8)
  # The first image has two boxes, the second one, the others none.
  boxes = np.zeros((4, 2, 4), np.float32)
  boxes[0] = [[0.1, 0.2, 0.6, 0.9], [0.5, 0.0, 1.0, 0.3]]
  boxes[1, 0] = [0.3, 0.3, 0.4, 0.35]
  said = np.zeros((4, 2, 12), bool)
  said[0, 0, [1, 7]] = said[0, 1, 3] = said[1, 0, [0, 1, 2]] = True
  weights = {"word": 3.0, "region": 0.5}
  loss = jax.jit(functools.partial(clip_training._loss, model, weights))
  total, metrics = loss(
    model.params, words, pixels, ids, mask, positions, boxes, said
  )

  def unit(x):
    x = np.asarray(x, np.float64)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)

  image = unit(model.image_embedding(model.params, pixels))
  text = unit(model.text_embedding(model.params, ids, mask))
  word = unit(
    model.text_embedding(model.params, words, np.ones_like(words, bool))
  )
  scale = model.logit_scale
  logits = scale * image @ text.T
  nce, each = 0.0, []
  for i in range(4):
    rows, columns = np.exp(logits[i]), np.exp(logits[:, i])
    nce -= np.log(rows[i] / rows.sum()) / 8
    nce -= np.log(columns[i] / columns.sum()) / 8
    present = [w for w in range(12) if words[w, 1] in ids[i]]
    scores = np.exp(scale * word @ image[i])
    absent = sum(scores[w] for w in range(12) if w not in present)
    each += [-np.log(scores[w] / (scores[w] + absent)) for w in present]
  assert len(each) == 12
  assert float(metrics["nce"]) == pytest.approx(nce, rel=1e-4)
  assert float(metrics["word"]) == pytest.approx(np.mean(each), rel=1e-4)
  tokens = model.image_tokens(model.params, pixels)
  inside = unit(model.region_embedding(model.params, tokens, boxes))
  region = []
  for i, k in [(0, 0), (0, 1), (1, 0)]:
    scores = np.exp(scale * word @ inside[i, k])
    absent = scores[~said[i, k]].sum()
    region += [-np.log(s / (s + absent)) for s in scores[said[i, k]]]
  assert float(metrics["region"]) == pytest.approx(np.mean(region), rel=1e-4)
  assert float(total) == pytest.approx(
    nce + 3 * np.mean(each) + 0.5 * np.mean(region), rel=1e-4
  )


def test_the_mean_of_a_box_weighs_tokens_by_area():
  """Against a mean over many points, each in one cell."""
  rng = np.random.default_rng(0)
  tokens = rng.normal(size=(1, 1 + 16, 3)).astype(np.float32)
  boxes = np.array([[0.1, 0.3, 0.8, 0.55], [0.26, 0.26, 0.27, 0.4]])
  place = (np.arange(2000) + 0.5) / 2000
  found = np.asarray(token_boxes.pooled(tokens, boxes[None].astype(np.float32)))
  for (x1, y1, x2, y2), mean in zip(boxes, found[0], strict=True):
    columns = (place[(place > x1) & (place < x2)] * 4).astype(int)
    rows = (place[(place > y1) & (place < y2)] * 4).astype(int)
    grid = tokens[0, 1:].reshape(4, 4, 3)
    expected = grid[rows][:, columns].mean(axis=(0, 1))
    np.testing.assert_allclose(mean, expected, atol=5e-3)
  nothing = token_boxes.pooled(tokens, np.full((1, 1, 4), 0.5, np.float32))
  assert not np.asarray(nothing).any()


def test_muon_trains_the_matrices_of_the_image_tower(model):
  labels = muon.matrices(model.params, clip_training._is_matrix)
  leaves = jax.tree_util.tree_leaves_with_path(
    labels, is_leaf=lambda x: x is None or hasattr(x, "reduction_axis")
  )
  chosen = {jax.tree_util.keystr(path) for path, leaf in leaves if leaf}
  assert all("vision_model" in name and "kernel" in name for name in chosen)
  assert any("q_proj" in name for name in chosen)
  assert any("fc1" in name for name in chosen)
  assert not any("patch_embedding" in name for name in chosen)


def test_a_probe_finds_a_linear_rule():
  rng = np.random.default_rng(0)
  centres = rng.normal(size=(5, 8))
  labels, held = rng.integers(5, size=400), rng.integers(5, size=100)
  features, others = (
    centres[x] + 0.1 * rng.normal(size=(len(x), 8)) for x in (labels, held)
  )
  guesses = box_nouns.ridge_probe(features, labels, others, 5)
  assert (guesses == held).mean() > 0.98


def test_training_lowered_the_loss(model):
  """Even the 20 debug steps fit the images that they were shown."""
  world = draw_world(WORLD)
  config = foundation.FoundationConfig.debug()
  images = clip_training.draw_images(world, config.num_images, 1, 48)
  settings = dataclasses.replace(config.student, batch_size=64)
  content = content_words(world)
  told = region_lib.arrays(
    [captions.regions(scene) for scene in images.scenes], content
  )
  batch = next(
    clip_training._batches(model, settings, images, told, 0, captions.caption)
  )
  words, _ = model.tokenize(content, 3)
  weights = {"word": 1.0, "region": 1.0}
  loss = jax.jit(functools.partial(clip_training._loss, model, weights))
  before = clip_training.init_params(model.params, 0)
  some = np.asarray(model.normalise(images.pixels))
  patches = before["vision_model"]["embeddings"]["patch_embedding"]
  patches["kernel"] = clip_training.whitening_kernel(
    some, patches["kernel"].shape
  )
  losses = [
    float(loss(params, words, *batch)[0]) for params in (before, model.params)
  ]
  assert losses[1] < 0.9 * losses[0]
