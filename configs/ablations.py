"""Ablations of MIPD on small worlds: variants, worlds, seeds.

  python -m mipd_jax.ablate --config=configs/ablations.py
  python -m mipd_jax.ablate --config=configs/ablations.py:full --mode=select
  python -m mipd_jax.ablate --config=configs/ablations.py:debug
  python -m mipd_jax.ablate --config=configs/ablations.py:ov_swig

Words after the colon, joined by commas: `full` adds every variant to the
standard ones; `candidates` compares settings from which to choose the preset's,
with --mode=select; `short` trains half as long; `debug` uses worlds that train
in seconds, with meaningless figures; `ov_swig` uses configs/ov_swig.py's
dataset instead of worlds. World n is drawn with seed n and has its own
encoders. Choose between variants on some worlds (--mode=select) and report on
others (--first_world).

On 2 idle cores a student of 800 steps takes 12 to 30 s, compiling a variant
about 40 s once, a new world five minutes.
"""

import os

import ml_collections

from configs import ov_swig, synthetic
from input_pipeline.io.errors import InputError
from mipd_jax.ablations.plan import Variant, World
from mipd_jax.losses import situations
from mipd_jax.models import outputs

MAX_WORLDS = 20
_WORDS = ("full", "candidates", "short", "debug", "ov_swig")
_MIPD, _PLAIN, _REFERENCE = "mipd", "no_distillation", "reference"

