"""The cases, each a pure function of (seed, name).

'k7' is the seventh kill, 'c31' the thirty-first corruption.
"""

import dataclasses
import math
import random
import signal
from collections.abc import Sequence

from benchmarks.hardening import damage

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
# (state of the folder at the start, command, weight). `nothing` has no file,
# `bare` the drawn world, `world` also the encoders, `made` the dataset,
# `cached` the cache, `mid` a run stopped half-way, `whole` everything.
KILLED = (
  ("nothing", "all", 1),
  ("bare", "prepare", 2),
  ("world", "prepare", 3),
  ("made", "all", 3),
  ("cached", "all", 4),
  ("mid", "all", 3),
  ("whole", "eval", 2),
  ("whole", "report", 1),
  ("whole", "predict", 1),
  ("whole", "export", 1),
)
# Kills of separate processes, also during imports; the others are forked from
# a process that has imported the libraries.
_OWN_PROCESS_EVERY = 8
FULL_DISK = "full disk"
FOLDER = "folder lost"
_FULL = (
  ("bare", "prepare"),
  ("world", "prepare"),
  ("made", "prepare"),
  ("cached", "train"),
  ("cached", "all"),
  ("mid", "all"),
  ("whole", "eval"),
  ("whole", "report"),
  ("whole", "predict"),
  ("whole", "export"),
)
_READ = (("mid", "all"), ("whole", "eval"), ("whole", "all"))
_USED = (("whole", "predict"), ("whole", "export"))


@dataclasses.dataclass(frozen=True)
class Kind:
  """A kind of file.

  Attributes:
    patterns: patterns of the files, below the folder.
    known: (state, command) where the run knows the intact content: any
      damage is possible.
    fresh: (state, command) that read it for the first time: only damage that
      shows in the file itself.
    hostile: whether hostile contents are written as well.
    weight: relative frequency.
  """

  patterns: tuple[str, ...]
  known: tuple[tuple[str, str], ...] = ()
  fresh: tuple[tuple[str, str], ...] = ()
  hostile: bool = False
  weight: int = 1


