"""JRG: rewriting, judging, fallback, resuming, determinism."""

import json
import logging

import numpy as np
import pytest

from input_pipeline import schema
from input_pipeline.feature_cache import source_code
from input_pipeline.io.errors import InputError
from input_pipeline.ov_swig.records import RATIONALE_KEYS
from mipd_jax import write_rationales
from mipd_jax.rationales import jrg, jrg_report, store, templates
from mipd_jax.rationales import source as source_lib
from mipd_jax.rationales.judging import Jrg, JrgConfig
from tests.fakes import jrg_fakes
from tests.fakes.jrg_fakes import WORDS, Split, copyist

TERSE = JrgConfig(style="terse", images_per_part=2)
NONE = ("",) * 4
GOOD = "A dog is jumping over a fence in a park."


def write(split, model, out, config=TERSE, **options):
  return jrg.write_rationales(split, WORDS, model, out, config, **options)


def report(out):
  return json.loads(out.with_suffix(".report.json").read_text())


def one(model, config, kind="glimpse_pos"):
  """The note and text of one kind for one frame."""
  checks = jrg_fakes.checks(config)
  (record,) = Jrg(model, checks, config).write([jrg_fakes.frame()], [NONE])
  return record["notes"][kind], record["texts"][kind]


def test_a_rejected_text_is_written_again_with_the_reason():
  config = JrgConfig(attempts=3)

  def answer(prompt, seed):
    return GOOD if "It cannot be used" in prompt else "A dog at a park."

  model = jrg_fakes.Scripted(answer, lambda question: 1.0)
  note, text = one(model, config)
  assert (note["source"], note["attempts"]) == (jrg_report.MODEL, 2)
  assert text == GOOD
  assert note["faults"] == [
    ["verb not named", "it does not name the activity 'jumping'"]
  ]
  again = [prompt for prompt in model.asked if "It cannot be used" in prompt]
  assert "A dog at a park." in again[0]
  assert "it does not name the activity 'jumping'" in again[0]
  assert len(set(model.seeds)) == len(model.seeds)


@pytest.mark.parametrize(
  ("truth", "kind", "code"),
  [(0.2, "glimpse_pos", "judged false"), (0.8, "glimpse_neg", "judged true")],
)
def test_the_judge_rejects_what_the_rules_let_pass(truth, kind, code):
  wrong = jrg_fakes.frame().wrong.verb
  texts = {"glimpse_pos": GOOD, "glimpse_neg": f"A dog is {wrong} here."}
  model = jrg_fakes.Scripted(lambda p, s: texts[kind], lambda question: truth)
  config = JrgConfig(attempts=2)
  note, text = one(model, config, kind)
  assert note["source"] == jrg_report.TEMPLATE
  assert [code for code, _ in note["faults"]] == [code] * 2
  template = templates.texts(jrg_fakes.frame())
  assert text == template[schema.RATIONALES.index(kind)]
  model.judge = lambda question: 1 - truth
  note, text = one(model, config, kind)
  assert (note["source"], text) == (jrg_report.MODEL, texts[kind])


def test_the_threshold_of_the_judge():
  model = jrg_fakes.Scripted(lambda p, s: GOOD, lambda question: 0.7)
  assert one(model, JrgConfig(judge=0.6))[0]["source"] == jrg_report.MODEL
  assert one(model, JrgConfig(judge=0.8))[0]["source"] == jrg_report.TEMPLATE


def test_an_unseen_verb_never_gets_through():
  leak = "A dog is jumping over a sleeping dog in a park."
  model = jrg_fakes.Scripted(lambda p, s: leak, lambda question: 1.0)
  note, text = one(model, JrgConfig())
  assert note["source"] == jrg_report.TEMPLATE and "sleep" not in text
  assert {code for code, _ in note["faults"]} == {"unseen verb"}


def test_fallbacks_are_counted(tmp_path):
  split, out = Split(), tmp_path / "r.json"
  model = jrg_fakes.Scripted(lambda p, s: "no use at all", lambda question: 1.0)
  texts = write(split, model, out)
  counts = report(out)
  assert counts["acceptance_rate"] == 0
  for kind in counts["kinds"].values():
    assert kind["written_by_template"] == 6 and kind["written_by_model"] == 0
    assert sum(kind["reasons"].values()) >= 6 * TERSE.attempts
    assert kind["samples"]["rejected"][0]["text"] == "no use at all"
  plain = write(split, None, tmp_path / "plain.json")
  assert texts == plain