# The main question of the study, and its controls.
STANDARD = (
  Variant(_PLAIN, _PLAIN, against=()),
  Variant(_REFERENCE, _REFERENCE, against=(_PLAIN,)),
  Variant(_MIPD, against=(_PLAIN, _REFERENCE), asks="does MIPD beat both?"),
  Variant(
    "kl_alone",
    _PLAIN,
    {"loss": {"verb_kl": 0.3}},
    against=(_PLAIN, _MIPD),
    asks="is the teacher's verb distribution all that helps?",
  ),
  Variant(
    "no_kl",
    changes={"loss": {"verb_kl": 0.0}},
    against=(_MIPD, _PLAIN),
    asks="what prompts, rationales and gaze do without it",
  ),
  Variant(
    "kl_trained_names",
    changes={"loss": {"verb_kl_names": "trained"}},
    against=(_MIPD, _PLAIN),
    asks="what the names of unseen verbs are worth",
  ),
  Variant(
    "kl_apart",
    changes={"loss": {"verb_kl_names": "decoupled"}},
    against=(_MIPD, _PLAIN),
    asks="trained and untrained names apart: another balance",
  ),
  Variant(
    "kl_half_listed",
    changes={"loss": {"verb_kl_listed": 0.5}},
    against=(_MIPD, _PLAIN),
    asks="do names that were not listed gain too? (column unlisted)",
  ),
  Variant(
    "no_scene_prompt",
    changes={"model": {"scene_prompt": False}},
    asks="the scene-aware prompt",
  ),
  Variant(
    "no_box_prompt",
    changes={"model": {"instance_prompt": False}},
    asks="the instance-perception prompt",
  ),
  Variant(
    "no_negatives",
    changes={
      "loss": {
        "scene_contrast": 0.0,
        "gaze_contrast": 0.0,
        "align_negative": False,
      }
    },
    asks="negative rationales",
  ),
  Variant(
    "no_gaze",
    changes={"model": {"gaze": False}},
    asks="gaze distilled into roles",
  ),
  Variant(
    "shuffled_teacher",
    changes={"train": {"shuffled": "teacher"}},
    against=(_MIPD, _PLAIN),
    asks="control: another image's teacher",
  ),
  Variant(
    "shuffled_rationales",
    changes={"train": {"shuffled": "rationales"}},
    against=(_MIPD, _PLAIN),
    asks="control: another image's rationales",
  ),
  Variant(
    "no_kl_shuffled_rationales",
    changes={"loss": {"verb_kl": 0.0}, "train": {"shuffled": "rationales"}},
    against=("no_kl", _PLAIN),
    asks="control: the same where rationales are all there is to learn from",
  ),
)
_NO_SCENE = {
  term.name: 0.0
  for term in situations.TERMS
  if term.target == outputs.SCENE_TARGET
}
# Each changes one step of the method.
FURTHER = (
  Variant(
    "reference_masked",
    _REFERENCE,
    {"model": {"mask_padding": True}},
    against=(_REFERENCE,),
    asks="attention over caption padding",
  ),
  Variant(
    "reference_detached",
    _REFERENCE,
    {"loss": {"detach_teacher": True}},
    against=(_REFERENCE,),
    asks="the teacher's target is not pulled to the student",
  ),
  Variant(
    "reference_without_teacher",
    _REFERENCE,
    {
      "model": {"teacher_branch": False},
      "loss": {"scene_distill": 0.0, "scene_contrast": 0.0}
      | {"gaze_contrast": 0.0},
    },
    against=(_REFERENCE,),
    asks="what the reference's distillation does",
  ),
  Variant(
    "pool_mean",
    changes={"model": {"teacher_pooling": "mean"}},
    asks="scene target: mean of patches that read the rationale",
  ),
  Variant(
    "pool_class_query",
    changes={"model": {"teacher_pooling": "class_query"}},
    asks="scene target: the class token reads the patches",
  ),
  Variant(
    "pool_learned_query",
    changes={"model": {"teacher_pooling": "learned_query"}},
    asks="scene target: a learned query reads the patches",
  ),
  Variant("no_scene", changes={"loss": _NO_SCENE}, asks="the scene branch"),
  Variant(
    "negatives_hinge",
    changes={"loss": {"align_negative": False}},
    asks="negatives by cosine hinge alone",
  ),
  Variant(
    "negatives_infonce",
    changes={"loss": {"scene_contrast": 0.0}},
    asks="the scene's negatives by InfoNCE alone",
  ),
  Variant(
    "not_detached",
    changes={"loss": {"detach_teacher": False}},
    asks="teacher targets that move to the student",
  ),
  Variant(
    "no_temperature",
    changes={"model": {"verb_temperature": False}},
    asks="the learned logit scale of verbs",
  ),
  Variant(
    "kl_untrained_names",
    changes={"loss": {"verb_kl_names": "untrained"}},
    asks="KL among untrained names alone",
  ),
  Variant(
    "kl_of_clip",
    changes={"loss": {"verb_kl_source": "clip"}},
    asks="the student encoder's own logits instead of the teacher's",
  ),
  Variant(
    "kl_temperature_1",
    changes={"loss": {"verb_kl_temperature": 1.0}},
    asks="temperature of the KL",
  ),
  Variant(
    "kl_temperature_4",
    changes={"loss": {"verb_kl_temperature": 4.0}},
    asks="temperature of the KL",
  ),
  Variant(
    "kl_logits_as_they_are",
    changes={"loss": {"verb_kl_gain": 1.0}},
    asks="the teacher's log-likelihoods without the gain",
  ),
  Variant(
    "embedded_queries",
    changes={"model": {"role_queries": "embedding"}},
    asks="role queries of trained embeddings instead of text",
  ),
  Variant(
    "closed_nouns",
    changes={"model": {"noun_head": "closed"}},
    asks="noun scores of the classifier alone",
  ),
  Variant(
    "text_nouns",
    changes={"model": {"noun_head": "text"}},
    asks="noun scores by text alone",
  ),
  Variant(
    "class_token_verb",
    changes={"model": {"verb_pooling": "cls"}},
    asks="the verb's attention pooling over patches",
  ),
  Variant(
    "no_class_prior",
    changes={"loss": {"verb_prior": False}},
    asks="logits adjusted by the class prior",
  ),
  Variant(
    "unseen_as_negatives",
    changes={"loss": {"verb_names": "all"}},
    asks="unseen names compete in the cross entropy",
  ),
)


def _kl(name: str, asks: str, **changes) -> Variant:
  loss = {f"verb_kl_{field}": x for field, x in changes.items()}
  if "verb_kl_weight" in loss:
    loss["verb_kl"] = loss.pop("verb_kl_weight")
  return Variant(name, changes={"loss": loss}, against=(_PLAIN,), asks=asks)


