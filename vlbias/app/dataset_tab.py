"""The third tab: counts of a dataset, faces of a cell, drift. The work is done in ``browsing.py``."""

from __future__ import annotations

from typing import Any

import gradio as gr

from vlbias.app import markup
from vlbias.app.browsing import Browser, open_faces
from vlbias.app.parts import NETWORKS, Updates, Workplace, choices, told
from vlbias.errors import DatasetError

__all__ = ["dataset_tab"]


def dataset_tab(place: Workplace) -> None:
    """Build the tab."""
    browser = gr.State(None, time_to_live=7200)
    known, editors = [*map(str, place.roots), "synthfaces:500"], place.shelf.names
    with gr.Row():
        spec = gr.Dropdown(
            known,
            value=known[0],
            label="Folder of a dataset, or synthfaces:N",
            elem_id="dataset",
            min_width=280,
            allow_custom_value=True,
        )
        columns = gr.Dropdown([], multiselect=True, label="Count by", elem_id="columns", min_width=280)
    opens, said = gr.Button("Open the dataset", variant="primary"), gr.HTML()
    about, counts = gr.HTML(), gr.HTML(elem_id="counts")
    cell = gr.Dropdown([], label="Faces of the cell", elem_id="cell")
    faces = gr.HTML(elem_id="faces")
    editor = gr.Dropdown(editors, value=editors[0], label="Editor")
    measure = gr.Button("Measure its drift on these faces", elem_id="measure")
    drift = gr.HTML(elem_id="drift")

    cleared: Updates = {browser: None, about: "", counts: "", faces: "", drift: ""}

    def start(spec: str | None) -> Updates:
        found = Browser(open_faces(spec or "", place.roots))
        text = f"{found.faces.name}: {len(found.faces):,} faces, {len(found.faces.problems):,} left out."
        first = found.first_columns
        # counted here as well: the same columns as before are no change that the page would tell of
        opened: Updates = {browser: found, columns: choices(found.columns, first), about: markup.sentence(text)}
        return {**cleared, **opened, **count(found, first)}

    def count(found: Browser | None, columns: list[str]) -> Updates:
        if found is None or not columns:
            # a list that was emptied asks too, and what was said of the folder that is none stays
            return {counts: "", said: gr.skip()} if found is None else {counts: ""}
        sizes = found.counts(columns)
        names = [name for name, _ in sizes]
        counted: Updates = {counts: markup.counts_table(columns, sizes), cell: choices(names)}
        return {**counted, **look(found, columns, names[0] if names else None)}

    def look(found: Browser | None, columns: list[str], cell: str | None) -> Updates:
        if found is None:
            return {faces: "", said: gr.skip()}
        return {faces: markup.gallery(found.pictures(columns, cell)) if cell else ""}

    def measured(found: Browser | None, name: str) -> Updates:
        if found is None:
            raise DatasetError("open a dataset first.")
        return {drift: markup.drift_table(found.drift(place.shelf.editor(name)))}

    tell = told(said)
    # one after the other: faces of what was open before would else come behind what is opened now
    orderly: dict[str, Any] = {"concurrency_id": "dataset", "concurrency_limit": 1}
    # a second click while one is opened would be dropped, and with it the folder that is asked for by then
    last: dict[str, Any] = {"trigger_mode": "always_last", **orderly}
    opens.click(told(said, cleared)(start), [spec], [said, columns, cell, *cleared], **last)
    columns.change(tell(count), [browser, columns], [said, counts, cell, faces], **orderly)
    cell.change(tell(look), [browser, columns, cell], [said, faces], **orderly)
    measure.click(tell(measured), [browser, editor], [said, drift], **NETWORKS)
