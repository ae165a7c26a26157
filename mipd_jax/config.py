"""The whole configuration, unpacked from a ConfigDict at the edge.

Files under `configs/` build an `ml_collections.ConfigDict`; `unpack` turns it
into these frozen dataclasses and refuses unknown fields. No module below this
one sees a ConfigDict.
"""

import dataclasses
import difflib
import hashlib
import json
import math
import operator
import types
import typing
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from input_pipeline import ranges
from input_pipeline.io.errors import InputError
from input_pipeline.small_world.interactions.config import PairWorldConfig
from input_pipeline.small_world.situations.config import WorldConfig
from mipd_jax import presets
from mipd_jax.losses.config import LossConfig
from mipd_jax.losses.objective import Objective
from mipd_jax.models.config import ModelConfig
from mipd_jax.models.teaching import open_layers
from mipd_jax.rationales.judging import JrgConfig, ServedConfig, is_address
from mipd_jax.tasks import checks
from mipd_jax.tasks import config as task_config
from mipd_jax.tasks.config import InteractionsConfig

T = TypeVar("T")
# How a teacher is shown an instance, as in teachers/showing.
SHOWN = ("", "tokens", "crop", "blur", "outline")
_VERB_SCORES = ("sum", "mean", "calibrated")  # as in teachers/image_teachers


@dataclasses.dataclass(frozen=True)
class DatasetConfig:
  """The images and frames.

  Attributes:
    folder: a SWiG-layout folder (docs/formats.md).
    world: draw this small world into `folder` if it is not there.
    num_rare, num_unseen, split_seed: how to draw ov_splits.json if the folder
      has none.
    mirrored: whether every training image is also used mirrored, with left and
      right exchanged in its texts too.
    skip_broken: whether images that are missing or cannot be decoded are left
      out, named and counted; False refuses them.
  """

  folder: str
  world: WorldConfig | None = None
  num_rare: ranges.Whole = 40
  num_unseen: ranges.Whole = 54
  split_seed: ranges.Whole = 0
  mirrored: bool = False
  skip_broken: bool = False


@dataclasses.dataclass(frozen=True)
class InstancesConfig:
  """What the teacher is asked about each annotated instance.

  Attributes:
    show: "tokens" (it reads only the image tokens in the box), "crop", "blur"
      (of what surrounds it) or "outline" (a red rectangle); "" does not ask.
    question: asked; {kind} is the role, or "activity" for a pair of a person
      and an object, {object} the pair's object. "" is "Question: what is the
      {kind} in this picture? Answer:".
    margin: for all but tokens, the box grows by this share of its longer side.
    top_k: answers that are kept of each instance.
    sentences: whether the gaze texts are split by instance and each part is
      embedded; gaze targets of model.rationale_space="frozen" need it.
  """

  show: str = ""
  question: str = ""
  margin: ranges.Weight = 0.1
  top_k: ranges.Count = 16
  sentences: bool = False

  def __post_init__(self):
    if self.show not in SHOWN:
      raise ValueError(
        f"teacher.instances.show={self.show!r} is not one of {SHOWN}"
      )


