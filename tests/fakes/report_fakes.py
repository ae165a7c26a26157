"""A report of invented numbers and images, without a model."""

import numpy as np
from PIL import Image

from input_pipeline import schema
from mipd_jax.report import examples
from mipd_jax.report.cards import ExampleView, RoleView
from mipd_jax.report.measures import Guesses, Rows
from mipd_jax.report.report_page import Report, Trade

# What breaks pages that take text for markup, or do not break long words.
HOSTILE = '<script>console.error("no")</script>"\'& ' + "x" * 90


def rows(images=120, verbs=9, seed=0, teacher=True) -> Rows:
  """Verb v is in group v mod 3; about half of the verbs are right."""
  rng = np.random.default_rng(seed)
  verb = rng.integers(0, verbs, images)
  shape = (images, schema.MAX_ROLES)

  def guesses():
    right = rng.random(images) < 0.5
    other = (verb + rng.integers(1, verbs, images)) % verbs
    probability = rng.random(images)
    true = np.where(right, probability, probability * rng.random(images))
    return Guesses(np.where(right, verb, other), probability, true)

  box_mask = rng.random(shape) < 0.7
  role_mask = np.arange(schema.MAX_ROLES) < rng.integers(1, 7, images)[:, None]
  confidence = rng.random(shape)
  overlapping = box_mask & (rng.random(shape) < 0.6)
  said = confidence >= 0.5
  return Rows(
    verb=verb,
    group=verb % 3,
    student=guesses(),
    teacher=guesses() if teacher else None,
    role_mask=role_mask,
    box_mask=box_mask & role_mask,
    noun_right=rng.random(shape) < 0.4,
    box_right=np.where(box_mask, said & overlapping, ~said),
    overlapping=overlapping,
    confidence=confidence,
  )


def results(verbs: list[str]) -> dict:
  """Of the form of results.json."""
  metrics = {
    f"{score}_{criterion}": 12.34 + i
    for i, score in enumerate(("value", "value_all", "grnd", "grnd_all"))
    for criterion in ("top1", "top5", "gt")
  }
  groups = {
    group: {"images": 40, "verb_top1": 50.25, "verb_top5": 75.5, **metrics}
    for group in (*schema.GROUPS, "all")
  }
  among = {"trained": 61.25, "untrained": None}
  model = {**groups, "macro": groups, "harmonic_mean": 33.44, "among": among}
  return {
    "dataset": HOSTILE,
    "split": "test",
    "preset": "mipd",
    "step": 7,
    "seed": 0,
    "config_hash": "0123",
    "models": {"student": model, "teacher zero-shot": model},
    "per_verb": {
      name: {
        "group": schema.GROUPS[i % 3],
        "train_images": 0 if i % 3 == 2 else 3 * i + 1,
        "test_images": 4,
        "verb_top1": 11.5 * (i % 9),
      }
      for i, name in enumerate(verbs)
    },
  }


def view(image: Image.Image, number: int = 0, roles: int = 3) -> ExampleView:
  """An example whose words are hostile; every other one has its verb right."""
  width, height = image.size
  box = (0.1 * width, 0.2 * height, 0.7 * width, 0.9 * height)
  return ExampleView(
    image=image,
    width=width,
    height=height,
    name=f"{number}{HOSTILE}.jpg",
    group="rare",
    true_verb="waiting",
    true_probability=0.25,
    student=("waiting" if number % 2 else HOSTILE, 0.5),
    teacher=("waiting", 0.75),
    roles=[
      RoleView(
        role=f"role{i}",
        true_nouns=("", HOSTILE, "dog"),
        noun=HOSTILE if i else "",
        true_box=box if i != 1 else None,
        box=tuple(reversed(box)) if i == 5 else box if i else None,
        noun_right=bool(i),
        box_right=i == 2,
      )
      for i in range(roles)
    ],
    true_sentence=HOSTILE,
    sentence="the dog waits",
    own_frame=(("role0", ""), ("role1", HOSTILE)),
    score=0.5,
    rationales=(HOSTILE, "b", "c", "d") if number == 3 else (),
  )


def report(images=120, verbs=9, pictures=None, **changes) -> Report:
  """All sections; `pictures` are shown in turns."""
  pictures = pictures or [Image.new("RGB", (64, 48), "teal")]
  names = [HOSTILE, *(f"verb{i}" for i in range(1, verbs))]
  found = rows(images, verbs)
  chosen = examples.choose_for_report(found, 2, 3)
  views = {
    i: view(pictures[n % len(pictures)], n, 3 + n % 4)
    for n, i in enumerate(chosen.all)
  }
  values = {
    "name": HOSTILE,
    "results": results(names),
    "rows": found,
    "verbs": names,
    "trade": Trade([(0.0, 80.0), (30.0, 60.0), (55.0, 0.0)], (30.0, 60.0)),
    "examples": {
      cell: [views[i] for i in indices]
      for cell, indices in chosen.examples.items()
    },
    "student_ahead": [views[i] for i in chosen.student_ahead],
    "teacher_ahead": [views[i] for i in chosen.teacher_ahead],
    "training": [view(pictures[0], 3)],
    "written": f"by {HOSTILE}",
    "use": HOSTILE,
    "has_teacher": True,
  }
  return Report(**{**values, **changes})
