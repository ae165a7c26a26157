"""Sentences, annotated pictures and the page that shows them."""

import html.parser
import pathlib

import numpy as np
import pytest
from PIL import Image, ImageColor

from mipd_jax.inference.results import sentence
from mipd_jax.report import drawing, pages, style

THROW = "an AGENT throws an ITEM at a DESTINATION using a TOOL in PLACE."


@pytest.mark.parametrize(
  ("verb", "nouns", "abstract", "said"),
  [
    (
      "throwing",
      {"agent": "man", "item": "ball", "destination": "field"},
      "the AGENT throws the ITEM at the DESTINATION",
      "the man throws the ball at the field",
    ),
    (
      "throwing",
      {"agent": "", "item": "", "destination": "", "tool": "", "place": ""},
      THROW,
      "someone throws something",
    ),
    (
      "throwing",
      {"agent": "dog", "item": "ball", "tool": "", "place": "park"},
      THROW,
      "the dog throws the ball at a destination in the park",
    ),
    (  # "and" takes over what was left out
      "biting",
      {"agent": "dog", "item": "", "tool": "tooth", "place": "park"},
      "the AGENT is biting with a ITEM and a TOOL at a PLACE",
      "the dog is biting with the tooth at the park",
    ),
    (
      "slapping",
      {"agent": "man", "victim": "boy", "victimpart": "hand"},
      "AGENT slaps the VICTIM's VICTIMPART (when different than the AGENT)",
      "the man slaps the boy's hand",
    ),
    (
      "measuring",
      {"agent": "man", "object": "box", "quantity": "width"},
      "an AGENT measures an OBJECTs' QUANTITY",
      "the man measures the box's width",
    ),
    (
      "juggling",
      {"agent": "man", "item": "club", "place": "stage"},
      "",
      "the man is juggling with the club at the stage",
    ),
    ("raining", {"place": "road"}, "", "it is raining at the road"),
    (
      "raining",
      {"place": "road"},
      "It rains at a PLACE",
      "It rains at the road",
    ),
    ("resting", {}, "", "someone is resting"),
    (
      "mending",
      {"agent": "man", "item": "floor", "problem": "crack", "place": "inside"},
      "the AGENT mends ITEM\N{RIGHT SINGLE QUOTATION MARK}s PROBLEM in PLACE",
      "the man mends the floor's crack inside",
    ),
    (
      "unplugging",
      {"agent": "man", "cord": "wire"},
      "the AGENT uses a TOOL to unplug CORD",
      "the man uses a tool to unplug the wire",
    ),
  ],
)
def test_sentences(verb, nouns, abstract, said):
  assert sentence(verb, nouns, abstract) == said


