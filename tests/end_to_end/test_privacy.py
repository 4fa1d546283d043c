"""What leaves a service trial, byte by byte: noised numbers and one AP, with the settings off a little more."""

from __future__ import annotations

import base64
import json
import re
import stat
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest

from nni_hyperfd import Platform
from nni_hyperfd.method import weights
from nni_hyperfd.method.meta_feature import MetaFeatureExtractor
from nni_hyperfd.privacy import projection
from nni_hyperfd.space import SearchSpace
from support import SUPPORT
from support.harness import BIN, Experiment
from support.leaks import (
    BOXES,
    HEIGHT,
    NAMES,
    WIDTH,
    everything_in,
    make_images,
    needles,
    numbers_in,
    pixel_runs,
    requests_in,
    update_in,
)
from support.made_up import MadeUpDataset
from support.own_datasets import begin_warm

pytestmark = pytest.mark.nni

METRIC = {"parameter_id", "trial_job_id", "type", "sequence", "value"}
MESSAGE = {"version", "phase"}
EXTRACT = MESSAGE | {"meta_feature", "num_images", "num_boxes", "baseline", "initial", "seconds"}
EXTRACT |= {"extractor", "withheld", "among", "share"}
LEARN = MESSAGE | {"tensors", "sha256", "meta_feature", "seconds"}
HEADERS = {"host", "user-agent", "accept-encoding", "accept", "connection", "content-length", "content-type"}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of images that nothing else looks like, with their boxes."""
    return make_images(tmp_path_factory.mktemp("Geheime_Sammlung"))


@pytest.fixture(scope="module")
def recorded(experiments: Callable[..., Experiment], images: Path) -> Experiment:
    """An experiment on those images, each of whose trials is recorded as <trial>.bytes in the experiment's folder."""
    made = experiments({"budget": 2, "preset": "paper"}, f"--images {images}")
    proxy = f"{sys.executable} {SUPPORT / 'recording_proxy.py'} {made.folder}/$NNI_TRIAL_JOB_ID.bytes --"
    made.configure(trialCommand=f"{proxy} {made.config['trialCommand']}")
    return made.create().wait_done()


@pytest.fixture(scope="module")
def sent(recorded: Experiment) -> dict[str, bytes]:
    """Phase of the service trials -> the bytes that they sent."""
    trials = {job["record"]["parameters"].get("phase"): job["trialJobId"] for job in recorded.trial_jobs()}
    return {phase: (recorded.folder / f"{trials[phase]}.bytes").read_bytes() for phase in ("extract", "learn")}


@pytest.fixture(params=["extract", "learn"])
def phase(request: pytest.FixtureRequest) -> str:
    return request.param


def test_the_recording_is_of_the_trial(recorded: Experiment, sent: dict[str, bytes]) -> None:
    """So that the tests below cannot pass on an empty recording."""
    task = recorded.task()
    assert task.closed is not None and (task.num_images, task.num_boxes) == (3, 6)
    assert sent["extract"].count(b"PUT ") == 3  # a request for parameters, the description, the final result
    assert sent["learn"].count(b"PUT ") == 2  # a request for parameters and the update
    assert len(sent["learn"]) > 100_000


def test_nothing_goes_past_the_recording(recorded: Experiment) -> None:
    """Every connection that a trial's Python opened went to the proxy."""
    recordings = list(recorded.folder.glob("*.bytes"))
    assert len(recordings) == 4
    for recording in recordings:
        proxy = json.loads(Path(f"{recording}.proxy").read_text())
        connects = {json.loads(line) for line in Path(f"{recording}.connects").read_text().splitlines()}
        assert connects == {str(tuple(proxy))}


