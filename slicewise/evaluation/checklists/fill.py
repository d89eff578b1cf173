"""Filling the checklists.

The items lie in YAML files beside this module, in our own words; the publications that the lists cite have theirs. An
item names the facts that answer it, what always holds for this software (``says``), and what is left for people
(``left``). It is open where a fact is missing, or where only people can answer.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict

from slicewise import RESEARCH_USE
from slicewise.evaluation.facts import gather_facts, told
from slicewise.evaluation.words import markdown
from slicewise.files import write_json, write_text

FILES = ("claim-2024", "tripod-ai")
Status = Literal["answered", "partly", "open"]
TABLE = "| item | asks | status | answer | left to do |\n| --- | --- | --- | --- | --- |"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Item(_Record):
    """One item of a list.

    Attributes:
        number: As in the publication.
        section: Of the list.
        topic: In a few words.
        asks: What it asks for, in our words.
        facts: Names of facts that answer it.
        says: What holds for every run of this software.
        left: What people have to add; empty where the answer is whole.
    """

    number: str
    section: str
    topic: str
    asks: str
    facts: tuple[str, ...] = ()
    says: str = ""
    left: str = ""


class Checklist(_Record):
    """A list as it lies in its file."""

    title: str
    citation: str
    items: tuple[Item, ...]


class FilledItem(_Record):
    """An item with its answer; None where it is open."""

    number: str
    section: str
    topic: str
    asks: str
    status: Status
    answer: str | None
    left: str


class Filled(_Record):
    """A filled list.

    Attributes:
        name: Of its files.
        counts: How many items are ``answered``, ``partly`` answered, ``open``.
    """

    name: str
    title: str
    citation: str
    research_use: str
    counts: dict[Status, int]
    items: tuple[FilledItem, ...]


def fill_checklists(metrics: Mapping[str, Any]) -> list[Filled]:
    """Fill CLAIM 2024 and TRIPOD+AI."""
    facts = gather_facts(metrics)
    return [_fill(name, facts) for name in FILES]


def write_checklists(metrics: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write each filled list as Markdown and as JSON into ``folder``."""
    paths = []
    for filled in fill_checklists(metrics):
        write_text(folder / f"{filled.name}.md", to_markdown(filled))
        write_json(folder / f"{filled.name}.json", filled.model_dump(mode="json"))
        paths += [folder / f"{filled.name}.md", folder / f"{filled.name}.json"]
    return paths


@functools.cache
def load_checklist(name: str) -> Checklist:
    """Read a list."""
    text = resources.files("slicewise.evaluation.checklists").joinpath(f"{name}.yaml").read_text(encoding="utf-8")
    return Checklist.model_validate(yaml.safe_load(text))


def _fill(name: str, facts: Mapping[str, str | None]) -> Filled:
    checklist = load_checklist(name)
    items = tuple(_answer(item, facts) for item in checklist.items)
    found = Counter(item.status for item in items)
    counts: dict[Status, int] = {"answered": found["answered"], "partly": found["partly"], "open": found["open"]}
    return Filled(
        name=name,
        title=checklist.title,
        citation=checklist.citation,
        research_use=RESEARCH_USE,
        counts=counts,
        items=items,
    )


def _answer(item: Item, facts: Mapping[str, str | None]) -> FilledItem:
    known = told(facts, item.facts)
    answer = None if known is None else " ".join(part for part in (known, item.says.strip()) if part) or None
    status: Status = "open" if answer is None else ("partly" if item.left else "answered")
    left = item.left or ("" if answer else "this run has nothing that answers it")
    return FilledItem(
        status=status, answer=answer, left=left, **item.model_dump(include={"number", "section", "topic", "asks"})
    )


def to_markdown(filled: Filled) -> str:
    """The list as a table for each section."""
    counts = filled.counts
    lines = [
        f"# {filled.title}",
        "",
        f"**{filled.research_use}**",
        "",
        f"{filled.citation} The items are told in our own words; read the publication for theirs.",
        "",
        f"From metrics.json: {counts['answered']} answered, {counts['partly']} in part, {counts['open']} open.",
    ]
    section = ""
    for item in filled.items:
        if item.section != section:
            section = item.section
            lines += ["", f"## {section}", "", TABLE]
        cells = (item.number, f"**{item.topic}**: {item.asks}", item.status, item.answer or "", item.left)
        lines.append("| " + " | ".join(markdown(cell) for cell in cells) + " |")
    return "\n".join(lines) + "\n"
