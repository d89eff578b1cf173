"""The sync client against a real stack."""

from __future__ import annotations

import inspect
import io
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from uploaded_study import UploadedStudy, make_upload

import slicewise.client
from serving.client import AsyncClient, ClassifiedImage, Client, FailedImage
from serving.state import StackState
from serving.status import BackendError, BusyError, JobStateError, UnknownJobError, UnknownVersionError
from slicewise.errors import InputError, UsageError
from slicewise.inference.predictor import TASKS, Prediction, PredictOptions, Predictor, SliceInput

Encode = Callable[..., bytes]
Head = NDArray[np.uint8]


def grpc_target(stack: StackState) -> str:
    return f"127.0.0.1:{stack.grpc_port}"


@pytest.fixture(scope="module")
def client(stack: StackState) -> Iterator[Client]:
    with Client(stack.gateway_url) as client:
        yield client


@pytest.fixture(scope="module")
def grpc_client(stack: StackState) -> Iterator[Client]:
    with Client(stack.gateway_url, grpc_target=grpc_target(stack)) as client:
        yield client


@pytest.fixture(scope="module")
def upload(tmp_path_factory: pytest.TempPathFactory) -> UploadedStudy:
    return make_upload(tmp_path_factory.mktemp("upload"))


def predicted(predictor: Predictor, image: NDArray[Any], options: PredictOptions) -> Prediction:
    outcome = predictor.predict([SliceInput(image, ("unknown",))], options)[0]
    assert isinstance(outcome, Prediction)
    return outcome


def test_health_ready_info(client: Client, predictor: Predictor) -> None:
    assert client.health().status == "ok"
    assert client.ready()
    info = client.info()
    assert info.digest == predictor.bundle.digest
    assert info.modalities == list(predictor.meta.preprocessing.modalities)


def test_slicewise_client_is_the_same_door() -> None:
    assert slicewise.client.Client is Client
    with pytest.raises(AttributeError, match="NoSuchName"):
        _ = slicewise.client.NoSuchName


def test_library_imports_no_http_before_a_name_is_taken() -> None:
    code = "import sys, slicewise.client, slicewise.cli, slicewise.cli_predict; print('httpx' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "False"


def test_missing_extra_is_told_with_its_cure() -> None:
    code = "import sys; sys.modules['httpx'] = None\nfrom slicewise.client import Client"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert told.returncode == 1
    assert "pip install 'slicewise[serving]'" in told.stderr


def test_both_clients_have_the_same_methods() -> None:
    def methods(kind: type) -> dict[str, Any]:
        own = {name: method for name, method in vars(kind).items() if inspect.isfunction(method)}
        return {name: inspect.signature(method) for name, method in own.items() if not name.startswith("_")}

    assert methods(Client) == methods(AsyncClient)
    assert "predict_slices" in methods(Client)


@pytest.mark.parametrize("kind", ["array", "bytes", "path", "pillow"])
def test_every_kind_of_image(
    kind: str, client: Client, head: Head, encoded: Encode, predictor: Predictor, tmp_path: Path
) -> None:
    path = tmp_path / "slice.png"
    path.write_bytes(encoded(head))
    image = {"array": head, "bytes": encoded(head), "path": path, "pillow": Image.fromarray(head)}[kind]
    expected = predicted(predictor, head[np.newaxis], PredictOptions(("classify",)))
    answer = client.classify(image)
    assert answer.tumor_probability == pytest.approx(expected.tumor_probability, abs=1e-5)
    assert answer.model.digest == predictor.bundle.digest
    assert "not for diagnosis" in answer.research_use


def test_masks_and_maps_are_the_predictors(client: Client, head: Head, predictor: Predictor) -> None:
    expected = predicted(predictor, head[np.newaxis], PredictOptions())
    answer = client.segment(head, probability_map=True, overlay=True, pixel_mm=0.5)
    np.testing.assert_array_equal(answer.mask, expected.mask)
    assert answer.probability is not None
    np.testing.assert_allclose(answer.probability, expected.region_probability, atol=1e-5)
    assert answer.overlay_png is not None
    assert Image.open(io.BytesIO(answer.overlay_png)).size == head.shape[::-1]
    area = answer.tumor_area_mm2["WT"]
    assert area == pytest.approx(int(answer.mask[0].sum()) * 0.25)


