"""Trains the small world's foundation models.

  student_clip    CLIP's part: a weak image tower whose tokens the student
                  reads
  teacher_clip    a stronger one; its text tower embeds labels and rationales
  teacher_blip2   the MLLM's part: its tokens and verb logits are distilled
  language_model  writes rationales and judges them (JRG); where asked for

All learn from images and texts that are in no folder, and are written in
Hugging Face's format, so that they are read like the real ones.

    python -m mipd_jax.teachers.foundation --out=DIR --world_seed=0
    python -m mipd_jax.teachers.foundation --out=DIR --size=grounded

A card says at the end what they know.

Zero-shot verb accuracy, seen/rare/unseen, percent (world 0: 96 verbs, 960
held-out images): teacher_clip 75/75/74, student_clip 46/46/36 with name and
definition; each folder's foundation.json has its own.
"""

import argparse
import contextlib
import dataclasses
import fcntl
import functools
import hashlib
import json
import os
import pathlib
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from typing import Any

from input_pipeline.io import commands, json_files
from input_pipeline.io.errors import InputError
from input_pipeline.small_world import lessons
from input_pipeline.small_world.interactions.config import PairWorldConfig
from input_pipeline.small_world.interactions.world import PairWorld
from input_pipeline.small_world.situations.captions import CaptionConfig
from input_pipeline.small_world.situations.config import WorldConfig
from input_pipeline.small_world.situations.world import World
from mipd_jax.teachers import clip
from mipd_jax.teachers.small import (
  blip2_maker,
  card,
  clip_maker,
  clip_training,
  language_maker,
)
from mipd_jax.teachers.small.blip2_maker import Blip2Settings
from mipd_jax.teachers.small.clip_maker import ClipSettings
from mipd_jax.teachers.small.language_maker import LanguageSettings

STUDENT_CLIP, TEACHER_CLIP = "student_clip", "teacher_clip"
TEACHER_BLIP2 = "teacher_blip2"
LANGUAGE_MODEL = "language_model"
# In the order in which they are trained.
MODELS = (TEACHER_CLIP, STUDENT_CLIP, TEACHER_BLIP2, LANGUAGE_MODEL)
# The models that every run needs: templates can also write rationales.
STANDARD = (TEACHER_CLIP, STUDENT_CLIP, TEACHER_BLIP2)
_VERSION = 1  # raise it when equal settings give other weights
_RECORD = "foundation.json"
_REMEDY = "give another folder with --out, or delete this one"

# (folder) -> measured scores; fills the folder.
Write = Callable[[pathlib.Path], dict[str, Any]]


def _student() -> ClipSettings:
  return ClipSettings(
    vision_width=64,
    vision_layers=2,
    text_width=64,
    text_layers=2,
    joint_width=64,
    steps=700,
    # Sparser captions keep it well behind the teacher.
    captions=CaptionConfig(verb=0.6, unseen=0.5, attribute=0.4),
  )


def _teacher() -> ClipSettings:
  return ClipSettings(
    vision_width=128,
    vision_layers=3,
    text_width=64,
    text_layers=2,
    joint_width=128,
    steps=600,
  )