_WORLD = "world/SWiG_jsons/"
KINDS: dict[str, Kind] = {
  "cache shards": Kind(
    ("cache/*/*.array_record",),
    (*_READ, ("cached", "train"), ("whole", "report"), ("whole", "prepare")),
    weight=3,
  ),
  "cache rationales": Kind(
    ("cache/train/rationales.jsonl",),
    (("cached", "train"), ("whole", "report"), ("whole", "prepare")),
    hostile=True,
  ),
  "cache annotations": Kind(
    ("cache/*/annotations.npz",), (*_READ, ("cached", "train")), weight=2
  ),
  "cache labels": Kind(("cache/labels.npz",), (*_READ, *_USED)),
  "cache manifest": Kind(
    ("cache/manifest.json",), (*_READ, *_USED), hostile=True
  ),
  "cache made_from": Kind(
    ("cache/made_from.json",), (("whole", "all"), ("mid", "all")), hostile=True
  ),
  "dataset shards": Kind(
    ("tfds/*/*/*/*.array_record*",),
    (("made", "prepare"), ("whole", "all"), ("whole", "report")),
    weight=2,
  ),
  "dataset JSON": Kind(
    ("tfds/*/*/*/*.json",),
    (("made", "prepare"), ("whole", "all"), ("whole", "eval")),
    hostile=True,
    weight=2,
  ),
  "checkpoints": Kind(
    ("work/checkpoints/**/*",),
    (("mid", "all"), ("mid", "train"), ("whole", "all")),
    weight=4,
  ),
  "best checkpoint": Kind(
    ("work/best/**/*",),
    (("whole", "all"), ("whole", "eval"), ("whole", "report"), *_USED),
    weight=4,
  ),
  "run.json": Kind(
    ("work/run.json",), (("mid", "all"), ("whole", "eval")), hostile=True
  ),
  "config.json": Kind(
    ("work/config.json",),
    (("whole", "all"), ("whole", "report"), *_USED),
    hostile=True,
  ),
  "results.json": Kind(
    ("work/results.json",),
    (("whole", "report"), ("whole", "all")),
    hostile=True,
  ),
  "metrics.jsonl": Kind(
    ("work/metrics.jsonl",),
    (("mid", "all"), ("whole", "report")),
    hostile=True,
  ),
  "ov_splits, world.json": Kind(
    (f"{_WORLD}ov_splits.json", "world/world.json"),
    (("whole", "all"), ("whole", "eval")),
    (("world", "prepare"), ("world", "check")),
    hostile=True,
  ),
  "imsitu_space": Kind(
    (f"{_WORLD}imsitu_space.json",),
    (("whole", "all"), ("whole", "eval"), ("whole", "report")),
    (("world", "prepare"), ("world", "check")),
    hostile=True,
  ),
  "index files": Kind(
    (f"{_WORLD}*.txt", f"{_WORLD}*.csv"),
    (("whole", "all"), ("whole", "eval"), ("made", "prepare")),
  ),
  "train, dev, test JSON": Kind(
    tuple(f"{_WORLD}{split}.json" for split in ("train", "dev", "test")),
    (("whole", "all"), ("whole", "eval"), ("made", "prepare")),
    (("world", "prepare"), ("world", "check")),
    hostile=True,
    weight=2,
  ),
  "images": Kind(
    ("world/images_512/*.jpg",),
    (("whole", "all"), ("whole", "report"), ("made", "prepare")),
    (("world", "prepare"), ("world", "check")),
    weight=2,
  ),
  "encoder JSON": Kind(
    ("foundation/*/*.json",),
    (("whole", "all"), *_USED),
    (("made", "prepare"),),
    hostile=True,
    weight=2,
  ),
  "encoder weights": Kind(
    ("foundation/*/*.safetensors",),
    (("whole", "all"), *_USED),
    (("made", "prepare"),),
    hostile=True,
    weight=2,
  ),
  "pytorch_model.bin": Kind(
    ("foundation/*/pytorch_model.bin",),
    fresh=(("made", "prepare"), ("whole", "predict")),
    hostile=True,
  ),
  "preprocessor_config.json": Kind(
    ("foundation/*/preprocessor_config.json",),
    fresh=(("made", "prepare"), ("whole", "predict")),
    hostile=True,
  ),
  "photographs": Kind(("photos/*.jpg",), fresh=(("whole", "predict"),)),
  "words.yaml": Kind(
    ("words.yaml",), fresh=(("whole", "words"),), hostile=True
  ),
  "predictions to score": Kind(
    ("scored/predictions.json",),
    fresh=(("whole", "metrics.swig"),),
    hostile=True,
  ),
  "pairs to score": Kind(
    ("scored/pairs.json", "scored/test_hico.json"),
    fresh=(("whole", "metrics.hico_det"),),
    hostile=True,
  ),
  "exported student": Kind(("exported/*",), (("whole", "exported"),)),
  "compiled programs": Kind(
    ("compiled/*",), (("whole", "eval"), ("cached", "train"))
  ),
  FOLDER: Kind(
    (
      *("cache/train", "cache/test", "cache", "work/best", "work/best/*"),
      *("work/checkpoints", "work/checkpoints/*", "work/best/*/default"),
      *("foundation/student_clip", "foundation", "tfds", "tfds/*/*/*"),
      *("world/images_512", "world/SWiG_jsons", "world"),
    ),
    (*_READ, ("whole", "report"), *_USED),
    weight=2,
  ),
  FULL_DISK: Kind((), _FULL, weight=5),
}
# Files that are written if they are absent.
NEW = ("pytorch_model.bin", "preprocessor_config.json")


@dataclasses.dataclass(frozen=True)
class Case:
  """One case.

  Attributes:
    name: 'k7' or 'c31'.
    kind: the kind of file, or of signal.
    state: state of the folder at the start.
    command: a key of `command_lines.COMMANDS`.
    number: the signal's number; 0 for a corruption.
    share: when the signal is sent, as a share of the work's CPU time.
    own_process: whether it starts its own interpreter.
    how: a name for `damage.apply`; drawn later if it depends on the file.
    known: whether the run knows the file's content.
    keep_time: whether the file keeps its modification time.
    file_size: file size limit in bytes, which simulates a full disk; 0: none.
    seed: seed of what is drawn from the file itself.
  """

  name: str
  kind: str
  state: str
  command: str
  number: int = 0
  share: float = 0.0
  own_process: bool = False
  how: str = ""
  known: bool = True
  keep_time: bool = False
  file_size: int = 0
  seed: str = ""


