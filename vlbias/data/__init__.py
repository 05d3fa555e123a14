"""One label table for every dataset: drawn faces, published sets, folders and lists of one's own; face alignment."""

from __future__ import annotations

from vlbias.alignment import Aligned, DetectedFace, FaceDetector, align, paste_back
from vlbias.data.aligned import AlignedDataset, align_dataset
from vlbias.data.pairs import FacePairs, load_pairs
from vlbias.data.people import balance_people
from vlbias.data.recognise import KINDS, load_dataset, open_dataset, recognise
from vlbias.data.stream import keep_stream
from vlbias.data.synthfaces import SynthFaces, drawn_dataset
from vlbias.data.table import FaceDataset, JoinedDataset, Problem, hash_split, join

__all__ = [
    "KINDS",
    "Aligned",
    "AlignedDataset",
    "DetectedFace",
    "FaceDataset",
    "FaceDetector",
    "FacePairs",
    "JoinedDataset",
    "Problem",
    "SynthFaces",
    "align",
    "align_dataset",
    "balance_people",
    "drawn_dataset",
    "hash_split",
    "join",
    "keep_stream",
    "load_dataset",
    "load_pairs",
    "open_dataset",
    "paste_back",
    "recognise",
]