def test_only_the_agreed_keys_are_sent(sent: dict[str, bytes], phase: str) -> None:
    expected = {
        "extract": [{"default", "hyperfd"}, {"default", "phase", "seconds"}],
        "learn": [{"hyperfd"}],
    }[phase]
    commands = [json.loads(body) for request, _, body in requests_in(sent[phase]) if request.startswith("PUT ")]
    assert commands[0] == {"type": "request_parameter"}
    metrics = []
    for command in commands[1:]:
        assert set(command) == {"type", "metric"} and command["type"] == "metric"
        metrics.append(json.loads(command["metric"]))
        assert set(metrics[-1]) == METRIC
    values = [json.loads(metric["value"]) for metric in metrics]
    assert [set(value) for value in values] == expected
    answer = values[0]["hyperfd"]
    assert set(answer) == {"extract": EXTRACT, "learn": LEARN}[phase]
    assert len(answer["meta_feature"]) == 64 and all(type(number) is float for number in answer["meta_feature"])
    assert all(isinstance(v, (int, float, str)) for v in values[-1].values() if v is not answer)


def test_the_update_holds_the_extractors_tensors_only(sent: dict[str, bytes]) -> None:
    tensors = weights.loads(update_in(sent["learn"]))
    like = MetaFeatureExtractor.initial(12, seed=0).state_dict()
    expected = {f"{part}.{name}": t.shape for part in ("extractor", "importance") for name, t in like.items()}
    assert {name: tensor.shape for name, tensor in tensors.items()} == expected


def test_headers_and_addresses_say_nothing(recorded: Experiment, sent: dict[str, bytes], phase: str) -> None:
    trial = next(j["trialJobId"] for j in recorded.trial_jobs() if j["record"]["parameters"].get("phase") == phase)
    for request, headers, body in requests_in(sent[phase]):
        assert re.fullmatch(rf"(PUT|GET) (/env/local-env/{trial}|/api/v1/nni/trial-jobs/{trial}) HTTP/1\.1", request), (
            request
        )
        assert set(headers) <= HEADERS, headers
        assert re.fullmatch(r"127\.0\.0\.1:\d+", headers["host"])
        assert re.fullmatch(r"python-requests/[\d.]+", headers["user-agent"])
        assert headers.get("content-type", "application/json") == "application/json"
        assert request.startswith("PUT ") or not body


def test_no_image_leaves(sent: dict[str, bytes], phase: str, images: Path) -> None:
    haystacks = everything_in(sent[phase])
    for needle in needles(images):
        for haystack in haystacks:
            assert needle not in haystack, needle[:40]


def test_no_number_of_an_image_leaves(sent: dict[str, bytes], phase: str) -> None:
    """Sizes and boxes, also divided by the image's size, are not among the numbers that are sent."""
    secret = {float(number) for box in BOXES for number in box} | {float(WIDTH), float(HEIGHT)}
    secret |= {number / side for box in BOXES for number in box for side in (WIDTH, HEIGHT)}
    numbers = np.array(sorted(numbers_in(sent[phase])))
    assert len(numbers) >= 64
    for number in secret:
        assert np.abs(numbers - number).min() > 1e-6 * max(1, number), number


def test_the_checks_would_find_what_they_look_for(images: Path) -> None:
    pixels = pixel_runs(images)[0]
    leaks = [
        NAMES[0].encode(), json.dumps({"file": str(images)}).encode(), b"...." + pixels, pixels.hex().encode(),
        b"x" + base64.b64encode(pixels), base64.b64encode(b"x" + pixels), base64.urlsafe_b64encode(b"xy" + pixels),
        json.dumps(list(pixels)).encode(), struct.pack("<4f", *BOXES[1]),
    ]  # fmt: skip
    for leak in leaks:
        assert any(needle in leak for needle in needles(images)), leak[:60]
    body = json.dumps({"type": "metric", "metric": json.dumps({"value": json.dumps({"w": [WIDTH]})})})
    message = f"PUT /env HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
    assert float(WIDTH) in numbers_in(message)


# -- under the owner's settings ----------------------------------------------------------------------------------------

SPACE = {"kind": {"_type": "choice", "_value": ["a", "b"]}, "x": {"_type": "choice", "_value": [0, 1, 2, 3, 4]}}


