"""From content to one HTML file: everything inside, nothing loaded from elsewhere, no script."""

from __future__ import annotations

from typing import Any

from nndet_psma.report.page.content import Page
from nndet_psma.report.texts import without_paths

TEMPLATE = "report.html.j2"


def render(page: Page) -> str:
    """The page as HTML. All texts are escaped, and absolute paths in them are cut to file names."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    def clean(value: Any) -> Any:
        return without_paths(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    environment = Environment(
        loader=PackageLoader("nndet_psma.report.page", package_path=""),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=clean,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # base64 may begin with a slash and must not be taken for a path; our own encoder made it, so it is safe
    environment.filters["embedded"] = Markup
    return environment.get_template(TEMPLATE).render(page=page)