def test_multitask_uncertainty_and_explanation(client: Client, head: Head, predictor: Predictor) -> None:
    assert client.multitask(head, threshold=1.0).mask.sum() == 0
    uncertain = client.uncertainty(head, n_mc_samples=3, use_tta=True)
    assert (uncertain.n_mc_samples, uncertain.use_tta) == (3, True)
    assert uncertain.entropy is not None
    assert uncertain.epistemic is not None
    assert uncertain.entropy.shape == head.shape
    assert np.all(uncertain.epistemic <= uncertain.entropy + 1e-5)
    options = PredictOptions(("classify", "explain"), explain_method="hirescam")
    expected = predicted(predictor, head[np.newaxis], options)
    explained = client.explain(head, explain_method="hirescam")
    assert expected.gradcam is not None
    np.testing.assert_allclose(explained.evidence, expected.gradcam, atol=1.01 / 255)


def test_batches_of_any_length_fail_one_by_one(client: Client, head: Head, predictor: Predictor) -> None:
    images = [head[: 60 + index % 7] for index in range(103)]
    answers = client.classify_batch([*images[:50], b"no image", *images[50:]])
    assert len(answers) == 104
    failed = [answer for answer in answers if isinstance(answer, FailedImage)]
    assert [answers.index(one) for one in failed] == [50]
    assert isinstance(failed[0].exception, InputError)
    last = answers[-1]
    assert isinstance(last, ClassifiedImage)
    expected = predicted(predictor, images[-1][np.newaxis], PredictOptions(("classify",)))
    assert last.tumor_probability == pytest.approx(expected.tumor_probability, abs=1e-5)


SHAPES = st.tuples(st.integers(1, 3), st.sampled_from([1, 4]), st.integers(8, 70), st.integers(8, 70))


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shape=SHAPES, seed=st.integers(0, 99), kind=st.sampled_from(["uint8", "int16", "float32", "float64"]))
def test_slices_over_http_and_grpc_equal_the_predictor(
    shape: tuple[int, ...], seed: int, kind: str, client: Client, grpc_client: Client, predictor: Predictor
) -> None:
    rng = np.random.default_rng(seed)
    images = (rng.random(shape) * 200).astype(kind)
    images[-1] *= seed % 3  # at times the last one is empty and fails alone
    names = ("t1",) if shape[1] == 1 else predictor.meta.preprocessing.modalities
    expected = predictor.predict([SliceInput(image, names) for image in images], PredictOptions(TASKS[:3]))
    for way in (client, grpc_client):
        answer = way.predict_slices(images, tasks=TASKS[:3], modalities=names)
        for outcome, wanted in zip(answer.outcomes, expected, strict=True):
            if isinstance(wanted, InputError):
                assert isinstance(outcome, InputError)
                assert (outcome.message, outcome.cure) == (wanted.message, wanted.cure)
                continue
            assert isinstance(outcome, Prediction)
            assert outcome.tumor_probability == pytest.approx(wanted.tumor_probability, abs=1e-5)
            np.testing.assert_array_equal(outcome.mask, wanted.mask)
            assert outcome.gradcam is not None
            assert wanted.gradcam is not None
            np.testing.assert_allclose(outcome.gradcam, wanted.gradcam, atol=1e-4)


@pytest.mark.parametrize("way", ["client", "grpc_client"])
def test_more_slices_than_the_server_takes_at_once(way: str, request: pytest.FixtureRequest, head: Head) -> None:
    client: Client = request.getfixturevalue(way)
    images = np.stack([np.roll(head, shift, axis=1)[np.newaxis] for shift in range(75)]).astype(np.float32)
    assert images.nbytes > 5 << 20  # the stack of the tests takes 4 MB
    answer = client.predict_slices(images, tasks="classify")
    assert len(answer.outcomes) == 75
    one = client.predict_slices(images[60:61], tasks="classify").outcomes[0]
    many = answer.outcomes[60]
    assert isinstance(one, Prediction)
    assert isinstance(many, Prediction)
    assert many.tumor_probability == pytest.approx(one.tumor_probability, abs=1e-5)


