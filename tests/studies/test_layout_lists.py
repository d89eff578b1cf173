from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slicewise.errors import SourceError
from slicewise.studies.layouts import discover
from slicewise.studies.list_rows import KEYS
from slicewise.studies.study import StudyRecord

FILES = ("a.nii.gz", "b/c.nii", "d.nii", "label.nii")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return fill(tmp_path)


def fill(folder: Path) -> Path:
    for name in FILES:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


def by_csv(folder: Path, text: str) -> list[StudyRecord]:
    (folder / "studies.csv").write_text(text, encoding="utf-8")
    return discover(folder, "mine")


def by_json(folder: Path, value: Any) -> list[StudyRecord]:
    text = value if isinstance(value, str) else json.dumps(value)
    (folder / "studies.json").write_text(text, encoding="utf-8")
    return discover(folder, "mine")


def test_csv_and_json_say_the_same(folder: Path) -> None:
    rows = "study_id,patient_id,Flair,t1,label,grade,labels\nA,P,a.nii.gz,b/c.nii,label.nii,hgg,msd\nB,,,d.nii,,,\n"
    first, second = by_csv(folder, rows)
    assert (first.study_id, first.patient_id, first.layout, first.grade) == ("A", "P", "nifti", "HGG")
    assert first.images == {"flair": ("a.nii.gz",), "t1": ("b/c.nii",)}
    assert first.labels == ("label.nii",)
    assert first.label_map == {1: 2, 2: 1, 3: 4}
    assert (second.patient_id, second.images, second.labels) == ("B", {"t1": ("d.nii",)}, ())
    (folder / "studies.csv").unlink()
    a = {"study_id": "A", "patient_id": "P", "flair": "a.nii.gz", "t1": "b/c.nii", "label": "label.nii"}
    assert by_json(folder, [a | {"grade": "HGG", "labels": "msd"}, {"study_id": "B", "t1": "d.nii", "t2": None}]) == [
        first,
        second,
    ]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_separators_byte_order_mark_quotes_and_empty_lines(folder: Path, delimiter: str) -> None:
    lines = ["\ufeffstudy_id,t1", "", 'A,"a.nii.gz"', ",", "B , b\\c.nii"]
    records = by_csv(folder, "\r\n".join(lines).replace(",", delimiter))
    assert [record.images["t1"] for record in records] == [("a.nii.gz",), ("b/c.nii",)]


def test_the_list_decides_alone(folder: Path) -> None:
    (folder / "X_flair.nii").write_bytes(b"x")
    assert [record.study_id for record in by_csv(folder, "study_id,t1\nA,a.nii.gz\n")] == ["A"]


def test_tumour_without_a_label_holds_only_when_there_is_none(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    records = by_csv(folder, "study_id,t1,tumor\nA,a.nii.gz,no\nB,d.nii,yes\n")
    assert [record.tumour for record in records] == [False, None]
    assert "line 3: tumour is yes without a label" in caplog.text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "lists no study"),
        ("study_id,t1\n", "lists no study"),
        ("study_id,flare\nA,a.nii.gz\n", r"line 1: unknown name 'flare' — did you mean flair\?"),
        ("study_id,wobble\nA,a\n", r"unknown name 'wobble' — known are study_id"),
        ("study_id,t1,T1\nA,a.nii.gz,d.nii\n", "the column t1 is there twice"),
        ("t1\na.nii.gz\n", "line 2: study_id is missing"),
        ("study_id,t1\nA,\n", "line 2: study A names no image"),
        ("study_id,t1\nA,a.nii.gz,b\n", "line 2: 3 cells under 2 columns"),
        ("study_id,t1\nA,e.nii\n", "line 2: t1 names e.nii, which is not there"),
        ("study_id,t1\nA,../x.nii\n", r"line 2: t1 names '../x.nii', outside the folder"),
        ("study_id,t1\nA,/etc/passwd\n", "outside the folder"),
        ("study_id,t1\nA,C:\\x.nii\n", "outside the folder"),
        ("study_id,t1\nA,b\n", "t1 names b, which is not there"),
        ("study_id,t1\nA,.\n", "outside the folder|not there"),
        ("study_id,t1\n../A,a.nii.gz\n", "study_id '../A' is not a plain name"),
        ("study_id,t1\nA,a.nii.gz\nA,d.nii\n", "line 3: study_id A is also in .*line 2"),
        ("study_id,t1,t2\nA,a.nii.gz,a.nii.gz\n", "a.nii.gz is also used in .*line 2"),
        ("study_id,t1\nA,a.nii.gz\nB,a.nii.gz\n", "line 3: a.nii.gz is also used in .*line 2"),
        ("study_id,t1,labels\nA,a.nii.gz,nnunet\n", "labels is 'nnunet' — write one of brats, brats2023"),
        ("study_id,t1,grade\nA,a.nii.gz,IV\n", "grade is 'IV' — write one of HGG, LGG"),
        ("study_id,t1,tumour\nA,a.nii.gz,maybe\n", "tumour is 'maybe'"),
        ('study_id,t1\nA,"a.nii.gz\n', "no valid CSV"),
        ("study_id,t1\nA,a\x00b\n", "line 2: t1 .*unprintable|no valid CSV"),
    ],
)
def test_bad_csv_names_line_and_cure(folder: Path, text: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        by_csv(folder, text)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("[", "not valid JSON"),
        ("{}", "is not a list"),
        ("[]", "lists no study"),
        ("[1]", "item 1 is not an object"),
        ('[{"study_id": "A", "study_id": "B", "t1": "a.nii.gz"}]', "the key 'study_id' is there twice"),
        ([{"study_id": "A", "t1": "a.nii.gz", "T1": "d.nii"}], "item 1: t1 is given twice"),
        ([{"study_id": 7, "t1": "a.nii.gz"}], "item 1: study_id is a number, not text"),
        ([{"study_id": "A", "t1": ["a.nii.gz"]}], "t1 is a list"),
        ([{"study_id": "A", "t1": {"path": "a.nii.gz"}}], "t1 is an object"),
        ([{"study_id": "A", "t1": True}], "t1 is true or false"),
        ([{"study_id": "A", "t1ec": "a.nii.gz"}], r"did you mean t1ce\?"),
        ('[{"study_id": NaN}]', "NaN is no JSON number"),
        ("[" * 100_000, "nested too deep"),
        ('[{"study_id": ' + "9" * 10_000 + "}]", "not valid JSON|is a number"),
        ("\ud800".encode("utf-8", "surrogatepass"), "not valid JSON"),
    ],
)
def test_bad_json_names_item_and_cure(folder: Path, value: Any, message: str) -> None:
    if isinstance(value, bytes):
        (folder / "studies.json").write_bytes(value)
        value = None
    with pytest.raises(SourceError, match=message):
        discover(folder, "x") if value is None else by_json(folder, value)