# Settings of the KL on the teacher's verb logits, to choose between by the
# table "What may choose". They are complete, so that none depends on the
# preset that was chosen by this table.
_OLD = {
  "weight": 0.3,
  "temperature": 4.0,
  "gain": 1.0,
  "names": "decoupled",
  "source": "teacher",
}
CANDIDATES = (
  Variant(_PLAIN, _PLAIN, against=()),
  _kl("kl_none", "without the term", **_OLD | {"weight": 0.0}),
  _kl("kl_gain_1", "log-likelihoods as they are", **_OLD),
  _kl("kl_gain_2", "spread twice as wide", **_OLD | {"gain": 2.0}),
  _kl("kl_gain_3", "three times", **_OLD | {"gain": 3.0}),
  _kl(
    "kl_gain_2_temperature_2",
    "twice, and half as soft",
    **_OLD | {"gain": 2.0, "temperature": 2.0},
  ),
  _kl(
    "kl_gain_2_weight_1",
    "twice, at full weight",
    **_OLD | {"gain": 2.0, "weight": 1.0},
  ),
  _kl(
    "kl_gain_2_all_names",
    "twice, trained and untrained names at once",
    **_OLD | {"gain": 2.0, "names": "all"},
  ),
  _kl(
    "kl_gain_2_temperature_1",
    "twice, and a quarter as soft",
    **_OLD | {"gain": 2.0, "temperature": 1.0},
  ),
  _kl(
    "kl_gain_2_temperature_2_all_names",
    "trained and untrained names at once",
    **_OLD | {"gain": 2.0, "temperature": 2.0, "names": "all"},
  ),
  _kl(
    "kl_gain_2_prior",
    "twice, under the class prior",
    **_OLD | {"gain": 2.0, "prior": True},
  ),
  _kl(
    "kl_gain_2_temperature_2_prior",
    "half as soft, under the class prior",
    **_OLD | {"gain": 2.0, "temperature": 2.0, "prior": True},
  ),
  _kl(
    "kl_gain_2_temperature_2_all_names_prior",
    "all names at once, under the class prior",
    **_OLD | {"gain": 2.0, "temperature": 2.0, "names": "all", "prior": True},
  ),
  _kl(
    "kl_gain_2_weight_0.1",
    "twice, at a third of the weight",
    **_OLD | {"gain": 2.0, "weight": 0.1},
  ),
  _kl(
    "kl_gain_2_untrained_names",
    "twice, untrained names alone",
    **_OLD | {"gain": 2.0, "names": "untrained"},
  ),
  _kl(
    "kl_clip", "the student encoder's own logits", **_OLD | {"source": "clip"}
  ),
)


def get_config(variant: str = "") -> ml_collections.ConfigDict:
  """The config of a run as `base`, and the grid of variants and worlds."""
  words = {word for word in variant.split(",") if word}
  if unknown := words - set(_WORDS):
    raise InputError(
      f"configs/ablations.py has no variant {sorted(unknown)[0]!r}",
      f"there are {_WORDS}, joined by commas",
    )
  debug = "debug" in words
  config = ml_collections.ConfigDict()
  if "ov_swig" in words:
    config.base = ov_swig.get_config("")
    config.all_worlds = (World("ov_swig", {}),)
    config.folder = "runs/ablations-ov_swig"
  else:
    config.base = synthetic.get_config("debug" if debug else "")
    count = 2 if debug else MAX_WORLDS
    config.all_worlds = tuple(world(n, config.base) for n in range(count))
    config.folder = f"runs/ablations{'-debug' * debug}"
    if "short" in words:  # half of the demo's steps
      config.base.train.steps = 400
      config.folder += "-short"
  # Train, then score, with nothing in between.
  config.base.train.update(log_every=0, eval_every=0, checkpoint_every=0)
  if "candidates" in words:
    config.variants = CANDIDATES
  else:
    config.variants = STANDARD + (FURTHER if "full" in words else ())
  config.first_world = 0
  config.worlds = 2 if debug else 3
  config.seeds = 2 if debug else 3
  config.held_out_seeds = 1
  config.held_out_verbs = 0  # as many as the unseen verbs
  return config


def world(number: int, config: ml_collections.ConfigDict) -> World:
  """World `number`, in a folder of its own; world 0 is the config's."""
  old = os.path.dirname(config.dataset.folder)
  new = f"{old}-{number}" if number else old

  def moved(values):
    return {
      name: value.replace(old, new) if isinstance(value, str) else value
      for name, value in values.to_dict().items()
    }

  dataset, teacher = moved(config.dataset), moved(config.teacher)
  dataset["world"] = dataset["world"] | {"seed": number}
  return World(f"world-{number}", {"dataset": dataset, "teacher": teacher})