@dataclasses.dataclass(frozen=True)
class TeacherConfig:
  """The frozen encoders and the cache of their outputs.

  Attributes:
    student_encoder: Hugging Face id or folder of a CLIP or a SigLIP.
    teacher_encoder: of a BLIP-2, a CLIP or a SigLIP.
    text_encoder: CLIP or SigLIP whose text tower embeds labels and rationales;
      "" is the student encoder.
    foundation: "standard", "grounded" (they learn what is in a box, too) or
      "debug" trains small models into the folders if they are not there; ""
      expects them to exist.
    cache: folder of the teacher cache.
    question: asked about each image, of a BLIP-2; its logits are the
      log-likelihoods of the verbs' names as answers.
    verb_score: "sum", "mean" or "calibrated": how these are normalised
      (teachers/image_teachers.py).
    language_model: causal or seq2seq model that writes and judges rationales
      (JRG, docs/rationales.md), or the address of a served one:
      http://HOST:PORT/v1#NAME; "" leaves them to templates.
    jrg: its settings.
    served: how a served one is asked.
    instances: what it is asked about each instance (docs/teachers.md).
    open_layers: of a BLIP-2, those that model.open_layers lets prompts pass
      through: "qformer", "tower-1" (the last block of its image tower) and so
      on; "" for none. The cache holds their weights.
    parts: comma-separated parts of the cache (docs/teachers.md).
    only: comma-separated tasks of this run of --mode=prepare; "" is all.
    process_index, process_count: of separate processes that make one cache;
      0 of 0 takes JAX's own.
    batch_size: images per step over all devices.
    text_length: tokens that a rationale is cut to.
    dtype: of the cached tokens: "bfloat16", "float32" or "int8".
    compute_dtype: of the encoders' arithmetic and parameters; "auto" is
      bfloat16 on accelerators and float32 on CPUs.
  """

  student_encoder: str
  teacher_encoder: str
  cache: str
  text_encoder: str = ""
  foundation: str = ""
  question: str = "Question: what is the activity in this picture? Answer:"
  verb_score: str = "sum"
  language_model: str = ""
  jrg: JrgConfig = dataclasses.field(default_factory=JrgConfig)
  served: ServedConfig = dataclasses.field(default_factory=ServedConfig)
  instances: InstancesConfig = dataclasses.field(
    default_factory=InstancesConfig
  )
  open_layers: str = ""
  parts: str = (
    "student,teacher,text,verb_logits,clip_logits,answers,instance_text"
  )
  only: str = ""
  process_index: ranges.Whole = 0
  process_count: ranges.Whole = 0
  batch_size: ranges.Count = 64
  text_length: ranges.Count = 77
  dtype: str = "bfloat16"
  compute_dtype: str = "auto"

  def __post_init__(self):
    if self.foundation not in ("", "standard", "grounded", "debug"):
      raise ValueError(
        f"teacher.foundation={self.foundation!r} is not '', 'standard', "
        "'grounded' or 'debug'"
      )
    if self.open_layers:
      try:
        open_layers.parse(self.open_layers)
      except ValueError as error:
        raise ValueError(f"teacher.open_layers: {error}") from None
    if self.verb_score not in _VERB_SCORES:
      raise ValueError(
        f"teacher.verb_score={self.verb_score!r} is not one of {_VERB_SCORES}"
      )
    _check_dtype("teacher.compute_dtype", self.compute_dtype)

  @property
  def is_served(self) -> bool:
    """Whether the language model is given by the address of its server."""
    return is_address(self.language_model)


@dataclasses.dataclass(frozen=True)
class TrainConfig:
  """The training run; the optimizer's defaults are the reference's.

  Attributes:
    steps: optimizer steps; 0 takes `epochs`.
    epochs: passes over the training images, if steps is 0.
    batch_size: images per step over all devices.
    learning_rate, weight_decay, clip_norm: AdamW and its gradient clipping.
    schedule: "constant" or "cosine" (to zero at the last step).
    warmup_steps: linear warm-up.
    dtype: of compute; "auto" is bfloat16 on accelerators, float32 on CPUs,
      which only emulate bfloat16.
    log_every, eval_every, checkpoint_every: in steps; 0 is only at the end.
    keep: how many of the latest checkpoints to keep.
    resident: "on", "off", or "auto": keep the training features in device
      memory if they fit, and the dev features if these fit too.
    resident_gib: GiB of a device for them; 0 is three quarters of its memory,
      or 4 GiB over all devices if they do not report it (CPUs).
    steps_per_dispatch: most steps in one program; fewer where something is due
      (see training/loop.py). Changes no result.
    shuffled: "teacher", "rationales" or "answers": each training image gets
      these features of another image, or each instance the answers about
      another one, a control (feeding/shuffled.py); "" is none.
  """

  steps: ranges.Whole = 0
  epochs: ranges.Count = 10
  batch_size: ranges.Count = 64
  learning_rate: ranges.Positive = 1e-4
  weight_decay: ranges.Weight = 1e-4
  clip_norm: ranges.Positive = 0.1
  schedule: str = "constant"
  warmup_steps: ranges.Whole = 0
  dtype: str = "auto"
  log_every: ranges.Whole = 50
  eval_every: ranges.Whole = 500
  checkpoint_every: ranges.Whole = 500
  keep: ranges.Count = 2
  resident: str = "auto"
  resident_gib: ranges.Weight = 0.0
  steps_per_dispatch: ranges.Count = 10
  shuffled: str = ""

  def __post_init__(self):
    if self.shuffled not in ("", "teacher", "rationales", "answers"):
      raise ValueError(
        f"train.shuffled={self.shuffled!r} is not '', 'teacher', 'rationales' "
        "or 'answers'"
      )
    if self.resident not in ("auto", "on", "off"):
      raise ValueError(
        f"train.resident={self.resident!r} is not 'auto', 'on' or 'off'"
      )
    if self.schedule not in ("constant", "cosine"):
      raise ValueError(
        f"train.schedule={self.schedule!r} is not 'constant' or 'cosine'"
      )
    _check_dtype("train.dtype", self.dtype)