def _fixed() -> tuple[Case, ...]:
  """A few quick cases of each kind, which `make test` runs."""

  def kill(number: signal.Signals, share: float, *place: str) -> Case:
    name = f"f{number.name}"
    return Case(name, number.name, *place, number=int(number), share=share)

  def hit(
    kind: str, how: str, state: str, command: str, *, known: bool = True
  ) -> Case:
    return Case(
      name=f"f{kind}",
      kind=kind,
      state=state,
      command=command,
      how=how,
      known=known,
      keep_time=known,
      file_size=5000 if kind == FULL_DISK else 0,
      seed=kind,
    )

  train, evaluate = ("cached", "train"), ("whole", "eval")
  return (
    kill(signal.SIGKILL, 0.8, *train),
    kill(signal.SIGTERM, 0.6, *train),
    kill(signal.SIGINT, 0.5, *evaluate),
    hit("cache shards", "flip", *evaluate),
    hit("cache labels", "cut", *evaluate),
    hit("best checkpoint", "flip", *evaluate),
    hit("run.json", "delete", *evaluate),
    hit(FULL_DISK, "", *evaluate),
    hit("imsitu_space", "hostile:deep", "whole", "check", known=False),
    hit("words.yaml", "hostile:python", "whole", "words", known=False),
    hit(
      "predictions to score",
      "hostile:value_digits",
      "whole",
      "metrics.swig",
      known=False,
    ),
  )


def kill(seed: int, index: int) -> Case:
  """The kill with an index; signals alternate."""
  rng = random.Random(f"{seed} kill {index}")
  number = SIGNALS[index % len(SIGNALS)]
  state, command, _ = rng.choices(KILLED, [weight for *_, weight in KILLED])[0]
  return Case(
    name=f"k{index}",
    kind=number.name,
    state=state,
    command=command,
    number=int(number),
    share=rng.uniform(0.0, 1.0),
    own_process=index % _OWN_PROCESS_EVERY == _OWN_PROCESS_EVERY - 1,
  )


def corruption(seed: int, index: int) -> Case:
  """The corruption with an index; kinds of files alternate by weight."""
  turns = [name for name, kind in KINDS.items() for _ in range(kind.weight)]
  # Each round has every kind, in a new random order.
  order = random.Random(f"{seed} round {index // len(turns)}")
  order.shuffle(turns)
  name = turns[index % len(turns)]
  kind = KINDS[name]
  rng = random.Random(f"{seed} corruption {index}")
  places = [(*place, True) for place in kind.known]
  places += [(*place, False) for place in kind.fresh]
  state, command, known = rng.choice(places)
  if name == FULL_DISK:
    size = int(math.exp(rng.uniform(math.log(20), math.log(600_000))))
    how = ""
  else:
    size, how = 0, _how(name, kind, known, rng)
  return Case(
    name=f"c{index}",
    kind=name,
    state=state,
    command=command,
    how=how,
    known=known,
    keep_time=rng.random() < 0.4,
    file_size=size,
    seed=f"{seed} {index}",
  )


def _how(name: str, kind: Kind, known: bool, rng: random.Random) -> str:
  """The kind of damage; 'hostile' content is chosen once the file is known."""
  if name == FOLDER:
    return "folder"
  if name in NEW:
    return "hostile"
  if kind.hostile and rng.random() < 0.4:
    return "hostile"
  # Truncated, it may be another valid file; fewer photographs are a choice.
  without = {"words.yaml": "cut", "photographs": "delete"}.get(name)
  if without:
    return rng.choice([how for how in damage.PLAIN if how != without])
  return rng.choice(damage.ANY if known else damage.PLAIN)


def of(name: str, seed: int) -> Case:
  """The case with a name; names in `FIXED` begin with f."""
  for case in FIXED:
    if case.name == name:
      return case
  make = {"k": kill, "c": corruption}[name[0]]
  return make(seed, int(name[1:]))


def plan(seed: int, kills: int, corruptions: int) -> list[Case]:
  """All cases, kills among corruptions, so that a stop leaves some of each."""
  placed: Sequence[tuple[float, Case]] = [
    *((i / max(kills, 1), kill(seed, i)) for i in range(kills)),
    *(
      (i / max(corruptions, 1), corruption(seed, i)) for i in range(corruptions)
    ),
  ]
  return [case for _, case in sorted(placed, key=lambda pair: pair[0])]


FIXED = _fixed()
