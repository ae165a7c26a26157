"""One record of a SWiG JSON, and what can be wrong with it."""

import dataclasses
import pathlib

import numpy as np

from input_pipeline.io import images
from input_pipeline.io.errors import InputError

# Keys of the published rationales, in the order of `schema.RATIONALES`.
RATIONALE_KEYS = (
  "pos_verb_caption",
  "neg_verb_caption",
  "pos_attr_caption",
  "neg_attr_caption",
)
# What can be wrong with a record.
KINDS = (
  "name",
  "verb",
  "size",
  "frames",
  "roles",
  "boxes",
  "rationales",
  "image",
)


class RecordError(InputError):
  """What is wrong with one record.

  Attributes:
    file: name of the JSON file.
    image: name of the image.
    role: name of the role, None where it is not about one.
    kind: one of `KINDS`.
    lost: whether nothing is left of the box that it is about.
  """

  def __init__(
    self,
    place: "Place",
    kind: str,
    problem: str,
    remedy: str,
    role: str | None = None,
    lost: bool = False,
  ):
    of_role = "" if role is None else f", role {role!r}"
    where = f"{place.json_path}: image {place.image_path.name}{of_role}"
    super().__init__(f"{where}: {problem}", remedy)
    self.file = place.json_path.name
    self.image = place.image_path.name
    self.role = role
    self.kind = kind
    self.lost = lost


@dataclasses.dataclass(frozen=True, eq=False, slots=True)
class Record:
  """One annotated image; R is the number of roles of its verb's frame.

  Attributes:
    place: which file it comes from, where its image is.
    verb: verb id.
    height, width: of the image, pixels.
    nouns: int32 [R, 3] noun classes of the three annotators.
    boxes: float32 [R, 4] x1 y1 x2 y2 in pixels, inside the image; -1 absent.
    rationales: the four texts in the order of `schema.RATIONALES`, or None.
  """

  place: "Place"
  verb: int
  height: int
  width: int
  nouns: np.ndarray
  boxes: np.ndarray
  rationales: tuple[str, ...] | None

  @property
  def path(self) -> pathlib.Path:
    """Where the image is."""
    return self.place.image_path

  @property
  def name(self) -> str:
    """File name of the image."""
    return self.place.image_path.name

  def read_image(self) -> bytes:
    """Bytes of the image, checked as `Place.read_image` does."""
    return self.place.read_image((self.height, self.width))


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
  """Where a record stands, for messages."""

  json_path: pathlib.Path
  image_path: pathlib.Path

  def image_error(self, error: InputError) -> RecordError:
    """The same error as one of this record, which names the image itself."""
    problem = error.problem.removeprefix(f"image {self.image_path.name} ")
    return RecordError(self, "image", problem, error.remedy)

  def read_image(self, size: tuple[int, int] | None) -> bytes:
    """Bytes of the image file, which decode to that size.

    Args:
      size: (height, width); None: any.

    Raises:
      RecordError: it cannot be read or decoded, or is of another size.
    """
    name = self.image_path.name
    try:
      content = self.image_path.read_bytes()
      images.check(content, name, size)
      return content
    except InputError as error:
      raise self.image_error(error) from None
    except OSError as error:
      raise self.image_error(
        InputError(
          f"image {name} cannot be read: {error.strerror}",
          "put the image there, readable, or take its record out of the JSON",
        )
      ) from None
