"""The store on an object store: a real S3 endpoint on loopback that checks signatures and permissions.

Credentials come from the environment alone. Lance reads them when it first meets a bucket and keeps them for the life
of a process, so every test has a bucket of its own.
"""

import copy
import itertools
import json
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from stella_assets.storage.codecs import vectors_to_arrow
from stella_assets.storage.database import open_table, table_names, table_uri
from stella_assets.storage.errors import StorageError
from stella_assets.storage.integrity import drop_damaged, verify_table
from stella_assets.storage.units import write_unit
from stella_assets.storage.workspace import Workspace
from stella_assets.teachers.garbage import Needed, collect_garbage
from stella_assets.teachers.snapshot import Snapshot, snapshot_tags
from stella_assets.teachers.tables import VECTORS
from stella_assets.teachers.vectors import VectorTable, vector_schema
from tests.conftest import TINY, write_recipe
from tests.snapshots import Corpus, Teacher, require_equal, write
from tests.storage.test_vectors import reader, texts_and_ids, unit_vectors

STELLA = str(Path(sys.executable).with_name("stella"))
REGION = "us-east-1"
NUMBERS = itertools.count()
SNAPSHOTS = "tiny.concatenated_vectors"


class Endpoint:
    """An S3 service with two users: one may do everything, one may only read. It answers no one else."""

    def __init__(self, url: str) -> None:
        import boto3

        self.url = url
        anyone = boto3.Session("anyone", "anyone", region_name=REGION).client("iam", endpoint_url=url)
        self.key = _user(anyone, "writer", ["s3:*"])
        self.reading_key = _user(anyone, "reader", ["s3:Get*", "s3:List*"])
        writer = boto3.Session(self.key["AccessKeyId"], self.key["SecretAccessKey"], region_name=REGION)
        self.client = writer.client("s3", endpoint_url=url)

    @property
    def environment(self) -> dict[str, str]:
        """What a user sets, and what keeps clients from looking for credentials elsewhere."""
        return self.key_variables(self.key) | {
            "AWS_REGION": REGION,
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ALLOW_HTTP": "true",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "LANCE_LOG": "error",
        }

    def key_variables(self, key: dict[str, str]) -> dict[str, str]:
        return {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}

    def make_bucket(self, name: str) -> "Bucket":
        self.client.create_bucket(Bucket=name)
        return Bucket(self.client, name)


def _user(iam: Any, name: str, actions: list[str]) -> dict[str, str]:
    """A user's access key."""
    policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": actions, "Resource": ["*"]}]}
    iam.create_user(UserName=name)
    iam.put_user_policy(UserName=name, PolicyName="may", PolicyDocument=json.dumps(policy))
    return iam.create_access_key(UserName=name)["AccessKey"]


