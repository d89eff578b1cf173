"""Pipeline runs of one folder, by name; nothing outside it can be asked for."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt

from serving.status import NotFoundError
from slicewise.files import read_json

METRICS, RUN = "metrics.json", "run.json"
# Where a document lies in a run's folder: beside the figures, or in the bundle.
DOCUMENTS = {
    "report": ("report.html", "evaluation/report.html"),
    "card": ("model_card.md", "bundle/model_card.md", "evaluation/model_card.md"),
}
# For model hubs, not for readers.
FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
CURE = "choose one of the runs listed"
CARD_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
:root {{ color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif; }}
body {{ margin: 1rem; max-width: 60rem; overflow-wrap: anywhere; }}
table {{ border-collapse: collapse; display: block; overflow-x: auto; }}
th, td {{ border: 1px solid #8888; padding: .25rem .6rem; text-align: left; }}
pre {{ overflow-x: auto; }}
</style></head><body>{body}</body></html>"""


@dataclass(frozen=True)
class RunFolder:
    """The runs that the page may show.

    Attributes:
        root: A folder of runs, or one run; None where the server was started without one.
    """

    root: Path | None

    @classmethod
    def chosen(cls, ui: bool, folder: str) -> RunFolder | None:
        """As the configuration says; None where there is to be no page."""
        return cls(Path(folder) if folder else None) if ui else None

    def names(self) -> dict[str, Path]:
        """The runs with figures, newest first; links are left out, as they may lead elsewhere."""
        if self.root is None or not self.root.is_dir():
            return {}
        if _is_run(self.root):
            return {self.root.resolve().name: self.root}
        found = [one for one in self.root.iterdir() if not one.is_symlink() and _is_run(one)]
        found.sort(key=lambda one: (one / METRICS).stat().st_mtime, reverse=True)
        return {one.name: one for one in found}

    def listing(self) -> list[dict[str, Any]]:
        """Name, mode and state of each run."""
        return [{"name": name} | _summary(folder) for name, folder in self.names().items()]

    def metrics(self, name: str) -> dict[str, Any]:
        """The run's ``metrics.json``.

        Raises:
            NotFoundError: There is no such run.
        """
        found: dict[str, Any] = read_json(self._folder(name) / METRICS)
        return found

    def document(self, name: str, kind: str) -> str:
        """The run's report, or its model card, as HTML.

        Raises:
            NotFoundError: There is no such run, or it has no such document.
        """
        path = _document(self._folder(name), kind)
        if path is None:
            raise NotFoundError(f"the run has no {kind[:40]!r}", f"ask for one of {', '.join(DOCUMENTS)}")
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".html":
            return text
        body = MarkdownIt("commonmark", {"html": False}).enable("table").render(FRONT_MATTER.sub("", text))
        return CARD_PAGE.format(title=html.escape(f"Model card of {name}"), body=body)

    def _folder(self, name: str) -> Path:
        folder = self.names().get(name)
        if folder is None:
            raise NotFoundError("there is no such run", CURE)
        return folder


def _is_run(folder: Path) -> bool:
    metrics = folder / METRICS
    return metrics.is_file() and not metrics.is_symlink()


def _document(folder: Path, kind: str) -> Path | None:
    """Where it is; a link is none, as it may lead elsewhere."""
    paths = (folder / place for place in DOCUMENTS.get(kind, ()))
    inside = folder.resolve()
    return next((path for path in paths if path.is_file() and path.resolve().is_relative_to(inside)), None)


def _summary(folder: Path) -> dict[str, Any]:
    path = folder / RUN
    told: dict[str, Any] = read_json(path) if path.is_file() and not path.is_symlink() else {}
    documents = [kind for kind in DOCUMENTS if _document(folder, kind) is not None]
    return {key: told.get(key) for key in ("status", "mode", "seconds")} | {"documents": documents}