@dataclasses.dataclass(frozen=True)
class FoundationConfig:
  """The models, and the captioned images that they share.

  Attributes:
    student, teacher: the two CLIPs.
    blip2: built on the teacher's image tower.
    language: writes and judges rationales.
    num_images: captioned images, drawn once.
    eval_images: held-out images per verb for the zero-shot scores.
    seed: of weights, captions and order.
  """

  student: ClipSettings = dataclasses.field(default_factory=_student)
  teacher: ClipSettings = dataclasses.field(default_factory=_teacher)
  blip2: Blip2Settings = dataclasses.field(default_factory=Blip2Settings)
  language: LanguageSettings = dataclasses.field(
    default_factory=LanguageSettings
  )
  num_images: int = 16384
  eval_images: int = 10
  seed: int = 0

  @classmethod
  def of(
    cls, world: WorldConfig | PairWorldConfig, size: str
  ) -> "FoundationConfig":
    """The settings `size` ("standard", "grounded" or "debug") of a world."""
    if size == "debug":
      return cls.debug()
    pairs = isinstance(world, PairWorldConfig)
    if size == "grounded":
      return cls.grounded_pairs() if pairs else cls.grounded()
    return cls.pairs() if pairs else cls()

  @classmethod
  def grounded(cls) -> "FoundationConfig":
    """Encoders that have learnt what is in a box, besides captions.

    Without that the teacher knows no more of an instance than the student.
    """
    student = dataclasses.replace(
      _student(),
      steps=340,
      learning_rate=2e-3,
      muon_rate=1e-2,
      region_weight=0.8,
    )
    teacher = dataclasses.replace(
      _teacher(),
      image_size=64,
      steps=1100,
      batch_size=32,
      learning_rate=2e-3,
      muon_rate=2e-2,
      word_weight=4.0,
      region_weight=4.0,
    )
    blip2 = Blip2Settings(steps=900, batch_size=32, muon_rate=2e-2, boxes=2)
    return cls(student=student, teacher=teacher, blip2=blip2, num_images=8192)

  @classmethod
  def pairs(cls) -> "FoundationConfig":
    """For interactions: a teacher of twice the resolution, trained longer.

    Several pairs share an image, so they differ in small details: at 48 pixels
    a side the teacher knew interactions worse than the student.
    """
    teacher = dataclasses.replace(
      _teacher(), image_size=96, patch_size=12, steps=1000
    )
    return cls(
      teacher=teacher, blip2=Blip2Settings(steps=900), num_images=12288
    )

  @classmethod
  def grounded_pairs(cls) -> "FoundationConfig":
    """`grounded` for interactions: the teacher sees finer pixels."""
    config = cls.grounded()
    teacher = dataclasses.replace(config.teacher, image_size=96, patch_size=12)
    return dataclasses.replace(config, teacher=teacher)

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
      region_weight=1.0,
    )
    return cls(
      student=tiny,
      teacher=dataclasses.replace(tiny, muon_rate=1e-2),
      blip2=Blip2Settings.debug(),
      language=LanguageSettings.debug(),
      num_images=128,
      eval_images=2,
    )


def train_foundation(
  world_config: WorldConfig | PairWorldConfig,
  out: str | os.PathLike,
  config: FoundationConfig | None = None,
  models: Collection[str] = STANDARD,
) -> dict[str, pathlib.Path]:
  """Makes a folder per model below `out`, each whole or not at all.

  An existing model of the same settings is kept.

  Args:
    world_config: the world whose words and looks are learnt.
    out: folder for the models.
    config: sizes and schedule; the standard ones when None.
    models: of `MODELS`; teacher_blip2 needs teacher_clip.

  Returns:
    Name -> folder.

  Raises:
    InputError: a model of other settings is in the way.
  """
  config = config or FoundationConfig()
  wanted = [name for name in MODELS if name in models]
  folders = {name: pathlib.Path(out) / name for name in wanted}
  prints = {n: _fingerprint(world_config, config, n) for n in wanted}
  done = [_is_complete(folders[n], prints[n]) for n in wanted]
  if all(done):
    return folders
  with _alone(pathlib.Path(out)):
    # Another process may have made some in the meantime.
    todo = [n for n in wanted if not _is_complete(folders[n], prints[n])]
    if todo:
      trainer = _Trainer(lessons.draw(world_config), config, pathlib.Path(out))
      seconds = {}
      for name in todo:
        start = time.monotonic()
        _make(folders[name], prints[name], trainer.writer(name))
        seconds[name] = time.monotonic() - start
      if not set(todo).isdisjoint(STANDARD):
        scores = {n: _read_record(folders[n])["scores"] for n in wanted}
        card.show(trainer.world, scores, seconds)
  return folders


def zero_shot(folder: str | os.PathLike) -> dict[str, dict[str, float]]:
  """A CLIP's or BLIP-2's measured scores: prompt -> group -> percent."""
  return _read_record(pathlib.Path(folder))["scores"]


@dataclasses.dataclass(frozen=True, eq=False)
class _Trainer:
  """Trains one model after the other on the same images."""

  world: World | PairWorld
  config: FoundationConfig
  out: pathlib.Path

  def writer(self, name: str) -> Write:
    world, config = self.world, self.config
    if name == LANGUAGE_MODEL and isinstance(world, PairWorld):
      raise InputError(
        "there is no small language model for a world of interactions",
        "leave --config.teacher.language_model empty: templates write the "
        "rationales",
      )
    if name == LANGUAGE_MODEL:
      return lambda folder: language_maker.write(
        world, config.language, config.seed, folder
      )
    if name == TEACHER_BLIP2:
      tower = clip.load(self.out / TEACHER_CLIP)
      images = self._images(config.teacher.image_size)
      return lambda folder: blip2_maker.write(
        world, config.blip2, tower, images, config.seed, folder
      )
    one = config.teacher if name == TEACHER_CLIP else config.student
    images = self._images(one.image_size)
    return lambda folder: clip_maker.write(
      world, one, images, config.seed, folder
    )

  @functools.lru_cache(maxsize=1)  # noqa: B019 - the trainer is short-lived
  def _images(self, size: int) -> clip_training.Images:
    return clip_training.draw_images(
      self.world, self.config.num_images, self.config.eval_images, size
    )