def test_both_lists_are_refused(folder: Path) -> None:
    (folder / "studies.json").write_text("[]")
    with pytest.raises(SourceError, match="both studies.csv and studies.json"):
        by_csv(folder, "study_id,t1\nA,a.nii.gz\n")


CELLS = st.one_of(
    st.sampled_from([*FILES, "", "A", "yes", "hgg", "msd", "../x", "a\nb", '"', "\x00"]), st.text(max_size=8)
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | CELLS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | CELLS, inner, max_size=6),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(
    header=st.lists(st.sampled_from(KEYS) | CELLS, max_size=5), rows=st.lists(st.lists(CELLS, max_size=6), max_size=4)
)
def test_any_csv_gives_sound_records_or_one_error(
    tmp_path_factory: Any, header: list[str], rows: list[list[str]]
) -> None:
    folder = fill(tmp_path_factory.mktemp("csv"))
    text = "\n".join(",".join(cells) for cells in [header, *rows])
    (folder / "studies.csv").write_bytes(text.encode("utf-8", "surrogatepass"))
    _require_sound(folder)


@settings(max_examples=150, deadline=None)
@given(value=st.lists(st.dictionaries(st.sampled_from(KEYS), CELLS, max_size=5) | JSON, max_size=4) | JSON)
def test_any_json_gives_sound_records_or_one_error(tmp_path_factory: Any, value: Any) -> None:
    folder = fill(tmp_path_factory.mktemp("json"))
    (folder / "studies.json").write_bytes(json.dumps(value).encode())
    _require_sound(folder)


LIKELY = st.fixed_dictionaries(
    {"study_id": st.sampled_from("ABCDEF"), "t1": st.sampled_from(FILES)},
    optional={
        "patient_id": st.sampled_from(["P", "Q", "p q"]),
        "flair": st.sampled_from(FILES),
        "label": st.sampled_from([*FILES, "none.nii"]),
        "labels": st.sampled_from(["brats", "MSD", "whole", "x"]),
        "grade": st.sampled_from(["HGG", "lgg"]),
        "tumour": st.sampled_from(["yes", "No", "0"]),
    },
)


@settings(max_examples=150, deadline=None)
@given(rows=st.lists(LIKELY, min_size=1, max_size=3))
def test_csv_and_json_agree(tmp_path_factory: Any, rows: list[dict[str, str]]) -> None:
    outcomes = []
    for name in ("studies.csv", "studies.json"):
        folder = fill(tmp_path_factory.mktemp("both"))
        with (folder / name).open("w", newline="") as handle:
            if name.endswith("json"):
                json.dump(rows, handle)
            else:
                writer = csv.DictWriter(handle, KEYS)
                writer.writeheader()
                writer.writerows(rows)
        try:
            outcomes.append(discover(folder, "x"))
        except SourceError as refused:
            # The same complaint, but for the place: a line there, an item here.
            outcomes.append(re.sub(r"\S*studies\.(csv, line|json, item) \d+", "", str(refused)))
    assert outcomes[0] == outcomes[1]


@settings(max_examples=100, deadline=None)
@given(content=st.binary(max_size=200), name=st.sampled_from(["studies.csv", "studies.json"]))
def test_any_bytes_give_one_error(tmp_path_factory: Any, content: bytes, name: str) -> None:
    folder = fill(tmp_path_factory.mktemp("bytes"))
    (folder / name).write_bytes(content)
    _require_sound(folder)


def _require_sound(folder: Path) -> None:
    error = ""
    records: list[StudyRecord] = []
    try:
        records = discover(folder, "x")
    except SourceError as refused:
        error = str(refused)
    assert bool(error) != bool(records)
    assert "\n" not in error
    used = [path for record in records for paths in (*record.images.values(), record.labels) for path in paths]
    assert set(used) <= set(FILES)
    assert len(set(used)) == len(used)
    assert len({record.study_id for record in records}) == len(records)