def test_accepted_texts_are_counted(tmp_path):
  out = tmp_path / "r.json"
  write(Split(), copyist(wrong_every=3), out)
  counts = report(out)
  for kind in counts["kinds"].values():
    at = kind["accepted_at_attempt"]
    assert sum(at.values()) == kind["written_by_model"]
    assert kind["written_by_model"] + kind["written_by_template"] == 6
  assert counts["acceptance_rate"] > 0.8
  assert any("2" in k["accepted_at_attempt"] for k in counts["kinds"].values())
  tables = out.with_suffix(".report.md").read_text()
  assert "| glimpse_pos | 0 | " in tables and "| empty |" not in tables
  assert "verb not named" in tables or "loop" in tables


def test_the_output_is_read_as_rationales(tmp_path):
  out = tmp_path / "r.json"
  split = Split()
  records = {name: {"verb": "jumping", "frames": []} for name in split.names}
  texts = write(split, copyist(), out, records=records)
  content = json.loads(out.read_text())
  assert list(content) == list(split.names)
  assert content["0.jpg"]["verb"] == "jumping"
  assert set(RATIONALE_KEYS) <= set(content["0.jpg"])
  assert store.load_texts(out) == texts
  assert not (tmp_path / "r.json.parts").exists()
  source = jrg.JrgRationales(copyist(), out, TERSE)
  with pytest.raises(InputError, match="with_records"):
    source.write(split, WORDS)
  source = jrg.JrgRationales(copyist(), tmp_path / "other.json", TERSE)
  assert source.write(split, WORDS) == [texts[name] for name in split.names]
  other = jrg.JrgRationales(None, tmp_path / "other.json", TERSE)
  assert source.version != other.version


def test_given_texts_are_kept(tmp_path):
  own = {1: ("a", "b", "c", "d"), 2: ("only one", "", "", "")}
  given = {
    "3.jpg": ("e", "f", "g", "h"),
    "1.jpg": ("not", "these", "at", "all"),
  }
  out = tmp_path / "r.json"
  texts = write(Split(own=own), copyist(), out, given=given)
  assert texts["1.jpg"] == own[1]
  assert texts["3.jpg"] == given["3.jpg"]
  assert texts["2.jpg"][0] == "only one" and all(texts["2.jpg"])
  counts = report(out)["kinds"]
  assert [counts[kind]["given"] for kind in schema.RATIONALES] == [3, 2, 2, 2]


def test_all_given_asks_no_model_and_warns_of_none(tmp_path, caplog):
  own = {i: ("a", "b", "c", "d") for i in range(6)}
  with caplog.at_level(logging.WARNING):
    write(Split(own=own), None, tmp_path / "r.json")
  assert not caplog.records


def test_without_a_model_templates_and_one_warning(tmp_path, caplog):
  split, out = Split(), tmp_path / "r.json"
  with caplog.at_level(logging.WARNING):
    texts = write(split, None, out)
  assert [r.message for r in caplog.records] == [
    "No language model is given: rationales are written by template."
  ]
  columns = split.annotations()
  writer = templates.RationaleWriter(
    WORDS,
    allowed_verbs=np.unique(columns[schema.VERB]),
    noun_pools=templates.noun_pools(WORDS, columns),
  )
  row = [columns[k][3] for k in (schema.VERB, schema.NOUNS, schema.BOXES)]
  assert texts["3.jpg"] == writer.write("3.jpg", *row)
  assert report(out)["acceptance_rate"] is None


class Killed(Exception):
  pass


def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path, monkeypatch):
  split = Split(7)
  whole, out = tmp_path / "whole.json", tmp_path / "r.json"
  write(split, copyist(wrong_every=3), whole)
  real, writes = store.Store.write_part, []

  def dies(self, index, records):
    if index == 2:
      raise Killed
    writes.append(index)
    real(self, index, records)

  monkeypatch.setattr(store.Store, "write_part", dies)
  with pytest.raises(Killed):
    write(split, copyist(wrong_every=3), out)
  assert writes == [0, 1] and not out.exists()
  monkeypatch.setattr(store.Store, "write_part", real)
  model = copyist(wrong_every=3)
  write(split, model, out)
  assert out.read_bytes() == whole.read_bytes()
  for suffix in (".report.json", ".report.md"):
    ours, theirs = out.with_suffix(suffix), whole.with_suffix(suffix)
    assert ours.read_bytes() == theirs.read_bytes()
  # Only the images that were missing were asked for: 3 of 7.
  asked = [p for p in model.asked if p.endswith("scene:")]
  assert len(asked) < len([p for p in _asked(split) if p.endswith("scene:")])