class Bucket:
    """A bucket, used directly: its objects are read, replaced and deleted without the store."""

    def __init__(self, client: Any, name: str) -> None:
        self.name = name
        self._client = client

    def sizes(self) -> dict[str, int]:
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.name)
        return {entry["Key"]: entry["Size"] for page in pages for entry in page.get("Contents", ())}

    def objects(self, containing: str = "") -> list[str]:
        return [key for key in self.sizes() if containing in key]

    def read(self, key: str) -> bytes:
        return self._client.get_object(Bucket=self.name, Key=key)["Body"].read()

    def write(self, key: str, content: bytes) -> None:
        self._client.put_object(Bucket=self.name, Key=key, Body=content)

    def delete(self, key: str) -> None:
        self._client.delete_object(Bucket=self.name, Key=key)

    def damage(self, key: str, how: str) -> None:
        """Flip a bit of an object, cut it in half, or delete it."""
        content = self.read(key)
        middle = len(content) // 2
        match how:
            case "flipped":
                self.write(key, content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
            case "truncated":
                self.write(key, content[:middle])
            case "deleted":
                self.delete(key)


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    from moto import settings
    from moto.server import ThreadedMotoServer

    requests = logging.getLogger("werkzeug")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        level = requests.level
        requests.setLevel(logging.ERROR)
        server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
        server.start()
        try:
            host, port = server.get_host_and_port()
            service = Endpoint(f"http://{host}:{port}")
            patch.setattr(settings, "INITIAL_NO_AUTH_ACTION_COUNT", 0)  # the users are made; from now on it checks
            for name, value in service.environment.items():
                patch.setenv(name, value)
            yield service
        finally:
            server.stop()
            requests.setLevel(level)


class Run:
    """A workspace folder, a bucket, a recipe, and a run of the pipeline up to its snapshot, started."""

    def __init__(self, root: Path, bucket: Bucket) -> None:
        raw = copy.deepcopy(TINY)
        raw["corpus"]["sources"][0] |= {"packages": ["networkx"], "limit": 200}
        self.workspace = root / "workspace"
        self.bucket = bucket
        self.recipe = write_recipe(root, raw)
        store = {"STELLA_HOME": str(self.workspace), "STELLA_VECTORS": f"s3://{bucket.name}/vectors"}
        self.environment = {**os.environ, **store}
        self.output = root / "output"
        selected = [f"--select={asset}" for asset in ("corpus", "teacher_vectors", "concatenated_vectors")]
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [STELLA, "run", str(self.recipe), *selected],
                env=self.environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )


