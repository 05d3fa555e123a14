"""A page on this machine, to try an editor, review a finished run, and look at a dataset; needs the extra ``app``."""

from __future__ import annotations

from vlbias.app.server import AppSettings, Served, serve

__all__ = ["AppSettings", "Served", "serve"]