def _asked(split):
  model = copyist(wrong_every=3)
  config = TERSE
  run = jrg._Run(split, WORDS, config, {}, None)
  rows = range(len(split))
  Jrg(model, run.checks, config).write(run.frames(rows), run.texts(rows))
  return model.asked


def test_texts_of_other_code_are_refused(tmp_path, monkeypatch, caplog):
  split, out = Split(), tmp_path / "r.json"
  texts = write(split, copyist(), out)
  rules, reached = "mipd_jax.rationales.rules", source_code.reached
  monkeypatch.setattr(
    jrg.source_code, "reached", lambda e: {**reached(e), rules: "other"}
  )
  with pytest.raises(InputError, match=f"settings: code of {rules}\n") as error:
    write(split, copyist(), out)
  assert "delete this one" in error.value.remedy
  report = out.with_suffix(".report.json")
  content = json.loads(report.read_text())
  content["settings"] = {
    k: x for k, x in content["settings"].items() if not k.startswith("code")
  }
  report.write_text(json.dumps(content))
  assert write(split, copyist(), out) == texts
  assert "doesn't say by what code" in caplog.text


def test_a_complete_run_is_opened_and_others_are_refused(tmp_path):
  split, out = Split(), tmp_path / "r.json"
  texts = write(split, copyist(), out)
  before = out.stat().st_mtime_ns
  model = copyist()
  assert write(split, model, out) == texts
  assert model.calls == 0 and out.stat().st_mtime_ns == before
  other = JrgConfig(style="terse", images_per_part=2, seed=1)
  with pytest.raises(InputError, match="under other settings: seed"):
    write(split, copyist(), out, other)
  model.revision = "2"
  with pytest.raises(InputError, match="model"):
    write(split, model, out)
  with pytest.raises(InputError, match="images"):
    write(Split(5), copyist(), out)
  with pytest.raises(InputError, match="given"):
    write(Split(own={0: ("a", "b", "c", "d")}), copyist(), out)
  out.with_suffix(".report.json").unlink()
  with pytest.raises(InputError, match="in the way"):
    write(split, copyist(), out)


def test_an_unfinished_run_of_other_settings_is_refused(tmp_path, monkeypatch):
  out = tmp_path / "r.json"

  def dies(self, *_):
    raise Killed

  with monkeypatch.context() as patch:
    patch.setattr(store.Store, "finish", dies)
    with pytest.raises(Killed):
      write(Split(), copyist(), out)
  with pytest.raises(InputError, match="temperature"):
    write(
      Split(),
      copyist(),
      out,
      JrgConfig(style="terse", images_per_part=2, temperature=0.1),
    )
  model = copyist()
  write(Split(), model, out)
  assert model.calls == 0


def test_texts_do_not_depend_on_parts_or_order(tmp_path):
  def run(size, split):
    config = JrgConfig(style="terse", images_per_part=size)
    return write(split, copyist(wrong_every=3), tmp_path / f"{size}", config)

  assert run(1, Split()) == run(4, Split())


def test_another_seed_draws_anew(tmp_path):
  seeds = []
  for seed in (0, 1):
    model = copyist()
    config = JrgConfig(style="terse", seed=seed)
    write(Split(), model, tmp_path / f"{seed}", config)
    seeds.append(set(model.seeds))
  assert not seeds[0] & seeds[1]


def test_a_frame_without_nouns_has_nothing_to_tell():
  frame = jrg_fakes.frame()
  import dataclasses

  empty = dataclasses.replace(frame, instances=(), wrong_instances=())
  model = copyist()
  (record,) = Jrg(model, jrg_fakes.checks(TERSE), TERSE).write([empty], [NONE])
  assert record["texts"]["gaze_pos"] == record["texts"]["gaze_neg"] == ""
  assert record["notes"]["gaze_pos"]["source"] == jrg_report.NOTHING
  assert not any(prompt.endswith("things:") for prompt in model.asked)


@pytest.mark.parametrize(
  "values",
  [{"style": "loud"}, {"attempts": 0}, {"judge": 1.5}, {"temperature": -1}],
)
def test_bad_settings(values):
  with pytest.raises(InputError):
    JrgConfig(**values)


