"""The tables of ``docs/results.md`` as Markdown, from the results that the studies have left.

    python benchmarks/studies/tables.py [--results FOLDER] [TABLE...]

TABLE: served, lgg, brats, kaggle, sharing, subsets, patients. Trains nothing and reads the JSON files of
``benchmarks/results/studies``, or of ``first`` in there for those of the first recipe.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from figures import RESULTS

from slicewise.config import REGIONS
from slicewise.files import read_json

SHOWN = {"all": "all modalities", "flair": "FLAIR only"}
SOURCES = {"lgg": "LGG", "brats": "BraTS"}
TRAINED = {"both": "LGG and BraTS", "lgg": "LGG alone", "brats": "BraTS alone"}
STARTS = {
    "scratch": "nothing",
    "segmentation": "`seg_warmup` on LGG and BraTS (fold 0)",
    "imagenet": "ImageNet (EfficientNet-Lite0)",
}
SCORES = ("auc", "accuracy", "sensitivity", "specificity")
Row = Sequence[str]
Results = Callable[[str], dict[str, Any]]


def figure(found: dict[str, Any], digits: int = 2) -> str:
    """``0.62 (0.49–0.73), n=18``."""
    value, low, high = (f"{found[name]:.{digits}f}" for name in ("value", "low", "high"))
    return f"{value} ({low}–{high}), n={found['n']}"


def difference(found: dict[str, Any]) -> str:
    """``-0.026 (-0.066 to +0.008)``."""
    value, low, high = (f"{found[name]:+.3f}" for name in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def markdown(head: Row, rows: Iterable[Row]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def served(load: Results) -> str:
    table = load("served")["table"]
    rows = [
        (
            f"{SOURCES[source]}, {region}",
            SHOWN[part],
            figure(ways["plain"][region]),
            figure(ways["processed"][region]),
        )
        for source, parts in table.items()
        for region in REGIONS
        for part, ways in parts.items()
        if region in ways["plain"]
    ]
    return markdown(("patients", "input", "network alone", "with the chosen post-processing"), rows)


def lgg(load: Results) -> str:
    rows = [
        (TRAINED[arm], SHOWN[part], figure(found["WT"]), figure(found["slices"]))
        for arm, parts in load("lgg")["table"].items()
        for part, found in parts.items()
    ]
    return markdown(("trained on", "input", "Dice per patient", "Dice per slice with tumour"), rows)


def brats(load: Results) -> str:
    rows = [
        (TRAINED[arm], SHOWN[part], *(figure(found[region]) for region in REGIONS))
        for arm, parts in load("brats")["table"].items()
        if arm in TRAINED
        for part, found in parts.items()
    ]
    return markdown(("trained on", "input", *REGIONS), rows)


def kaggle(load: Results) -> str:
    rows: list[Row] = []
    for arm, found in load("kaggle")["arms"].items():
        repeats = found["repeats"]
        for number, scores in enumerate(repeats, start=1):
            shown = [figure(scores[name], 3).split(",")[0] for name in SCORES]
            cut = f"{scores['accuracy_at_validation_cut']['value']:.3f}"
            rows.append((STARTS[arm] if number == 1 else "", str(number), *shown, cut))
        names = (*SCORES, "accuracy_at_validation_cut")
        means = [sum(scores[name]["value"] for scores in repeats) / len(repeats) for name in names]
        rows.append(("", "**mean**", *(f"**{mean:.3f}**" for mean in means)))
    head = ("encoder starts from", "repeat", "ROC-AUC", *SCORES[1:], "accuracy at the validation threshold")
    return markdown(head, rows)


def sharing(load: Results) -> str:
    table = load("sharing")["table"]
    names = {"both": "two tasks", "segment": "segmentation only", "classify": "classification only"}
    rows = []
    for arm, name in names.items():
        if arm not in table:
            continue
        dice, scores = table[arm].get("dice"), table[arm].get("classification")
        row = [figure(dice[source]["WT"]) if dice else "–" for source in SOURCES]
        rows.append((name, *row, *(figure(scores[key]) if scores else "–" for key in SCORES[:2])))
    head = ("network", "WT, LGG", "WT, BraTS", "tumour on a slice: ROC-AUC", "accuracy")
    paired = [
        (SOURCES[source], figure(found["warmup"]), figure(found["all"]), difference(found["difference"]))
        for source, found in table["joint_against_warmup"].items()
    ]
    return markdown(head, rows) + "\n\n" + markdown(("patients", "warm-up", "joint", "difference"), paired)


def subsets(load: Results) -> str:
    rows = [(name.replace("+", ", "), figure(found)) for name, found in load("subsets")["table"].items()]
    return markdown(("modalities", "WT"), rows)


def patients(load: Results) -> str:
    table = load("served")["table"]
    rows = []
    for parts in table.values():
        dice = {part: parts[part]["processed"]["patients_wt"] for part in SHOWN}
        rows += [(f"`{study}`", *(f"{dice[part][study]:.2f}" for part in SHOWN)) for study in dice["all"]]
    return markdown(("patient", *SHOWN.values()), sorted(rows, key=lambda row: row[1]))


TABLES = {made.__name__: made for made in (served, lgg, brats, kaggle, sharing, subsets, patients)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", metavar="TABLE", help=", ".join(TABLES))
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    for name in options.tables or TABLES:
        print(f"## {name}\n\n{TABLES[name](lambda study: read_json(options.results / f'{study}.json'))}\n")


if __name__ == "__main__":
    main()
