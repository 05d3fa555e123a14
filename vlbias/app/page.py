"""The page itself: three tabs, and how they look."""

from __future__ import annotations

from importlib import resources
from typing import TypedDict

import gradio as gr

from vlbias.app.dataset_tab import dataset_tab
from vlbias.app.edit_tab import edit_tab
from vlbias.app.parts import Workplace
from vlbias.app.review_tab import review_tab

__all__ = ["Looks", "build_page", "looks"]

_ABOUT = "# vlbias\nSee what an editor does to a face before you use it on many. Nothing leaves this machine."


def build_page(place: Workplace) -> gr.Blocks:
    """The page, not yet served."""
    with gr.Blocks(title="vlbias", analytics_enabled=False, delete_cache=(600, 3600)) as page:
        page.load(place.visits.stay, show_progress="hidden", concurrency_limit=None, api_visibility="private")
        gr.Markdown(_ABOUT)
        with gr.Tabs(overflow_behavior="wrap"):
            with gr.Tab("Edit a face"):
                edit_tab(place, page)
            with gr.Tab("Review a run"):
                review_tab(place)
            with gr.Tab("A dataset"):
                dataset_tab(place)
    return page


class Looks(TypedDict):
    """What ``gr.Blocks.launch`` is told of how a page looks."""

    theme: gr.themes.Base
    css: str
    head: str


def looks() -> Looks:
    """How the page looks, for Gradio: fonts of the system, so that none is fetched."""
    folder = resources.files("vlbias.app")
    fonts = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif"]
    theme = gr.themes.Default(
        primary_hue="blue", neutral_hue="slate", font=fonts, font_mono=["ui-monospace", "monospace"]
    )
    # Gradio's own greys and colours of buttons have less than 4.5:1 against what they stand on
    theme.set(
        body_text_color_subdued="*neutral_600", body_text_color_subdued_dark="*neutral_300",
        block_info_text_color="*neutral_600", block_info_text_color_dark="*neutral_300",
        block_label_text_color="*neutral_700", block_label_text_color_dark="*neutral_200",
        block_title_text_color="*neutral_700", block_title_text_color_dark="*neutral_200",
        input_placeholder_color="*neutral_600", input_placeholder_color_dark="*neutral_300",
        button_primary_background_fill="*primary_700", button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover="*primary_800", button_primary_background_fill_hover_dark="*primary_800",
        button_cancel_background_fill="#b3261e", button_cancel_background_fill_dark="#b3261e",
        button_cancel_background_fill_hover="#8c1d18", button_cancel_background_fill_hover_dark="#8c1d18",
        button_cancel_text_color="white", button_cancel_text_color_dark="white",
        color_accent="*primary_700",
    )  # fmt: skip
    script = folder.joinpath("keys.js").read_text("utf-8")
    css = folder.joinpath("style.css").read_text("utf-8")
    return {"theme": theme, "css": css, "head": f"<script>{script}</script>"}
