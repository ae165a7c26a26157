"""The exported student against the predictor."""

import numpy as np
import pytest

from input_pipeline.geometry import letterbox_image
from mipd_jax.exporting import exported_folder
from mipd_jax.exporting import programs as words_lib
from mipd_jax.inference.word_lists import Lexicons
from mipd_jax.inference.words import Words
from tests.fixtures import export_fixture, predict_fixture

SIZES = [(40, 28), (28, 40), (33, 33), (64, 9), (9, 64), (17, 23), (50, 20)]
TOP_K = 4


def _images():
  return [predict_fixture.photograph(i, *s) for i, s in enumerate(SIZES)]


def _pixels(images):
  side = predict_fixture.SIDE
  return [letterbox_image(image, side) for image in images]


def _sizes(images):
  return [(image.height, image.width) for image in images]


def assert_equal(found, prediction):
  """Names equal, numbers within 1e-4."""
  expected = prediction.to_dict()
  for key in ("width", "height", "verb"):
    assert found[key] == expected[key]
  _same_guesses(found["verbs"], expected["verbs"], "verb")
  assert len(found["roles"]) == len(expected["roles"])
  for role, other in zip(found["roles"], expected["roles"], strict=True):
    assert role["role"] == other["role"]
    _same_guesses(role["nouns"], other["nouns"], "noun")
    assert [n["class_id"] for n in role["nouns"]] == [
      n["class_id"] for n in other["nouns"]
    ]
    assert abs(role["confidence"] - other["confidence"]) < 1e-4
    assert (role["box"] is None) == (other["box"] is None)
    if role["box"]:
      # Of the original, in shares of its longer side.
      share = max(found["width"], found["height"])
      np.testing.assert_allclose(
        np.divide(role["box"], share), np.divide(other["box"], share), atol=1e-4
      )


def _same_guesses(found, expected, name):
  assert [guess[name] for guess in found] == [guess[name] for guess in expected]
  np.testing.assert_allclose(
    [guess["probability"] for guess in found],
    [guess["probability"] for guess in expected],
    atol=1e-4,
  )


@pytest.mark.parametrize(
  ("preset", "dtype", "form"),
  [
    ("mipd", "bfloat16", "baked"),
    ("mipd", "bfloat16", "passed"),
    ("mipd", "int8", "baked"),
    pytest.param("reference", "bfloat16", "passed", marks=pytest.mark.slow),
  ],
)
def test_the_export_equals_the_predictor(preset, dtype, form):
  both = (preset, dtype) == ("mipd", "bfloat16")
  forms = exported_folder.FORMS if both else (form,)
  path = export_fixture.exported(preset, dtype, forms)
  images = _images()
  verbs = predict_fixture.opened(preset, dtype).words.verbs
  given = [None, *(verbs[i] for i in (1, 2, 3, 4, 2, 0))]
  found = export_fixture.student(path, form)(
    _pixels(images), _sizes(images), given
  )
  predictor = predict_fixture.predictor(preset, dtype)
  free = predictor.predict(images[:1], top_k=TOP_K)
  known = predictor.predict(images[1:], top_k=TOP_K, given=given[1:])
  for result, expected in zip(found, free + known, strict=True):
    assert_equal(result, expected)
  boxes = [role["box"] for result in found for role in result["roles"]]
  assert preset == "reference" or (any(boxes) and not all(boxes))


def test_other_words_go_into_the_same_program():
  opened = predict_fixture.opened()
  student = export_fixture.student(export_fixture.exported(), "passed")
  verbs = {"juggling": ["agent", "ball"], "jumping": None}
  # Of known nouns alone the classifier has its say, with a new one it has not.
  for nouns in (["dog", "ball", "apple", "man"], ["dog", "zebra", "apple"]):
    predictor = predict_fixture.predictor()
    expected = predictor.predict(
      _images(), verbs=verbs, nouns=nouns, top_k=TOP_K
    )
    texts = predictor._lexicons._texts
    lexicon = Lexicons(
      opened.words, opened.banks, texts, queries_from_text=True
    ).make(Words.of(verbs, nouns))
    arrays = words_lib.arrays(lexicon, TOP_K)
    labels = {**student.labels, **words_lib.labels(lexicon)}
    found = _with_words(student, labels, arrays)(
      _pixels(_images()), _sizes(_images())
    )
    for result, prediction in zip(found, expected, strict=True):
      assert_equal(result, prediction)
    assert {len(role["nouns"]) for role in found[0]["roles"]} == {
      min(TOP_K, len(nouns))
    }


def _with_words(student, labels, arrays):
  """The same compiled function with other arrays for its words."""
  cells = dict(
    zip(
      student.call.__code__.co_freevars, student.call.__closure__, strict=True
    )
  )
  weights, _ = cells["arrays"].cell_contents
  program = cells["program"].cell_contents
  other = object.__new__(type(student))
  other.labels = labels
  other.call = lambda *inputs: {
    name: np.asarray(x) for name, x in program(weights, arrays, *inputs).items()
  }
  return other


def test_any_number_of_images():
  images = _images()[:1]
  student = export_fixture.student(export_fixture.exported(), "baked")
  found = student(_pixels(images), _sizes(images))
  expected = predict_fixture.predictor().predict(images, top_k=TOP_K)
  assert_equal(found[0], expected[0])
