"""Weights and forms of the losses, as a frozen dataclass."""

import dataclasses

from input_pipeline import ranges, schema

# Logits that `verb_kl_source` distils, as keys of the batch.
KL_SOURCES = {"teacher": schema.VERB_LOGITS, "clip": schema.CLIP_LOGITS}
_CHOICES = {
  "scene_distill_form": ("l1", "cosine"),
  "verb_names": ("trained", "all"),
  "verb_kl_names": ("trained", "untrained", "decoupled", "all"),
  "verb_kl_source": tuple(KL_SOURCES),
}


@dataclasses.dataclass(frozen=True)
class LossConfig:
  """Weight and form of every term; a weight of 0 drops the term.

  A weight has the name of its term (`losses.objective.LossTerm`).
  The defaults are preset `mipd`; `mipd_jax.presets` holds the reference's.
  """

  # Verb.
  verb: ranges.Weight = 1.0
  verb_smoothing: ranges.Part = 0.1
  # Logits adjusted by the class prior; False in the reference.
  verb_prior: bool = True
  # Verbs that compete: those with training images, or all (reference), unseen
  # ones as negatives of every image.
  verb_names: str = "trained"
  # Scene distillation: student verb embedding -> scene target.
  scene_distill: ranges.Weight = 1.0
  scene_distill_form: str = "cosine"  # l1 (reference) | cosine
  detach_teacher: bool = True  # row 7: False in the reference
  # Scene target itself.
  scene_contrast: ranges.Weight = 0.5  # hinge against the negative rationale
  scene_align: ranges.Weight = 0.5  # InfoNCE against positive rationales
  align_negative: bool = True  # whether the image's negative competes too
  align_temperature: ranges.Positive = 0.1
  teacher_verb: ranges.Weight = 1.0  # cross entropy of the scene target
  # Verb logits of the teacher, or the student encoder's own zero-shot ones.
  verb_kl: ranges.Weight = 0.3
  verb_kl_source: str = "teacher"
  # These three: docs/ablations.md, 'How the preset was chosen'.
  verb_kl_temperature: ranges.Positive = 2.0
  verb_kl_gain: ranges.Positive = 2.0  # multiplies the distilled logits
  # Both sides under the training images' class prior.
  verb_kl_prior: bool = False
  # trained | untrained | decoupled | all; all but the first use the *names* of
  # unseen verbs.
  verb_kl_names: str = "all"
  # Share of the untrained names that take part in the KL term.
  verb_kl_listed: ranges.Share = 1.0
  # Nouns.
  noun_sum: ranges.Weight = 1.0  # on the evaluated scores
  noun_closed: ranges.Weight = 0.0
  noun_text: ranges.Weight = 0.0
  noun_smoothing: ranges.Part = 0.1
  # KL of the scores of boxed roles, or of pairs, to what the teacher answers
  # when it is shown the instance; needs teacher.instances.show.
  answers: ranges.Weight = 0.0
  answers_temperature: ranges.Positive = 2.0
  # Of what the tokens in each box say by themselves (model.box_nouns): cross
  # entropy, and KL to the teacher's answers.
  box_noun: ranges.Weight = 0.0
  box_answers: ranges.Weight = 0.0
  # The teacher's patches, foretold by the student's (model.foretell).
  foretell: ranges.Weight = 0.0
  # Gaze distillation: role embedding -> gaze target.
  gaze_distill: ranges.Weight = 1.0
  gaze_contrast: ranges.Weight = 0.5
  # InfoNCE of the student's own verb and role embeddings against the sentences:
  # controls, for they need no teacher's image.
  verb_sentence: ranges.Weight = 0.0
  role_sentence: ranges.Weight = 0.0
  # InfoNCE of gaze targets against the sentences about instances.
  gaze_align: ranges.Weight = 0.0
  teacher_noun: ranges.Weight = 1.0
  # Boxes.
  box: ranges.Weight = 5.0
  giou: ranges.Weight = 5.0
  confidence: ranges.Weight = 5.0

  def __post_init__(self):
    for name, choices in _CHOICES.items():
      if getattr(self, name) not in choices:
        raise ValueError(
          f"loss.{name}={getattr(self, name)!r} is not one of {choices}"
        )
    if not 0 <= self.verb_kl_listed <= 1:
      raise ValueError(
        f"loss.verb_kl_listed={self.verb_kl_listed} is not a share of 0 to 1"
      )
