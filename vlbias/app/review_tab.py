"""The second tab: people accept or reject the edits of a run. The work is done in ``reviewing.py``."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import gradio as gr

from vlbias.app import markup
from vlbias.app.parts import Updates, Workplace, choices, told
from vlbias.app.reviewing import Desk, Pair, Selection, open_run
from vlbias.errors import DatasetError

__all__ = ["review_tab"]

Only = Literal["all", "undecided", "accept", "reject"]
ONLY = [("all", "all"), ("not decided by me", "undecided"), ("accepted by me", "accept"), ("rejected by me", "reject")]


@dataclass
class _Sitting:
    """What one person has open."""

    desk: Desk
    pairs: list[Pair]
    place: int = 0

    @property
    def pair(self) -> Pair:
        """The edit that is looked at."""
        if not self.pairs:
            raise DatasetError("no edit is shown. Choose another cell, or show all.")
        return self.pairs[self.place]

    def step(self, by: int) -> None:
        """To another edit, not beyond the ends."""
        self.place = max(0, min(self.place + by, len(self.pairs) - 1))

    def view(self, reviewer: str) -> str:
        """The pair that is looked at."""
        if not self.pairs:
            return markup.sentence("No edit is like that.")
        decided = self.desk.decided(reviewer).get((self.pair.picture, self.pair.donor))
        word = decided.decision if decided else ""
        return markup.pair_view(self.pair, self.desk.images(self.pair), (self.place, len(self.pairs)), word)

    def tally(self, reviewer: str) -> str:
        """How far the reviewer has come."""
        found = self.desk.tally(reviewer)
        text = f"You accepted {found['accept']} and rejected {found['reject']}; {found['undecided']} are left."
        return f"<p>{text}</p>"


def review_tab(place: Workplace) -> None:
    """Build the tab."""
    sitting = gr.State(None, time_to_live=7200)
    runs = [str(root) for root in place.roots if (root / "report.json").is_file()]
    with gr.Row():
        out = gr.Dropdown(
            runs,
            value=runs[0] if runs else None,
            label="Folder of a finished run",
            allow_custom_value=True,
            elem_id="run",
            min_width=280,
        )
        reviewer = gr.Textbox(label="Reviewer", placeholder="your name or initials", elem_id="reviewer", min_width=280)
    with gr.Row():
        planned = [(markup.score_title("plan"), "plan")]
        order = gr.Dropdown(planned, value="plan", label="Sort by", elem_id="order", min_width=200)
        cell = gr.Dropdown([("all cells", "")], value="", label="Cell", elem_id="run-cell", min_width=200)
        only = gr.Dropdown(ONLY, value="all", label="Show")
        highest = gr.Checkbox(label="Highest first", elem_id="highest")
    opens, said = gr.Button("Open the run", variant="primary"), gr.HTML(elem_id="review-said")
    view = gr.HTML(elem_id="pair")
    reason = gr.Textbox(label="Reason, if you reject", placeholder="a third ear", elem_id="reason")
    with gr.Row():
        back = gr.Button("← back", min_width=140, elem_id="previous")
        reject = gr.Button("Reject (r)", variant="stop", min_width=140, elem_id="reject")
        accept = gr.Button("Accept (a)", variant="primary", min_width=140, elem_id="accept")
        onward = gr.Button("next →", min_width=140, elem_id="next")
    tally = gr.HTML(elem_id="tally")

    def look(seated: _Sitting, reviewer: str) -> Updates:
        return {view: seated.view(reviewer), tally: seated.tally(reviewer)}

    def start(out: str | None, reviewer: str) -> Updates:
        desk = open_run(out or "", place.roots)
        seated = _Sitting(desk, desk.select(Selection()))
        lists: Updates = {
            order: choices(desk.orders, title=markup.score_title),
            cell: choices(["", *desk.cells], title=lambda name: name or "all cells"),
            only: "all",
        }
        return {sitting: seated, **lists, **look(seated, reviewer)}

    def choose(
        seated: _Sitting | None, reviewer: str, order: str, highest: bool, cell: str | None, only: Only
    ) -> Updates:
        if seated is None:
            return {}
        seated.pairs = seated.desk.select(Selection(order, highest, cell or "", only), reviewer)
        seated.place = 0
        return look(seated, reviewer)

    def decide(seated: _Sitting | None, reviewer: str, why: str, decision: Literal["accept", "reject"]) -> Updates:
        seated = _need(seated)
        seated.desk.decide(seated.pair, decision, reviewer, why if decision == "reject" else "")
        seated.step(1)
        return {reason: "", **look(seated, reviewer)}

    def step(seated: _Sitting | None, reviewer: str, by: int) -> Updates:
        seated = _need(seated)
        seated.step(by)
        return look(seated, reviewer)

    tell, outputs = told(said), [said, view, tally]
    started = told(said, {sitting: None, view: "", tally: ""})(start)
    # a second click while one is opened would be dropped, and with it the folder that is asked for by then
    opens.click(started, [out, reviewer], [sitting, order, cell, only, *outputs], trigger_mode="always_last")
    for event in (order.input, highest.input, cell.input, only.input, reviewer.blur):
        event(tell(choose), [sitting, reviewer, order, highest, cell, only], outputs)
    # keys may be quicker than an answer: none is lost, and they keep their order
    quick: dict[str, Any] = {"trigger_mode": "multiple", "show_progress": "hidden", "concurrency_id": "review"}
    for button, deciding in (
        (accept, partial(decide, decision="accept")),
        (reject, partial(decide, decision="reject")),
    ):
        button.click(tell(deciding), [sitting, reviewer, reason], [*outputs, reason], **quick)
    for button, by in ((back, -1), (onward, 1)):
        button.click(tell(partial(step, by=by)), [sitting, reviewer], outputs, **quick)


def _need(sitting: _Sitting | None) -> _Sitting:
    if sitting is None:
        raise DatasetError("open a run first.")
    return sitting
