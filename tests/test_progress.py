"""Progress lines: counts, rate, time left."""

from __future__ import annotations

import io
import sys
from types import SimpleNamespace

from vlbias import progress
from vlbias.progress import track


def test_lines_show_count_rate_time_left_and_fields(monkeypatch):
    clock = iter(range(0, 1000, 20))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    stream = io.StringIO()
    with track(100, "editing faces", "faces", stream) as bar:
        bar.update(10, kept=9, loss=0.25)
    lines = stream.getvalue().splitlines()
    assert lines[0].startswith("editing faces: 10/100 faces")
    assert lines[0].rstrip().endswith("kept 9, loss 0.25")
    assert len(lines) == 2


def test_the_time_left_is_not_guessed_from_what_is_loaded_once(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with track(100, "training", "steps", io.StringIO()) as bar:
        now[0] = 300.0  # pictures are read, networks are built
        bar.update(1)
        assert "left" not in bar.line()
        now[0] = 301.0
        bar.update(1)
        assert "left" not in bar.line()
        now[0] = 309.0
        bar.update(8)
        assert "10/100 steps" in bar.line() and "1:30 left" in bar.line()  # 90 more at one a second


def test_the_last_line_is_printed_once(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    stream = io.StringIO()
    with track(2, "editing faces", "faces", stream) as bar:
        for now[0] in (20.0, 40.0):
            bar.update(1)
    lines = stream.getvalue().splitlines()
    assert [line.split(",")[0] for line in lines] == ["editing faces: 1/2 faces", "editing faces: 2/2 faces"]
    assert "took 0:40" in lines[-1]


def test_a_notebook_has_one_updating_line(monkeypatch, capsys):
    told: list[tuple[str, str]] = []

    class ZMQInteractiveShell:
        pass

    class Handle:
        def update(self, shown, raw):
            told.append(("update", shown["text/plain"]))

    def display(shown, raw, display_id):
        told.append(("new", shown["text/plain"]))
        return Handle()

    python = SimpleNamespace(display=SimpleNamespace(display=display), get_ipython=ZMQInteractiveShell)
    monkeypatch.setitem(sys.modules, "ipykernel", python)
    monkeypatch.setitem(sys.modules, "IPython", python)
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with track(5, "editing faces", "faces") as bar:
        for _ in range(5):
            now[0] += 1
            bar.update(1)
    assert [kind for kind, _ in told] == ["new"] + ["update"] * 4 and "5/5 faces" in told[-1][1]
    assert capsys.readouterr().err == ""


def test_resumed_work_does_not_enter_the_rate(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with track(100, "x", "faces", io.StringIO()) as bar:
        bar.resume_at(90)
        now[0] = 1.0
        bar.update(1)
        now[0] = 5.0
        bar.update(4)
        assert "95/100 faces, 1 faces/s, 0:05 left" in bar.line()


def test_silence_counts_all_the_same(capsys):
    with track(3, "editing faces", "faces", show=False) as bar:
        bar.update(3)
    assert bar.done == 3 and capsys.readouterr() == ("", "")
