"""The one door to open_clip: features, text embeddings, zero-shot, and a small CLIP trained on captions."""

from vlbias.augment import MILD, STRONG, Augmentation
from vlbias.clip.captions import CaptionTemplates, TableCaptions
from vlbias.clip.loading import create, load
from vlbias.clip.losses import caption_loss, statement_loss
from vlbias.clip.model import Clip, Prompts
from vlbias.clip.preprocess import Preprocess
from vlbias.clip.small import ClipConfig
from vlbias.clip.tokenizer import learn_merges
from vlbias.clip.tower import LabelTargets, TowerTrainingSettings, train_tower
from vlbias.clip.training import ClipTrainingSettings, train_clip

__all__ = [
    "MILD",
    "STRONG",
    "Augmentation",
    "CaptionTemplates",
    "Clip",
    "ClipConfig",
    "ClipTrainingSettings",
    "LabelTargets",
    "Preprocess",
    "Prompts",
    "TableCaptions",
    "TowerTrainingSettings",
    "caption_loss",
    "create",
    "learn_merges",
    "load",
    "statement_loss",
    "train_clip",
    "train_tower",
]
