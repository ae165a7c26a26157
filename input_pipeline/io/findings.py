"""Faults of records and folders, and where they are."""

import dataclasses
import pathlib

from input_pipeline.io import images
from input_pipeline.io.errors import InputError

# What a fault of a record is about.
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
  """A fault of one record.

  Attributes:
    file: name of the JSON file.
    image: name of the image.
    role: name of the role; None if the fault is not about one.
    kind: one of `KINDS`.
    lost: whether nothing is left of the box in question.
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


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
  """Where a record is, for messages."""

  json_path: pathlib.Path
  image_path: pathlib.Path

  def image_error(self, error: InputError) -> RecordError:
    """The same error as a `RecordError`, which names the image itself."""
    problem = error.problem.removeprefix(f"image {self.image_path.name} ")
    return RecordError(self, "image", problem, error.remedy)

  def read_image(self, size: tuple[int, int] | None) -> bytes:
    """The bytes of the image file, once they decode to that size.

    Args:
      size: (height, width) in pixels; None: any.

    Raises:
      RecordError: it cannot be read or decoded, or has another size.
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


@dataclasses.dataclass(frozen=True)
class Finding:
  """One fault, with as much of its place as is known."""

  kind: str
  text: str
  file: str | None = None
  image: str | None = None
  role: str | None = None

  @classmethod
  def of(cls, error: InputError, kind: str = "folder") -> "Finding":
    if isinstance(error, RecordError):
      return cls(error.kind, str(error), error.file, error.image, error.role)
    return cls(kind, str(error))
