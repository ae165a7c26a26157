"""Real photographs, frames and vocabulary of SWiG through the main command.

The data are not ours to copy: they are read from `../shared` beside the
repository, and the test is skipped where that is absent. Encoders are small,
random, in Hugging Face's format; so numbers are only checked to be numbers.
"""

import json
import math
import pathlib
import shutil
import sys

import jax
import numpy as np
import pytest
from PIL import Image

from tests.fixtures import pipeline_fixture

SHARED = pipeline_fixture.ROOT.parent / "shared" / "data" / "swig"
pytestmark = pytest.mark.skipif(
  not (SHARED / "images").is_dir(),
  reason="no real SWiG data in ../shared/data/swig",
)
# Split -> photograph's number -> the verb it is filed under. Three verbs are
# put on photographs of jumping, so that each group has images.
PHOTOGRAPHS = {
  "train": [(n, "jumping") for n in (10, 101, 102, 103, 104)]
  + [(n, "leaping") for n in (105, 108)],
  "dev": [(100, "jumping"), (106, "jumping"), (102, "leaping")],
  "test": [(n, "jumping") for n in (107, 109, 108)]
  + [(103, "leaping"), (104, "diving"), (101, "diving")],
}
_BANKS = ("verb_text", "role_text", "noun_text")
GROUPS = {"rare": ["leaping"], "unseen": ["diving"]}


def _write_swig(folder: pathlib.Path) -> pathlib.Path:
  jsons, images = folder / "SWiG_jsons", folder / "images_512"
  jsons.mkdir(parents=True)
  images.mkdir()
  for name in ("verb_indices.txt", "role_indices.txt", "train_classes.csv"):
    shutil.copy(SHARED / name, jsons / name)
  shutil.copy(SHARED / "imsitu_space.json", jsons / "imsitu_space.json")
  space = json.loads((SHARED / "imsitu_space.json").read_text())
  real = json.loads((SHARED / "test_frames.json").read_text())
  for split, rows in PHOTOGRAPHS.items():
    records = {}
    for number, verb in rows:
      source = f"jumping_{number}.jpg"
      name = source if verb == "jumping" else f"{verb}_{number}.jpg"
      shutil.copy(SHARED / "images" / source, images / name)
      blank = dict.fromkeys(space["verbs"][verb]["order"], "")
      frames = [blank] * 3
      if verb == "jumping" and source in real:
        frames = real[source]["frames"]
      with Image.open(images / name) as photograph:
        width, height = photograph.size
      records[name] = {
        "verb": verb,
        "height": height,
        "width": width,
        "bb": {role: [-1, -1, -1, -1] for role in blank},
        "frames": frames,
      }
    (jsons / f"{split}.json").write_text(json.dumps(records))
  verbs = (SHARED / "verb_indices.txt").read_text().split("\n")
  taken = [verb for group in GROUPS.values() for verb in group]
  seen = [verb for verb in verbs if verb and verb not in taken]
  groups = {"version": 1, "seen": seen, **GROUPS}
  (jsons / "ov_splits.json").write_text(json.dumps(groups))
  return folder


def _write_clip(folder: pathlib.Path, width: int, side: int) -> pathlib.Path:
  """A random CLIP: config.json, model.safetensors, tokenizer.json."""
  from transformers import CLIPConfig

  from mipd_jax.teachers import clip
  from mipd_jax.teachers.checkpoints import hf_weights, tokenizer

  words = "a photo of the activity jumping leaping diving person horse water"
  ids = tokenizer.vocabulary(words.split())
  tower = {
    "hidden_size": width,
    "intermediate_size": 2 * width,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
  }
  config = CLIPConfig(
    vision_config={**tower, "image_size": side, "patch_size": 8},
    text_config={
      **tower,
      "vocab_size": len(ids),
      "max_position_embeddings": 77,
      "pad_token_id": ids[tokenizer.PAD],
      "bos_token_id": ids[tokenizer.BEGIN],
      "eos_token_id": ids[tokenizer.END],
    },
    projection_dim=32,
  )
  rng = np.random.default_rng(width)
  _, template = clip.build(config)
  params = jax.tree.map(
    lambda leaf: 0.2 * rng.standard_normal(leaf.shape).astype(np.float32),
    template,
  )
  config.save_pretrained(folder)
  tokenizer.save_word_level(folder, words.split(), 77)
  hf_weights.write(folder / "model.safetensors", params)
  return folder


@pytest.mark.slow
def test_main_on_real_photographs_and_vocabulary(tmp_path):
  work = tmp_path / "work"
  values = {
    "dataset.folder": _write_swig(tmp_path / "swig"),
    "teacher.student_encoder": _write_clip(tmp_path / "student", 16, 48),
    "teacher.teacher_encoder": _write_clip(tmp_path / "teacher", 24, 32),
    "teacher.text_encoder": tmp_path / "teacher",
    "teacher.cache": tmp_path / "cache",
    "model.hidden": 32,
    "model.heads": 4,
    "model.feed_forward": 64,
    "train.steps": 3,
    "train.batch_size": 4,
    "train.log_every": 1,
    "eval.batch_size": 4,
  }
  done = pipeline_fixture.run(
    [
      *(sys.executable, "-m", "mipd_jax.main"),
      *("--config=configs/ov_swig.py:debug", f"--workdir={work}"),
      *(f"--config.{name}={value}" for name, value in values.items()),
    ]
  )
  assert done.returncode == 0, done.stderr[-3000:]
  banks = np.load(tmp_path / "cache" / "labels.npz")
  shapes = [banks[name].shape for name in _BANKS]
  assert shapes == [(504, 32), (190, 32), (9929, 32)]
  rows = [json.loads(x) for x in (work / "metrics.jsonl").open()]
  losses = [row["loss/total"] for row in rows if "loss/total" in row]
  assert len(losses) == 3 and all(map(math.isfinite, losses))
  results = json.loads((work / "results.json").read_text())
  assert len(results["per_verb"]) == 504
  student = results["models"]["student"]
  counts = {"seen": 3, "rare": 1, "unseen": 2}
  for group, count in counts.items():
    assert student[group]["images"] == count
    for name in ("verb_top5", "value_gt", "grnd_all_gt"):
      assert math.isfinite(student[group][name])
  # Rationales are real English of the real frames.
  lines = (tmp_path / "cache" / "train" / "rationales.jsonl").read_text()
  assert "jumping: " in lines and "leaping: " in lines
  with Image.open(work / "sheet.png") as sheet:
    assert min(sheet.size) > 500
