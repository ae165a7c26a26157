"""Rationales on disk: parts while they are written, then one JSON.

  OUT.parts/settings.json     the settings of the texts; only while writing
  OUT.parts/00000.jsonl       records of some images, whole or absent
  OUT.parts/00000.answers     a served model's answers for a part that is not
                              whole yet, one by one as they arrive
  OUT.report.json, .report.md the report of the run
  OUT                         {image: the four captions}; written last

A killed run continues at its first missing part, with the answers that it has;
a run with other settings is
refused. OUT has the four keys of the authors' published JSON; if a split's
records are given it also holds those, so that it can replace `train.json`.
"""

import json
import logging
import os
import pathlib
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from input_pipeline import schema
from input_pipeline.io import atomic, json_files
from input_pipeline.io.errors import InputError
from input_pipeline.ov_swig.records import RATIONALE_KEYS
from mipd_jax.rationales import source

# The form of a line of a part; "notes" are for the report.
_RECORD = {
  "image": str,
  "texts": dict.fromkeys(schema.RATIONALES, str),
  "notes": {
    str: {
      "source": str,
      "attempts": int,
      "faults": [[str]],
      "rejected": str,
    }
  },
}
Record = dict[str, Any]
Texts = tuple[str, ...]


def load_texts(path: str | os.PathLike) -> dict[str, Texts]:
  """Reads rationales: this project's, or the authors' published JSON.

  Args:
    path: {image: record}; a record may have other keys than the captions.

  Returns:
    The four texts by image in the order of `schema.RATIONALES`; images
    without any are left out.

  Raises:
    InputError: no JSON of that form, or nothing in it.
  """
  path = pathlib.Path(path)
  remedy = (
    'give {"img.jpg": {' + ", ".join(f'"{k}": text' for k in RATIONALE_KEYS)
  ) + "}}"
  caption = (str, type(None))
  texts_of = {}
  for image, record in json_files.read(path, {str: dict}, remedy).items():
    captions = {key: record.get(key) for key in RATIONALE_KEYS}
    form = dict.fromkeys(RATIONALE_KEYS, caption)
    json_files.check(captions, form, f"{path}: image {image}", remedy)
    texts = tuple(text or "" for text in captions.values())
    if any(texts):
      texts_of[image] = texts
  if not texts_of:
    raise InputError(f"{path} has no image with a caption", remedy)
  return texts_of


# The setting that says which model writes.
MODEL = "model"
# Prefix of settings that hold the digest of a module's code.
CODE = "code of "
_LOG = logging.getLogger(__name__)


class Store:
  """The files of one run."""

  def __init__(self, out: str | os.PathLike, settings: Mapping[str, Any]):
    """Opens or begins a run.

    Args:
      out: the final JSON.
      settings: everything that the texts depend on, as JSON.

    Raises:
      InputError: `out` holds, or is being made for, other settings.
    """
    self.out = pathlib.Path(out)
    self._settings = json.loads(json.dumps(settings))
    self._parts = self.out.with_name(f"{self.out.name}.parts")
    self._report = self.out.with_suffix(".report.json")
    self._tables = self.out.with_suffix(".report.md")
    if self.out.exists():
      self._check(self._report, self.out)
    elif (self._parts / "settings.json").exists():
      self._check(self._parts / "settings.json", self._parts)
    else:
      with atomic.replacing(self._parts / "settings.json") as path:
        path.write_text(_dump({"settings": self._settings}))

  def _check(self, note: pathlib.Path, place: pathlib.Path) -> None:
    remedy = (
      "give another output file, or delete this one to have it written anew"
    )
    try:
      noted = json_files.read(note, {"settings": dict})["settings"]
    except InputError as error:
      raise InputError(
        f"{place} is in the way: nothing says what it was made from "
        f"({error.problem})",
        remedy,
      ) from None
    keys = {**noted, **self._settings}
    if not any(key.startswith(CODE) for key in noted):
      _LOG.warning(
        "%s was written by an older version, which doesn't say by what code; "
        "it is taken as it is.",
        place,
      )
      keys = {k: x for k, x in keys.items() if not k.startswith(CODE)}
    differ = [k for k in keys if noted.get(k) != self._settings.get(k)]
    if differ == [MODEL]:
      raise InputError(
        f"{place} was written by another model: {noted.get(MODEL)} then, "
        f"{self._settings[MODEL]} now",
        f"take the former model again, {remedy}",
      )
    if differ:
      raise InputError(
        f"{place} was written under other settings: {', '.join(differ)}",
        remedy,
      )

  @property
  def is_complete(self) -> bool:
    return self.out.exists()

  def has_part(self, index: int) -> bool:
    return self._part(index).exists()

  def answers(self, index: int) -> pathlib.Path:
    """Where the answers for a part may be kept until it is written."""
    return self._parts / f"{index:05d}.answers"

  def write_part(self, index: int, records: Sequence[Record]) -> None:
    """Writes the records of some images, whole or not at all."""
    with atomic.replacing(self._part(index)) as path:
      lines = (json.dumps(record, ensure_ascii=False) for record in records)
      path.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    self.answers(index).unlink(missing_ok=True)

  def read_part(self, index: int, images: Sequence[str]) -> list[Record]:
    """The records of a part.

    Args:
      index: of the part.
      images: its images, in their order.

    Raises:
      InputError: a line is damaged, missing, or of another image.
    """
    path = self._part(index)
    remedy = "delete this file: its images are written again"
    text = json_files.read_text(path, remedy)
    records = source.read_lines(text, str(path), _RECORD, remedy)
    read = [record["image"] for record in records]
    if read != list(images):
      place = next(
        (
          i
          for i, pair in enumerate(zip(read, images, strict=False), 1)
          if pair[0] != pair[1]
        ),
        min(len(read), len(images)) + 1,
      )
      raise InputError(
        f"{path} does not hold its {len(images)} images: line {place} is "
        "missing, of another image, or too many",
        remedy,
      )
    return records

  def _part(self, index: int) -> pathlib.Path:
    return self._parts / f"{index:05d}.jsonl"

  def finish(
    self,
    texts: Mapping[str, Texts],
    report: Mapping[str, Any],
    tables: str,
    records: Mapping[str, Record] | None = None,
  ) -> None:
    """Writes report and rationales, then deletes the parts.

    Args:
      texts: the four texts by image.
      report: figures, to which the settings are added.
      tables: the same to read, Markdown.
      records: further fields of each image for `out`.
    """
    with atomic.replacing(self._report) as path:
      path.write_text(_dump({"settings": self._settings, **report}), "utf-8")
    with atomic.replacing(self._tables) as path:
      path.write_text(tables, "utf-8")
    content = {
      image: {
        **(records or {}).get(image, {}),
        **dict(zip(RATIONALE_KEYS, four, strict=True)),
      }
      for image, four in texts.items()
    }
    with atomic.replacing(self.out) as path:
      path.write_text(_dump(content), "utf-8")
    self.clean()

  def texts(self, images: Sequence[str]) -> dict[str, Texts]:
    """The four texts of a complete run's images."""
    captions = dict.fromkeys(RATIONALE_KEYS, str)
    form = dict.fromkeys(images, captions)
    remedy = "delete this file to have it written anew"
    content = json_files.read(self.out, form, remedy)
    return {
      image: tuple(content[image][key] for key in RATIONALE_KEYS)
      for image in images
    }

  def clean(self) -> None:
    """Deletes the parts of a complete run."""
    shutil.rmtree(self._parts, ignore_errors=True)


def _dump(content: Any) -> str:
  return json.dumps(content, indent=1, ensure_ascii=False) + "\n"
