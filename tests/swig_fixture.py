"""Writes a minimal folder in SWiG's layout, for tests."""

import json
import pathlib
from typing import Any

import numpy as np
from PIL import Image

FRAMES = {
  "jumping": ("agent", "obstacle", "place"),
  "cooking": ("agent", "food", "container", "heatsource", "tool", "place"),
  "raining": ("place",),
  "carrying": ("agent", "item", "agentpart", "place"),
  "pushing": ("agent", "item", "place"),
  "eating": ("agent", "food", "place"),
}
GROUPS = {
  "seen": ["jumping", "cooking", "raining"],
  "rare": ["carrying", "pushing"],
  "unseen": ["eating"],
}
NOUNS = {
  "n10287213": ("man", "an adult male"),
  "n10787470": ("woman", "an adult female"),
  "n02084071": ("dog", "a domestic canine"),
  "n07679356": ("bread", "baked dough"),
  "n08613733": ("outdoors", "where the air is unconfined"),
  "n03147509": ("cup", "a small open container"),
  "n99999999": ("oddity", "a noun that no class list has"),
}
UNLISTED = "n99999999"


def write(
  folder: pathlib.Path,
  *,
  seed: int = 0,
  per_verb: int = 3,
  index_files: bool = True,
  ov_splits: bool = True,
) -> pathlib.Path:
  """Writes FOLDER/images_512 and FOLDER/SWiG_jsons.

  Every split has `per_verb` images of each verb, training too: its images of
  unseen verbs are there to be left out. Names are like 'jumping_test_0.jpg'.
  """
  rng = np.random.default_rng(seed)
  (folder / "images_512").mkdir(parents=True)
  jsons = folder / "SWiG_jsons"
  jsons.mkdir()
  for split in ("train", "dev", "test"):
    records = {}
    for number in range(per_verb):
      for verb in FRAMES:
        name = f"{verb}_{split}_{number}.jpg"
        records[name] = _record(rng, verb)
        _image(rng, folder / "images_512" / name, records[name])
    dump(jsons / f"{split}.json", records)
  dump(jsons / "imsitu_space.json", space())
  if index_files:
    _index_files(jsons)
  if ov_splits:
    dump(jsons / "ov_splits.json", {"version": 1, **GROUPS})
  return folder


def space() -> dict[str, Any]:
  """imsitu_space.json: frames, definitions, glosses."""
  verbs = {
    verb: {
      "abstract": f"the AGENT does {verb}",
      "def": None if verb == "raining" else f"to be {verb}",
      "order": list(roles),
      "roles": {role: {"def": f"The {role} of it"} for role in roles},
    }
    for verb, roles in FRAMES.items()
  }
  nouns = {n: {"gloss": [g], "def": d} for n, (g, d) in NOUNS.items()}
  return {"verbs": verbs, "nouns": nouns}


def load(path: pathlib.Path) -> Any:
  return json.loads(path.read_text())


def dump(path: pathlib.Path, content: Any) -> None:
  path.write_text(json.dumps(content))


def _record(rng: np.random.Generator, verb: str) -> dict[str, Any]:
  height, width = (int(side) for side in rng.integers(40, 90, 2))
  boxes, frames = {}, [{}, {}, {}]
  for role in FRAMES[verb]:
    corner = rng.integers(0, (width // 2, height // 2))
    size = rng.integers(5, (width // 2, height // 2))
    boxes[role] = [int(v) for v in (*corner, *(corner + size))]
    if role == "place":
      boxes[role] = [-1, -1, -1, -1]
    for frame in frames:
      frame[role] = str(rng.choice(["", *NOUNS]))
  return {
    "verb": verb,
    "height": height,
    "width": width,
    "bb": boxes,
    "frames": frames,
  }


def _image(
  rng: np.random.Generator, path: pathlib.Path, record: dict[str, Any]
) -> None:
  shape = (record["height"], record["width"], 3)
  pixels = rng.integers(0, 256, shape, dtype=np.uint8)
  Image.fromarray(pixels).save(path, quality=90)


def _index_files(jsons: pathlib.Path) -> None:
  verbs = list(FRAMES)  # Not sorted, as in SWiG.
  roles = sorted({role for frame in FRAMES.values() for role in frame})
  nouns = ["blank", *(n for n in NOUNS if n != UNLISTED), "oov", "Pad"]
  (jsons / "verb_indices.txt").write_text("\n".join(verbs) + "\n")
  (jsons / "role_indices.txt").write_text("\n".join(roles) + "\n")
  rows = [f"{noun},{i}" for i, noun in enumerate(nouns)]
  (jsons / "train_classes.csv").write_text("\n".join(rows) + "\n")
