"""Plans: configs of runs, their hashes, and the grid of configs/."""

import pathlib
import types

import pytest

from configs import ablations, grounded_study
from input_pipeline.io.errors import InputError
from mipd_jax import presets
from mipd_jax.ablations import plan as plan_lib
from mipd_jax.ablations import runs
from mipd_jax.ablations.plan import Plan, Variant, World
from tests.fakes import ablation_fakes as fakes

FOLDER = pathlib.Path("study")


def _config(variant, **train):
  return fakes.plan(FOLDER, **train).config(variant, fakes.WORLD, 0)


@pytest.mark.parametrize("preset", presets.PRESETS)
def test_a_preset_keeps_the_sizes_of_the_base(preset):
  config = _config(Variant("v", preset))
  model, losses = presets.preset_defaults(preset)
  assert config.loss == losses
  assert config.model.hidden == 32 != model.hidden
  assert config.model.dropout.student == 0 != model.dropout.student
  for field in ("verb_pooling", "role_queries", "gaze", "teacher_branch"):
    assert getattr(config.model, field) == getattr(model, field)


def test_a_weight_of_the_base_is_not_handed_to_other_presets():
  base = fakes.base()
  base["loss"]["verb_kl"] = 0.7
  plan = Plan(
    base, (Variant("v"),), (fakes.WORLD,), 1, 1, fakes.HELD_OUT, FOLDER
  )
  assert plan.config(Variant("m"), fakes.WORLD, 0).loss.verb_kl == 0.7
  plain = Variant("p", "no_distillation")
  assert plan.config(plain, fakes.WORLD, 0).loss.verb_kl == 0


@pytest.mark.parametrize(
  ("variant", "message"),
  [
    (Variant("v", changes={"loss": {"verb_lk": 0.0}}), "did you mean 'verb_kl"),
    (Variant("v", changes={"dataset": {"folder": "x"}}), "v changes"),
    (Variant("v", changes={"loss": {"verb_kl": "much"}}), "expected float"),
    (Variant("v", "mopd"), "mopd"),
  ],
)
def test_wrong_variants_are_refused_before_any_run(variant, message):
  with pytest.raises(InputError, match=message):
    fakes.plan(FOLDER, variant)


def test_an_empty_study_is_refused():
  with pytest.raises(InputError, match="no runs"):
    fakes.plan(FOLDER, seeds=0)


def test_the_hash_names_what_figures_depend_on():
  plan = fakes.plan(FOLDER)
  variant = plan.variants[0]
  run = plan.run(variant, fakes.WORLD, 0)
  same = fakes.plan(pathlib.Path("elsewhere")).run(variant, fakes.WORLD, 0)
  assert run.hash(2) == same.hash(2)
  # Held-out verbs do not touch what is reported.
  assert run.hash(2) == run.hash(3)
  held = plan.run(variant, fakes.WORLD, 0, held_out=True)
  world = World("w", {"teacher": {"cache": "another"}})
  other = fakes.plan(FOLDER, steps=5).run(variant, fakes.WORLD, 0)
  hashes = [
    run.hash(2),
    held.hash(2),
    held.hash(3),
    other.hash(2),
    plan.run(variant, fakes.WORLD, 1).hash(2),
    plan.run(variant, world, 0).hash(2),
    plan.run(Variant("v"), fakes.WORLD, 0).hash(2),
  ]
  assert len(set(hashes)) == len(hashes)
  paths = {plan.run(variant, fakes.WORLD, 0, held_out=h).path for h in (0, 1)}
  assert len(paths) == 2


def test_only_keeps_the_order_and_names_what_there_is():
  variants = tuple(Variant(name) for name in ("a", "b", "c"))
  assert [v.name for v in plan_lib.chosen(variants, "c, a")] == ["a", "c"]
  assert plan_lib.chosen(variants, "") == variants
  with pytest.raises(InputError, match=r"'d'.*\n.*there are"):
    plan_lib.chosen(variants, "a,d")


def test_pairs_are_of_the_grid():
  variants = (
    Variant("plain", against=()),
    Variant("mipd", against=("plain", "reference")),
    Variant("other"),
  )
  found = list(fakes.plan(FOLDER, *variants).pairs())
  assert found == [("mipd", "plain"), ("other", "mipd")]


