"""Checkpoints: found by name or folder, tensors read and written, foreign pickles read without running them.

A checkpoint is a folder: every module of it has a ``config.json`` and a ``*.safetensors``, and ``manifest.json`` holds
the hashes of all its files.
"""

from vlbias.checkpoints.find import cache_folder, checkpoint_folders, find_checkpoint, list_checkpoints, stays_inside
from vlbias.checkpoints.foreign import (
    ForeignArray,
    ForeignReference,
    load_weights,
    read_foreign_pickle,
    read_plain_pickle,
    read_weights,
)
from vlbias.checkpoints.manifest import verify_folder, whole_folder, write_manifest
from vlbias.checkpoints.tensors import (
    aligned,
    build_filled,
    check_finite,
    check_shapes,
    check_tensors,
    fill,
    load_tensors,
    save_tensors,
    weights_digest,
)

__all__ = [
    "ForeignArray",
    "ForeignReference",
    "aligned",
    "build_filled",
    "cache_folder",
    "check_finite",
    "check_shapes",
    "check_tensors",
    "checkpoint_folders",
    "fill",
    "find_checkpoint",
    "list_checkpoints",
    "load_tensors",
    "load_weights",
    "read_foreign_pickle",
    "read_plain_pickle",
    "read_weights",
    "save_tensors",
    "stays_inside",
    "verify_folder",
    "weights_digest",
    "whole_folder",
    "write_manifest",
]
