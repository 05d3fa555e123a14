"""What the tabs share of Gradio."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

import pytest

pytest.importorskip("gradio", reason="the page needs gradio: make app")


def test_pages_are_let_go_before_the_server_ends():
    from vlbias.app.parts import Visits

    visits, signs = Visits(), SimpleQueue()

    async def read():
        async for sign in visits.stay():
            signs.put(sign)

    with ThreadPoolExecutor() as pool:
        pages = [pool.submit(asyncio.run, read()) for _ in range(2)]
        assert [signs.get(timeout=30) for _ in pages] == [None, None]
        assert not any(page.done() for page in pages)
        visits.end()
        assert [page.result(timeout=30) for page in pages] == [None, None]
