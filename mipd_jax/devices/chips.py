"""Peak rates of the chips that we use, to compare measured rates with.

Dense bfloat16 (unknown for CPUs), memory, its bandwidth and that to other
chips, per device as JAX counts them. Sources: Google Cloud's TPU system
architecture pages (docs.cloud.google.com/tpu/docs/v4, v5e, v5p, v6e; for v6e's
interconnect they give 3,200 and 3,584 Gbps, the lower is taken) and NVIDIA's
data sheets (A100 80 GB SXM, H100 SXM, H200; without sparsity; NVLink).
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Chip:
  """One device.

  Attributes:
    flops: FLOP/s in bfloat16.
    memory: bytes.
    bandwidth: of the memory, bytes/s.
    interconnect: rate to other chips over all links, bytes/s: half of the
      published rate if that counts both directions.
  """

  flops: float
  memory: float
  bandwidth: float
  interconnect: float


# By prefixes of `jax.Device.device_kind`, the longest match first.
CHIPS: dict[str, Chip] = {
  "TPU v6 lite": Chip(918e12, 32e9, 1640e9, 400e9),
  "TPU v5 lite": Chip(197e12, 16e9, 819e9, 200e9),
  "TPU v5p": Chip(459e12, 95e9, 2765e9, 600e9),
  "TPU v5": Chip(459e12, 95e9, 2765e9, 600e9),
  "TPU v4": Chip(275e12, 32e9, 1228e9, 300e9),
  "NVIDIA H200": Chip(989e12, 141e9, 4800e9, 450e9),
  "NVIDIA H100": Chip(989e12, 80e9, 3350e9, 450e9),
  "NVIDIA A100": Chip(312e12, 80e9, 2039e9, 300e9),
}


def find(device_kind: str) -> Chip | None:
  """The chip of a `device_kind`, None if it is not in the table."""
  for name in sorted(CHIPS, key=len, reverse=True):
    if device_kind.startswith(name):
      return CHIPS[name]
  return None


def peak_flops(device_kind: str) -> float | None:
  """FLOP/s in bfloat16, None for devices that are not in the table."""
  chip = find(device_kind)
  return chip.flops if chip else None
