"""The small world of interactions, drawn and prepared once a module."""

from tests.fixtures.pair_world_fixture import (  # noqa: F401
  dataset,
  folder,
  prepared,
)
