"""What a check of a HICO-DET folder found, for people and for machines."""

import collections
import dataclasses
import json
from typing import Any, TextIO

import numpy as np

from input_pipeline.hico_det.folder import Layout
from input_pipeline.hico_det.records import ImageLabels
from input_pipeline.hico_det.vocabulary import Vocabulary, shown
from input_pipeline.ov_swig.check_report import Finding
from input_pipeline.ov_swig.records import Place

_SHOWN = 5  # of a kind
# What HICO-DET has, to tell it from a part of it: images, images with a pair.
_PUBLISHED = {"train": (38118, 37633), "test": (9658, 9546)}


@dataclasses.dataclass
class Report:
  """What a folder holds and what is wrong with it.

  Attributes:
    layout, words: of the folder.
    counts: split -> numbers of images, labels, interactions, ...
    splits: zero-shot split -> numbers of interactions and training labels.
    images: split -> number and sha256 of the images that were read.
    problems: what keeps the folder from being built, or spoils it.
    notes: what is allowed and worth knowing, by kind.
  """

  layout: Layout
  words: Vocabulary
  counts: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
  splits: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
  images: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
  problems: list[Finding] = dataclasses.field(default_factory=list)
  notes: dict[str, list[Finding]] = dataclasses.field(default_factory=dict)

  def note(
    self,
    kind: str,
    text: str,
    place: Place | None = None,
    image: str | None = None,
  ) -> None:
    """Notes something about an image, or about none."""
    file = place.json_path.name if place is not None else None
    self.notes.setdefault(kind, []).append(Finding(kind, text, file, image))

  def count(
    self, split: str, found: list[ImageLabels], words: Vocabulary
  ) -> None:
    """Counts a split."""
    labels = np.zeros(len(words), np.int64)
    for item in found:
      labels += np.bincount(item.interactions, minlength=len(words))
    self.counts[split] = {
      "images": len(found),
      "images_with_labels": sum(bool(len(x.interactions)) for x in found),
      "labels": int(labels.sum()),
      "invisible_labels": sum(int((~x.visible).sum()) for x in found),
      "interactions": int((labels > 0).sum()),
      "interactions_below_10": int((labels < 10).sum()),
      "labels_by_interaction": labels.tolist(),
    }

  def as_json(self) -> str:
    """Everything, for machines."""
    content = {
      "folder": str(self.layout.folder),
      "form": self.layout.form,
      "checksums": self.layout.checksums(),
      "classes_sha256": self.words.sha256,
      "counts": self.counts,
      "splits": self.splits,
      "images": self.images,
      "problems": [dataclasses.asdict(found) for found in self.problems],
      "notes": {
        kind: [dataclasses.asdict(item) for item in found]
        for kind, found in self.notes.items()
      },
    }
    return json.dumps(content, indent=1) + "\n"

  def show(self, out: TextIO) -> None:
    """Prints the report, a few examples of each kind."""
    words = self.words
    lines = [
      f"{self.layout.folder}: annotations of form {self.layout.form}, "
      f"{len(words)} interactions of {len(words.verbs)} verbs and "
      f"{len(words.objects)} objects, {int(words.rare.sum())} of them rare"
    ]
    lines += [self._split_line(split) for split in self.counts]
    lines += [
      f"{name:<6} {x['unseen']} unseen, {x['seen']} seen interactions; "
      f"{x['training_labels_unseen']} and {x['training_labels_seen']} training "
      f"labels; sha256 {x['sha256'][:12]}"
      for name, x in self.splits.items()
    ]
    lines += [
      f"{split:<6} {x['images']} images read, sha256 of all {x['sha256'][:12]}"
      for split, x in self.images.items()
    ]
    for kind, found in self.notes.items():
      texts = shown((item.text for item in found), _SHOWN)
      lines.append(f"note: {len(found)} {kind}: {texts}")
    for kind, number in collections.Counter(
      problem.kind for problem in self.problems
    ).items():
      found = [p for p in self.problems if p.kind == kind]
      lines += [f"problem: {problem.text}" for problem in found[:_SHOWN]]
      if number > _SHOWN:
        lines.append(f"problem: ... and {number - _SHOWN} more ({kind})")
    print("\n".join(lines), file=out)

  def _split_line(self, split: str) -> str:
    x = self.counts[split]
    found = (x["images"], x["images_with_labels"])
    whole = "as published" if found == _PUBLISHED[split] else "not all of them"
    published = f"; HICO-DET has {_PUBLISHED[split][0]}: {whole}"
    line = (
      f"{split:<6} {x['images']} images, {x['images_with_labels']} with "
      f"labels, {x['labels']} labels of {x['interactions']} interactions"
    )
    return line + (published if len(self.words) == 600 else "")