def _check_dtype(field: str, dtype: str) -> None:
  if dtype not in ("auto", "bfloat16", "float32"):
    raise ValueError(
      f"{field}={dtype!r} is not 'auto', 'bfloat16' or 'float32'"
    )


@dataclasses.dataclass(frozen=True)
class EvalConfig:
  """Evaluation.

  Attributes:
    batch_size: images per step over all devices.
    split: the reported split.
    sheet_examples: images on the picture sheet.
    trained_bias: in units of verb scores; adds a row of the student's scores
      with this subtracted from the scores of verbs with training images. 0
      leaves it out. Choose it by held-out seen verbs (docs/ablations.md), never
      by unseen ones.
    beside: comma-separated work directories of finished runs on the same data;
      their students' rows are shown beside this one's.
    predictions: file for the student's predictions of the split (or, with
      --mode=predict, of the given images), in the form that
      `python -m mipd_jax.metrics.swig` scores; "" writes none.
  """

  batch_size: ranges.Count = 256
  split: str = "test"
  sheet_examples: ranges.Whole = 12
  trained_bias: float = 0.0
  beside: str = ""
  predictions: str = ""


@dataclasses.dataclass(frozen=True)
class MeshConfig:
  """Devices along the batch (-1: all that are left) and the model.

  Attributes:
    data, model: sizes of the two axes (mipd_jax/devices/sharding.py).
    fsdp: also divide parameters and optimizer state along the batch's
      devices.
  """

  data: Annotated[int, ranges.Range(-1)] = -1
  model: ranges.Count = 1
  fsdp: bool = False

  def __post_init__(self):
    if not self.data:
      raise ValueError("mesh.data=0 is no number of devices; -1 takes all")