@pytest.fixture(scope="module")
def guarded(experiments: Callable[..., Experiment], tmp_path_factory: pytest.TempPathFactory) -> list[Experiment]:
    """Experiments of an owner who has set a budget: two on one data set, one on another that is too small for him."""
    folder = tmp_path_factory.mktemp("guarded")
    space, state = SearchSpace.from_nni(SPACE), folder / "state.sqlite"
    begin_warm(state, space, lambda configuration: 0.1 * configuration["x"], 2)
    extractor = MetaFeatureExtractor.initial(12, 77)
    vectors = extractor.image_vectors(MadeUpDataset(50).image_features(20, 0)).detach().numpy()
    made = projection.fit([vectors], weights.sha256(weights.dumps(extractor.state_dict())), 12)
    projection.save(made, folder / "p.json")
    ended = []
    for data, minimum in ((1, 20), (1, 20), (2, 21)):
        settings = f"minimum={minimum},projection={folder / 'p.json'},ledger={folder / 'ledgers'},name=faces"
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("HYPERFD_PRIVACY", settings)
            patch.setenv("HYPERFD_LISTEN", "127.0.0.1")
            ended.append(experiments({"budget": 1}, f"--data {data}", state=state, space=SPACE).create().wait_done())
    return ended


def test_noised_numbers_leave_and_are_the_same_for_the_same_data_set(guarded: list[Experiment]) -> None:
    first, second, third = (experiment.task() for experiment in guarded)
    assert first.meta_feature == second.meta_feature is not None and third.meta_feature is None
    assert (first.num_images, first.num_boxes, third.num_images) == (20, None, None)
    assert [trial.phase for trial in first.trials] == ["extract", "fine-tune"]
    (ledger,) = guarded[0].state.parent.glob("ledgers/*/ledger.json")
    (entry,) = json.loads(ledger.read_text())["entries"]
    assert tuple(entry["released"]) == first.meta_feature


def test_aps_of_picks_leave_with_two_digits(guarded: list[Experiment], recorded: Experiment) -> None:
    for experiment, digits in ((guarded[0], 2), (recorded, 3)):
        (pick, *_) = experiment.picks()
        metrics = [
            metric for metric in experiment.rest("/metric-data") if metric["parameterId"] == str(pick.parameter_id)
        ]
        sent = {metric["type"]: json.loads(json.loads(metric["data"]))["default"] for metric in metrics}
        assert sent["FINAL"] == pick.performance
        assert sent["PERIODICAL"] == float(f"{pick.performance / 2:.{digits}g}"), "off leaves all digits"


def test_a_data_set_that_is_not_described_says_so(guarded: list[Experiment]) -> None:
    assert "its data set is not described (it has fewer images" in guarded[2].log("dispatcher")
    assert guarded[2].task().closed is not None and len(guarded[2].picks()) == 1


def test_nni_can_be_made_to_listen_on_loopback_only(guarded: list[Experiment], recorded: Experiment) -> None:
    for experiment, place in ((guarded[0], "127.0.0.1"), (recorded, "::")):
        (manager,) = experiment.processes.managers()
        (address,) = {each.laddr.ip for each in manager.net_connections() if each.status == psutil.CONN_LISTEN}
        assert address == place


def test_what_is_forgotten_leaves_no_trace_but_what_it_has_cost(recorded: Experiment, images: Path) -> None:
    """The last test of these fixtures, for it removes the experiment."""
    forget = (BIN / "hyperfd", "privacy", "forget", images, "--state", recorded.state, "--yes")
    assert f"has not ended; run 'nnictl stop {recorded.id}' first" in recorded.run(*forget, check=False)
    home, kept = recorded.home, recorded.folder / "nni-experiments" / recorded.id
    traces = [path for path in home.rglob("traces/*/*.json")]
    assert kept.is_dir() and list(home.rglob("*.safetensors")) and len(traces) == 1 + 4, "of a cache and of four trials"
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in traces)
    secret = recorded.task().meta_feature
    recorded.stop()
    said = recorded.run(*forget)
    assert str(kept) in said and f"Removed, and 1 tasks in {recorded.state}" in said
    assert not kept.exists() and not list(home.rglob("*.safetensors")) and not list(home.rglob("traces/*/*.json"))
    assert recorded.id not in json.loads((home / "nni-experiments" / ".experiment").read_text())
    assert Platform(recorded.state).tasks() == [] and repr(secret[0]).encode() not in recorded.state.read_bytes()
    assert "Removed, and 0 tasks" in recorded.run(*forget), "there is nothing left"
