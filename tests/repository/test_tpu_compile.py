"""Programs compiled for TPUs: collectives, memory, work by chip."""

import functools
import importlib.util

import pytest

from benchmarks import tpu_compile
from benchmarks.support import performance, tpu
from input_pipeline.io.errors import InputError
from mipd_jax.devices import chips, sharding

needs_libtpu = pytest.mark.skipif(
  importlib.util.find_spec("libtpu") is None,
  reason="libtpu is not installed (requirements-tpu.txt)",
)
_BATCH = 64  # the default run's; XLA takes long over larger ones

# As XLA writes them for a v5e; the two all-gathers are pieces of one.
_HLO = """
HloModule jit_train_step
%fused (p: f32[8,512]) -> f32[64,512] {
  ROOT %all-gather.1 = f32[64,512]{1,0:T(8,128)} all-gather(%p), channel_id=81, dimensions={0}
}
%other (p: f32[8,512]) -> f32[64,512] {
  ROOT %all-gather.2 = f32[64,512]{1,0:T(8,128)} all-gather(%p), channel_id=81, dimensions={0}
}
ENTRY %main {
  %all-reduce.1 = (bf16[1024]{0:T(1024)S(1)}, f32[2,3]{1,0}) all-reduce(%a, %b), channel_id=1, to_apply=%add
  %all-reduce.2 = f32[]{:T(128)} all-reduce(%c), channel_id=2, to_apply=%add
  %ag = (f32[8]{0}, f32[64]{0}) all-gather-start(%d), channel_id=3
  %done = f32[64]{0} all-gather-done(%ag)
  %permute = (s8[4]{0}, s8[4]{0}, u32[], u32[]) collective-permute-start(%e), channel_id=4
  %fusion = f32[64]{0} fusion(%all-reduce.2), metadata={op_name="all-to-all(x)"}
}
"""  # noqa: E501


def test_collectives_are_read_off_the_program():
  assert tpu.collectives(_HLO) == {
    "all-gather": {
      "count": 2,
      "bytes": 4 * (64 * 512 + 64),
      "largest": 4 * 64 * 512,
    },
    "all-reduce": {"count": 2, "bytes": 2048 + 24 + 4, "largest": 2048},
    "collective-permute": {"count": 1, "bytes": 4, "largest": 4},
  }


def test_every_topology_is_of_a_chip_with_known_rates():
  for kind in ("TPU v5 lite", "TPU v6 lite", "TPU v5", "NVIDIA H100 80GB HBM3"):
    chip = chips.find(kind)
    # All rates are of one order among chips: a slip of 1000 shows.
    assert 1e14 < chip.flops < 2e15
    assert 1e10 < chip.memory < 2e11
    assert 5e11 < chip.bandwidth < 1e13
    assert 1e11 < chip.interconnect < 1e12
  assert chips.find("cpu") is None


def test_table_says_what_does_not_fit():
  row = {"program": "gather", "images_per_chip": 8}
  fits = row | {
    **{"argument_bytes": 2e9, "temporary_bytes": 1e9, "total_bytes": 3e9},
    **{"flops": 4e12, "bytes": 5e9, "roofline_ms": 6.5, "bound": "memory"},
    "collectives": tpu.collectives(_HLO),
  }
  problem = row | {"fits": False, "problem": "Used 23G of 15G hbm"}
  result = {"chip": "TPU v5 lite", "chips": 8, "programs": [fits, problem]}
  _, _, first, second = performance.tpu_table({"v5e:2x4": result}).splitlines()
  assert "4,000 | 5.00 | all-gather: 2, 0.1 MB, all-reduce: 2" in first
  assert "6.500, memory" in first
  assert "does not fit: Used 23G of 15G hbm" in second


@needs_libtpu
def test_unknown_topologies_are_refused():
  with pytest.raises(InputError, match="v9z:2x4"):
    tpu.devices("v9z:2x4")


@functools.cache
def _figures(topology: str, word: str) -> dict:
  (row,) = tpu_compile.compile_all(topology, _BATCH, (word,))["programs"]
  return row


@needs_libtpu
@pytest.mark.slow
@pytest.mark.parametrize("word", ["step, reference", "step, mipd"])
def test_training_step_reduces_gradients_and_no_more(word):
  """Of a v5e-8: it fits, and nothing of the batch's size leaves a chip."""
  row = _figures("v5e:2x4", word)
  assert row["fits"]
  found = row["collectives"]
  assert set(found) <= {"all-reduce", "reduce-scatter", "all-gather"}
  mesh = sharding.make_mesh(devices=tpu.devices("v5e:2x4"))
  state = tpu_compile.programs(mesh, _BATCH)[f"train {word}"]().arguments[0]
  parameters = sum(x.size for x in tpu_compile.jax.tree.leaves(state.params))
  assert found["all-reduce"]["bytes"] < 4.1 * parameters
  # InfoNCE compares texts of all images: [B, 512], thousandths of the tokens.
  gathered = found.get("all-gather", {"bytes": 0})["bytes"]
  assert gathered <= 3 * 4 * 512 * _BATCH


@needs_libtpu
@pytest.mark.slow
def test_evaluation_sends_sums_only():
  row = _figures("v5e:2x4", "evaluation")
  assert row["fits"]
  assert set(row["collectives"]) == {"all-reduce"}
  assert row["collectives"]["all-reduce"]["bytes"] < 1e5


@needs_libtpu
@pytest.mark.slow
@pytest.mark.parametrize("word", ["step, reference", "evaluation"])
def test_twice_the_chips_have_half_the_work_each(word):
  eight, sixteen = _figures("v5e:2x4", word), _figures("v5e:4x4", word)
  assert sixteen["flops"] == pytest.approx(eight["flops"] / 2, rel=0.05)
