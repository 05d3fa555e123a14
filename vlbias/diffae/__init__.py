"""The diffusion autoencoder: architecture, sampling, training, latent prior, import of published checkpoints."""

from vlbias.diffae.config import DiffAEConfig, PriorConfig
from vlbias.diffae.distillation import DistillationSettings, train_student
from vlbias.diffae.enlarging import enlarge
from vlbias.diffae.model import DiffAE
from vlbias.diffae.prior import LatentPrior
from vlbias.diffae.prior_training import PriorTrainingSettings, train_prior
from vlbias.diffae.sampling import seeded_noise
from vlbias.diffae.student import Student
from vlbias.diffae.training import DiffAETrainingSettings, train_diffae

__all__ = [
    "DiffAE",
    "DiffAEConfig",
    "DiffAETrainingSettings",
    "DistillationSettings",
    "LatentPrior",
    "PriorConfig",
    "PriorTrainingSettings",
    "Student",
    "enlarge",
    "seeded_noise",
    "train_diffae",
    "train_prior",
    "train_student",
]
