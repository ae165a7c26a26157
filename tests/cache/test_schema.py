"""The contract's validator refuses what it should."""

import numpy as np
import pytest

from input_pipeline import schema
from input_pipeline.io.errors import InputError

SIZES = {"B": 2, "R": 6, "A": 3, "N": 5, "S": 7, "M": 4, "T": 8, "K": 4}
SIZES |= {"L": 9, "X": 10, "V": 11}


def _batch(keys):
  import ml_dtypes  # noqa: F401  (gives numpy the dtype name 'bfloat16')

  return {
    key: np.zeros(
      [
        SIZES[a] if a in SIZES else int(a)
        for a in schema.CONTRACT[key].axes.split()
      ],
      schema.CONTRACT[key].dtype,
    )
    for key in keys
  }


@pytest.mark.parametrize(
  "keys", [schema.TRAIN_KEYS, schema.STUDENT_KEYS, tuple(schema.ANNOTATIONS)]
)
def test_accepts_a_batch_and_tells_its_sizes(keys):
  sizes = schema.validate(_batch(keys), keys)
  assert all(sizes[axis] == SIZES[axis] for axis in sizes)


def test_an_evaluation_step_may_read_no_teacher():
  assert schema.TEACHER_TOKENS not in schema.STUDENT_KEYS
  assert not set(schema.STUDENT_KEYS) - set(schema.CONTRACT)


@pytest.mark.parametrize(
  ("change", "says"),
  [
    (lambda b: b.pop("verb"), "missing ['verb']"),
    (lambda b: b.update(foo=b["verb"]), "unknown ['foo']"),
    (lambda b: b.update(verb=b["verb"].astype(np.int64)), "int64[2]"),
    (lambda b: b.update(boxes=b["boxes"][0]), "float32[6, 4]"),
    (lambda b: b.update(verb=np.zeros(3, np.int32)), "3 on axis B"),
    (lambda b: b.update(boxes=b["boxes"][..., :3]), "3 on axis 4, expected 4"),
    (lambda b: b.update(roles=b["roles"][:, :5]), "5 on axis R, expected 6"),
    (lambda b: b.update(nouns=b["nouns"][..., :2]), "2 on axis A"),
  ],
)
def test_refuses(change, says):
  batch = _batch(schema.STUDENT_KEYS)
  change(batch)
  with pytest.raises(InputError) as error:
    schema.validate(batch)
  assert says in str(error.value)
