"""Trains the small world's foundation models: two CLIPs.

`student_clip` plays CLIP's part: a weak image tower whose tokens the student
reads. `teacher_clip` plays the MLLM's part: a stronger one, whose knowledge
is distilled. Both learn from captioned images that no folder holds.

    python -m mipd_jax.teachers.foundation --out=DIR --world_seed=0

What makes them trainable in a minute: fan-in initialisation (Hugging Face's
kernels of std 0.01 stay on a plateau at these widths) with a patch embedding
that whitens patches, many narrow heads, and, beside InfoNCE, a word-level
loss: each word of a caption against all absent words.

Zero-shot verb accuracy with name and definition, seen/rare/unseen, percent
(96 verbs, 960 held-out images; 134 s for both on 2 CPU cores that tests
shared for half of it):
  world 0: teacher 75/75/74, student 46/46/36
  world 1: teacher 81/81/77, student 57/56/43
"""

import argparse
import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
import sys
import tempfile
from typing import Any

import jax
import numpy as np

from input_pipeline.errors import InputError
from input_pipeline.small_world.captions import (
  CaptionConfig,
  all_words,
)
from input_pipeline.small_world.config import WorldConfig
from input_pipeline.small_world.world import World, draw_world
from mipd_jax.teachers import clip, foundation_training, hf_weights, tokenizer

_VERSION = 1  # raise it when the same settings give other weights


@dataclasses.dataclass(frozen=True)
class ClipSettings:
  """One CLIP: its size, its captions, its schedule."""

  vision_width: int
  vision_layers: int
  text_width: int
  text_layers: int
  joint_width: int
  steps: int
  captions: CaptionConfig = dataclasses.field(default_factory=CaptionConfig)
  head_width: int = 16
  patch_size: int = 8
  image_size: int = 48
  max_text_length: int = 64
  batch_size: int = 64
  learning_rate: float = 1e-3


@dataclasses.dataclass(frozen=True)
class FoundationConfig:
  """Both CLIPs and the captioned images that they share.

  Attributes:
    student, teacher: the two models.
    num_images: captioned images, drawn once.
    eval_images: held-out images per verb for the zero-shot scores.
    seed: of weights, captions and order.
  """

  student: ClipSettings = ClipSettings(
    vision_width=64,
    vision_layers=2,
    text_width=64,
    text_layers=2,
    joint_width=64,
    steps=700,
    # Sparser captions keep it well behind the teacher.
    captions=CaptionConfig(verb=0.6, unseen=0.5, attribute=0.4),
  )
  teacher: ClipSettings = ClipSettings(
    vision_width=128,
    vision_layers=3,
    text_width=64,
    text_layers=2,
    joint_width=128,
    steps=600,
  )
  num_images: int = 16384
  eval_images: int = 10
  seed: int = 0

  @classmethod
  def debug(cls) -> "FoundationConfig":
    """20 steps of tiny models: runs, learns nothing."""
    tiny = ClipSettings(
      vision_width=32,
      vision_layers=1,
      text_width=32,
      text_layers=1,
      joint_width=32,
      steps=20,
      batch_size=16,
    )
    return cls(student=tiny, teacher=tiny, num_images=128, eval_images=2)


def train_foundation(
  world_config: WorldConfig,
  out: str | os.PathLike,
  config: FoundationConfig | None = None,
) -> dict[str, pathlib.Path]:
  """Makes `out/student_clip` and `out/teacher_clip`, each whole or not at all.

  A model that is there already, from the same settings, is kept.

  Args:
    world_config: the world whose words and looks are learnt.
    out: folder for both models.
    config: sizes and schedule; the standard ones when None.

  Returns:
    "student_clip" and "teacher_clip" -> folder.

  Raises:
    InputError: a model of other settings is in the way.
  """
  config = config or FoundationConfig()
  world = draw_world(world_config)
  settings = {"teacher_clip": config.teacher, "student_clip": config.student}
  folders = {name: pathlib.Path(out) / name for name in settings}
  prints = {
    name: _fingerprint(world_config, config, one)
    for name, one in settings.items()
  }
  todo = [n for n in settings if not _is_complete(folders[n], prints[n])]
  images: dict[int, Any] = {}
  for name in todo:
    one = settings[name]
    if one.image_size not in images:
      images[one.image_size] = foundation_training.draw_images(
        world, config.num_images, config.eval_images, one.image_size
      )
    _make(
      world, one, config.seed, images[one.image_size], folders[name], prints
    )
  return folders


def zero_shot(folder: str | os.PathLike) -> dict[str, dict[str, float]]:
  """The scores that training measured: prompt -> group -> percent."""
  return _read_record(pathlib.Path(folder))["zero_shot"]


