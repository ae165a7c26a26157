"""Detections of other tools in our form.

  python -m input_pipeline.hico_det.detection_import --folder=DIR \\
    --upt=FOLDER --labels=alphabetical --detector="DETR-R50 of UPT" --out=FILE
  python -m input_pipeline.hico_det.detection_import --folder=DIR \\
    --oracle --split=test --out=FILE

Their boxes have edges, from 0 to the image's width; ours have pixels, from
0 to the width less one. So one is taken off the right and lower edge, as UPT
does before its own evaluation.
"""

import argparse
import pathlib
import sys
from collections.abc import Mapping

from input_pipeline.errors import InputError
from input_pipeline.hico_det import (
  broken,
  detections,
  detector_boxes,
  folder,
  parsing,
  vocabulary,
)
from input_pipeline.hico_det.detections import Detections, ImageDetections
from input_pipeline.hico_det.folder import FORMS, SPLITS
from input_pipeline.hico_det.vocabulary import Vocabulary
from input_pipeline.layout import read_json
from input_pipeline.progress import Progress

# How a folder of detections numbers the objects.
ALPHABETICAL = "alphabetical"  # by name from 0: a person is 49
COCO_80 = "coco80"  # COCO's order from 0: a person is 0
COCO_91 = "coco91"  # COCO's category ids: a person is 1
ORDERS = (ALPHABETICAL, COCO_80, COCO_91)


def from_upt(
  directory: str | pathlib.Path,
  images: Mapping[str, tuple[int, int]],
  words: Vocabulary,
  *,
  labels: str,
  detector: str,
) -> Detections:
  """A folder with one {"boxes", "labels", "scores"} file per image.

  Files of boxes with edges, as fredzzhang/hicodet writes them by a detector
  (its ground-truth files hold pixels from 1 instead: take `oracle`).

  Args:
    directory: with HICO_test2015_00000001.json and so on.
    images: (height, width) of each image of the dataset; each needs its file.
    words: the objects.
    labels: how the files number objects, one of `ORDERS`.
    detector: its name, for the results.

  Raises:
    InputError: files are missing or of another form, a number is no object.
  """
  directory = pathlib.Path(directory)
  numbers = _order(labels, words)
  paths = {
    name: directory / f"{pathlib.Path(name).stem}.json" for name in images
  }
  missing = [path.name for path in paths.values() if not path.exists()]
  if missing:
    raise InputError(
      f"{directory} lacks {len(missing)} of {len(paths)} files: "
      f"{vocabulary.shown(missing)}",
      "run the detector on those images too, or give the other folder",
    )
  there = {path.name for path in directory.glob("*.json")}
  extra = sorted(there - {path.name for path in paths.values()})
  if extra:
    raise InputError(
      f"{directory} has {len(extra)} files of no image of the dataset: "
      f"{vocabulary.shown(extra)}",
      "give the folder of this split, or take them away",
    )
  found = {}
  with Progress("import detections", len(paths), "images") as progress:
    for name, path in paths.items():
      found[name] = _read_upt(path, name, images[name], numbers)
      progress.advance()
  return Detections(detector, found)


def _read_upt(
  path: pathlib.Path,
  name: str,
  size: tuple[int, int],
  numbers: Mapping[int, int],
) -> ImageDetections:
  content = read_json(path)
  where = parsing.Place(path, path.parent / name)
  if not isinstance(content, dict):
    raise parsing.RecordError(
      where, "form", "holds no object", "give boxes, labels and scores"
    )
  labels = content.get("labels")
  if not isinstance(labels, list):
    raise parsing.RecordError(where, "form", "has no list 'labels'", "give one")
  for row, label in enumerate(labels):
    if type(label) is not int or label not in numbers:
      raise parsing.RecordError(
        where,
        "labels",
        f"labels {row} is {label!r}, which does not exist in that numbering",
        f"choose another --labels of {', '.join(ORDERS)}",
      )
  objects = [numbers[label] for label in labels]
  return detector_boxes.convert(
    where, content.get("boxes"), objects, content.get("scores"), size
  )[0]


def _order(labels: str, words: Vocabulary) -> dict[int, int]:
  """Object numbers by the number in the files."""
  if labels == ALPHABETICAL:
    ranked = sorted(range(len(words.objects)), key=words.objects.__getitem__)
    return dict(enumerate(ranked))
  if labels == COCO_80:
    return {i: i for i in range(len(words.objects))}
  if labels == COCO_91:
    return {int(x): i for i, x in enumerate(words.category_ids)}
  raise InputError(
    f"there is no numbering {labels!r}", f"choose one of {', '.join(ORDERS)}"
  )


def main(arguments: list[str] | None = None) -> int:
  """The command line, see the top of this file."""
  parser = argparse.ArgumentParser(
    prog="python -m input_pipeline.hico_det.detection_import",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add = parser.add_argument
  add("--upt", metavar="FOLDER", help="one JSON file per image")
  add("--labels", choices=ORDERS, help="how those number the objects")
  add("--detector", help="its name, printed with every result")
  add("--oracle", action="store_true", help="annotated boxes instead")
  add("--folder", metavar="DIR", required=True, help="of the dataset")
  add("--form", choices=FORMS, help="which annotations")
  add("--split", choices=SPLITS, default="test")
  add("--skip-broken", action="store_true", help="leave out what is of no use")
  add("--out", metavar="FILE", required=True)
  given = parser.parse_args(arguments)
  if given.oracle == bool(given.upt):
    parser.error("give either --upt=FOLDER or --oracle")
  if given.upt and not (given.labels and given.detector):
    parser.error("--upt needs --labels and --detector")
  try:
    words = vocabulary.load(given.folder)
    layout = folder.find(given.folder, given.form)
    if given.skip_broken:
      records, errors = broken.read_records(
        layout, given.split, words, read_images=False
      )
      print(f"{len(errors)} images left out")
    else:
      records = folder.read_records(layout, given.split, words)
    if given.oracle:
      found = detections.oracle(records)
    else:
      found = from_upt(
        given.upt,
        {r.name: (r.height, r.width) for r in records},
        words,
        labels=given.labels,
        detector=given.detector,
      )
    detections.write(given.out, found, words)
  except InputError as error:
    print(f"problem: {error}", file=sys.stderr)
    return 1
  number = sum(len(item.scores) for item in found.images.values())
  print(f"{given.out}: {found.detector}, {number} boxes in {len(found.images)}")
  return 0


if __name__ == "__main__":
  sys.exit(main())
