"""What the model is made of, as frozen dataclasses."""

import dataclasses

from input_pipeline import ranges, schema

EYES = ("tokens", "adapter")
VERB_POOLINGS = ("cls", "attention")
QUERY_SOURCES = ("embedding", "text")
NOUN_HEADS = ("closed", "text", "sum")
TEACHER_POOLINGS = ("cls", "mean", "class_query", "learned_query", "text")
RATIONALE_SPACES = ("learned", "frozen")


@dataclasses.dataclass(frozen=True)
class Sizes:
  """Sizes of the label spaces, from the data."""

  num_verbs: ranges.Count
  num_roles: ranges.Count
  num_nouns: ranges.Count


@dataclasses.dataclass(frozen=True)
class Dropout:
  """Dropout rates; the defaults are the reference's."""

  student: ranges.Part = 0.5  # on the projected image tokens
  decoder: ranges.Part = 0.1  # attention weights, both attentions, FFN
  noun: ranges.Part = 0.3
  box: ranges.Part = 0.2  # box and confidence heads
  # Images whose roles are asked for without their verb: unseen verbs' roles are
  # then read by what the role alone tells.
  query_verb: ranges.Part = 0.0


@dataclasses.dataclass(frozen=True)
class ModelConfig:
  """Choices of the student and of the teacher branch.

  The comment behind each choice names the row of the reference's fault
  table (docs/method.md) that it answers; the first value listed is the
  reference's.
  """

  hidden: ranges.Count = 512
  heads: ranges.Count = 8
  feed_forward: ranges.Count = 2048
  dropout: Dropout = Dropout()
  # Student.
  # tokens | adapter: as encoded, or changed by a narrow layer that is trained.
  eyes: str = "tokens"
  eyes_width: ranges.Count = 128  # of that layer
  # Whether, in training, the tokens in each box tell its noun by themselves.
  box_nouns: bool = False
  # Whether, in training, the student's patches foretell the teacher's tokens.
  foretell: bool = False
  verb_pooling: str = "attention"  # cls | attention
  verb_temperature: bool = True  # row 7: False | True, learned logit scale
  role_queries: str = "text"  # row 6: embedding | text
  noun_head: str = "sum"  # row 6: closed | text | sum, the evaluated scores
  # Teacher branch: training only, so False makes a student without one.
  teacher_branch: bool = True
  scene_prompt: bool = True
  instance_prompt: bool = True
  # row 1: cls | mean | class_query | learned_query | text; the last three are
  # one attention query that reads the prompted tokens.
  teacher_pooling: str = "text"
  # Of "learned_query": number of queries, the scene prompts that read.
  scene_queries: ranges.Count = 1
  scene_heads: ranges.Count = 1  # of the attention that makes the scene target
  # Whether prompts pass through the frozen layers of teacher.open_layers.
  open_layers: bool = False
  # Whether the branch reads the teacher's tokens layer-normed, each alone.
  teacher_norm: bool = False
  # Where rationales are compared with the targets: after projections that are
  # learned with these, or as the frozen text encoder embeds the whole sentence
  # (of gaze: each instance's part), without what all sentences of the batch
  # share. A learned space can make any negative orthogonal; a frozen one can't.
  rationale_space: str = "learned"
  gaze: bool = True  # row 2: False | True, per-role gaze targets
  mask_padding: bool = True  # row 8: False | True

  @property
  def teacher_features(self) -> tuple[str, ...]:
    """Features of the batch contract that the teacher branch reads."""
    if not self.teacher_branch:
      return ()
    return (
      schema.TEACHER_TOKENS,
      schema.RATIONALE_TOKENS,
      schema.RATIONALE_MASK,
      *(
        (schema.INSTANCE_TEXT, schema.INSTANCE_TEXT_MASK)
        if self.frozen_gaze
        else ()
      ),
    )

  @property
  def frozen_gaze(self) -> bool:
    """Whether gaze targets are compared with frozen embeddings."""
    return self.gaze and self.rationale_space == "frozen"

  @property
  def projected_rationales(self) -> tuple[str, ...]:
    """Names, of `schema.RATIONALES`, of those that learned layers read."""
    if self.teacher_pooling == "cls":
      return schema.RATIONALES
    positive, negative, *gaze = schema.RATIONALES
    guides = self.teacher_pooling in ("mean", "text")
    compared = self.rationale_space == "learned"
    return (
      *((positive,) if guides or compared else ()),
      *((negative,) if compared else ()),
      *(gaze if self.gaze and compared else ()),
    )

  def __post_init__(self):
    _one_of("eyes", self.eyes, EYES)
    _one_of("verb_pooling", self.verb_pooling, VERB_POOLINGS)
    _one_of("role_queries", self.role_queries, QUERY_SOURCES)
    _one_of("noun_head", self.noun_head, NOUN_HEADS)
    _one_of("teacher_pooling", self.teacher_pooling, TEACHER_POOLINGS)
    _one_of("rationale_space", self.rationale_space, RATIONALE_SPACES)
    if self.hidden % self.scene_heads:
      raise ValueError(
        f"model.hidden={self.hidden} is not a multiple of "
        f"model.scene_heads={self.scene_heads}"
      )
    if self.eyes == "adapter" and self.eyes_width % self.heads:
      raise ValueError(
        f"model.eyes_width={self.eyes_width} is not a multiple of "
        f"model.heads={self.heads}"
      )
    if self.hidden % self.heads:
      raise ValueError(
        f"model.hidden={self.hidden} is not a multiple of "
        f"model.heads={self.heads}"
      )


def _one_of(field: str, value: str, choices: tuple[str, ...]) -> None:
  if value not in choices:
    raise ValueError(f"model.{field}={value!r} is not one of {choices}")
