"""The predictor against the evaluation, and its interface."""

import json

import jax
import numpy as np
import pytest

from configs import hico_det
from input_pipeline import schema
from input_pipeline.geometry import letterbox_image
from input_pipeline.io.errors import InputError
from mipd_jax import config as config_lib
from mipd_jax.evaluation import situations as eval_lib
from mipd_jax.inference import Failure, workdir
from mipd_jax.teachers import encoding
from tests.fixtures import predict_fixture

SIZES = [(40, 28), (28, 40), (33, 33), (64, 9), (9, 64), (17, 23), (50, 20)]


@pytest.fixture
def predictor():
  return predict_fixture.predictor()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
  folder = tmp_path_factory.mktemp("images")
  paths = []
  for i, size in enumerate(SIZES):
    paths.append(folder / f"{i}.png")
    predict_fixture.photograph(i, *size).save(paths[-1])
  return paths


def test_a_student_of_another_task_is_refused_by_name(tmp_path):
  config = config_lib.unpack(hico_det.get_config("debug"))
  (tmp_path / "run.json").write_text("{}")
  with pytest.raises(InputError, match="holds a student of interactions; only"):
    workdir.open_workdir(tmp_path, predict_fixture.mesh(), config)


class _Split:
  """What a cache has of some images: a `stream.Source`."""

  def __init__(self, opened, verbs):
    view = jax.jit(encoding.student_view(opened.encoder, opened.token_dtype))
    pixels = np.stack(
      [
        letterbox_image(
          predict_fixture.photograph(i, *size), predict_fixture.SIDE
        )
        for i, size in enumerate(SIZES)
      ]
    )
    found = view(
      opened.encoder.params, opened.banks["verb_text"], {"pixels": pixels}
    )
    tokens = {k: np.asarray(v) for k, v in found.items() if "tokens" in k}
    tokens.pop(encoding.error_name(schema.STUDENT_TOKENS), None)
    roles = opened.words.frame_array[verbs]
    shape = roles.shape
    self.num_examples = len(SIZES)
    self._columns = tokens | {
      schema.VERB: np.asarray(verbs, np.int32),
      schema.GROUP: np.zeros(len(SIZES), np.int32),
      schema.ROLES: roles,
      schema.ROLE_MASK: roles >= 0,
      schema.NOUNS: np.zeros((*shape, 3), np.int32),
      schema.BOXES: np.full((*shape, 4), -1, np.float32),
      schema.BOX_MASK: np.zeros(shape, bool),
      schema.IMAGE_SIZE: np.array([(h, w) for w, h in SIZES], np.int32),
    }

  def read(self, indices):
    return {key: value[indices] for key, value in self._columns.items()}


def _evaluated(opened, verbs):
  """Verb logits [n, V], nouns [n, R], pixel boxes [n, R, 4], as scored."""
  source, mesh = _Split(opened, verbs), predict_fixture.mesh()
  model = opened.model

  def predict(params, batch, banks):
    return model.apply({"params": params}, batch, banks, method=model.predict)

  step = eval_lib.compile_eval_step(predict)
  evaluator = eval_lib.Evaluator(step, opened.params, opened.banks, mesh, 4)
  found = eval_lib.evaluate(evaluator, source)

  return found.verb_scores, found.frames.noun, found.frames.box


@pytest.mark.parametrize(
  ("preset", "dtype"),
  [("mipd", "bfloat16"), ("mipd", "int8"), ("reference", "bfloat16")],
)
def test_own_words_are_ranked_as_the_evaluation_ranks_them(
  files, preset, dtype
):
  opened = predict_fixture.opened(preset, dtype)
  words = opened.words
  verbs = [0, 1, 2, 3, 4, 2, 0]
  logits, nouns, boxes = _evaluated(opened, verbs)
  present = ~np.isnan(boxes[..., 0])
  found = predict_fixture.predictor(preset, dtype).predict(
    files, top_k=99, given=[words.verbs[verb] for verb in verbs]
  )
  share = jax.nn.softmax(logits)
  assert (present.any() and not present.all()) or preset == "reference"
  for i, (width, height) in enumerate(SIZES):
    ranked = [guess.verb for guess in found[i].verbs]
    order = np.argsort(-logits[i], kind="stable")
    assert ranked == [words.verbs[verb] for verb in order]
    mine = [guess.probability for guess in found[i].verbs]
    np.testing.assert_allclose(mine, share[i][order], rtol=1e-5)
    assert found[i].verb == words.verbs[verbs[i]]
    assert [r.role for r in found[i].roles] == list(words.frame_roles(verbs[i]))
    for slot, role in enumerate(found[i].roles):
      assert role.nouns[0].class_id == words.nouns[nouns[i, slot]]
      # Every class but padding, which is no noun.
      assert {n.class_id for n in role.nouns} == {*words.nouns} - {"Pad"}
      assert (role.box is not None) == present[i, slot]
      assert (role.confidence >= 0.5) == present[i, slot]
      if role.box:
        np.testing.assert_allclose(role.box, boxes[i, slot], atol=1e-4)
        assert 0 <= role.box[0] <= role.box[2] <= width
        assert 0 <= role.box[1] <= role.box[3] <= height


