"""What MIPD's parts are worth where the teacher knows what is in a box.

  python -m mipd_jax.ablate --config=configs/grounded_study.py --first_world=2
  python -m mipd_jax.ablate --config=configs/grounded_study.py:parts
  python -m mipd_jax.ablate --config=configs/grounded_study.py:debug

Words after the colon, joined by commas: `parts` adds MIPD without each part and
the controls, `tried` what was tried and not taken, `debug` uses worlds that
train in seconds, with meaningless figures. World n is drawn with seed n; its
encoders learn what is in a box (configs/synthetic.py:grounded), eight minutes a
world on two cores. Worlds 2 and 8 chose the settings; report others.

All students have the same eyes: the frozen tokens, changed by a narrow layer
that is trained, and taught by the labels of the boxes.
"""

from typing import Any

import ml_collections

from configs import ablations, synthetic
from input_pipeline.io.errors import InputError
from mipd_jax.ablations.plan import Variant

_WORDS = ("parts", "tried", "debug")
_MIPD, _PLAIN, _REFERENCE = "mipd", "no_distillation", "reference"
_STEPS = 1500
# Of every student but the reference's.
_EYES = {
  "eyes": "adapter",
  "eyes_width": 128,
  "box_nouns": True,
  "dropout": {"query_verb": 0.3},
}
_LABELS = {"box_noun": 1.0}
# The target is read by a learned query that sees no text; sentences supervise
# it, in the space of the frozen text encoder.
_TARGET = {
  "teacher_pooling": "learned_query",
  "scene_heads": 4,
  "teacher_norm": True,
  "rationale_space": "frozen",
  "gaze": False,
}
_SENTENCES = {
  "scene_align": 1.0,
  "scene_contrast": 0.0,
  "teacher_verb": 0.0,
  "gaze_distill": 0.0,
  "gaze_contrast": 0.0,
  "teacher_noun": 0.0,
  "verb_kl": 0.0,
}
_FORETELL = 20.0


def _variant(
  name: str,
  asks: str,
  *,
  loss: dict[str, Any] | None = None,
  model: dict[str, Any] | None = None,
  shuffled: str = "",
  against: tuple[str, ...] = (_MIPD,),
) -> Variant:
  """MIPD of this study with some fields changed."""
  changes = {
    "model": _EYES | _TARGET | {"foretell": True} | (model or {}),
    "loss": _LABELS | _SENTENCES | {"foretell": _FORETELL} | (loss or {}),
  }
  if shuffled:
    changes["train"] = {"shuffled": shuffled}
  return Variant(name, _MIPD, changes, against, asks)


def _plain(name: str, asks: str, **loss: Any) -> Variant:
  """Students without the teacher's branch."""
  changes = {"model": dict(_EYES), "loss": _LABELS | loss}
  if loss.get("foretell"):
    changes["model"]["foretell"] = True
  against = () if name == _PLAIN else (_PLAIN, _MIPD)
  return Variant(name, _PLAIN, changes, against, asks)


MAIN = (
  _plain(_PLAIN, ""),
  Variant(_REFERENCE, _REFERENCE, against=(_PLAIN,)),
  _variant(
    _MIPD, "does MIPD beat both?", against=(_PLAIN, _REFERENCE, "kl_alone")
  ),
  _plain("kl_alone", "is the teacher's verb distribution enough?", verb_kl=0.3),
)
PARTS = (
  _variant(
    "no_sentence",
    "the positive rationale: the verb's label supervises the target instead",
    loss={"scene_align": 0.0, "teacher_verb": 1.0},
    against=(_MIPD, _PLAIN),
  ),
  _variant(
    "no_negative", "the negative rationale", loss={"align_negative": False}
  ),
  _variant(
    "class_query",
    "the scene prompt: the teacher's class token reads instead of a query",
    model={"teacher_pooling": "class_query"},
  ),
  _variant(
    "no_foretelling",
    "the teacher's patches, foretold by the student's",
    loss={"foretell": 0.0},
    model={"foretell": False},
    against=(_MIPD, _PLAIN),
  ),
  _plain("foretelling_alone", "is it all that helps?", foretell=_FORETELL),
  _variant(
    "shuffled_rationales",
    "control: another image's rationales",
    shuffled="rationales",
    against=(_MIPD, _PLAIN),
  ),
  _variant(
    "shuffled_teacher",
    "control: another image's teacher",
    shuffled="teacher",
    against=(_MIPD, _PLAIN),
  ),
  _variant(
    "sentence_without_teacher",
    "control: the student itself picks the sentence",
    loss={"scene_align": 0.0, "scene_distill": 0.0, "verb_sentence": 1.0},
    against=(_MIPD, _PLAIN),
  ),
)
TRIED = (
  _variant("with_kl", "KL too", loss={"verb_kl": 0.3}),
  _variant("answers", "the teacher's answers", loss={"answers": 1.0}),
  _variant(
    "shuffled_answers",
    "control: answers about another instance of the role",
    loss={"answers": 1.0},
    shuffled="answers",
    against=("answers",),
  ),
  _variant(
    "gaze_sentences",
    "targets of roles that the sentences about instances supervise",
    loss={"gaze_align": 1.0, "gaze_distill": 1.0},
    model={"gaze": True},
  ),
  _variant(
    "gaze_without_teacher",
    "control: the roles themselves pick these sentences",
    loss={"role_sentence": 1.0},
    model={"gaze": True},
  ),
  _variant(
    "qformer_prompts",
    "queries through the Q-Former's frozen layers",
    model={"open_layers": True},
  ),
  Variant(
    "rationale_as_query",
    changes={"model": _EYES, "loss": _LABELS},
    against=(_MIPD, _PLAIN),
    asks="the preset's form: rationales are what reads the teacher",
  ),
)


def get_config(variant: str = "") -> ml_collections.ConfigDict:
  """The config of a run as `base`, and the grid of variants and worlds."""
  words = {word for word in variant.split(",") if word}
  if unknown := words - set(_WORDS):
    raise InputError(
      f"configs/grounded_study.py has no variant {sorted(unknown)[0]!r}",
      f"there are {_WORDS}, joined by commas",
    )
  debug = "debug" in words
  word = "debug" if debug else "grounded"
  config = ablations.get_config("debug" if debug else "")
  config.base = synthetic.get_config(word)
  config.base.teacher.open_layers = "qformer"
  config.base.teacher.instances.sentences = True
  config.base.train.update(log_every=0, eval_every=0, checkpoint_every=0)
  if not debug:
    config.base.train.steps = _STEPS
  config.all_worlds = tuple(
    ablations.world(n, config.base) for n in range(len(config.all_worlds))
  )
  config.folder = f"runs/grounded_study{'-debug' * debug}"
  config.variants = (
    MAIN
    + (PARTS if "parts" in words else ())
    + (TRIED if "tried" in words else ())
  )
  if not debug:
    config.seeds = 2
  return config
