"""Progress lines: counts, rate, time left."""

from __future__ import annotations

import io

from vlbias import progress
from vlbias.progress import track


def test_lines_show_count_rate_time_left_and_fields(monkeypatch):
    clock = iter(range(0, 1000, 20))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    stream = io.StringIO()
    with track(100, "editing faces", "faces", stream) as bar:
        bar.update(10, kept=9, loss=0.25)
    lines = stream.getvalue().splitlines()
    assert lines[0].startswith("editing faces: 10/100 faces") and "left" in lines[0]
    assert lines[0].rstrip().endswith("kept 9, loss 0.25")
    assert len(lines) == 2


def test_resumed_work_does_not_enter_the_rate(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with track(100, "x", "faces", io.StringIO()) as bar:
        bar.resume_at(90)
        now[0] = 5.0
        bar.update(5)
        assert "95/100 faces, 1 faces/s, 0:05 left" in bar.line()


def test_silence_counts_all_the_same(capsys):
    with track(3, "editing faces", "faces", show=False) as bar:
        bar.update(3)
    assert bar.done == 3 and capsys.readouterr() == ("", "")
