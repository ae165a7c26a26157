"""Using a trained student: any image, any words.

`Predictor.from_workdir(DIR).predict(images)`; docs/predict.md has examples.
"""

from mipd_jax.inference.predictor import Predictor
from mipd_jax.inference.results import Failure, Prediction
from mipd_jax.inference.words import Words

__all__ = ["Failure", "Prediction", "Predictor", "Words"]
