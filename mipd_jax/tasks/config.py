"""The tasks' loss terms and settings, and which settings a task ignores."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from input_pipeline import schema
from input_pipeline.small_world.interactions.config import PairWorldConfig
from mipd_jax.losses import interactions, situations
from mipd_jax.losses.interactions import PairLosses
from mipd_jax.losses.objective import LossTerm, Objective, unread_fields
from mipd_jax.models import outputs

TERMS: Mapping[str, tuple[LossTerm, ...]] = {
  "situations": situations.TERMS,
  "interactions": interactions.TERMS,
}
TASKS = tuple(TERMS)
DROPPING = ("pair", "label")  # as in input_pipeline/hico_det/splits
# Fields of a config that a task never reads, by dotted names; its loss terms
# say which of `loss` they read.
_NOT_READ: Mapping[str, tuple[str, ...]] = {
  "situations": (),
  "interactions": (
    "dataset.world",
    "dataset.num_rare",
    "dataset.num_unseen",
    "dataset.split_seed",
    "dataset.mirrored",
    "teacher.jrg.definition_words",
    "model.role_queries",
    "model.noun_head",
    "model.box_nouns",
    "model.dropout.noun",
    "model.dropout.query_verb",
    "model.dropout.box",
    "eval.predictions",
    "eval.trained_bias",
  ),
}
_TEACHER_BRANCH = (
  "model.scene_prompt",
  "model.instance_prompt",
  "model.teacher_pooling",
  "model.scene_queries",
  "model.scene_heads",
  "model.open_layers",
  "model.teacher_norm",
  "model.rationale_space",
  "model.gaze",
  "model.mask_padding",
)

# Ablations set these together with the weight that switches them off.
_GIVEN_WITH_WEIGHT = (
  "verb_kl_source",
  "verb_kl_temperature",
  "verb_kl_gain",
  "verb_kl_names",
)
# Of `teacher.jrg`: configs/synthetic.py sets them, used or not.
_ALWAYS_GIVEN = ("style", "max_new_tokens")


def not_read(task: str) -> tuple[str, ...]:
  """Fields of a config that a task never reads, by dotted names."""
  losses = (f"loss.{name}" for name in unread_fields(TERMS[task]))
  return (*_NOT_READ[task], *losses)


def objective(config: Any) -> Objective:
  """What a run minimises.

  Args:
    config: a `mipd_jax.config.Config`.
  """
  settings, own = config.loss, config.interactions
  if own is not None:
    names = {field.name for field in dataclasses.fields(PairLosses)}
    added = names - set(vars(settings))
    pairs = {name: getattr(own, name) for name in added}
    settings = PairLosses(**vars(settings), **pairs)
  return Objective(TERMS[config.task], settings)


def idle_fields(config: Any) -> Iterator[tuple[str, str]]:
  """Yields the fields without effect in a run, and why, for messages.

  Args:
    config: a `mipd_jax.config.Config`.
  """
  for name in not_read(config.task):
    yield name, f"task={config.task!r}"
  if not config.model.teacher_branch:
    for name in _TEACHER_BRANCH:
      yield name, "model.teacher_branch=False"
  yield from _idle_elsewhere(config)
  pairs = config.interactions
  if pairs is None:
    return
  if not pairs.pair:
    for name in ("focal_alpha", "focal_gamma"):
      yield f"interactions.{name}", "interactions.pair=0"
  if not config.loss.answers:
    yield "interactions.answers_names", "loss.answers=0"
  if not pairs.nms:
    yield "interactions.nms_threshold", "interactions.nms=False"
  if pairs.split == "full":
    yield "interactions.dropping", "interactions.split='full'"
  if not (pairs.train_detections or pairs.test_detections):
    # Annotated boxes have score 1.
    for name in ("min_score", "detection_power"):
      yield f"interactions.{name}", "annotated boxes (no detections)"


def _idle_elsewhere(config: Any) -> Iterator[tuple[str, str]]:
  """The same for fields of any task that other fields switch off.

  Without those of _GIVEN_WITH_WEIGHT.
  """
  loss, teacher, train = config.loss, config.teacher, config.train
  minimised = objective(config)
  for field, terms in minimised.idle_fields().items():
    if hasattr(loss, field) and field not in _GIVEN_WITH_WEIGHT:
      why = " and ".join(f"loss.{name}=0" for name in terms)
      yield f"loss.{field}", why
  model = config.model
  if model.teacher_branch and not model.projected_rationales:
    yield "model.mask_padding", "no learned layer that reads a rationale"
  if model.teacher_branch and model.teacher_pooling != "learned_query":
    yield (
      "model.scene_queries",
      f"model.teacher_pooling={model.teacher_pooling!r}",
    )
  if model.eyes != "adapter":
    yield "model.eyes_width", f"model.eyes={model.eyes!r}"
  if loss.verb_kl and loss.verb_kl_names == "trained":
    yield "loss.verb_kl_listed", "loss.verb_kl_names='trained'"
  if not teacher.instances.show:
    for field in dataclasses.fields(teacher.instances):
      if field.name not in ("show", "sentences"):
        why = "teacher.instances.show=''"
        yield f"teacher.instances.{field.name}", why
  elif teacher.instances.show == "tokens":
    yield "teacher.instances.margin", "teacher.instances.show='tokens'"
  if not teacher.language_model:
    for field in dataclasses.fields(teacher.jrg):
      if field.name not in _ALWAYS_GIVEN:
        yield f"teacher.jrg.{field.name}", "no teacher.language_model"
  if not teacher.is_served:
    for field in dataclasses.fields(teacher.served):
      why = "a teacher.language_model that is not served"
      yield f"teacher.served.{field.name}", why
  if not teacher.process_count:
    yield "teacher.process_index", "teacher.process_count=0"
  if train.resident == "off":
    yield "train.resident_gib", "train.resident='off'"
  if not minimised.reads(outputs.BOX_NOUN_SCORES):
    yield "model.box_nouns", "loss.box_noun=0 and loss.box_answers=0"
  if not loss.foretell:
    yield "model.foretell", "loss.foretell=0"
  logits = any(term.sources for term in minimised.used)
  answers = schema.ANSWER_CLASSES in minimised.batch_keys
  branch = config.model.teacher_branch
  read = {
    "rationales": branch,
    "teacher": branch or logits or answers,
    "answers": answers,
  }
  if not read.get(train.shuffled, True):
    yield "train.shuffled", "no term that reads what is shuffled"


@dataclasses.dataclass(frozen=True)
class InteractionsConfig:
  """HICO-DET: which pairs are looked at, learnt from and reported.

  Attributes:
    split: zero-shot split (UV, UO, RF-UC, NF-UC, ... or full).
    dropping: how unseen labels leave training: "pair" or "label".
    form: which annotations, where the folder has both; "" takes what it has.
    train_detections, test_detections: files of detected boxes
      (docs/hico_det.md); "" takes the annotated boxes, an oracle. Training on
      detections uses the annotated boxes too.
    dev_share: share of the training images, by a hash of their names, that
      chooses the checkpoint; their unseen labels are dropped as in training.
    slots: pairs that the decoder sees together, and the most that are used of
      a training image. Evaluation takes all pairs, `slots` at a time.
    max_people, max_objects, min_score: which detections make pairs.
    world: draw this small world into `dataset.folder` if it is not there.
    pair: weight of the interaction loss of pairs.
    focal_alpha, focal_gamma: its form (losses/interactions.py).
    answers_names: interactions that compete in the loss on the teacher's
      answers: those with "trained" pairs, or "all" of the object.
    detection_power: final score = sigmoid(logit) * (person's detection score
      * object's) ** this.
    nms: whether a pair that overlaps a better one of the same interaction by
      more than nms_threshold is left out (evaluation/interactions.py).
    nms_threshold: of (IoU of persons) * (IoU of objects) ** 0.5.
    top_k: best (pair, interaction) hypotheses of an image that are kept.
    skip_empty: leave test images without pairs out of the score, as UPT does.
  """

  split: str = "UV"
  dropping: str = "pair"
  form: str = ""
  train_detections: str = ""
  test_detections: str = ""
  dev_share: float = 0.05
  slots: int = 32
  max_people: int = 15
  max_objects: int = 15
  min_score: float = 0.2
  world: PairWorldConfig | None = None
  pair: float = 1.0
  focal_alpha: float = 0.5
  focal_gamma: float = 0.2
  answers_names: str = "all"
  detection_power: float = 1.0
  nms: bool = False
  nms_threshold: float = 0.7
  top_k: int = 100
  skip_empty: bool = False

  def __post_init__(self):
    if self.dropping not in DROPPING:
      raise ValueError(
        f"interactions.dropping={self.dropping!r} is not one of {DROPPING}"
      )
    if self.answers_names not in ("trained", "all"):
      raise ValueError(
        f"interactions.answers_names={self.answers_names!r} is not 'trained' "
        "or 'all'"
      )
    for name in ("slots", "max_people", "max_objects", "top_k"):
      if getattr(self, name) < 1:
        raise ValueError(
          f"interactions.{name}={getattr(self, name)} is not positive"
        )
    for name in ("dev_share", "min_score", "focal_alpha", "nms_threshold"):
      if not 0 <= getattr(self, name) <= 1:
        raise ValueError(
          f"interactions.{name}={getattr(self, name)} is not within 0 and 1"
        )
    for name in ("pair", "focal_gamma", "detection_power"):
      if getattr(self, name) < 0:
        raise ValueError(
          f"interactions.{name}={getattr(self, name)} is negative"
        )
