"""The leakage audit: looks at the store and at the sides of a split, and trusts nothing the split says of itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from slicewise.config import SplitConfig
from slicewise.slices.audit_file import Audit, Disagreement, DuplicateGroup, Member, load_audit, write_audit
from slicewise.slices.groups import (
    DUPLICATES,
    Conflict,
    Kind,
    Link,
    find_links,
    joined,
    label_conflicts,
    patient_groups,
    presence,
)
from slicewise.slices.split_file import SIDES, Split
from slicewise.slices.store import SliceStore

__all__ = ["Audit", "audit_split", "load_audit", "write_audit"]

NOWHERE = "no side"
WORDS: dict[Kind, str] = {
    "patient": "one patient",
    "alias": "one patient under two names",
    "content": "the same pixels listed twice under two names",
    "near": "near-duplicates",
}


def audit_split(store: SliceStore, split: Split, config: SplitConfig, links: Sequence[Link] | None = None) -> Audit:
    """Look for everything that would let a model see its test studies before the test.

    Args:
        store: The slice store.
        split: The sides.
        config: The section ``split``: thresholds, aliases, and what to do with labels that disagree.
        links: What ``find_links`` found in this store, where that is at hand.
    """
    links = find_links(store, config) if links is None else links
    where = _sides(split)
    conflicts = label_conflicts(store, links)
    problems = [*_listing(store, split), *_crossings(links, where)]
    if config.on_label_conflict != "warn":
        problems += [_disagreement(conflict, where) for conflict in conflicts if _takes_part(conflict, where)]
    groups = _duplicate_groups(store, links, where)
    return Audit(
        passed=not problems,
        data_digest=store.index.data_digest,
        problems=tuple(problems),
        counts=_counts(store, links, config, groups, len(conflicts), len(split.excluded)),
        thresholds={
            "near_duplicate_correlation": config.near_duplicate_correlation,
            "near_duplicate_bits": config.near_duplicate_bits,
        },
        groups=tuple(groups),
        disagreements=tuple(Disagreement(studies=c.studies, reason=c.reason) for c in conflicts),
        excluded=dict(split.excluded),
    )


def _sides(split: Split) -> dict[str, list[str]]:
    where: dict[str, list[str]] = {}
    for side in SIDES:
        for key in split.side(side):
            where.setdefault(key, []).append(side)
    return where


def _listing(store: SliceStore, split: Split) -> Iterator[str]:
    """Is it a split of this data, and is every study on one side?"""
    if split.data_digest != store.index.data_digest:
        digests = split.data_digest[:12], store.index.data_digest[:12]
        yield "the split was made for other data (digest {}, not {})".format(*digests)
    listed = Counter(key for side in SIDES for key in split.side(side))
    for key in sorted(set(listed) | set(split.excluded) | set(store.studies)):
        if key not in store.studies:
            yield f"{key} is in the split but not in the store"
        elif key in split.excluded and listed[key]:
            yield f"{key} is excluded but on a side"
        elif key not in split.excluded and listed[key] != 1:
            yield f"{key} is on {listed[key] or 'no'} side{'s' if listed[key] else ''}"


def _crossings(links: Sequence[Link], where: dict[str, list[str]]) -> Iterator[str]:
    """Links between two sides."""
    for link in links:
        sides = [set(where.get(key, ())) for key in (link.first, link.second)]
        if all(sides) and sides[0] != sides[1]:
            places = " and ".join(
                f"{key} in {'+'.join(sorted(side))}"
                for key, side in zip((link.first, link.second), sides, strict=True)
            )
            similarity = f" (correlation {link.similarity:.2f})" if link.kind == "near" else ""
            yield f"{places} are {WORDS[link.kind]}{similarity}"


def _takes_part(conflict: Conflict, where: dict[str, list[str]]) -> bool:
    return any(key in where for key in conflict.studies)


def _disagreement(conflict: Conflict, where: dict[str, list[str]]) -> str:
    sides = sorted({side for key in conflict.studies for side in where.get(key, ())})
    return f"duplicates in {', '.join(sides)} have labels that disagree: {conflict.reason}"


def _duplicate_groups(store: SliceStore, links: Sequence[Link], where: dict[str, list[str]]) -> list[DuplicateGroup]:
    shown = [link for link in links if link.kind != "patient"]
    sets = [keys for keys in joined(store.studies, shown) if len(keys) > 1]
    owner = {key: at for at, keys in enumerate(sets) for key in keys}
    inside: list[list[Link]] = [[] for _ in sets]
    for link in shown:
        inside[owner[link.first]].append(link)
    groups = [
        DuplicateGroup(
            kinds=tuple(sorted({link.kind for link in found})),
            similarity=min(link.similarity for link in found),
            members=tuple(_member(store, key, where) for key in keys),
        )
        for keys, found in zip(sets, inside, strict=True)
    ]
    return sorted(groups, key=lambda group: (-len(group.members), group.members[0].study))


def _member(store: SliceStore, key: str, where: dict[str, list[str]]) -> Member:
    study = store.studies[key]
    side = "+".join(where.get(key, ())) or NOWHERE
    return Member(study=key, patient=study.patient_id, side=side, label=presence(study))


def _counts(
    store: SliceStore,
    links: Sequence[Link],
    config: SplitConfig,
    groups: Sequence[DuplicateGroup],
    disagree: int,
    excluded: int,
) -> dict[str, int]:
    of_patients = patient_groups(store, links, config.aliases)
    same_pixels = [keys for keys in joined(store.studies, (x for x in links if x.kind == "content")) if len(keys) > 1]
    named = [{store.studies[key].patient_id for key in keys} - {None} for keys in same_pixels]
    duplicates = [group for group in groups if set(group.kinds) & set(DUPLICATES)]
    sides = [{member.side for member in group.members} - {NOWHERE} for group in groups]
    return {
        "studies": len(store.studies),
        "patient_groups": len(of_patients),
        "groups_of_several_studies": sum(len(keys) > 1 for keys in of_patients.values()),
        "duplicate_groups": len(duplicates),
        "studies_in_duplicate_groups": sum(len(group.members) for group in duplicates),
        "identical_groups": len(same_pixels),
        "studies_in_identical_groups": sum(map(len, same_pixels)),
        "near_duplicate_pairs": sum(link.kind == "near" for link in links),
        "patients_under_two_names": sum("alias" in group.kinds for group in groups)
        + sum(len(names) > 1 for names in named),
        "duplicates_that_disagree": disagree,
        "duplicate_groups_across_sides": sum(len(found) > 1 for found in sides),
        "excluded": excluded,
    }