@pytest.mark.parametrize(
  ("content", "message"),
  [
    ("[]", "expected an object"),
    ('{"a.jpg": 3}', r"a\.jpg is 3"),
    ('{"a.jpg": {"pos_verb_caption": 3}}', "pos_verb_caption is 3"),
    ('{"a.jpg": {"pos_verb_caption": []}}', r"pos_verb_caption is \[\]"),
    ('{"a.jpg": {"pos_verb_caption": false}}', "pos_verb_caption is False"),
    ('{"a.jpg": {"verb": "x"}}', "no image with a caption"),
    ('{"a.jpg": {"verb": "x"}', "cut off"),
    ('{"a.jpg": {}, "a.jpg": {}}', "'a.jpg' twice"),
    ("[" * 9999, "nested too deeply"),
  ],
)
def test_bad_files_of_texts(tmp_path, content, message):
  path = tmp_path / "texts.json"
  path.write_text(content)
  with pytest.raises(InputError, match=message):
    store.load_texts(path)


def _records(*texts):
  return [
    {
      "image": f"{i}.jpg",
      "texts": dict.fromkeys(schema.RATIONALES, text),
      "notes": {},
    }
    for i, text in enumerate(texts)
  ]


def test_parts_keep_every_character_and_line(tmp_path):
  opened = store.Store(tmp_path / "r.json", {})
  records = _records("a\u2028b\x85c\nd\re", "é", "")
  opened.write_part(0, records)
  names = ["0.jpg", "1.jpg", "2.jpg"]
  assert opened.read_part(0, names) == records
  texts = [tuple(record["texts"].values()) for record in records]
  lines = source_lib.to_lines(tuple(names), texts)
  assert source_lib.from_lines(lines, names) == texts


@pytest.mark.parametrize(
  ("change", "said"),
  [
    (lambda lines: lines[:1], r"line 2 is missing|1 lines for 2"),
    (lambda lines: lines[1:], r"line 1 is|line 1 is of image '1.jpg'"),
    (lambda lines: lines[::-1], r"line 1 is"),
    (lambda lines: [*lines, lines[0]], r"line 3 is|3 lines for 2"),
    (lambda lines: [lines[0], lines[1][:20]], "line 2 is cut off"),
    (lambda lines: [lines[0], "", lines[1]], "line 2 is cut off"),
    (lambda lines: [lines[0], "3"], "line 2 is 3, expected an object"),
    (lambda lines: [lines[0], '{"image": 3}'], "line 2: image is 3"),
    (
      lambda lines: [lines[0].replace("glimpse_neg", "x"), lines[1]],
      r"line 1: (texts\.)?glimpse_neg is missing",
    ),
    (lambda lines: [lines[0].replace('"b"', "null"), lines[1]], "line 1: "),
  ],
)
def test_damaged_lines_are_named_and_never_shifted(tmp_path, change, said):
  names = ["0.jpg", "1.jpg"]
  opened = store.Store(tmp_path / "r.json", {})
  opened.write_part(0, _records("b", "b"))
  (part,) = (tmp_path / "r.json.parts").glob("*.jsonl")
  lines = change(part.read_text().splitlines())
  part.write_text("".join(f"{line}\n" for line in lines))
  with pytest.raises(InputError, match=said) as error:
    opened.read_part(0, names)
  assert part.name in error.value.problem and "delete" in error.value.remedy
  lines = source_lib.to_lines(tuple(names), [("a", "b", "c", "d")] * 2)
  lines = "".join(f"{line}\n" for line in change(lines.splitlines()))
  with pytest.raises(InputError, match=said) as error:
    source_lib.from_lines(lines, names, "cache/train/rationales.jsonl")
  assert error.value.problem.startswith("cache/train/rationales.jsonl")


@pytest.mark.parametrize(
  "out", ["file/x.json", "folder", "/proc/x.json", "gs://b/x"]
)
def test_the_command_tells_first_what_it_cannot_write(
  tmp_path, out, monkeypatch
):
  (tmp_path / "file").write_text("")
  (tmp_path / "folder").mkdir()

  def never(*_, **__):
    raise AssertionError("work was done")

  monkeypatch.setattr(write_rationales.builder, "prepare", never)
  monkeypatch.setattr(write_rationales, "_load", never)
  where = out if "://" in out else str(tmp_path / out)
  with pytest.raises(InputError, match=r"--out|is a file|not writable"):
    write_rationales.main(
      [f"--folder={tmp_path}", f"--out={where}", "--model=m"]
    )
