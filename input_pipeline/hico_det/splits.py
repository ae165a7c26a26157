"""Which interactions are unseen, and training without them.

`splits.json` beside this module has the public lists; a folder may have its
own, {"source": TEXT, "splits": {NAME: {"unseen": [interaction, ...],
"sha256": of that list, may be absent}}}.

Two ways of dropping unseen labels from training are in use:

  pair   a pair with an unseen label is dropped with all its labels
         (GEN-VLKT's --del_unseen, HOICLIP)
  label  only unseen labels are dropped, the pair keeps its seen ones
         (ADA-CM, EoID)

Both leave out pairs without labels and images without pairs.
"""

import dataclasses
import functools
import hashlib
import json
import pathlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from input_pipeline.hico_det import vocabulary
from input_pipeline.hico_det.records import Record
from input_pipeline.hico_det.vocabulary import Vocabulary, shown
from input_pipeline.io.errors import InputError
from input_pipeline.ov_swig.layout import read_json

SPLITS_FILE = "splits.json"
PACKAGED = pathlib.Path(__file__).with_name(SPLITS_FILE)
BY_PAIR, BY_LABEL = "pair", "label"
DROPPING = (BY_PAIR, BY_LABEL)
FULL = "full"  # nothing is unseen


@dataclasses.dataclass(frozen=True, eq=False)
class ZeroShot:
  """One division of the interactions into seen and unseen.

  Attributes:
    name: such as 'UV'.
    unseen: bool [I].
    source: where the list is from.
  """

  name: str
  unseen: np.ndarray
  source: str

  @property
  def seen(self) -> np.ndarray:
    """bool [I]."""
    return ~self.unseen

  @functools.cached_property
  def sha256(self) -> str:
    """Digest of the sorted numbers of unseen interactions."""
    return digest(np.flatnonzero(self.unseen).tolist())


def names(path: str | pathlib.Path | None = None) -> tuple[str, ...]:
  """Names of the splits of a file or folder, `FULL` first."""
  return (FULL, *_read(_file(path))["splits"])


def load(
  name: str, words: Vocabulary, path: str | pathlib.Path | None = None
) -> ZeroShot:
  """A split by its name.

  Args:
    name: one of `names`, such as 'RF-UC', 'NF-UC', 'UO', 'UV', or `FULL`.
    words: the interactions that it divides.
    path: a file of splits, or a folder that may have one; None: the public
      lists, which are for HICO-DET's 600 interactions.

  Raises:
    InputError: there is no such split, or its list does not fit the
      interactions or its hash.
  """
  if name == FULL:
    return ZeroShot(FULL, np.zeros(len(words), bool), "nothing is unseen")
  path = _file(path)
  content = _read(path)
  if path == PACKAGED and words.names != vocabulary.load().names:
    raise InputError(
      f"the public split {name!r} is for HICO-DET's interactions, and these "
      "are others",
      f"write a {SPLITS_FILE} for them (docs/hico_det.md), or use {FULL!r}",
    )
  if name not in content["splits"]:
    known = (FULL, *content["splits"])
    raise InputError(
      f"{path} has no split {name!r}", f"choose one of {', '.join(known)}"
    )
  entry = content["splits"][name]
  where = f"{path}: split {name!r}"
  listed = entry.get("unseen") if isinstance(entry, dict) else None
  _check_list(where, listed, len(words))
  if entry.get("sha256", digest(listed)) != digest(listed):
    raise InputError(
      f"{where}: its list of unseen interactions does not fit its sha256",
      "copy the file again, or take 'sha256' out if you changed the list",
    )
  unseen = np.zeros(len(words), bool)
  unseen[listed] = True
  return ZeroShot(name, unseen, str(content.get("source", path.name)))


def digest(numbers: Iterable[int]) -> str:
  """sha256 of a list of interactions, independent of its order."""
  return hashlib.sha256(json.dumps(sorted(numbers)).encode()).hexdigest()


def without_unseen(
  record: Record, split: ZeroShot, dropping: str = BY_PAIR
) -> Record | None:
  """A training record without its unseen labels; None if none is left.

  Boxes that no remaining pair uses are dropped too: annotated boxes replace a
  detector's, and a box of an unseen object would show it in training.

  Raises:
    InputError: an unknown way of dropping.
  """
  if dropping not in DROPPING:
    raise InputError(
      f"unseen labels cannot be dropped by {dropping!r}",
      f"choose one of {', '.join(DROPPING)}",
    )
  unseen = split.unseen[record.labels[:, 1]]
  if not unseen.any():
    return record if len(record.labels) else None
  if dropping == BY_PAIR:
    gone = np.unique(record.labels[unseen, 0])
    unseen = np.isin(record.labels[:, 0], gone)
  return record.keep(~unseen) if not unseen.all() else None


def _file(path: str | pathlib.Path | None) -> pathlib.Path:
  path = pathlib.Path(path) if path is not None else PACKAGED
  if path.is_dir():
    path = path / SPLITS_FILE if (path / SPLITS_FILE).exists() else PACKAGED
  return path


def _read(path: pathlib.Path) -> dict[str, Any]:
  content = read_json(path)
  splits = content.get("splits") if isinstance(content, dict) else None
  if not isinstance(splits, dict):
    raise InputError(
      f"{path} has no object 'splits'",
      "docs/hico_det.md shows the form of splits.json",
    )
  return content


def _check_list(where: str, listed: Any, size: int) -> None:
  if not isinstance(listed, list) or not listed:
    raise InputError(
      f"{where} has no list 'unseen'", "list numbers of interactions"
    )
  wrong = [x for x in listed if type(x) is not int or not 0 <= x < size]
  if wrong:
    raise InputError(
      f"{where} lists {shown(map(repr, wrong))}, there are {size} interactions",
      f"list numbers from 0 to {size - 1} of classes.json",
    )
  if len(set(listed)) < len(listed):
    raise InputError(
      f"{where} lists an interaction twice", "leave each number once"
    )
  if len(listed) == size:
    raise InputError(
      f"{where} leaves no interaction seen", "leave some for training"
    )