@dataclasses.dataclass(frozen=True)
class Config:
  """One run.

  `task` names the task (mipd_jax/tasks); `interactions` has the settings of the
  task of that name.
  """

  name: str
  preset: str
  workdir: str
  dataset: DatasetConfig
  teacher: TeacherConfig
  model: ModelConfig
  loss: LossConfig
  train: TrainConfig
  eval: EvalConfig
  mesh: MeshConfig = MeshConfig()
  seed: ranges.Whole = 0
  quick_compile: bool = False  # for runs so short that compiling dominates
  task: str = "situations"
  interactions: InteractionsConfig | None = None

  def __post_init__(self):
    if self.task not in task_config.TASKS:
      raise ValueError(f"task={self.task!r} is not one of {task_config.TASKS}")
    if (self.task == "interactions") != (self.interactions is not None):
      raise ValueError(
        f"task={self.task!r} does not go with interactions="
        f"{'set' if self.interactions else 'None'}"
      )
    if self.teacher.foundation and self.world is None:
      raise ValueError(
        f"teacher.foundation is set but {self.world_field}, whose images it "
        "learns from, is not"
      )
    checks.check(self)
    self._refuse_idle()

  def _refuse_idle(self) -> None:
    """A field without effect must have its default, or its preset's value."""
    usual = [(ModelConfig(), LossConfig())]
    if self.preset in presets.PRESETS:
      usual.append(presets.preset_defaults(self.preset))
    allowed = [
      types.SimpleNamespace(
        dataset=DatasetConfig(""),
        teacher=TeacherConfig("", "", ""),
        model=model,
        loss=loss,
        train=TrainConfig(),
        eval=EvalConfig(),
        interactions=InteractionsConfig(),
      )
      for model, loss in usual
    ]
    for name, why in task_config.idle_fields(self):
      value = operator.attrgetter(name)
      values = [value(one) for one in allowed]
      if value(self) not in values:
        raise InputError(
          f"{name}={value(self)!r} does nothing with {why}",
          f"leave it out, or at {values[-1]!r}",
        )

  @property
  def objective(self) -> Objective:
    """The objective: the terms of the task, with their weights."""
    return task_config.objective(self)

  @property
  def is_predicted(self) -> bool:
    """Whether `--mode=predict` and the export know the task's student."""
    return self.task == "situations"

  @property
  def world(self) -> WorldConfig | PairWorldConfig | None:
    """The small world to draw, if any."""
    return (self.interactions or self.dataset).world

  @property
  def world_field(self) -> str:
    """The field that sets it."""
    return "interactions.world" if self.interactions else "dataset.world"

  def to_dict(self) -> dict[str, Any]:
    """Plain nested values for JSON.

    Without the fields of other tasks: a new task must not change a run's hash.
    """
    values = json.loads(json.dumps(dataclasses.asdict(self)))
    if self.interactions is None:
      del values["interactions"]
    if self.task == Config.task:
      del values["task"]
    # The place of a copy of the results is not part of a run.
    del values["eval"]["predictions"]
    return values

  def hash(self) -> str:
    """The run's hash in results files."""
    text = json.dumps(self.to_dict(), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def unpack(values: Mapping[str, Any]) -> Config:
  """Turns a ConfigDict (or nested dict) into a Config.

  Raises:
    InputError: a field is unknown, missing, of another type, or has a value
      that is not allowed; the message names it by its dotted path.
  """
  if hasattr(values, "to_dict"):
    values = values.to_dict()
  return _unpack(Config, values, "config")


def _unpack(cls: type[T], values: Mapping[str, Any], path: str) -> T:
  if not isinstance(values, Mapping):
    raise InputError(
      f"{path} is {values!r}, expected fields", "see mipd_jax/config.py"
    )
  fields = {field.name: field for field in dataclasses.fields(cls)}
  for name in values:
    if name not in fields:
      near = difflib.get_close_matches(name, fields, 1)
      hint = f"did you mean {near[0]!r}? " if near else ""
      raise InputError(
        f"{path} has no field {name!r}",
        f"{hint}the fields are {sorted(fields)}",
      )
  hints = typing.get_type_hints(cls, include_extras=True)
  given = {
    name: _convert(hints[name], value, f"{path}.{name}")
    for name, value in values.items()
  }
  try:
    return cls(**given)
  except InputError as error:
    raise InputError(f"{path}: {error.problem}", error.remedy) from error
  except (TypeError, ValueError) as error:
    raise InputError(f"{path}: {error}", "see mipd_jax/config.py") from error


def _convert(kind: Any, value: Any, path: str) -> Any:
  if isinstance(kind, types.UnionType):  # the only unions here: X | None
    if value is None:
      return None
    kind = next(k for k in typing.get_args(kind) if k is not type(None))
  if typing.get_origin(kind) is Annotated:
    kind, allowed = typing.get_args(kind)
    converted = _convert(kind, value, path)
    if converted not in allowed:
      raise _out_of_range(path, converted, str(allowed))
    return converted
  if dataclasses.is_dataclass(kind):
    return _unpack(kind, value, path)
  if typing.get_origin(kind) is tuple:
    kinds = typing.get_args(kind)
    if not isinstance(value, (tuple, list)) or len(value) != len(kinds):
      raise _wrong_type(path, value, f"{len(kinds)} values")
    return tuple(
      _convert(kind, item, f"{path}[{i}]")
      for i, (kind, item) in enumerate(zip(kinds, value, strict=True))
    )
  if kind is float and isinstance(value, int) and not isinstance(value, bool):
    value = float(value) if abs(value) <= ranges.LARGEST else math.inf
  if not isinstance(value, kind) or (
    isinstance(value, bool) and kind is not bool
  ):
    raise _wrong_type(path, value, kind.__name__)
  if kind is int and abs(value) > ranges.LARGEST:
    raise _out_of_range(path, value, f"{ranges.LARGEST} at most")
  if kind is float and not math.isfinite(value):
    raise _out_of_range(path, value, "a finite number")
  return value


def _out_of_range(path: str, value: Any, allowed: str) -> InputError:
  return InputError(
    f"{path}={value!r} is out of range: it has to be {allowed}",
    f"correct the config file or the flag --{path}",
  )


def _wrong_type(path: str, value: Any, expected: str) -> InputError:
  return InputError(
    f"{path}={value!r} is a {type(value).__name__}, expected {expected}",
    "correct the config file or the --config... flag",
  )
