"""The list of faults (docs/mutants.md) keeps up with the code."""

import pytest

from benchmarks.mutants import __main__ as command
from benchmarks.mutants.situations import MUTANTS

# They pin the text of the source, not what it does.
pytestmark = pytest.mark.slow


@pytest.mark.parametrize("kind", MUTANTS)
def test_every_fault_still_applies(kind):
  stale = [
    f"{name}: {path} has {old!r} {count} times"
    for name, path, old, new in MUTANTS[kind]
    if (count := (command.ROOT / path).read_text().count(old)) != 1
    or old == new
  ]
  assert not stale, "\n".join(stale)


def test_names_are_distinct():
  names = [(kind, fault[0]) for kind in MUTANTS for fault in MUTANTS[kind]]
  assert len(set(names)) == len(names) > 70
