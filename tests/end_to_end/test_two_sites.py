"""Two data owners on two networks, and a server on a third: what crosses the wires, and what the second owner gains."""

from __future__ import annotations

import json
import shutil
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the extra `server` is not installed")

from nni_hyperfd.benchmark.load.cluster import Cluster
from nni_hyperfd.method import weights
from nni_hyperfd.method.meta_feature import MetaFeatureExtractor
from nni_hyperfd.platform import EmbeddedPlatform
from nni_hyperfd.privacy import projection
from nni_hyperfd.space import SearchSpace
from nni_hyperfd.task import TaskSettings
from support import far_host
from support.harness import Experiment
from support.leaks import BOXES, HEIGHT, WIDTH, make_images, needles, numbers_in, requests_in
from support.made_up import MadeUpDataset
from support.own_datasets import begin_warm
from support.serving import Recording, Server

missing = far_host.missing() or (None if shutil.which("tcpdump") else "tcpdump is not installed")
pytestmark = [pytest.mark.nni, pytest.mark.long, pytest.mark.skipif(missing is not None, reason=str(missing))]

BUDGET = 2
SPACE = {"kind": {"_type": "choice", "_value": ["a", "b"]}, "x": {"_type": "choice", "_value": [0, 1, 2, 3, 4]}}


@contextmanager
def captured(namespace: str, file: Path) -> Iterator[None]:
    """All packets that pass the interfaces of a network but its loopback."""
    with far_host.within(namespace):
        command = ["tcpdump", "-Z", "root", "-n", "-U", "-i", "any", "-w", str(file), "not net 127.0.0.0/8"]
        running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert running.stderr is not None
    while "listening on" not in (line := running.stderr.readline()):
        assert line, "tcpdump has ended"
    try:
        yield
    finally:
        running.terminate()
        running.communicate()


@pytest.fixture(scope="module")
def sites(
    cluster: Cluster, experiments: Callable[..., Experiment], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict]:
    """What is left of two experiments, one after the other, each on its own network."""
    trustme = pytest.importorskip("trustme", reason="trustme is not installed")
    folder, tag = tmp_path_factory.mktemp("sites"), uuid4().hex[:5]
    state, space = cluster.new_database(), SearchSpace.from_nni(SPACE)
    begin_warm(state, space, lambda configuration: 0.1 * configuration["x"], 2)
    extractor = MetaFeatureExtractor.initial(12, 77)
    vectors = extractor.image_vectors(MadeUpDataset(50).image_features(20, 0)).detach().numpy()
    made = projection.fit([vectors], weights.sha256(weights.dumps(extractor.state_dict())), 12)
    projection.save(made, folder / "p.json")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("10.84.1.1", "10.84.2.1").configure_cert(tls)
    server, ended, tokens, images = Server(state), [], [server_token(state, name) for name in "AB"], []
    hub, *owners = (f"hf{tag}{name}" for name in "sab")
    with ExitStack() as stack:
        stack.enter_context(far_host.wired(hub, *owners))
        stack.callback(server.kill)
        with far_host.within(hub):
            server.start()
            proxy = Recording(server.port, "0.0.0.0", tls)
        stack.callback(proxy.close)
        stack.enter_context(captured(hub, folder / "packets"))
        for number, (network, token) in enumerate(zip(owners, tokens, strict=True), 1):
            images.append(make_images(folder / f"Geheime_Sammlung_{number}", first_seed=10 * number))
            secret = folder / f"token{number}"
            secret.write_text(token)
            secret.chmod(0o600)
            own = {"state": None, "warm_start": None, "platform": f"https://10.84.{number}.1:{proxy.port}"}
            own |= {"token_file": str(secret), "ca_file": str(folder / "ca.pem"), "budget": BUDGET}
            settings = f"minimum=2,projection={folder / 'p.json'},ledger={folder / 'ledgers'},name=faces{number}"
            with pytest.MonkeyPatch.context() as patch, far_host.within(network):
                patch.setenv("HYPERFD_PRIVACY", settings)
                run = experiments(own, f"--images {images[-1]}", state=state, space=SPACE).create().wait_done()
                run.end()
            learn(state, space)
            ended.append(run)
        yield {
            "experiments": ended, "heard": proxy.heard, "packets": folder / "packets", "port": proxy.port,
            "images": images, "tokens": tokens, "state": state,
        }  # fmt: skip


def server_token(state: str, name: str) -> str:
    platform = EmbeddedPlatform(state)
    try:
        return platform.tenants.add(name)
    finally:
        platform.close()


def learn(state: str, space: SearchSpace) -> None:
    """What a worker does beside the server."""
    platform = EmbeddedPlatform(state)
    while platform.learning.learn_next(space.signature):
        pass
    platform.close()


def test_only_tls_crosses_the_wires(sites: dict) -> None:
    packets = sites["packets"].read_bytes()
    heard = sites["heard"]
    assert len(packets) > sum(map(len, heard)) > 10_000
    for plain in (*sites["tokens"], "HyperFD-Holder", "POST /v1", "PUT /v1", "performance", "meta_feature"):
        assert any(plain.encode() in request for request in heard), "the recording has it"
        assert plain.encode() not in packets
    for request in heard:
        _, _, body = request.partition(b"\r\n\r\n")
        assert len(body) < 32 or body not in packets
    others = ["tcpdump", "-n", "-r", str(sites["packets"]), f"not tcp port {sites['port']} and not arp and not ip6"]
    assert subprocess.run(others, capture_output=True, text=True, check=True).stdout == ""


def test_nothing_of_an_image_arrives(sites: dict) -> None:
    recording = b"".join(sites["heard"])
    assert recording.count(b"/descriptions/") == 2 and recording.count(b"/results/") == 2 * BUDGET
    for images in sites["images"]:
        for needle in needles(images):
            assert needle not in recording, needle[:40]
    numbers = np.array(sorted(numbers_in(recording)))
    secret = {float(number) for box in BOXES for number in box} | {float(WIDTH), float(HEIGHT)}
    secret |= {number / side for box in BOXES for number in box for side in (WIDTH, HEIGHT)}
    assert len(numbers) >= 2 * 64
    for number in secret:
        assert np.abs(numbers - number).min() > 1e-6 * max(1, number), number
    calls = {line.split()[1].split("/")[-1] for line, _, _ in requests_in(recording)}
    print(json.dumps({"requests": len(sites["heard"]), "bytes": len(recording), "last words": sorted(calls)}))


def test_the_second_owner_begins_with_what_the_first_has_learned(sites: dict) -> None:
    first, second = (experiment.task() for experiment in sites["experiments"])
    assert first.closed is not None and second.closed is not None
    assert first.meta_feature is not None and second.meta_feature is not None
    platform = EmbeddedPlatform(sites["state"])
    ranking = platform.rank(SearchSpace.from_nni(SPACE), second.id, TaskSettings(budget=BUDGET, candidates=10))
    assert first.id in [neighbour.task_id for neighbour in ranking.neighbours]
    platform.close()