def _settings(config: FoundationConfig, name: str) -> Any:
  """All settings that a model's weights depend on."""
  if name == LANGUAGE_MODEL:
    return [config.language]
  if name == TEACHER_BLIP2:
    return [config.teacher, config.blip2]
  return [config.teacher if name == TEACHER_CLIP else config.student]


def _fingerprint(
  world: WorldConfig | PairWorldConfig, config: FoundationConfig, name: str
) -> str:
  made_from = {
    "version": _VERSION,
    "world": dataclasses.asdict(world),
    "settings": [dataclasses.asdict(s) for s in _settings(config, name)],
    "num_images": config.num_images,
    "eval_images": config.eval_images,
    "seed": config.seed,
  }
  text = json.dumps(made_from, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()


@contextlib.contextmanager
def _alone(out: pathlib.Path) -> Iterator[None]:
  """One process at a time; removes what killed processes left in `out`.

  Holds the system's lock on the folder, which ends with the process: with our
  lock, anything unfinished has no owner any more. On a file system without
  locks, leftovers stay.
  """
  out.mkdir(parents=True, exist_ok=True)
  handle = os.open(out, os.O_RDONLY)
  try:
    try:
      fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      print(f"{out}: waiting for another process that trains models there")
      fcntl.flock(handle, fcntl.LOCK_EX)
    except OSError:
      yield
      return
    for name in MODELS:
      for left in out.glob(f".{name}.*"):
        shutil.rmtree(left, ignore_errors=True)
    yield
  finally:
    os.close(handle)


def _read_record(folder: pathlib.Path) -> dict[str, Any]:
  path = folder / _RECORD
  if not path.exists():
    raise InputError(
      f"{folder} is in the way: not a small foundation model", _REMEDY
    )
  return json_files.read(
    path, {"fingerprint": str, "scores": {str: object}}, _REMEDY
  )


def _is_complete(folder: pathlib.Path, fingerprint: str) -> bool:
  if not folder.exists():
    return False
  trained = _read_record(folder)["fingerprint"]
  if trained != fingerprint:
    raise InputError(
      f"{folder} was trained from other settings (another world or another "
      f"configuration: {trained[:12]}, wanted {fingerprint[:12]})",
      _REMEDY,
    )
  return True


def _make(folder: pathlib.Path, fingerprint: str, write: Write) -> None:
  """Trains one model and renames its folder when it is whole."""
  folder.parent.mkdir(parents=True, exist_ok=True)
  hidden = tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent)
  try:
    part = pathlib.Path(hidden) / folder.name
    part.mkdir()
    scores = write(part)
    print(f"{folder.name}, scores in percent: {scores}")
    record = {"fingerprint": fingerprint, "scores": scores}
    (part / _RECORD).write_text(json.dumps(record, indent=2) + "\n")
    part.rename(folder)
  finally:
    shutil.rmtree(hidden, ignore_errors=True)


def main(arguments: list[str] | None = None) -> int:
  """Command line; returns the exit status."""
  parser = argparse.ArgumentParser(
    prog="python -m mipd_jax.teachers.foundation",
    description="Train the foundation models of a small world.",
  )
  parser.add_argument("--out", required=True, help="folder for the models")
  parser.add_argument("--world_seed", type=_seed, default=0)
  parser.add_argument("--seed", type=_seed, default=0, help="of the training")
  parser.add_argument("--tiny_world", action="store_true")
  parser.add_argument(
    "--size",
    choices=("standard", "grounded", "debug"),
    default="standard",
    help="grounded: they also learn what is in a box; debug: 20 steps of tiny "
    "models",
  )
  parser.add_argument(
    "--debug",
    action="store_const",
    dest="size",
    const="debug",
    help="the same as --size=debug",
  )
  parser.add_argument(
    "--models",
    nargs="+",
    choices=MODELS,
    default=STANDARD,
    help="which to train; all but the language model if not given",
  )
  given = parser.parse_args(arguments)
  world = WorldConfig.tiny if given.tiny_world else WorldConfig
  base = FoundationConfig.of(world(), given.size)
  config = dataclasses.replace(base, seed=given.seed)

  def train() -> None:
    train_foundation(
      world(seed=given.world_seed), given.out, config, given.models
    )

  return commands.guarded(train)


def _seed(text: str) -> int:
  """For argparse: a whole number of 0 to 2**32 - 1."""
  seed = int(text)
  if not 0 <= seed < 2**32:
    raise argparse.ArgumentTypeError(f"{seed} is not between 0 and 2**32 - 1")
  return seed


if __name__ == "__main__":
  commands.start(main)
