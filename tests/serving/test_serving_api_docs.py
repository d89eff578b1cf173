"""The examples of docs/serving-api.md run as they stand, and its tables name what there is."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from uploaded_study import make_upload, zipped

from serving.gateway.rest import schemas_slices, schemas_studies
from serving.gateway.rest.parameters import (
    GradcamParameters,
    MultitaskParameters,
    StudyParameters,
    UncertaintyParameters,
    names_of,
)
from serving.state import StackState
from serving.status import _ERRORS

PAGE = Path(__file__).parents[2] / "docs" / "serving-api.md"
TEXT = PAGE.read_text(encoding="utf-8")
# The page's address stands for whatever port the stack of the tests has.
ADDRESS = "http://127.0.0.1:8080"
EXAMPLES = re.findall(r"^```(bash|python)\n(.*?)^```", TEXT, re.M | re.S)
COMMANDS = {"bash": ["bash", "-euo", "pipefail", "-c"], "python": [sys.executable, "-c"]}


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory, encoded: Callable[..., bytes]) -> Path:
    """The folder that the page describes."""
    folder = tmp_path_factory.mktemp("examples")
    upload = make_upload(tmp_path_factory.mktemp("upload"))
    volume = upload.phantom.images["flair"]
    planes = [(volume[:, :, z].T / volume.max() * 255).astype(np.uint8) for z in range(volume.shape[2])]
    (folder / "stack").mkdir()
    for index, plane in enumerate(planes):
        (folder / "stack" / f"{index:03d}.png").write_bytes(encoded(plane))
    (folder / "slice.png").write_bytes(encoded(planes[len(planes) // 2]))
    (folder / "other.png").write_bytes(encoded(planes[len(planes) // 3]))
    for name in ("flair", "t1"):
        (folder / f"{name}.nii.gz").write_bytes(upload.nifti[name].read_bytes())
    dicom = {f"{path.parent.name}/{path.name}": path.read_bytes() for path in upload.dicom}
    (folder / "study.zip").write_bytes(zipped(dicom))
    return folder


def test_there_are_examples_in_both_languages() -> None:
    assert {language for language, _ in EXAMPLES} == set(COMMANDS)
    assert all(ADDRESS in code for _, code in EXAMPLES)


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_an_example_runs(number: int, stack: StackState, workdir: Path) -> None:
    language, code = EXAMPLES[number]
    command = [*COMMANDS[language], code.replace(ADDRESS, stack.gateway_url)]
    environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    done = subprocess.run(command, cwd=workdir, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{code}\n{done.stdout[-500:]}\n{done.stderr[-1500:]}"


def test_every_parameter_field_and_code_is_told() -> None:
    kinds = (GradcamParameters, UncertaintyParameters, MultitaskParameters, StudyParameters)
    wanted = {name for kind in kinds for name in names_of(kind)} | set(_ERRORS)
    answers = (
        *(schemas_slices.GradcamAnswer, schemas_slices.UncertaintyAnswer, schemas_slices.MultitaskAnswer),
        *(
            schemas_slices.Uncertainty,
            schemas_studies.StudyAnswer,
            schemas_studies.JobAnswer,
            schemas_slices.SegmentBatch,
        ),
    )
    wanted |= {name for answer in answers for name in answer.model_fields}
    told = set(re.findall(r"[a-z][a-z0-9_]+", " ".join(re.findall(r"`([^`\n]+)`", TEXT)), re.I))
    # "tumor_probability … abstain" stands for the fields of classification, which are told above it.
    assert wanted <= told, sorted(wanted - told)
