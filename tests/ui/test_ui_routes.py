"""The page's own routes: headers, samples, pictures, runs, and what they refuse."""

from __future__ import annotations

import io
import json
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from serving.gateway.__main__ import parse
from serving.kserve_manifest import inference_service
from serving.state import StackState
from serving.status import NotFoundError
from serving.ui import samples
from serving.ui.pictures import grey_levels, grey_png, label_png
from serving.ui.routes import STATIC
from serving.ui.runs import RunFolder
from slicewise.config import ServeConfig
from slicewise.errors import InputError


@pytest.fixture(scope="module")
def client(stack: StackState) -> httpx.Client:
    return httpx.Client(base_url=stack.gateway_url, timeout=60, trust_env=False)


def pixels(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)))


def test_the_page_is_under_a_policy_that_allows_its_own_server_only(client: httpx.Client) -> None:
    for path in STATIC.iterdir():
        answer = client.get(f"/ui/{path.name}")
        policy = dict(
            part.strip().partition(" ")[::2] for part in answer.headers["content-security-policy"].split(";")
        )
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == policy["connect-src"] == policy["frame-src"] == "'self'"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.content == path.read_bytes()


def test_browsers_are_sent_to_the_page_and_programs_are_not(client: httpx.Client) -> None:
    assert client.get("/", headers={"accept": "text/html"}).headers["location"] == "/ui/"
    assert client.get("/").json() == {"status": "alive"}
    assert "not for diagnosis" in client.get("/ui/").text


def test_no_file_of_the_page_names_another_host() -> None:
    for path in STATIC.iterdir():
        text = path.read_text().replace("http://www.w3.org/", "")  # the names of SVG's name spaces are no addresses
        assert "//" not in text.replace("// ", "").replace("/* ", ""), path.name


@pytest.mark.parametrize(
    "path",
    [
        "..%2frouter.py",
        "%2e%2e/routes.py",
        "..%5croutes.py",
        "api/runs/..%2f..%2fetc/metrics",
        "api/runs/%2e%2e/report",
    ],
)
def test_nothing_outside_is_given_out(client: httpx.Client, path: str) -> None:
    answer = client.get(f"/ui/{path}")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "not_found"


def test_the_samples_are_read_by_the_gateway(client: httpx.Client) -> None:
    listed = client.get("/ui/api/samples").json()
    assert {one["shows"] for one in listed} == {"tumour", "no tumour"}
    one = listed[0]
    slice_ = client.get(f"/ui/api/samples/{one['slice']}").content
    answer = client.post("/segment", files={"file": (one["slice"], slice_)}, params={"pixel_mm": one["pixel_mm"]})
    mask = np.load(io.BytesIO(client.get(f"/ui/api/samples/{one['mask']}").content))
    assert answer.status_code == 200
    assert [answer.json()["height"], answer.json()["width"]] == list(mask.shape)
    assert set(np.unique(mask)) <= {0, 1, 2, 4}
    assert client.get("/ui/api/samples/other.npz").status_code == 404


def test_a_preview_shows_each_channel_and_tells_what_the_file_says(client: httpx.Client) -> None:
    planes = {"t1": np.arange(12.0).reshape(3, 4), "flair": np.arange(12.0)[::-1].reshape(3, 4)}
    buffer = io.BytesIO()
    np.savez(buffer, **planes)
    answer = client.post("/ui/api/preview", files={"file": ("s.npz", buffer.getvalue())}, params={"pixel_mm": "2,1"})
    told = json.loads(answer.headers["x-told"])
    assert told == {"modalities": ["t1", "flair"], "pixel_mm": [2.0, 1.0], "channels": 2}
    shown = pixels(answer.content)
    assert shown.shape == (6, 4)
    assert (np.diff(shown[:3].ravel().astype(int)) >= 0).all()
    assert client.post("/ui/api/preview", files={"file": ("s.txt", b"text")}).status_code == 415
    small = client.post("/ui/api/preview", files={"file": ("s.npz", buffer.getvalue())}, params={"most": 2})
    assert pixels(small.content).shape == (4, 2)


