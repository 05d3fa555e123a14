"""How a page is made: its template, plots and pictures, and the page of a balance run.

The pages of what is measured on datasets, classifiers and editors are in :mod:`vlbias.report`.
"""

from __future__ import annotations

from vlbias.pages.write import AuditPart, write_page, write_run

__all__ = ["AuditPart", "write_page", "write_run"]
