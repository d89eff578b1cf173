"""Software bill of materials and licence list of the running Python environment: ``python inventory.py FOLDER``.

Writes ``sbom.json`` (CycloneDX 1.5, https://cyclonedx.org/specification/overview/) and ``licences.txt``.
Python packages only: the base image's own packages are its publisher's to list.
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import Distribution, distributions
from pathlib import Path

UNKNOWN = "unknown"
PREFIX = "License :: "


def licence(package: Distribution) -> str:
    """The licence expression, else the classifiers, else the licence field's first line."""
    metadata = package.metadata
    if "License-Expression" in metadata:
        return metadata["License-Expression"]
    classifiers = [entry for entry in metadata.get_all("Classifier") or [] if entry.startswith(PREFIX)]
    if classifiers:
        return "; ".join(entry.rpartition(" :: ")[2] for entry in classifiers)
    fields = metadata.get_all("License") or [UNKNOWN]
    return (fields[0].strip() or UNKNOWN).splitlines()[0][:80]


def packages() -> list[tuple[str, str, str]]:
    """Name, version and licence of each package, by name."""
    found = {(str(item.metadata["Name"]), item.version, licence(item)) for item in distributions()}
    return sorted(found, key=lambda item: item[0].lower())


def sbom(listed: list[tuple[str, str, str]]) -> dict[str, object]:
    """The CycloneDX document."""
    components = [
        {
            "type": "library",
            "name": name,
            "version": version,
            "purl": f"pkg:pypi/{name.lower().replace('_', '-')}@{version}",
            "licenses": [{"license": {"name": terms}}],
        }
        for name, version, terms in listed
    ]
    return {"bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1, "components": components}


def main(folder: Path) -> None:
    """Write both files."""
    folder.mkdir(parents=True, exist_ok=True)
    listed = packages()
    (folder / "sbom.json").write_text(json.dumps(sbom(listed), indent=1) + "\n", encoding="utf-8")
    lines = [f"{name} {version}: {terms}\n" for name, version, terms in listed]
    (folder / "licences.txt").write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
