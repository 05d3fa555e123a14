"""Paths: learned directions through the semantic space, one for each dipole of texts."""

from vlbias.paths.calibration import arc_length, calibrate
from vlbias.paths.dipole import Dipole, text_directions
from vlbias.paths.fields import LinearField, RbfField
from vlbias.paths.losses import text_dipole_loss
from vlbias.paths.measure import PathReport, drift_matrix, measure_paths
from vlbias.paths.pathset import PathSet
from vlbias.paths.preservation import (
    BackboneConstraint,
    ClipConstraint,
    Constraint,
    EncoderConstraint,
    FeatureConstraint,
    LpipsConstraint,
)
from vlbias.paths.probes import Probes
from vlbias.paths.readings import clip_log_odds, pseudo_labels
from vlbias.paths.training import PathTrainingSettings, fit_probes, learn_path, train_paths

__all__ = [
    "BackboneConstraint",
    "ClipConstraint",
    "Constraint",
    "Dipole",
    "EncoderConstraint",
    "FeatureConstraint",
    "LinearField",
    "LpipsConstraint",
    "PathReport",
    "PathSet",
    "PathTrainingSettings",
    "Probes",
    "RbfField",
    "arc_length",
    "calibrate",
    "clip_log_odds",
    "drift_matrix",
    "fit_probes",
    "learn_path",
    "measure_paths",
    "pseudo_labels",
    "text_dipole_loss",
    "text_directions",
    "train_paths",
]