@pytest.mark.parametrize("way", ["client", "grpc_client"])
def test_refusals_are_the_servers_words(way: str, request: pytest.FixtureRequest, head: Head) -> None:
    client: Client = request.getfixturevalue(way)
    image = head[np.newaxis, np.newaxis]
    outcome = client.predict_slices(image, modalities="pd").outcomes[0]
    assert isinstance(outcome, InputError)
    assert "'pd'" in outcome.message
    assert "flair" in outcome.cure
    with pytest.raises(UnknownVersionError, match="77"):
        client.predict_slices(image, version="77")
    with pytest.raises(InputError, match="give numbers"):
        client.predict_slices(head)


def test_rest_errors_have_message_and_cure(client: Client, head: Head) -> None:
    with pytest.raises(InputError, match="threshold") as caught:
        client.classify(head, threshold=3.0)
    assert caught.value.cure
    with pytest.raises(InputError, match="truncated"):
        client.classify(b"\x89PNG\r\n\x1a\n\0\0")
    with pytest.raises(InputError, match="cannot be read"):
        client.classify(Path("no-such-file.png"))
    with pytest.raises(UnknownJobError):
        client.job("none")


def test_no_server_there(head: Head) -> None:
    with pytest.raises(UsageError, match="no address"):
        Client("127.0.0.1:8080")
    with Client("http://127.0.0.1:9") as nobody, pytest.raises(BackendError, match="cannot be reached"):
        nobody.classify(head)
    with (
        Client("http://127.0.0.1:9", grpc_target="127.0.0.1:9") as nobody,
        pytest.raises(BackendError, match="cannot be reached"),
    ):
        nobody.predict_slices(head[np.newaxis, np.newaxis])


def test_wrong_server(stack: StackState, head: Head) -> None:
    with Client(f"{stack.gateway_url}/elsewhere") as wrong, pytest.raises(BackendError, match="no such address"):
        wrong.classify(head)


def test_study_at_once_and_as_a_job(client: Client, upload: UploadedStudy, tmp_path: Path) -> None:
    direct = client.analyze_study(upload.nifti)
    assert sorted(direct.modalities) == ["flair", "t1", "t1ce", "t2"]
    seen = []
    job = client.submit(upload.nifti)
    done = client.wait(job.job_id, on_progress=lambda told: seen.append(told.state))
    assert done.state == seen[-1] == "done"
    result = client.result(job.job_id)
    assert result.volumes_ml == direct.volumes_ml
    direct.save_mask(tmp_path / "mask.nii.gz")
    fetched = client.job_mask(job.job_id)
    assert (tmp_path / "mask.nii.gz").read_bytes() == fetched
    mask = nib.load(tmp_path / "mask.nii.gz")
    assert mask.shape == upload.phantom.images["flair"].shape
    np.testing.assert_allclose(mask.affine, upload.phantom.affine, atol=1e-4)
    with pytest.raises(InputError, match="not DICOM"):
        client.job_seg(job.job_id)
    client.delete_job(job.job_id)
    with pytest.raises(UnknownJobError):
        client.result(job.job_id)


def test_dicom_folder_as_a_job(client: Client, upload: UploadedStudy) -> None:
    job = client.submit(upload.folder / "dicom")
    client.wait(job.job_id)
    assert client.job_seg(job.job_id)[128:132] == b"DICM"
    client.delete_job(job.job_id)


def test_failed_job_says_why(client: Client, upload: UploadedStudy, tmp_path: Path) -> None:
    broken = tmp_path / "x_flair.nii.gz"
    broken.write_bytes(upload.nifti["flair"].read_bytes()[:2000])
    job = client.submit(broken)
    with pytest.raises(JobStateError, match="x_flair") as caught:
        client.wait(job.job_id)
    assert caught.value.cure


def test_waits_for_a_busy_server_as_long_as_it_has_patience(stack: StackState, upload: UploadedStudy) -> None:
    """The queue of jobs is filled; who has no patience is refused, and who has gets in as soon as there is room."""
    accepted: list[str] = []
    with Client(stack.gateway_url, patience_s=0) as hasty, Client(stack.gateway_url, patience_s=120) as patient:
        with pytest.raises(BusyError, match="jobs wait"):
            accepted.extend(hasty.submit(upload.nifti).job_id for _ in range(30))
        accepted.append(patient.submit(upload.nifti).job_id)
        for job_id in accepted:
            patient.delete_job(job_id)