def test_a_tiff_of_the_lgg_set_is_three_sequences(client: httpx.Client) -> None:
    rng = np.random.default_rng(0)
    flair, before = rng.integers(1, 255, (2, 40, 50), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(np.stack([before, flair, flair], axis=2)).save(buffer, "TIFF")
    tiff = buffer.getvalue()
    answer = client.post("/ui/api/preview", files={"file": ("TCGA_CS_0000_20000101_7.tif", tiff)})
    told = json.loads(answer.headers["x-told"])
    assert told["modalities"] == ["flair", "t1"]  # the third only repeats FLAIR: it was not scanned
    arrays = io.BytesIO()
    np.savez(arrays, flair=flair, t1=before)
    given = {"file": ("TCGA_CS_0000_20000101_7.tif", tiff)}
    as_tiff = client.post("/classify", files=given).json()
    as_arrays = client.post("/classify", files={"file": ("s.npz", arrays.getvalue())}).json()
    assert as_tiff["tumor_probability"] == as_arrays["tumor_probability"]
    named = client.post("/ui/api/preview", files={"file": ("x.tif", tiff)}, params={"modalities": "t1,flair,t1ce"})
    assert json.loads(named.headers["x-told"])["modalities"] == ["flair", "t1"]
    grey = client.post("/ui/api/preview", files={"file": ("x.tif", tiff)})
    assert json.loads(grey.headers["x-told"])["channels"] == 1
    assert client.post("/classify", files={"file": ("x.tif", tiff[:200])}).status_code == 400
    wrong = client.post("/classify", files={"file": ("x.tif", tiff)}, params={"modalities": "t1,flair"})
    assert wrong.status_code == 400


def test_tiff_slices_of_an_lgg_patient_are_a_study(client: httpx.Client) -> None:
    rows, columns = np.mgrid[:64, :64]
    head = ((rows - 32) / 26) ** 2 + ((columns - 32) / 20) ** 2 < 1
    rng = np.random.default_rng(0)
    files = []
    for at in (10, 9, 8):
        planes = (rng.integers(60, 200, (64, 64, 3)) * head[..., np.newaxis]).astype(np.uint8)
        for name, pixels_ in ((f"{at}.tif", planes), (f"{at}_mask.tif", np.uint8(head) * 255)):
            buffer = io.BytesIO()
            Image.fromarray(pixels_).save(buffer, "TIFF")
            files.append(("files", (f"TCGA_CS_0000_20000101_{name}", buffer.getvalue())))
    sizes = {"pixel_mm": 2, "slice_mm": 5}
    told = json.loads(client.post("/ui/api/volume", files=files, params=sizes).headers["x-told"])
    assert told["shape"] == [3, 64, 64]  # the masks are no slices
    assert told["modalities"] == ["flair", "t1", "t1ce"]
    assert told["spacing_mm"] == [5.0, 2.0, 2.0]
    assert client.post("/patient/analyze_stack", files=files, params=sizes).json()["n_slices"] == 3
    other = [("files", ("a.tif", files[0][1][1]))]
    answer = client.post("/patient/analyze_stack", files=other)
    assert answer.status_code == 400
    assert "LGG" in answer.json()["error"]["message"]


def test_a_volume_comes_in_display_orientation_and_its_doubt_is_that_of_the_slice(client: httpx.Client) -> None:
    study = samples.content(samples.listing()[0]["study"])
    files = {"files": ("study.zip", study)}
    answer = client.post("/ui/api/volume", files=files)
    told = json.loads(answer.headers["x-told"])
    assert told["shape"] == [48, 128, 128]
    assert told["spacing_mm"] == [3.0, 1.5, 1.5]
    assert len(answer.content) == 4 * 48 * 128 * 128
    doubt = client.post("/ui/api/doubt", files=files, params={"index": 20})
    assert len(doubt.content) == 128 * 128
    assert 0 <= json.loads(doubt.headers["x-told"])["mean_nats"] <= np.log(2)
    assert client.post("/ui/api/doubt", files=files, params={"index": 48}).status_code == 400
    packed = client.post("/patient/analyze_stack", files=files, params={"mask_format": "npy_gz"}).json()["mask"]
    plain = client.post("/patient/analyze_stack", files=files, params={"mask_format": "npy"}).json()["mask"]
    assert len(packed) < len(plain) / 10


@pytest.mark.parametrize(
    ("values", "kept", "way"),
    [
        ((0, 255), (0, 1), "one region"),
        ((0, 1), (0, 1), "one region"),
        ((0, 100, 200), (0, 0, 1), "one region"),
        ((0, 1, 2, 4), (0, 1, 2, 4), "BraTS labels"),
        ((0, 1, 2, 3), (0, 1, 2, 4), "BraTS labels"),
        ((0, 2), (0, 2), "BraTS labels"),
    ],
)
def test_masks_are_read_by_their_values(values: tuple[int, ...], kept: tuple[int, ...], way: str) -> None:
    content, told = label_png(np.array([values], dtype=np.float32))
    assert pixels(content).ravel().tolist() == list(kept)
    assert told == way


def test_a_mask_of_other_values_is_refused() -> None:
    with pytest.raises(InputError, match="3, 4"):
        label_png(np.array([[0, 3, 4]]))


def test_grey_levels_leave_the_background_black_and_survive_what_is_not_a_number() -> None:
    values = np.array([[0.0, 10.0, 20.0, np.nan, np.inf]])
    levels = grey_levels(values)
    assert levels[0, 0] == 0
    assert levels[0, 2] > levels[0, 1] > 0
    assert grey_levels(np.zeros((2, 2))).max() == 0
    assert pixels(grey_png(np.ones((2, 300, 100)), most=30)).shape == (60, 10)


def test_runs_are_listed_newest_first_without_links(runs_dir: Path) -> None:
    folder = RunFolder(runs_dir)
    assert set(folder.names()) == {"first", "second"}
    assert [one["documents"] for one in folder.listing() if one["name"] == "first"] == [[]]  # a link leads outside
    for name in ("linked", "nothing", "..", "second/../linked", ""):
        with pytest.raises(NotFoundError):
            folder.metrics(name)
    with pytest.raises(NotFoundError):
        folder.document("first", "report")
    with pytest.raises(NotFoundError):
        folder.document("second", "../metrics")
    assert RunFolder(runs_dir / "second").listing()[0]["name"] == "second"
    assert RunFolder(None).listing() == []


def test_a_runs_documents_are_shut_in(client: httpx.Client) -> None:
    report = client.get("/ui/api/runs/second/report")
    assert "sandbox allow-scripts" in report.headers["content-security-policy"]
    assert "allow-same-origin" not in report.headers["content-security-policy"]
    card = client.get("/ui/api/runs/second/card").text
    assert "<h1>The card</h1>" in card
    assert "<script>" not in card
    assert "hub" not in card  # what is meant for model hubs only


def test_the_gateway_alone_shows_the_page_when_told_to(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not parse([]).ui
    assert parse(["--ui", "true"]).ui
    monkeypatch.setenv("SLICEWISE_UI", "true")
    monkeypatch.setenv("SLICEWISE_UI_RUNS", "somewhere")
    assert parse([]).ui
    assert RunFolder.chosen(True, parse([]).ui_runs) == RunFolder(Path("somewhere"))
    assert RunFolder.chosen(False, "somewhere") is None


def test_names_of_files_are_not_logged(client: httpx.Client, stack: StackState) -> None:
    name = "Doe^Jane_1970"
    for path, content in (("classify", b"nothing"), ("ui/api/preview", b"nothing"), ("ui/api/volume", b"nothing")):
        assert client.post(f"/{path}", files={"file": (f"{name}.png", content)}).status_code in (400, 415)
    picture = grey_png(np.arange(4096.0).reshape(1, 64, 64))
    assert client.post("/classify", files={"file": (f"{name}.png", picture)}).status_code == 200
    logs = [path for path in Path(stack.log_folder).rglob("*") if path.is_file() and path.suffix == ".log"]
    assert logs
    assert not any(name in path.read_text(errors="replace") for path in logs)


def test_the_cluster_shows_the_page_by_configuration() -> None:
    made = inference_service(ServeConfig(ui=True), "pvc://models/slicewise", "")
    environment = {one["name"]: one["value"] for one in made["spec"]["transformer"]["containers"][0]["env"]}
    assert environment["SLICEWISE_UI"] == "true"