def test_without_a_given_verb_the_best_one_is_framed(predictor, files):
  for result in predictor.predict(files, top_k=2):
    assert result.verb == result.verbs[0].verb and len(result.verbs) == 2
    verb = predictor.vocabulary.verb_index[result.verb]
    roles = [role.role for role in result.roles]
    assert roles == list(predictor.vocabulary.frame_roles(verb))


def _values(result):
  values = result.to_dict()
  return {key: values[key] for key in values if key != "image"}


def test_one_or_many_paths_images_or_arrays_give_the_same(predictor, files):
  many = predictor.predict([str(path) for path in files])
  assert [result.name for result in many] == [str(path) for path in files]
  images = [predict_fixture.photograph(i, *s) for i, s in enumerate(SIZES)]
  for i in (0, 6):  # alone, and in a batch with others, filler or none
    sources = (files[i], images[i], np.asarray(images[i]))
    for source in sources:
      one = predictor.predict(source)
      assert json.dumps(_values(one)) == json.dumps(_values(many[i]))
  floats = np.asarray(images[0]).astype(np.float32) / 255
  batch = predictor.predict(np.stack([floats, floats]))
  assert [result.name for result in batch] == ["image 0", "image 1"]
  assert _values(batch[1]) == _values(many[0])
  assert predictor.predict([]) == []


def test_a_program_is_compiled_once_for_a_size_class(predictor, files):
  def compiled():
    made = predictor._runner._made.values()
    return sum(program._cache_size() for program in made)

  predictor.predict(files[0])
  before = compiled()
  for count in (1, 3, 7):
    predictor.predict(files[:count])
  assert compiled() == before
  # Lists of 1 to 8 words share a class: one for verbs, one for roles.
  for nouns in (["dog"], ["ball", "dog"], ["man", "ball", "dog", "apple"]):
    predictor.predict(files, verbs=["jumping", "chasing"], nouns=nouns, top_k=3)
  assert compiled() == before + 2


def test_results_are_plain_values(predictor, files):
  result = predictor.predict(files[0])
  again = json.loads(json.dumps(result.to_dict()))
  assert again["image"] == str(files[0]) and again["width"] == SIZES[0][0]
  assert abs(sum(v["probability"] for v in again["verbs"]) - 1) < 1e-5
  for role in again["roles"]:
    assert role["box"] is None or len(role["box"]) == 4
    shares = [noun["probability"] for noun in role["nouns"]]
    assert shares == sorted(shares, reverse=True) and len(shares) == 5


def test_a_bad_image_stops_predict_but_not_predict_each(
  predictor, files, tmp_path
):
  bad = tmp_path / "note.jpg"
  bad.write_text("no picture")
  listed = [files[0], bad, tmp_path / "absent.png", files[1]]
  with pytest.raises(InputError, match=r"note\.jpg: it is no image"):
    predictor.predict(listed)
  found = list(predictor.predict_each(listed))
  assert [isinstance(result, Failure) for result in found] == [
    *(False, True, True, False)
  ]
  assert "No such file" in found[2].to_dict()["error"]
  assert _values(found[3]) == _values(predictor.predict(files[1]))


@pytest.mark.parametrize(
  ("arguments", "said"),
  [
    ({"top_k": 0}, "top_k is 0"),
    ({"top_k": True}, "top_k is True"),
    ({"given": "flying"}, "'flying' is given, but is not in the list"),
    ({"given": ["jumping"]}, "1 verbs are given for 2 images"),
    ({"verbs": []}, "the list of verbs is empty"),
    ({"frames": {"flying": ["agent"]}}, "'flying', which is not in the list"),
  ],
)
def test_wrong_arguments_are_told(predictor, files, arguments, said):
  with pytest.raises(InputError, match=said):
    predictor.predict(files[:2], **arguments)


def test_images_that_are_none_are_told(predictor):
  with pytest.raises(InputError, match="a int is no image"):
    predictor.predict(3)
  with pytest.raises(InputError, match="bytes and open files"):
    predictor.predict(b"\x89PNG")
  with pytest.raises(InputError, match="a dict is no image"):
    predictor.predict({"a.jpg": 1})
