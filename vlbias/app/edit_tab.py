"""The first tab: sliders over one face. The work is done in ``editing.py``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import gradio as gr

from vlbias.app import markup
from vlbias.app.browsing import Browser, open_faces
from vlbias.app.editing import LEARNING_FACES, Bench, Edit, Find, Lookup
from vlbias.app.parts import NETWORKS, Updates, Workplace, choices, click, download_button, told
from vlbias.errors import ConfigError, ImageError
from vlbias.progress import Progress

__all__ = ["edit_tab"]

#: Strengths that a slider reaches, both ways; beyond 1.1 most edits are washed out.
REACH = 1.5
OWN_FACES = "faces that the editor makes up"
FINDS = [("decide", "auto"), ("a face that fills it", "face"), ("a photograph: find the face", "photo")]
FACES = [("the only one", "only"), ("the largest", "largest")]
FACES += [(f"number {place + 1} from the left", str(place)) for place in range(8)]


@dataclass
class _Visit:
    """What one person has open."""

    bench: Bench
    edit: Edit | None = None

    def edited(self, strengths: Mapping[str, float], *, preview: bool) -> Edit:
        self.edit = self.bench.edit(strengths, preview=preview)
        return self.edit

    @property
    def poles(self) -> list[tuple[str, str, str]]:
        """Each path of the editor with its poles."""
        dipoles = self.bench.editor.dipoles
        return [(name, dipoles[name].negative[0], dipoles[name].positive[0]) for name in self.bench.editor.attributes]


@dataclass
class _View:
    """Components that several parts of the tab share."""

    visit: gr.State = field(default_factory=lambda: gr.State(None, time_to_live=7200))
    paths: gr.State = field(default_factory=lambda: gr.State([]))
    opened: gr.State = field(default_factory=lambda: gr.State(0))  # counts pictures, so that each one is rendered
    said: gr.HTML = field(default_factory=lambda: gr.HTML(elem_id="said", render=False))
    readings: gr.HTML = field(default_factory=lambda: gr.HTML(elem_id="readings", render=False))
    strip: gr.HTML = field(default_factory=lambda: gr.HTML(elem_id="strip", render=False))
    shown: gr.ImageSlider = field(
        default_factory=lambda: gr.ImageSlider(
            label="Before and after", interactive=False, format="png", buttons=[], elem_id="shown", render=False
        )
    )


def edit_tab(place: Workplace, page: gr.Blocks) -> None:
    """Build the tab.

    Args:
        place: editors and folders.
        page: the page that it stands on; the first editor is loaded with it.
    """
    view, names = _View(), place.shelf.names
    with gr.Row():
        with gr.Column(scale=2, min_width=280):
            editor = gr.Dropdown(names, value=names[0], label="Editor", elem_id="editor")
            lookup = _picture_part()
        with gr.Column(scale=3, min_width=320):
            view.said.render()
            view.shown.render()
            _slider_part(view)
            make, file = download_button("Download the edit", "edit-file")
    view.readings.render()

    def pick(name: str) -> Updates:
        visit = _Visit(Bench(place.shelf.editor(name)))
        return {view.visit: visit, view.paths: visit.poles}

    # the picture before is not shown as if it were a new one that is refused
    cleared: Updates = {view.shown: None, view.readings: "", view.strip: ""}

    def take(visit: _Visit, photo: Mapping[str, str] | None, find: Find, face: str, known: bool, count: int) -> Updates:
        if not photo:
            return cleared
        lookup = Lookup(find, int(face) if face.isdigit() else face, check=not known)
        visit.bench.open(Path(photo["path"]), lookup, name=photo.get("orig_name") or "")
        return {view.opened: count + 1, view.strip: ""}

    def save(visit: _Visit | None) -> Updates:
        if visit is None or visit.edit is None:
            raise ImageError("there is no edit to download yet. Drop a picture and move a slider.")
        return {file: str(visit.bench.save(visit.edit, place.new_folder()))}

    tell, outputs = told(view.said), [view.said, view.shown, view.readings, view.strip, view.opened]

    def takes(event: Callable[..., object]) -> None:
        inputs = [view.visit, *lookup, view.opened]
        taken = told(view.said, cleared)(take)
        # without Gradio's own reading of pictures: it knows forty formats, and no sentence for a broken one
        event(taken, inputs, outputs, preprocess=False, show_progress_on=view.shown, **NETWORKS)

    for picked in (page.load, editor.change):
        takes(picked(tell(pick), [editor], [view.said, view.visit, view.paths], **NETWORKS).then)
    photo, find, face, known = lookup
    for event in (photo.input, find.change, face.change, known.change):
        takes(event)
    make.click(tell(save), [view.visit], [view.said, file], **NETWORKS).then(fn=None, js=click("edit-file"))
    _strip_part(view)
    _learn_part(view, place)


def _picture_part() -> tuple[gr.Image, gr.Radio, gr.Dropdown, gr.Checkbox]:
    """Where a picture is dropped, and how it is taken."""
    photo = gr.Image(
        label="A face, or a photograph with one",
        type="filepath",
        image_mode=None,
        height=260,
        sources=["upload", "webcam", "clipboard"],
        buttons=[],
        elem_id="photo",
    )
    with gr.Accordion("How the picture is taken", open=False):
        find = gr.Radio(FINDS, value="auto", label="The picture shows")
        face = gr.Dropdown(FACES, value="only", label="Which face", elem_id="face")
        known = gr.Checkbox(label="Take it even if the editor does not know its kind")
    return photo, find, face, known


def _slider_part(view: _View) -> None:
    """A slider for each path; made anew when there are others."""
    outputs = [view.said, view.shown, view.readings]

    def sliders(poles: list[tuple[str, str, str]]) -> None:
        names = [name for name, *_ in poles]
        made = [_slider(*pole) for pole in poles]

        def preview(visit: _Visit | None, *strengths: float) -> Updates:
            edit = _need(visit).edited(dict(zip(names, strengths, strict=True)), preview=True)
            return {view.shown: (edit.before, edit.after)}

        def full(visit: _Visit | None, *strengths: float) -> Updates:
            visit = _need(visit)
            edit = visit.edited(dict(zip(names, strengths, strict=True)), preview=False)
            table = markup.readings_table(visit.bench.readings(edit), visit.bench.identity(edit))
            said = markup.sentence(" ".join(edit.remarks))
            return {view.shown: (edit.before, edit.after), view.readings: table, view.said: said}

        tell, inputs = told(view.said), [view.visit, *made]
        live = {"trigger_mode": "always_last", **NETWORKS}
        for slider in made:
            slider.input(tell(preview), inputs, outputs, show_progress="hidden", **live)
            slider.release(tell(full), inputs, outputs, show_progress_on=view.readings, **live)
        view.opened.change(tell(full), inputs, outputs, show_progress_on=view.shown, **NETWORKS)
        if made:
            reset = gr.Button("All back to 0", size="sm", key="reset").click(lambda: [0] * len(made), None, made)
            reset.then(tell(full), inputs, outputs, show_progress_on=view.shown, **NETWORKS)

    gr.render(inputs=[view.paths], triggers=[view.paths.change])(sliders)


def _slider(name: str, negative: str, positive: str) -> gr.Slider:
    info = f"− {negative} · + {positive}"
    return gr.Slider(-REACH, REACH, 0, step=0.05, label=name, info=info, key=name, elem_id=f"path-{name}", buttons=[])


def _need(visit: _Visit | None) -> _Visit:
    if visit is None or not visit.bench.has_face:
        raise ImageError("no picture is open yet. Drop one first.")
    return visit


def _strip_part(view: _View) -> None:
    with gr.Accordion("A strip: the face along one path", open=False):
        with gr.Row():
            path = gr.Dropdown([], label="Path", elem_id="strip-path")
            steps = gr.Slider(3, 15, 7, step=2, label="Pictures", buttons=[])
            reach = gr.Slider(0.25, REACH, 1, step=0.25, label="Furthest strength", buttons=[])
        button = gr.Button("Show the strip")
        view.strip.render()

    def show(visit: _Visit | None, path: str, steps: float, reach: float) -> Updates:
        picture, remarks = _need(visit).bench.strip(path, steps=int(steps), reach=reach)
        return {view.strip: markup.strip(picture, path, reach), view.said: markup.sentence(" ".join(remarks))}

    view.paths.change(lambda poles: choices([name for name, *_ in poles]), [view.paths], [path])
    button.click(told(view.said)(show), [view.visit, path, steps, reach], [view.said, view.strip], **NETWORKS)


def _learn_part(view: _View, place: Workplace) -> None:
    with gr.Accordion("Learn a new path from two texts", open=False):
        with gr.Row():
            name = gr.Textbox(label="Name of the path", placeholder="hat", elem_id="learn-name")
            positive = gr.Textbox(
                label="Positive pole", placeholder="a photo of a person with a hat", elem_id="learn-positive"
            )
            negative = gr.Textbox(
                label="Negative pole", placeholder="a photo of a person without a hat", elem_id="learn-negative"
            )
        with gr.Row():
            source = gr.Dropdown([OWN_FACES, *map(str, place.roots)], value=OWN_FACES, label="Faces to learn on")
            steps = gr.Slider(0, 600, 150, step=10, label="Steps", buttons=[], elem_id="learn-steps")
        with gr.Row():
            start, (make, file) = gr.Button("Learn", elem_id="learn"), download_button("Download the editor", "zip")
        done = gr.HTML(elem_id="learned")

    def learn(
        visit: _Visit | None,
        name: str,
        positive: str,
        negative: str,
        source: str,
        steps: float,
        progress: gr.Progress = gr.Progress(),  # noqa: B008  # Gradio finds its bar by this default
    ) -> Updates:
        def count(work: Progress) -> None:
            progress((int(work.done), int(work.total or 0)), desc=work.description, unit=work.unit)

        if visit is None:
            raise ConfigError("choose an editor first.")
        progress(0, desc="reading faces")
        size, faces = visit.bench.editor.image_size, None
        if source != OWN_FACES:
            faces = Browser(open_faces(source, place.roots)).tensor(LEARNING_FACES, size)
        visit.bench.learn(name.strip(), (positive, negative), faces, steps=int(steps), progress=count)
        text = f"'{name.strip()}' is learned: its slider stands above. Download the editor to keep it."
        return {view.paths: visit.poles, done: markup.sentence(text)}

    def save(visit: _Visit | None) -> Updates:
        if visit is None:
            raise ConfigError("choose an editor first.")
        return {file: str(visit.bench.save_editor(place.new_folder()))}

    tell, texts = told(done), [name, positive, negative]
    start.click(tell(learn), [view.visit, *texts, source, steps], [done, view.paths], show_progress_on=done, **NETWORKS)
    make.click(tell(save), [view.visit], [done, file], **NETWORKS).then(fn=None, js=click("zip"))