WRONG_SECRET = "of-nobody"  # noqa: S105
SET_KEYS = "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION"
REFUSALS: dict[str, tuple[dict[str, str | None], str]] = {
    "wrong-secret": ({"AWS_SECRET_ACCESS_KEY": WRONG_SECRET}, SET_KEYS),
    "unknown-key": ({"AWS_ACCESS_KEY_ID": "AKIAOFNOBODY"}, SET_KEYS),
    "no-credentials": ({"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None}, SET_KEYS),
    "may-only-read": ({}, "no permission"),
    "no-such-bucket": ({}, "there is no such bucket"),
    "nobody-listens": ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "AWS_ENDPOINT_URL"),
    "http-not-allowed": ({"AWS_ALLOW_HTTP": None}, "AWS_ALLOW_HTTP"),
}
"""By the name of a bucket: what is changed in the environment or left out, and what the message must contain."""


def _try_each(environments: dict[str, dict[str, str | None]], root: Path, answers: Any) -> None:
    """Write to each bucket in its own environment; Lance reads it when it first meets a bucket."""
    usual, said = dict(os.environ), {}
    for bucket, changes in environments.items():
        os.environ.update(usual)
        for name, value in changes.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        try:
            fill(Workspace(root, f"s3://{bucket}/vectors"), count=1)
            said[bucket] = ("it was written", "")
        except StorageError as error:
            said[bucket] = (f"{type(error).__name__}: {error}", traceback.format_exc())
    answers.send(said)


@pytest.fixture(scope="module", autouse=True)
def trying(endpoint: Endpoint, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A process that tries what is refused during the other tests, since Lance waits for seconds before it fails."""
    for name in REFUSALS.keys() - {"no-such-bucket"}:
        endpoint.make_bucket(name)
    environments = {name: changes for name, (changes, _) in REFUSALS.items()}
    environments["may-only-read"] = endpoint.key_variables(endpoint.reading_key)
    context = multiprocessing.get_context("spawn")
    answers, sender = context.Pipe(duplex=False)
    process = context.Process(target=_try_each, args=(environments, tmp_path_factory.mktemp("refused"), sender))
    process.start()
    sender.close()
    yield answers
    process.terminate()
    process.join()


@pytest.fixture(scope="module")
def refusals(trying: Any) -> dict[str, tuple[str, str]]:
    """Message and traceback for each of `REFUSALS`."""
    return trying.recv()


@pytest.fixture(scope="module")
def started(endpoint: Endpoint, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """A run of the pipeline with its vectors in a bucket."""
    run = Run(tmp_path_factory.mktemp("pipeline"), endpoint.make_bucket("of-the-pipeline"))
    yield run
    if run.process.poll() is None:
        os.killpg(run.process.pid, signal.SIGKILL)
        run.process.wait()


@pytest.fixture
def finished(started: Run) -> Run:
    assert started.process.wait(600) == 0, started.output.read_text()
    return started


@pytest.fixture
def bucket(endpoint: Endpoint) -> Bucket:
    """A bucket of the test's own."""
    return endpoint.make_bucket(f"bucket-{next(NUMBERS)}")


@pytest.fixture
def workspace(bucket: Bucket, tmp_path: Path) -> Workspace:
    """A workspace whose vectors are in the bucket."""
    return Workspace(tmp_path / "workspace", f"s3://{bucket.name}/vectors")


def fill(workspace: Workspace, fingerprint: str = "f", count: int = 60) -> int:
    """Embed numbered texts in units of 20."""
    ids, texts = texts_and_ids(count)
    return VectorTable(workspace, fingerprint, 8).fill(ids, reader(texts), unit_vectors, unit_rows=20)


def require_whole(workspace: Workspace, fingerprint: str = "f", count: int = 60) -> None:
    """Every text has one vector, its own."""
    ids, texts = texts_and_ids(count)
    table = VectorTable(workspace, fingerprint, 8)
    assert len(table) == count
    np.testing.assert_array_equal(table.fetch(ids), unit_vectors(texts).astype(np.float16))
    assert verify_table(workspace, VECTORS + fingerprint).damages == []


def test_a_text_is_embedded_once_in_a_bucket_too(workspace: Workspace, bucket: Bucket):
    assert fill(workspace, count=40) == 40
    assert fill(workspace, count=60) == 20
    before = bucket.objects()
    assert fill(workspace, count=60) == 0
    assert bucket.objects() == before
    require_whole(workspace)
    assert all(key.startswith("vectors/teacher_vectors.f.lance/") for key in before)
    assert not Path(workspace.root, "lancedb").exists()


def test_a_bucket_without_a_prefix_is_a_store_and_lists_every_table(bucket: Bucket, tmp_path: Path):
    workspace = Workspace(tmp_path / "workspace", f"s3://{bucket.name}/")
    for number in range(12):  # more than one page of them
        assert fill(workspace, f"f{number}", 3) == 3
    assert table_names(workspace) == sorted(f"{VECTORS}f{number}" for number in range(12))


def test_two_processes_that_fill_one_teacher_in_a_bucket_leave_every_row_once(workspace: Workspace):
    context = multiprocessing.get_context("spawn")
    together, counts = context.Barrier(2), context.Queue()
    workers = [context.Process(target=_fill_together, args=(workspace, together, counts)) for _ in range(2)]
    for worker in workers:
        worker.start()
    embedded = [counts.get(timeout=600) for _ in workers]
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert sum(embedded) == 120
    require_whole(workspace, "shared", 120)


def _fill_together(workspace: Workspace, together: Any, counts: Any) -> None:
    ids, texts = texts_and_ids(120)
    table = VectorTable(workspace, "shared", 8)
    together.wait(600)
    counts.put(table.fill(ids, reader(texts), unit_vectors, unit_rows=20))


def test_a_writer_that_was_killed_before_its_first_commit_does_not_block_others(workspace: Workspace, bucket: Bucket):
    ids, texts = texts_and_ids(20)
    schema = vector_schema(8, {})
    unit = pa.Table.from_arrays([pa.array(ids), vectors_to_arrow(unit_vectors(texts))], schema=schema)
    for name in ("f", "f", "unused"):
        write_unit(table_uri(workspace, VECTORS + name), unit, schema)
    assert open_table(workspace, VECTORS + "f") is None
    assert fill(workspace) == 60
    require_whole(workspace)
    assert len(bucket.objects("f.lance/data/")) == 5
    before = bucket.objects("")
    assert collect_garbage(workspace, lambda: Needed({"f"}, set()), dry_run=True, superseded=False) == []
    assert bucket.objects("") == before
    collect_garbage(workspace, lambda: Needed({"f"}, set()), dry_run=False, superseded=False)
    assert len(bucket.objects("f.lance/data/")) == len(bucket.objects("f.lance/_digests/")) == 5
    assert len(bucket.objects("unused")) == 2  # another machine may be about to commit it
    require_whole(workspace)


def test_snapshots_in_a_bucket_cost_only_what_changed_and_stay_readable_by_tag(workspace: Workspace, bucket: Bucket):
    small, wide = Teacher("small", 3), Teacher("wide", 5, weight=0.5)
    write(workspace, "one", Corpus(range(120)), small)
    before = set(bucket.objects("/data/"))
    grown = Corpus(range(10, 130))
    written = write(workspace, "two", grown, small, wide)
    assert (written.rows, written.rows_written, written.columns_written) == (120, 10, ("wide",))
    assert len(small.asked) == 10
    assert set(bucket.objects("/data/")) > before
    require_equal(workspace, "two", grown, small, wide)
    require_equal(workspace, "one", Corpus(range(120)), small)
    assert list(snapshot_tags(workspace, "tiny")) == ["one", "two"]
    assert write(workspace, "two", grown, small, wide).rows_written == 0


def test_plain_lancedb_reads_the_bucket_by_its_address_alone(workspace: Workspace):
    import lancedb

    small = Teacher("small", 3)
    corpus = Corpus(range(30))
    write(workspace, "one", corpus, small)
    table = lancedb.connect(workspace.vectors).open_table(SNAPSHOTS)
    assert table.to_arrow().column("id").to_pylist() == corpus.table.column("id").to_pylist()
    first = table.to_arrow().to_pylist()[7]
    found = table.search(first["vector_small"], vector_column_name="vector_small").limit(1).to_list()
    assert found[0]["text"] == first["text"]


@pytest.mark.parametrize(
    ("how", "words"),
    [("flipped", "was changed: its bytes"), ("truncated", "is truncated"), ("deleted", "is missing")],
)
def test_a_damaged_object_is_named_and_only_its_unit_is_computed_again(
    how: str, words: str, workspace: Workspace, bucket: Bucket
):
    fill(workspace)
    require_whole(workspace)
    key = bucket.objects("/data/")[1]
    bucket.damage(key, how)
    report = verify_table(workspace, VECTORS + "f")
    assert [(damage.place, damage.rows) for damage in report.damages] == [("data/" + Path(key).name, 20)]
    assert words in report.damages[0].what
    assert drop_damaged(workspace, VECTORS + "f", report.damages) == 20
    assert fill(workspace) == 20
    require_whole(workspace)


@pytest.mark.parametrize("how", ["flipped", "truncated", "deleted"])
def test_a_damaged_object_of_a_snapshot_is_named_and_written_again(how: str, workspace: Workspace, bucket: Bucket):
    corpus, small, wide = Corpus(range(100)), Teacher("small", 3), Teacher("wide", 5)
    write(workspace, "one", corpus, small, wide)
    assert verify_table(workspace, SNAPSHOTS).damages == []
    dataset = Snapshot.open(workspace, "tiny", "one").dataset
    place = f"data/{dataset.get_fragments()[1].data_files()[2].path}"
    bucket.damage(f"vectors/{SNAPSHOTS}.lance/{place}", how)
    damages = verify_table(workspace, SNAPSHOTS).damages
    assert [(damage.place, damage.tags) for damage in damages] == [(place, ("one",))]
    write(workspace, "one", corpus, small, wide, damaged={place})
    assert len(wide.asked) == 50  # one unit of one column
    assert small.asked == []
    require_equal(workspace, "one", corpus, small, wide)
    assert verify_table(workspace, SNAPSHOTS).damages == []


def test_a_table_whose_newest_version_is_damaged_returns_to_the_one_before(workspace: Workspace, bucket: Bucket):
    fill(workspace)
    bucket.damage(min(bucket.objects("/_versions/")), "truncated")  # names count down
    damages = verify_table(workspace, VECTORS + "f").damages
    assert [damage.place for damage in damages] == ["_versions"]
    assert drop_damaged(workspace, VECTORS + "f", damages) == 0
    assert fill(workspace) == 20
    require_whole(workspace)


def test_garbage_in_a_bucket_is_shown_and_then_freed(workspace: Workspace, bucket: Bucket):
    small = Teacher("small", 3)
    fill(workspace, "small1")
    fill(workspace, "unused")
    write(workspace, "one", Corpus(range(100)), small)
    write(workspace, "two", Corpus(range(90, 200)), small)
    needed = Needed({"small1"}, {("tiny", "two")})
    before = bucket.sizes()
    shown = collect_garbage(workspace, lambda: needed, dry_run=True, superseded=True)
    assert bucket.sizes() == before
    assert {item.table for item in shown} == {SNAPSHOTS, VECTORS + "unused"}
    assert collect_garbage(workspace, lambda: needed, dry_run=False, superseded=True) == shown
    gone = before.keys() - bucket.sizes().keys()
    data = sum(before[key] for key in gone if SNAPSHOTS in key and "/data/" in key)
    assert [item.bytes for item in shown if item.table == SNAPSHOTS] == [data]
    assert bucket.objects(VECTORS + "unused") == []
    assert list(snapshot_tags(workspace, "tiny")) == ["two"]
    require_equal(workspace, "two", Corpus(range(90, 200)), small)
    require_whole(workspace, "small1")
    assert verify_table(workspace, SNAPSHOTS).damages == []
    assert collect_garbage(workspace, lambda: needed, dry_run=True, superseded=True) == []


@pytest.mark.parametrize("case", REFUSALS)
def test_an_unreachable_bucket_is_reported_with_its_remedy_and_without_secrets(
    case: str, refusals: dict[str, tuple[str, str]], endpoint: Endpoint
):
    message, trace = refusals[case]
    assert message.startswith((f"AccessError: s3://{case}/vectors", f"UnreachableError: s3://{case}/vectors"))
    assert REFUSALS[case][1] in message
    for key in endpoint.key, endpoint.reading_key:
        assert key["SecretAccessKey"] not in message + trace
    assert WRONG_SECRET not in message + trace


@pytest.mark.slow
def test_the_pipeline_keeps_its_vectors_in_a_bucket_and_they_verify(finished: Run):
    verify = [STELLA, "vectors", "verify", str(finished.recipe), "--json"]
    done = subprocess.run(verify, capture_output=True, text=True, env=finished.environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    audit = json.loads(done.stdout)
    assert [table["rows"] for table in audit["tables"]] == [200, 200, 200]
    assert [comparison["teacher"] for comparison in audit["recomputed"]] == ["minilm", "lsa"]
    assert not (finished.workspace / "lancedb").exists()


@pytest.mark.slow
def test_no_credential_is_left_in_the_bucket_or_in_the_workspace(finished: Run, endpoint: Endpoint):
    texts = {f"s3://{finished.bucket.name}/{key}": finished.bucket.read(key) for key in finished.bucket.objects()}
    texts |= {str(path): path.read_bytes() for path in finished.workspace.rglob("*") if path.is_file()}
    texts["what it printed"] = finished.output.read_bytes()
    assert len(texts) > 50
    assert sum(b"minilm" in text for text in texts.values()) > 5  # unencrypted words are found
    for credential in endpoint.key["SecretAccessKey"], endpoint.key["AccessKeyId"]:
        assert [name for name, text in texts.items() if credential.encode() in text] == []