def _item(width, height, boxes, shrunk=1):
  image = Image.new(
    "RGB", (width // shrunk or 1, height // shrunk or 1), "white"
  )
  return drawing.Annotated(
    image=image,
    width=width,
    height=height,
    verb="jumping",
    probability=0.5,
    roles=[
      drawing.Role(f"role{i}", f"noun{i}", 0.3, box)
      for i, box in enumerate(boxes)
    ],
    sentence="the man jumps",
  )


@pytest.mark.parametrize(
  ("width", "height", "shrunk"),
  [(60, 90, 1), (400, 300, 1), (4000, 3000, 4), (500, 60, 1)],
)
def test_boxes_are_drawn_where_they_are(width, height, shrunk):
  """Original pixels to the drawing, whatever size it was seen and is drawn."""
  box = (0.25 * width, 0.4 * height, 0.75 * width, 0.9 * height)
  made = drawing.draw_annotated(_item(width, height, [box], shrunk))
  drawn = np.asarray(made.image)
  side = max(width, height) // shrunk
  side = min(max(side, drawing.SMALLEST), drawing.LARGEST)
  scale = side / max(width, height)
  left = (drawn.shape[1] - round(width * scale)) / 2
  found = np.argwhere(
    (drawn == ImageColor.getrgb(style.role_colour(0))).all(axis=-1)
  )
  picture = found[found[:, 0] < round(height * scale)]
  # The box and its label; the label lies above or within.
  assert picture[:, 1].min() == pytest.approx(left + box[0] * scale, abs=2)
  assert picture[:, 0].max() == pytest.approx(box[3] * scale, abs=2)
  row = round(box[3] * scale) - 1
  ends = picture[picture[:, 0] == row][:, 1]
  assert ends.min() == pytest.approx(left + box[0] * scale, abs=2)
  assert ends.max() == pytest.approx(left + box[2] * scale, abs=2)


def test_every_role_has_its_colour_and_a_label_that_nothing_hides():
  boxes = [(10, 10, 60, 60)] * 3 + [(200, 10, 290, 90), (0, 150, 99, 199)]
  made = drawing.draw_annotated(_item(300, 200, [*boxes, None]))
  drawn, height = np.asarray(made.image), made.picture_height
  assert height == round(200 * drawing.SMALLEST / 300)
  areas = []
  for i in range(5):
    colour = ImageColor.getrgb(style.role_colour(i))
    areas.append((drawn[:height] == colour).all(axis=-1).sum())
  # Labels are solid: three boxes in one place have three of them.
  assert min(areas) > 700
  absent = ImageColor.getrgb(style.role_colour(5))
  assert not (drawn[:height] == absent).all(axis=-1).any()
  assert (drawn[height:] == absent).all(axis=-1).any()  # in the legend


@pytest.mark.parametrize(
  "size", [(1, 1), (20_000, 10), (10, 20_000), (96, 96), (5000, 5000)]
)
def test_any_size_has_a_legend_that_can_be_read(size):
  box = (0, 0, *size)
  made = drawing.draw_annotated(
    _item(*size, [box, None], 1 + max(size) // 4000)
  )
  assert 560 <= made.image.width <= drawing.LARGEST
  assert 1 <= made.picture_height <= drawing.LARGEST
  legend = made.image.height - made.picture_height
  assert 4 * 16 <= legend <= 300


class _Page(html.parser.HTMLParser):
  def __init__(self):
    super().__init__()
    self.links, self.text, self.open, self.metas = [], "", [], []

  def handle_starttag(self, tag, attributes):
    values = dict(attributes)
    self.links += [values[k] for k in ("src", "href") if k in values]
    self.metas += [values] if tag == "meta" else []
    if tag not in ("meta", "link", "img"):
      self.open.append(tag)

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    self.text += data


def test_the_page_shows_everything_and_needs_nothing_else(tmp_path):
  nasty = '<script>alert("x")</script>'
  entry = pages.Entry(
    name=f"a & {nasty}.jpg",
    picture="pictures/00001-a #1.jpg",
    size=(720, 500),
    sentence=f"the man eats {nasty}",
    verbs=[("eating", 0.61), ("dining", 0.2)],
    roles=[
      pages.RoleRow("agent", [("man", 0.7), ("boy", 0.1)], True),
      pages.RoleRow("place", [("", 0.4)], False),
    ],
    notes=["turned upright"],
  )
  path = tmp_path / "index.html"
  pages.write_gallery(path, [entry] * 2, "Title", "about", [("b.jpg", nasty)])
  text = path.read_text()
  assert "<script" not in text
  page = _Page()
  page.feed(text)
  assert not page.open
  assert {"name": "viewport"}.items() <= page.metas[1].items()
  links = [link for link in page.links if link != "data:,"]
  assert set(links) == {"pictures/00001-a%20%231.jpg"} and len(links) == 4
  for words in (nasty, "b.jpg", "eating\xa061%", "dining\xa020%", "nothing"):
    assert words in page.text
  assert page.text.count("no box") == 2 and "turned upright" in page.text
  assert [p.name for p in pathlib.Path(tmp_path).iterdir()] == ["index.html"]
