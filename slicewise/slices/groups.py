"""Patient groups: everything that must stay on one side of a split."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from slicewise.config import SplitConfig
from slicewise.slices.duplicates import near_duplicates
from slicewise.slices.store import SliceStore, StudyEntry

logger = logging.getLogger(__name__)

Kind = Literal["patient", "alias", "content", "near"]
DUPLICATES: tuple[Kind, ...] = ("content", "near")


@dataclass(frozen=True)
class Link:
    """Why two studies belong together.

    Attributes:
        first: Key of one study.
        second: Key of the other.
        kind: One patient id, two names of one person, the same pixels, or pictures that are near-duplicates.
        similarity: 1, or the registered correlation of near-duplicates.
    """

    first: str
    second: str
    kind: Kind
    similarity: float = 1.0


@dataclass(frozen=True)
class Conflict:
    """Duplicates whose labels disagree.

    Attributes:
        studies: The keys of all duplicates.
        reason: What differs.
    """

    studies: tuple[str, ...]
    reason: str


class _Union:
    """Disjoint sets over strings."""

    def __init__(self, items: Iterable[str]) -> None:
        self.parent = {item: item for item in items}

    def find(self, item: str) -> str:
        while self.parent[item] != item:
            self.parent[item] = self.parent[self.parent[item]]
            item = self.parent[item]
        return item

    def join(self, a: str, b: str) -> None:
        first, second = sorted((self.find(a), self.find(b)))
        self.parent[second] = first


def find_links(store: SliceStore, config: SplitConfig) -> list[Link]:
    """All reasons for which studies of the store belong together.

    Studies with patient ids are joined by these and by identical content alone: two patients' anatomy may
    resemble each other. Only single images without patient ids are compared by what they show.
    """
    links: list[Link] = []
    first_of: dict[str, StudyEntry] = {}
    names = canonical_names(config.aliases)
    for study in store.studies.values():
        marks: dict[str, Kind] = {f"content:{study.content_xxh3}": "content"}
        if study.patient_id is not None:
            marks[f"patient:{names.get(study.patient_id, study.patient_id)}"] = "patient"
        for mark, kind in marks.items():
            first = first_of.setdefault(mark, study)
            if first is not study:
                another = kind == "patient" and first.patient_id != study.patient_id
                links.append(Link(first.key, study.key, "alias" if another else kind))
    once = {study.content_xxh3: study.key for study in reversed(store.studies.values()) if is_single_image(study)}
    twins = near_duplicates(
        store, sorted(once.values()), config.near_duplicate_bits, config.near_duplicate_correlation
    )
    return links + [Link(pair.first, pair.second, "near", round(pair.similarity, 4)) for pair in twins]


def is_single_image(study: StudyEntry) -> bool:
    """Whether the study is a single image of an unknown patient."""
    return study.patient_id is None and len(study.slices) == 1


def canonical_names(aliases: Mapping[str, Iterable[str]]) -> dict[str, str]:
    """Alias → the name it stands for."""
    return {alias: name for name, others in aliases.items() for alias in others}


def joined(keys: Iterable[str], links: Iterable[Link]) -> list[list[str]]:
    """The sets into which ``links`` join the keys, each sorted, those of one key too."""
    union = _Union(keys)
    for link in links:
        union.join(link.first, link.second)
    sets: dict[str, list[str]] = defaultdict(list)
    for key in sorted(union.parent):
        sets[union.find(key)].append(key)
    return list(sets.values())


def patient_groups(
    store: SliceStore, links: Iterable[Link], aliases: Mapping[str, Iterable[str]]
) -> dict[str, list[str]]:
    """Name → keys of the studies that must stay together.

    A group's name is its smallest patient id, or where it has none its smallest study key: it stays when other
    groups are added.
    """
    names = canonical_names(aliases)
    groups: dict[str, list[str]] = {}
    for keys in joined(store.studies, links):
        patients = {study.patient_id for study in (store.studies[key] for key in keys) if study.patient_id}
        name = min((names.get(patient, patient) for patient in patients), default=keys[0])
        groups[f"{name} ({keys[0]})" if name in groups else name] = keys
    return dict(sorted(groups.items()))


def label_conflicts(store: SliceStore, links: Iterable[Link]) -> list[Conflict]:
    """Duplicates of which some show tumour and others do not, or whose masks differ."""
    conflicts = []
    for keys in joined(store.studies, [link for link in links if link.kind in DUPLICATES]):
        if len(keys) < 2:
            continue
        known = {key: presence(store.studies[key]) for key in keys}
        masks = {(store.studies[key].content_xxh3, store.studies[key].label_xxh3) for key in keys} - {
            (store.studies[key].content_xxh3, None) for key in keys
        }
        if {"tumour", "none"} <= set(known.values()):
            said = ", ".join(f"{key} {what}" for key, what in known.items())
            conflicts.append(Conflict(tuple(keys), f"tumour or not: {said}"))
        elif len(masks) > len({content for content, _ in masks}):
            conflicts.append(Conflict(tuple(keys), f"the masks of {' and '.join(keys)} differ"))
    return conflicts


def presence(study: StudyEntry) -> Literal["tumour", "none", "unknown"]:
    """Whether the study shows tumour."""
    if study.has_tumour:
        return "tumour"
    return "none" if any(entry.tumour is False for entry in study.slices) else "unknown"
