"""The looks of a small world, and the words for them.

A verb is a code over five attributes; a noun is a shape, a colour and a
texture; a place is a tone and a pattern of the background. Every value has its
own word, so that a definition identifies an unseen verb or noun.
"""

from collections.abc import Mapping

# Attribute of a verb -> words for its values, in the order of the code.
ATTRIBUTES: Mapping[str, tuple[str, ...]] = {
  "layout": ("beside", "above", "below", "inside", "overlapping", "apart"),
  "mark": ("streaks", "waves", "sparks", "drops", "puffs", "bolts"),
  "arms": ("raised", "spread", "lowered"),
  "link": ("loose", "roped", "chained"),
  "light": ("day", "dusk", "night"),
}
LAYOUTS = ATTRIBUTES["layout"]
# Phrases of the attributes' words in definitions and captions.
PHRASES: Mapping[str, str] = {
  "layout": "{} the other",
  "mark": "with {}",
  "arms": "arms {}",
  "link": "{}",
  "light": "at {}",
}

SHAPES = (
  "disc",
  "square",
  "triangle",
  "starry",
  "cross",
  "hoop",
  "flat",
  "tall",
)
COLOURS: Mapping[str, tuple[int, int, int]] = {
  "red": (222, 44, 44),
  "orange": (244, 144, 32),
  "yellow": (248, 222, 60),
  "green": (58, 168, 62),
  "turquoise": (60, 206, 206),
  "blue": (52, 84, 218),
  "purple": (148, 60, 188),
  "white": (248, 248, 244),
}
TEXTURES = ("plain", "striped", "dotted")

TONES: Mapping[str, tuple[int, int, int]] = {
  "sandy": (226, 206, 160),
  "mossy": (164, 190, 140),
  "slaty": (150, 160, 172),
  "rosy": (224, 184, 184),
  "misty": (186, 208, 226),
  "earthy": (176, 148, 124),
}
PATTERNS = ("bare", "lined", "tiled", "speckled")

# Colour factors of the light attribute, in the order of its values.
LIGHTS = ((1.0, 1.0, 1.0), (1.0, 0.82, 0.64), (0.52, 0.57, 0.84))

# Kind of nouns -> the roles that take it; other roles take things.
_ROLES_OF_KIND: Mapping[str, str] = {
  "agent": """
    agent teacher seller victim coagent student buyer recipient eater chasee
    hugged hunted follower suspect performer
  """,
  "tool": "tool weapon brush connector",
  "substance": "substance liquid fluid glue",
  "place": "place",
}
ROLE_KINDS: Mapping[str, str] = {
  role: kind for kind, roles in _ROLES_OF_KIND.items() for role in roles.split()
}


def role_kind(role: str) -> str:
  """The kind of noun that fills a role."""
  return ROLE_KINDS.get(role, "thing")


def attribute_phrases(code: tuple[int, ...]) -> list[str]:
  """The phrases of a code: "beside the other", "arms raised", ..."""
  return [
    PHRASES[name].format(words[value])
    for (name, words), value in zip(ATTRIBUTES.items(), code, strict=True)
  ]
