"""The plan of an ablation: variants, worlds, seeds, and each run's config.

A variant is a preset with some fields of `model`, `loss` or `train` changed;
a world is a dataset with its encoders and cache. Every (variant, world, seed)
is one run. Runs of the same world and seed start from the same seed and see
the same batches, so differences between variants are taken pair by pair.
"""

import dataclasses
import difflib
import hashlib
import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from input_pipeline.io.errors import InputError
from mipd_jax import config as config_lib
from mipd_jax import presets
from mipd_jax.ablations import studied_tasks
from mipd_jax.config import Config

# Raise it when the same config gives other figures.
_FORMAT = 1
# Fields of a run's config that its figures do not depend on.
_ELSEWHERE = ("name", "workdir", "mesh", "eval", "quick_compile")
# Fields that the figures of frozen models depend on.
_OF_FROZEN = ("dataset", "teacher", "interactions")
_VARIED = ("model", "loss", "train")
LAST, BEST = SCORED = ("last", "best")


@dataclasses.dataclass(frozen=True)
class Variant:
  """One variant of a study.

  Attributes:
    name: in tables and file names.
    preset: its base.
    changes: nested fields of model, loss and train that it changes.
    against: names of the variants that it is compared with.
    asks: the question that the comparison answers, in a few words.
  """

  name: str
  preset: str = "mipd"
  changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  against: tuple[str, ...] = ("mipd",)
  asks: str = ""


@dataclasses.dataclass(frozen=True)
class World:
  """One dataset: nested fields of `dataset`, `teacher`, `interactions`."""

  name: str
  changes: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Run:
  """One training.

  Attributes:
    variant, world: their names.
    config: all of it.
    held_out: whether seen verbs are held out of training; the run is then
      scored on them by dev images and not reported.
    path: of its result.
    score: as in the plan.
  """

  variant: str
  world: str
  config: Config
  held_out: bool
  path: pathlib.Path
  score: str

  @property
  def seed(self) -> int:
    return self.config.seed

  @property
  def uses_unseen_names(self) -> bool:
    """Whether training reads the names of unseen verbs."""
    loss = self.config.loss
    return bool(
      loss.verb_kl and loss.verb_kl_names != "trained" and loss.verb_kl_listed
    )

  def hash(self, held_out_verbs: int) -> str:
    """Hash of all that the figures depend on: others' results are stale."""
    values = self.config.to_dict()
    for name in _ELSEWHERE:
      del values[name]
    values |= {"format": _FORMAT}
    values |= {"held_out": held_out_verbs if self.held_out else None}
    if self.score != LAST:  # hashes of finished studies lack it
      values |= {"score": self.score}
    return _hash(values)