def _fingerprint(
  world: WorldConfig, config: FoundationConfig, one: ClipSettings
) -> str:
  made_from = {
    "version": _VERSION,
    "world": dataclasses.asdict(world),
    "clip": dataclasses.asdict(one),
    "num_images": config.num_images,
    "eval_images": config.eval_images,
    "seed": config.seed,
  }
  text = json.dumps(made_from, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()


def _read_record(folder: pathlib.Path) -> dict[str, Any]:
  return json.loads((folder / "foundation.json").read_text())


def _is_complete(folder: pathlib.Path, fingerprint: str) -> bool:
  if not folder.exists():
    return False
  try:
    found = _read_record(folder)["fingerprint"]
  except (OSError, ValueError, KeyError) as error:
    raise InputError(
      f"{folder} is in the way: not a small foundation model",
      "give another folder with --out, or delete this one",
    ) from error
  if found != fingerprint:
    raise InputError(
      f"{folder} was trained from other settings (another world or another "
      f"configuration: {found[:12]}, wanted {fingerprint[:12]})",
      "give another folder with --out, or delete this one",
    )
  return True


def _make(
  world: World,
  settings: ClipSettings,
  seed: int,
  images: Any,
  folder: pathlib.Path,
  prints: dict[str, str],
) -> None:
  """Trains one CLIP, scores it and writes its folder by a rename."""
  folder.parent.mkdir(parents=True, exist_ok=True)
  part = pathlib.Path(
    tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent)
  )
  try:
    words = all_words(world)
    tokenizer.save_word_level(part, words, settings.max_text_length)
    config = _clip_config(settings, words)
    module, template = clip.build(config)
    model = clip.Clip(
      name=folder.name,
      revision="in training",
      module=module,
      config=config,
      params=template,
      tokenizer=tokenizer.load(part),
    )
    params = foundation_training.train(
      world, model, settings, images, seed=seed
    )
    scores = foundation_training.zero_shot(world, model, params, images)
    print(f"{folder.name} zero-shot verb accuracy, percent: {scores}")
    _write(part, config, params)
    record = {"fingerprint": prints[folder.name], "zero_shot": scores}
    (part / "foundation.json").write_text(json.dumps(record, indent=2) + "\n")
    part.chmod(0o755)
    part.rename(folder)
  finally:
    shutil.rmtree(part, ignore_errors=True)


def _clip_config(settings: ClipSettings, words: list[str]) -> Any:
  from transformers import CLIPConfig

  ids = tokenizer.vocabulary(words)
  vision, text = settings.vision_width, settings.text_width
  return CLIPConfig(
    vision_config={
      "hidden_size": vision,
      "intermediate_size": 4 * vision,
      "num_hidden_layers": settings.vision_layers,
      "num_attention_heads": max(1, vision // settings.head_width),
      "image_size": settings.image_size,
      "patch_size": settings.patch_size,
    },
    text_config={
      "vocab_size": len(ids),
      "hidden_size": text,
      "intermediate_size": 4 * text,
      "num_hidden_layers": settings.text_layers,
      "num_attention_heads": max(1, text // settings.head_width),
      "max_position_embeddings": settings.max_text_length,
      "pad_token_id": ids[tokenizer.PAD],
      "bos_token_id": ids[tokenizer.BEGIN],
      "eos_token_id": ids[tokenizer.END],
    },
    projection_dim=settings.joint_width,
    architectures=["CLIPModel"],
  )


def _write(folder: pathlib.Path, config: Any, params: Any) -> None:
  config.save_pretrained(folder)
  weights = folder / "model.safetensors"
  hf_weights.write(weights, jax.tree.map(np.asarray, params))
  weights.chmod(0o644)


def main(arguments: list[str] | None = None) -> int:
  """Command line; returns the exit status."""
  parser = argparse.ArgumentParser(
    prog="python -m mipd_jax.teachers.foundation",
    description="Train the two small CLIPs of a small world.",
  )
  parser.add_argument("--out", required=True, help="folder for both models")
  parser.add_argument("--world_seed", type=int, default=0)
  parser.add_argument("--seed", type=int, default=0, help="of the training")
  parser.add_argument("--tiny_world", action="store_true")
  parser.add_argument(
    "--debug", action="store_true", help="20 steps of tiny models"
  )
  given = parser.parse_args(arguments)
  world = WorldConfig.tiny if given.tiny_world else WorldConfig
  base = FoundationConfig.debug() if given.debug else FoundationConfig()
  config = dataclasses.replace(base, seed=given.seed)
  try:
    train_foundation(world(seed=given.world_seed), given.out, config)
  except InputError as error:
    print(f"error: {error}", file=sys.stderr)
    return 2
  return 0


if __name__ == "__main__":
  sys.exit(main())
