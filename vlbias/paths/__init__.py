"""Paths: learned directions through the semantic space, one for each dipole of texts."""

from vlbias.paths.calibration import Sight, arc_length, calibrate
from vlbias.paths.dipole import Dipole, text_directions
from vlbias.paths.fields import AffineField, LinearField, RbfField
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
    Preservation,
)
from vlbias.paths.probes import Probes
from vlbias.paths.readings import clip_log_odds, pseudo_labels
from vlbias.paths.training import PathTrainingSettings, extend_paths, fit_probes, train_paths

__all__ = [
    "AffineField",
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
    "Preservation",
    "Probes",
    "RbfField",
    "Sight",
    "arc_length",
    "calibrate",
    "clip_log_odds",
    "drift_matrix",
    "extend_paths",
    "fit_probes",
    "measure_paths",
    "pseudo_labels",
    "text_dipole_loss",
    "text_directions",
    "train_paths",
]