def test_shares_are_a_partition():
  variants = tuple(Variant(name) for name in "abcde")
  plan = fakes.plan(FOLDER, *variants)
  shares = [plan_lib.part(plan, number, 3) for number in range(3)]
  found = sorted(v.name for share in shares for v in share.variants)
  assert found == list("abcde")
  assert plan_lib.part(plan, 5, 6) is None


def _grid(study: types.ModuleType, words: str) -> Plan:
  values = study.get_config(words)
  worlds = values.all_worlds
  return Plan(
    values.base.to_dict(),
    values.variants,
    worlds,
    values.seeds,
    values.held_out_seeds,
    values.held_out_verbs,
    FOLDER,
  )


@pytest.mark.parametrize(
  ("study", "words"),
  [
    *((ablations, w) for w in ("", "full", "full,debug", "full,ov_swig")),
    *((grounded_study, w) for w in ("parts,tried", "parts,tried,debug")),
  ],
)
def test_every_variant_of_the_grid_is_a_config_of_its_own(study, words):
  plan = _grid(study, words)  # unpacks every variant in every world
  names = [variant.name for variant in plan.variants]
  assert len(set(names)) == len(names) >= 13
  world = plan.worlds[0]
  hashes = {plan.run(v, world, 0).hash(0) for v in plan.variants}
  assert len(hashes) == len(names)
  for variant in plan.variants:
    assert set(variant.against) <= set(names), variant.name
    config = plan.config(variant, world, 0)
    # Nothing is evaluated or saved between the first and the last step.
    assert config.train.eval_every == config.train.checkpoint_every == 0


def test_worlds_have_their_own_seed_images_encoders_and_cache():
  plan = _grid(ablations, "")
  configs = [plan.config(plan.variants[0], w, 0) for w in plan.worlds[:3]]
  for value in (
    lambda c: c.dataset.world.seed,
    lambda c: c.dataset.folder,
    lambda c: c.teacher.student_encoder,
    lambda c: c.teacher.teacher_encoder,
    lambda c: c.teacher.text_encoder,
    lambda c: c.teacher.cache,
  ):
    assert len({value(config) for config in configs}) == 3
  # World 0 is the demo's.
  assert configs[0].teacher.cache == "runs/data/small_world/cache"


def test_variants_that_are_told_unseen_names_are_marked():
  plan = _grid(ablations, "full")
  marked = {
    v.name
    for v in plan.variants
    if plan.run(v, plan.worlds[0], 0).uses_unseen_names
  }
  assert {"mipd", "kl_alone", "kl_half_listed", "kl_apart"} <= marked
  unmarked = {"no_distillation", "reference", "no_kl", "kl_trained_names"}
  assert not unmarked & marked
  unlisted = Variant("v", changes={"loss": {"verb_kl_listed": 0.0}})
  assert not plan.run(unlisted, plan.worlds[0], 0).uses_unseen_names


def test_unknown_words_are_refused():
  with pytest.raises(InputError, match="'fool'"):
    ablations.get_config("fool")


@pytest.mark.parametrize("content", [b"[]", b"{", b"3", b"\xff\xfe{", b"null"])
def test_a_damaged_result_is_computed_again(tmp_path, content):
  path = tmp_path / "run.json"
  path.write_bytes(content)
  assert runs.finished(types.SimpleNamespace(path=path), "hash") is None
  path.write_text('{"hash": "hash"}')
  assert runs.finished(types.SimpleNamespace(path=path), "hash") is not None


def test_mipd_of_grounded_worlds_is_told_no_unseen_name():
  """Nor are its parts and controls; only where the KL takes part."""
  plan = _grid(grounded_study, "parts,tried")
  marked = {
    v.name
    for v in plan.variants
    if plan.run(v, plan.worlds[0], 0).uses_unseen_names
  }
  assert marked == {"kl_alone", "with_kl", "rationale_as_query"}


def test_students_of_grounded_worlds_differ_in_what_teaches_them():
  """Eyes and labels are the same with and without a teacher."""
  plan = _grid(grounded_study, "parts,tried")
  for variant in plan.variants:
    if variant.name == "reference":
      continue
    config = plan.config(variant, plan.worlds[0], 0)
    assert config.model.eyes == "adapter", variant.name
    assert config.model.dropout.query_verb == 0.3
    assert config.loss.box_noun == 1