@dataclasses.dataclass(frozen=True)
class Plan:
  """The whole study.

  Attributes:
    base: nested values of a run's config, with the base's preset.
    variants, worlds: of the grid.
    seeds: students per world.
    held_out_seeds: students per world that are trained with verbs held out;
      they choose the bias of all students of that world.
    held_out_verbs: number of held-out seen verbs; 0 takes as many as are
      unseen.
    folder: of the results.
    score: the scored parameters: those of the "last" step, without selection,
      or of the "best" one by the dev split, evaluated at train.eval_every.

  Nothing is held out, and `held_out_seeds` is 0, if the task has no verbs to
  hold out or if the best step is scored: dev images of the held-out verbs would
  choose it.
  """

  base: Mapping[str, Any]
  variants: tuple[Variant, ...]
  worlds: tuple[World, ...]
  seeds: int
  held_out_seeds: int
  held_out_verbs: int
  folder: pathlib.Path
  score: str = "last"

  def __post_init__(self):
    if self.score not in SCORED:
      raise InputError(
        f"score={self.score!r} is not one of {SCORED}", "choose one of them"
      )
    if not (self.variants and self.worlds and self.seeds > 0):
      raise InputError(
        f"a study of {len(self.variants)} variants, {len(self.worlds)} worlds "
        f"and {self.seeds} seeds has no runs",
        "give at least one of each",
      )
    for world in self.worlds:
      for variant in self.variants:  # raises for wrong fields now
        self._check_held_out(self.config(variant, world, 0))

  def _check_held_out(self, config: Config) -> None:
    wanted = self.score == LAST and studied_tasks.holds_out(config)
    if wanted and self.held_out_seeds < 1:
      raise InputError(
        f"held_out_seeds={self.held_out_seeds}", "give at least one"
      )
    if not wanted and self.held_out_seeds:
      raise InputError(
        f"held_out_seeds={self.held_out_seeds}, but students of task="
        f"{config.task!r} with score={self.score!r} have no verbs held out",
        "set held_out_seeds to 0",
      )

  def config(self, variant: Variant, world: World, seed: int) -> Config:
    """The config of a run.

    Raises:
      InputError: the variant or the world changes a field that does not exist.
    """
    values = _merged(self.base, world.changes, f"world {world.name}")
    values = _with_preset(values, variant.preset)
    wrong = set(variant.changes) - set(_VARIED)
    if wrong:
      raise InputError(
        f"variant {variant.name} changes {sorted(wrong)}",
        f"a variant changes fields of {', '.join(_VARIED)}",
      )
    values = _merged(values, variant.changes, f"variant {variant.name}")
    values["seed"] = seed
    values["name"] = f"{variant.name}-{seed}"
    values["workdir"] = str(self.folder / world.name)
    return config_lib.unpack(values)

  def run(
    self, variant: Variant, world: World, seed: int, *, held_out: bool = False
  ) -> Run:
    """One run of the grid."""
    kind = ".held_out" if held_out else ""
    path = self.folder / world.name / f"{variant.name}-{seed}{kind}.json"
    config = self.config(variant, world, seed)
    return Run(variant.name, world.name, config, held_out, path, self.score)

  def held_out_runs(self, variant: Variant, world: World) -> list[Run]:
    """The runs that choose the bias of a variant in a world."""
    return [
      self.run(variant, world, seed, held_out=True)
      for seed in range(self.held_out_seeds)
    ]

  def reported_runs(self, variant: Variant, world: World) -> list[Run]:
    """The runs scored on the test split."""
    return [self.run(variant, world, seed) for seed in range(self.seeds)]

  def frozen_hash(self, world: World) -> str:
    """Hash of all that the frozen models' figures in a world depend on."""
    config = self.config(self.variants[0], world, 0)
    values = config.to_dict()
    read = {x: values[x] for x in _OF_FROZEN if x in values}
    return _hash(read | {"split": config.eval.split})

  def pairs(self) -> Iterator[tuple[str, str]]:
    """(variant, the variant it is compared with), both of the grid."""
    names = {variant.name for variant in self.variants}
    for variant in self.variants:
      for other in variant.against:
        if other in names and other != variant.name:
          yield variant.name, other


def chosen(variants: Sequence[Variant], only: str) -> tuple[Variant, ...]:
  """The variants of comma-separated names, in the study's order; "" is all.

  Raises:
    InputError: there is no variant of that name.
  """
  names = [name.strip() for name in only.split(",") if name.strip()]
  existing = [variant.name for variant in variants]
  for name in names:
    if name not in existing:
      near = difflib.get_close_matches(name, existing, 1)
      hint = f"did you mean {near[0]!r}? " if near else ""
      raise InputError(
        f"--only names no variant {name!r}", f"{hint}there are {existing}"
      )
  return tuple(v for v in variants if not names or v.name in names)


def _hash(values: Mapping[str, Any]) -> str:
  text = json.dumps(values, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:12]


def _with_preset(values: dict[str, Any], preset: str) -> dict[str, Any]:
  """Replaces the values of the base's preset by another preset's.

  Model values that the base set itself, such as sizes, stay. The losses are all
  the new preset's: a weight that the base raised must not add that term to a
  preset without it.
  """
  if preset == values["preset"]:
    return dict(values)
  mine, _ = _preset(values["preset"])
  theirs, losses = _preset(preset)
  model = {
    field: theirs[field] if value == mine[field] else value
    for field, value in values["model"].items()
  }
  return dict(values) | {"preset": preset, "model": model, "loss": losses}


def _preset(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
  try:
    model, losses = presets.preset_defaults(name)
  except ValueError as error:
    raise InputError(str(error), "see mipd_jax/presets.py") from error
  return dataclasses.asdict(model), dataclasses.asdict(losses)


def _merged(
  values: Mapping[str, Any], changes: Mapping[str, Any], who: str
) -> dict[str, Any]:
  """Nested values with changes; only existing fields can be changed."""
  result = dict(values)
  for name, value in changes.items():
    if name not in result:
      near = difflib.get_close_matches(name, result, 1)
      hint = f"did you mean {near[0]!r}? " if near else ""
      raise InputError(
        f"{who} changes {name!r}, which there is not",
        f"{hint}the fields are {sorted(result)}",
      )
    if isinstance(value, Mapping) and isinstance(result[name], Mapping):
      value = _merged(result[name], value, who)
    result[name] = value
  return result


def part(plan: Plan, number: int, count: int) -> Plan | None:
  """Every `count`-th variant from `number` on; None if there is none."""
  variants = plan.variants[number::count]
  return dataclasses.replace(plan, variants=variants) if variants else None
