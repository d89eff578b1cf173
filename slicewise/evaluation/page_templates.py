"""The templates, and the page's style and script."""

from __future__ import annotations

import base64
import functools
import hashlib
from importlib import resources

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from slicewise.evaluation import words


@functools.cache
def make_environment(*, markdown: bool = False) -> Environment:
    """The templates: everything that is put into a page is escaped; in Markdown the filter ``md`` does it.

    Args:
        markdown: For templates of Markdown.
    """
    environment = Environment(
        loader=PackageLoader("slicewise.evaluation"),
        autoescape=not markdown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    for function in (
        words.interval,
        words.short,
        words.number,
        words.percent,
        words.p_value,
        words.plain,
        words.count,
    ):
        environment.globals[function.__name__] = function
    environment.filters["md"] = words.markdown
    if not markdown:
        environment.globals |= {"style": _asset("page.css"), "script": _asset("page.js"), "policy": _policy()}
    return environment


def _asset(name: str) -> Markup:
    """Our own style or script, as it is."""
    return Markup(resources.files("slicewise.evaluation").joinpath("templates", name).read_text(encoding="utf-8"))


def _policy() -> str:
    """What a browser may do for the page: nothing from outside, and no script but ours."""
    digest = base64.b64encode(hashlib.sha256(_asset("page.js").encode()).digest()).decode()
    return (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
