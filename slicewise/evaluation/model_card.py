"""The model card: Markdown for people, JSON for programs, both from ``metrics.json`` alone.

Its parts are those of Mitchell et al., "Model cards for model reporting", FAT* 2019, and the Markdown begins with the
metadata block that Hugging Face's hub reads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from slicewise import RESEARCH_USE
from slicewise.config import REGIONS
from slicewise.evaluation.facts import gather_facts, limits_of
from slicewise.evaluation.gate.lookup import all_figures, as_figure
from slicewise.evaluation.page_templates import make_environment
from slicewise.evaluation.words import interval, plain, region_words
from slicewise.files import write_json, write_text

MARKDOWN, JSON = "model_card.md", "model_card.json"
Metrics = Mapping[str, Any]
OUT_OF_SCOPE = (
    "diagnosis, triage, treatment planning, or any other decision about a patient",
    "scans of children, after surgery, of other diseases, or of other organs",
    "a second opinion that nobody checks",
    "sources that are not in the data below: judge the model on them first",
)
USERS = "Researchers in medical imaging who look at every answer themselves."
ETHICS = (
    "The data hold no age, sex or ethnicity: nothing is known about fairness between such groups.",
    "A confident map can mislead: masks and explanations are drawn for wrong answers just as for right ones.",
    "Patients' images stay under their owners' terms; the bundle holds weights and figures, no images.",
)
LEVELS = (("slice", "slices"), ("patient", "patients"))
HUB_FIGURES = ("roc_auc", "sensitivity", "specificity")


def model_card(metrics: Metrics, name: str = "slicewise", modalities: Sequence[str] = ()) -> str:
    """The card as Markdown.

    Args:
        metrics: As ``evaluate`` writes them.
        name: The model's name.
        modalities: The network's input channels; those of the data if not given.
    """
    card = model_card_json(metrics, name, modalities)
    template = make_environment(markdown=True).get_template("model_card.md.j2")
    return template.render(card=card, hub=yaml.safe_dump(_hub(card), sort_keys=False, allow_unicode=True))


def model_card_json(metrics: Metrics, name: str = "slicewise", modalities: Sequence[str] = ()) -> dict[str, Any]:
    """The card as data; arguments as for ``model_card``."""
    facts = gather_facts(metrics)
    return {
        "format": "slicewise-model-card",
        "version": 1,
        "research_use": RESEARCH_USE,
        "synthetic": bool(metrics.get("synthetic")),
        "model_details": {
            "name": name,
            "slicewise_version": metrics["slicewise_version"],
            "technology": facts["technology"],
            "architecture": facts["architecture"],
            "input_modalities": list(modalities) or list(metrics["data"].get("modalities") or []),
            "trained_regions": (metrics.get("training") or {}).get("trained_regions") or [],
            "training": facts["training"],
            "software": facts["software"],
            "licence": "Apache-2.0 (software); the weights are bound by the terms of the data",
        },
        "intended_use": {"use": facts["intended_use"], "users": USERS, "out_of_scope": list(OUT_OF_SCOPE)},
        "data": {
            "sources": facts["sources"],
            "images": facts["images"],
            "split": facts["split"],
            "leakage": facts["disjoint"],
            "excluded": facts["excluded"],
            "test_cases": facts["cases"],
            "reference": facts["regions"],
            "data_digest": metrics["data_digest"],
        },
        "decision": facts["decision"],
        "figures": _figures(metrics),
        "subgroups": _subgroups(metrics),
        "calibration": {"summary": facts["calibration"], "figures": _calibration(metrics)},
        "uncertainty": {"summary": facts["uncertainty"], "figures": _section(metrics, "uncertainty")},
        "explanation": {"summary": facts["explanation"]},
        "failures": facts["failures"],
        "gate": {
            "passed": bool(metrics["verdict"]["passed"]),
            "summary": facts["verdict"],
            "reasons": list(metrics["verdict"]["reasons"]),
        },
        "ethical_considerations": list(ETHICS),
        "limits": limits_of(metrics),
    }


def write_model_card(metrics: Metrics, folder: Path, name: str = "slicewise") -> list[Path]:
    """Write ``model_card.md`` and ``model_card.json`` into ``folder``."""
    write_text(folder / MARKDOWN, model_card(metrics, name))
    write_json(folder / JSON, model_card_json(metrics, name))
    return [folder / MARKDOWN, folder / JSON]


def _row(name: str, figure: Any) -> dict[str, Any] | None:
    """A figure with its name; None for what is no figure or undefined."""
    found = as_figure(figure) if isinstance(figure, Mapping) else None
    return None if found is None or found.value is None else {"figure": name, **found.model_dump()}


def _figures(metrics: Metrics) -> list[dict[str, Any]]:
    rows = []
    for level, words in LEVELS:
        figures = metrics["classification"][level]["figures"]
        rows += [_row(f"{plain(key)}, {words}", value) for key, value in figures.items()]
    for region in REGIONS:
        figures = metrics["segmentation"][region]
        rows += [
            _row(f"{plain(key)} of the {region_words(region)} ({region})", value) for key, value in figures.items()
        ]
    return [row for row in rows if row is not None]


def _subgroups(metrics: Metrics) -> list[dict[str, Any]]:
    return [
        {"group": by, "name": name, **row}
        for by, groups in (metrics.get("subgroups") or {}).items()
        for name, found in groups.items()
        for key, value in found.items()
        if (row := _row(plain(key), value)) is not None
    ]


def _calibration(metrics: Metrics) -> list[dict[str, Any]]:
    found = []
    for output, sides in (metrics.get("calibration_figures") or {}).items():
        for when in ("before", "after"):
            figures = (((sides or {}).get("test") or {}).get(when) or {}).get("figures") or {}
            rows = [_row(f"{plain(key)}, {output}, {when}", value) for key, value in figures.items()]
            found += [row for row in rows if row is not None]
    return found


def _section(metrics: Metrics, name: str) -> list[dict[str, Any]]:
    """Every figure with an n of a section."""
    if not isinstance(metrics.get(name), Mapping):
        return []
    rows = [(path.partition(".")[2], figure) for path, figure in all_figures({name: metrics[name]})]
    return [
        {"figure": plain(path), **figure.model_dump()}
        for path, figure in rows
        if figure.n and figure.value is not None
    ]


def _hub(card: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata block: tags, and the headline results."""
    wanted = {f"{plain(key)}, slices" for key in HUB_FIGURES} | {"Dice of the whole tumour (WT)"}
    results = [
        {"type": row["figure"], "value": round(row["value"], 4), "name": f"{row['figure']}: {interval(row)}"}
        for row in card["figures"]
        if row["figure"] in wanted
    ]
    return {
        "library_name": "slicewise",
        "pipeline_tag": "image-segmentation",
        "tags": ["medical", "brain-mri", "glioma", "research-use-only", "not-for-diagnosis"],
        "model-index": [
            {
                "name": card["model_details"]["name"],
                "results": [
                    {
                        "task": {"type": "image-segmentation"},
                        "dataset": {"name": "test split", "type": card["data"]["data_digest"][:16]},
                        "metrics": results,
                    }
                ],
            }
        ],
    }
