"""The BLIP-2 checkpoints in tests/goldens/blip2, and what torch made of them.

`shared_tiny` is one that was made elsewhere and is read from `../shared`
beside the repository where that is there.
"""

import functools
import pathlib

import numpy as np
import pytest

from mipd_jax.teachers import blip2

ROOT = pathlib.Path(__file__).resolve().parent.parent
GOLDENS = ROOT / "tests" / "goldens" / "blip2"
SHARED = ROOT.parent / "shared" / "goldens" / "blip2_tiny"
T5, BF16, OPT = "t5_tied_relu", "t5_gated_bf16", "opt"
CASES = (T5, BF16, OPT, "shared_tiny")
INPUTS = ("pixel_values", "prompt_ids", "prompt_mask", "target_ids")


def folder(case: str) -> pathlib.Path:
  """Skips the test where the case is absent."""
  if case != "shared_tiny":
    return GOLDENS / case
  if not SHARED.is_dir():
    pytest.skip("no ../shared/goldens/blip2_tiny")
  return SHARED


@functools.cache
def expected(case: str) -> dict[str, np.ndarray]:
  with np.load(folder(case) / "expected.npz") as arrays:
    return dict(arrays)


@functools.cache
def model(case: str) -> blip2.Blip2:
  return blip2.load(folder(case))


def inputs(case: str) -> list[np.ndarray]:
  """Pixels, prompt's ids and mask, target."""
  return [expected(case)[name] for name in INPUTS]


def assert_close(ours, theirs, tolerance: float = 1e-4) -> None:
  """Within `tolerance` of the largest magnitude."""
  theirs = np.asarray(theirs, np.float32)
  assert ours.shape == theirs.shape
  room = tolerance * np.abs(theirs).max()
  np.testing.assert_allclose(np.asarray(ours), theirs, rtol=0, atol=room)
