"""The report of JRG: acceptance, reasons of rejections, samples."""

import collections
from collections.abc import Iterable, Mapping
from typing import Any

from input_pipeline import schema

GIVEN, MODEL, TEMPLATE, NOTHING = "given", "model", "template", "nothing"
_SAMPLES = 3


class Report:
  """Sums over the records of a run; see `jrg.Jrg` for their form."""

  def __init__(self):
    self._images = 0
    self._sources = {kind: collections.Counter() for kind in schema.RATIONALES}
    self._attempts = {kind: collections.Counter() for kind in schema.RATIONALES}
    self._failed = dict.fromkeys(schema.RATIONALES, 0)
    self._faults = {kind: collections.Counter() for kind in schema.RATIONALES}
    self._samples = {kind: _Samples() for kind in schema.RATIONALES}

  def add(self, records: Iterable[Mapping[str, Any]]) -> None:
    for record in records:
      self._images += 1
      for kind, note in record["notes"].items():
        self._sources[kind][note["source"]] += 1
        self._faults[kind].update(code for code, _ in note["faults"])
        if note["source"] == MODEL:
          self._attempts[kind][note["attempts"]] += 1
        elif note["attempts"]:
          self._failed[kind] += 1
        self._samples[kind].add(record, kind, note)

  def to_json(self) -> dict[str, Any]:
    """Counts and shares by kind, and in all."""
    kinds = {kind: self._kind(kind) for kind in schema.RATIONALES}
    model = sum(s[MODEL] for s in self._sources.values())
    return {
      "images": self._images,
      "acceptance_rate": _share(model, model + sum(self._failed.values())),
      "kinds": kinds,
    }

  def _kind(self, kind: str) -> dict[str, Any]:
    sources, attempts = self._sources[kind], self._attempts[kind]
    asked = sources[MODEL] + self._failed[kind]
    return {
      "given": sources[GIVEN],
      "nothing_to_tell": sources[NOTHING],
      "written_by_model": sources[MODEL],
      "written_by_template": sources[TEMPLATE],
      "acceptance_rate": _share(sources[MODEL], asked),
      "accepted_at_attempt": {str(k): attempts[k] for k in sorted(attempts)},
      "reasons": dict(sorted(self._faults[kind].items())),
      "samples": self._samples[kind].to_json(),
    }

  def to_markdown(self) -> str:
    """Tables and samples to read."""
    content = self.to_json()
    lines = [
      "# Rationales",
      "",
      f"{content['images']} images; of the texts asked of the model "
      f"{_percent(content['acceptance_rate'])} were accepted, the others are "
      "templates.",
      "",
      "| text | given | model | template | nothing to tell | accepted | "
      "at attempt |",
      "|---|---|---|---|---|---|---|",
    ]
    for kind, one in content["kinds"].items():
      at = ", ".join(f"{k}: {v}" for k, v in one["accepted_at_attempt"].items())
      lines.append(
        f"| {kind} | {one['given']} | {one['written_by_model']} | "
        f"{one['written_by_template']} | {one['nothing_to_tell']} | "
        f"{_percent(one['acceptance_rate'])} | {at or '-'} |"
      )
    lines += ["", "| text | reason of a rejection | times |", "|---|---|---|"]
    for kind, one in content["kinds"].items():
      lines += [f"| {kind} | {k} | {v} |" for k, v in one["reasons"].items()]
    for kind, one in content["kinds"].items():
      lines += ["", f"## {kind}", ""]
      for name, samples in one["samples"].items():
        lines += [f"- {name}, {s['image']}: {_told(s)}" for s in samples]
    return "\n".join(lines) + "\n"


class _Samples:
  """The first few accepted and rejected texts."""

  def __init__(self):
    self._accepted: list[dict[str, str]] = []
    self._rejected: list[dict[str, str]] = []

  def add(
    self, record: Mapping[str, Any], kind: str, note: Mapping[str, Any]
  ) -> None:
    image = record["image"]
    if note["source"] == MODEL and len(self._accepted) < _SAMPLES:
      self._accepted.append({"image": image, "text": record["texts"][kind]})
    if note["rejected"] and len(self._rejected) < _SAMPLES:
      reason = note["faults"][-1][1]
      self._rejected.append(
        {"image": image, "text": note["rejected"], "reason": reason}
      )

  def to_json(self) -> dict[str, list[dict[str, str]]]:
    return {"accepted": self._accepted, "rejected": self._rejected}


def _share(part: int, whole: int) -> float | None:
  return round(part / whole, 4) if whole else None


def _percent(share: float | None) -> str:
  return "-" if share is None else f"{100 * share:.1f} %"


def _told(sample: Mapping[str, str]) -> str:
  text = f"“{' '.join(sample['text'].split())}”"
  return f"{text} ({sample['reason']})" if "reason" in sample else text
