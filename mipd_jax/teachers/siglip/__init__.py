"""SigLIP and SigLIP 2 of a fixed resolution in Flax.

Zhai et al. 2023 (arXiv 2303.15343), Tschannen et al. 2025 (arXiv 2502.14786):
image and text towers that were trained by a sigmoid for each pair.
"""

from mipd_jax.teachers.siglip.encoder import Siglip, build, load

__all__ = ["Siglip", "build", "load"]
