"""The one door to open_clip: features, text embeddings, zero-shot, and a small CLIP trained on captions."""

from vlbias.clip.augment import MILD, STRONG, Augmentation
from vlbias.clip.captions import CaptionTemplates, TableCaptions, photograph_templates, synthfaces_templates
from vlbias.clip.loading import create, load
from vlbias.clip.model import Clip, Prompts
from vlbias.clip.preprocess import Preprocess
from vlbias.clip.tokenizer import learn_merges
from vlbias.clip.tower import LabelTargets, TowerTraining, train_tower
from vlbias.clip.training import ClipConfig, ClipTraining, caption_loss, statement_loss, train_clip

__all__ = [
    "MILD",
    "STRONG",
    "Augmentation",
    "CaptionTemplates",
    "Clip",
    "ClipConfig",
    "ClipTraining",
    "LabelTargets",
    "Preprocess",
    "Prompts",
    "TableCaptions",
    "TowerTraining",
    "caption_loss",
    "create",
    "learn_merges",
    "load",
    "photograph_templates",
    "statement_loss",
    "synthfaces_templates",
    "train_clip",
    "train_tower",
]
