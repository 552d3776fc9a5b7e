"""Public shards: fetched once, verified against the lock, resumed after a kill, one clear line when offline.

The hub is a real HTTP server on the loopback interface that answers the four requests which the client library makes.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import pytest

from baseline.data.download import DATASETS, LOCK_FILE, PublicDataset, bring, download
from baseline.data.durable import read_sealed, write_sealed
from baseline.data.errors import DataError
from baseline.data.lockfile import LockedShard, ShardLock

pytest.importorskip("huggingface_hub", reason="the optional extra `data` is not installed")

REPOSITORY = Path(__file__).parents[2]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
DATASET = PublicDataset("someone/texts", "shard_{index:05d}.parquet", 3)
NAMES = ["shard_00000.parquet", "shard_00001.parquet", "shard_00003.parquet"]


class Hub(ThreadingHTTPServer):
    """A dataset repository with a few shards."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), HubRequest)
        self.files = {name: hashlib.sha256(name.encode()).digest() * 1000 for name in NAMES}
        self.log: list[tuple[str, str, str | None]] = []
        """(method, path, Range header) of each request."""
        self.corrupt_next: Counter[str] = Counter()
        """Shard -> how many downloads will have a wrong byte."""
        self.break_after: dict[str, int] = {}
        """Shard -> after how many bytes its next download stops, until `release` is set and the connection is closed."""
        self.release = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A killed client is no news."""

    def requests(self, method: str) -> list[str]:
        return [path for logged, path, _ in self.log if logged == method]


class HubRequest(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        self.server.log.append((self.command, self.path, self.headers.get("Range")))

    def _json(self, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        asked = unquote(self.rfile.read(int(self.headers["Content-Length"])).decode())
        files = [(name, data) for name, data in self.server.files.items() if name in asked]
        lfs = [{"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 1} for _, data in files]
        self._json([{"type": "file", "path": name, "size": len(data), "oid": "0", "lfs": lfs[i]} for i, (name, data) in enumerate(files)])

    def do_GET(self) -> None:
        if self.path.startswith("/api/"):
            self._json({"id": DATASET.repository, "sha": COMMIT})
        else:
            self._file(body=True)

    def do_HEAD(self) -> None:
        self._file(body=False)

    def _file(self, body: bool) -> None:
        match = re.fullmatch(rf"/datasets/{DATASET.repository}/resolve/{COMMIT}/(.+)", self.path)
        data = self.server.files.get(match[1]) if match else None
        if match is None or data is None:
            self.send_error(404)
            return
        name, start = match[1], 0
        if wanted := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or ""):
            start = int(wanted[1])
        self.send_response(206 if start else 200)
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(data) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        if not body:
            return
        if self.server.corrupt_next[name]:
            self.server.corrupt_next[name] -= 1
            data = data[:-1] + bytes([data[-1] ^ 1])
        if limit := self.server.break_after.pop(name, None):
            self.wfile.write(data[start:limit])
            self.wfile.flush()
            self.server.release.wait(60)
            self.close_connection = True
        else:
            self.wfile.write(data[start:])


@pytest.fixture
def hub() -> Iterator[Hub]:
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.release.set()
    server.shutdown()
    thread.join()
    server.server_close()


def start_client(url: str, folder: Path, train_shards: int = 2) -> subprocess.Popen[str]:
    """`download` in a process of its own, whose client library asks `url`; prints progress reports, then its result or error."""
    program = f"""
import baseline.data.hub
from baseline.data.download import PublicDataset, download
from baseline.data.errors import DataError
from pathlib import Path
baseline.data.hub.FIRST_WAIT_S = 0.01
try:
    split = download({DATASET!r}, Path({str(folder)!r}), {train_shards}, workers=2,
                     progress=lambda stage, done, total: print(stage, done, total, flush=True))
    print("train", *[shard.name for shard in split.train], "val", split.val[0].name)
except DataError as error:
    print("error:", error)
"""
    environment = {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY),
        "HF_ENDPOINT": url,
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "NO_PROXY": "127.0.0.1",
    }
    return subprocess.Popen([sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def run_client(url: str, folder: Path, train_shards: int = 2) -> list[str]:
    output, _ = start_client(url, folder, train_shards).communicate(timeout=60)
    return output.splitlines()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.parquet")}


class TestDownload:
    def test_it_fetches_the_first_shards_and_the_last_and_locks_them(self, hub: Hub, tmp_path: Path) -> None:
        output = run_client(hub.url, tmp_path)
        assert output[-1] == "train shard_00000.parquet shard_00001.parquet val shard_00003.parquet"
        assert contents(tmp_path) == hub.files

        lock = read_sealed(tmp_path / LOCK_FILE)
        assert lock["revision"] == COMMIT
        assert lock["shards"] == {name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in hub.files.items()}
        reports = [line.split() for line in output if line.startswith("download")]
        total = sum(map(len, hub.files.values()))
        assert reports[0] == ["download", "0", str(total)]
        assert reports[-1] == ["download", str(total), str(total)]

    def test_the_second_time_it_needs_no_network(self, hub: Hub, tmp_path: Path) -> None:
        run_client(hub.url, tmp_path)
        asked = len(hub.log)
        split = download(DATASET, tmp_path, 2)
        assert [shard.name for shard in (*split.train, *split.val)] == NAMES
        assert len(hub.log) == asked

    def test_only_a_missing_or_damaged_shard_is_fetched_again(self, hub: Hub, tmp_path: Path) -> None:
        run_client(hub.url, tmp_path)
        hub.log.clear()
        (tmp_path / NAMES[0]).unlink()
        damaged = bytearray(hub.files[NAMES[2]])
        damaged[7] ^= 1
        (tmp_path / NAMES[2]).write_bytes(damaged)
        run_client(hub.url, tmp_path)
        assert contents(tmp_path) == hub.files
        assert {path.rsplit("/", 1)[1] for path in hub.requests("GET")} == {NAMES[0], NAMES[2]}

    def test_bytes_that_do_not_match_are_fetched_again(self, hub: Hub, tmp_path: Path) -> None:
        hub.corrupt_next[NAMES[1]] = 2
        assert run_client(hub.url, tmp_path)[-1].startswith("train")
        assert contents(tmp_path) == hub.files

    def test_bytes_that_never_match_end_in_one_line_and_no_file(self, hub: Hub, tmp_path: Path) -> None:
        hub.corrupt_next[NAMES[1]] = 100
        assert re.search(r"error: shard_00001\.parquet .* 5 attempts \(its SHA-256 is not", run_client(hub.url, tmp_path)[-1])
        assert NAMES[1] not in contents(tmp_path)

    def test_a_broken_connection_is_resumed_where_it_broke(self, hub: Hub, tmp_path: Path) -> None:
        hub.files[NAMES[0]] = os.urandom(1 << 20) * 12
        hub.break_after[NAMES[0]] = 11 << 20
        hub.release.set()
        assert run_client(hub.url, tmp_path)[-1].startswith("train")
        assert contents(tmp_path) == hub.files
        ranges = [asked for method, path, asked in hub.log if method == "GET" and path.endswith(NAMES[0])]
        assert ranges == [None, "bytes=10485760-"]  # the client hands on 10 MiB at a time

    def test_a_killed_download_repeats_only_what_was_under_way_and_leaves_no_litter(self, hub: Hub, tmp_path: Path) -> None:
        hub.break_after[NAMES[2]] = 10_000
        child = start_client(hub.url, tmp_path)
        while set(contents(tmp_path)) != {NAMES[0], NAMES[1]}:
            assert child.poll() is None
            time.sleep(0.01)
        child.send_signal(signal.SIGKILL)
        child.communicate()

        hub.log.clear()
        assert run_client(hub.url, tmp_path)[-1].startswith("train")
        assert contents(tmp_path) == hub.files
        assert {path.rsplit("/", 1)[1] for path in hub.requests("GET")} == {NAMES[2]}
        assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {*NAMES, LOCK_FILE, ".lock"}

    def test_a_shard_that_the_hub_lacks_is_named(self, hub: Hub, tmp_path: Path) -> None:
        del hub.files[NAMES[1]]
        assert "someone/texts has no shard_00001.parquet at revision 0123" in run_client(hub.url, tmp_path)[-1]

    def test_offline_it_says_in_one_line_what_is_missing_and_how_to_bring_it(self, tmp_path: Path) -> None:
        output = run_client("http://127.0.0.1:9", tmp_path)
        assert len(output) == 1
        assert re.search(r"3 shards \(shard_00000\.parquet … shard_00003\.parquet\) of someone/texts .*--from DIR", output[0])

    def test_a_disk_that_is_too_small_is_refused_before_anything_is_fetched(self, tmp_path: Path) -> None:
        shard = LockedShard(10**18, "0" * 64)
        ShardLock(DATASET.repository, COMMIT, dict.fromkeys(NAMES, shard)).write(tmp_path / LOCK_FILE)
        with pytest.raises(DataError, match=r"GB free, and the missing shards need 3000000001\.1 GB"):
            download(DATASET, tmp_path, 2)

    def test_another_revision_or_dataset_is_refused(self, tmp_path: Path) -> None:
        ShardLock(DATASET.repository, COMMIT, {}).write(tmp_path / LOCK_FILE)
        with pytest.raises(DataError, match="choose another folder"):
            download(PublicDataset(DATASET.repository, DATASET.shard_name, 3, revision="f" * 40), tmp_path, 1)
        with pytest.raises(DataError, match=r"locks the shards of someone/texts, not of other/texts"):
            download(PublicDataset("other/texts", DATASET.shard_name, 3), tmp_path, 1)

    @pytest.mark.parametrize("train_shards", [0, 4])
    def test_a_number_of_shards_that_the_dataset_lacks_is_refused(self, tmp_path: Path, train_shards: int) -> None:
        with pytest.raises(DataError, match=rf"train_shards = {train_shards}: someone/texts has 1 to 3"):
            download(DATASET, tmp_path, train_shards)


@pytest.mark.parametrize(("corpus", "last"), [("climbmix", "shard_06542.parquet"), ("fineweb-edu", "shard_01822.parquet")])
def test_the_public_datasets_hold_out_their_last_shard(corpus: str, last: str) -> None:
    dataset = DATASETS[corpus]
    assert dataset.names(2) == ["shard_00000.parquet", "shard_00001.parquet", last]
    assert dataset.last_name == last


class TestBring:
    @pytest.fixture
    def stick(self, tmp_path: Path) -> Path:
        """A folder with all shards, as carried by hand."""
        folder = tmp_path / "stick"
        folder.mkdir()
        for name in NAMES:
            (folder / name).write_bytes(name.encode() * 100)
        return folder

    def test_shards_are_copied_and_locked_as_found(self, stick: Path, tmp_path: Path) -> None:
        target = tmp_path / "shards"
        split = bring(DATASET, target, 2, stick)
        assert [shard.name for shard in (*split.train, *split.val)] == NAMES
        assert contents(target) == contents(stick)
        assert download(DATASET, target, 2) == split

    def test_shards_in_place_are_locked_where_they_are(self, stick: Path) -> None:
        bring(DATASET, stick, 2, stick)
        assert set(read_sealed(stick / LOCK_FILE)["shards"]) == set(NAMES)

    def test_a_shard_that_is_not_the_locked_one_is_refused(self, stick: Path, tmp_path: Path) -> None:
        bring(DATASET, tmp_path / "shards", 2, stick)
        (tmp_path / "shards" / NAMES[1]).unlink()
        (stick / NAMES[1]).write_bytes(b"something else of another size")
        with pytest.raises(DataError, match=r"stick/shard_00001\.parquet is not the locked shard"):
            bring(DATASET, tmp_path / "shards", 2, stick)
        assert NAMES[1] not in contents(tmp_path / "shards")

    def test_missing_shards_are_named(self, stick: Path, tmp_path: Path) -> None:
        (stick / NAMES[1]).unlink()
        with pytest.raises(DataError, match=r"stick lacks shard_00001\.parquet: copy"):
            bring(DATASET, tmp_path / "shards", 2, stick)

    def test_what_the_hub_later_says_must_agree_with_the_lock(self, stick: Path, hub: Hub, tmp_path: Path) -> None:
        target = tmp_path / "shards"
        bring(DATASET, target, 2, stick)
        (target / NAMES[0]).unlink()
        assert "shard_00000.parquet is not the file that is locked" in run_client(hub.url, target)[-1]

    def test_what_was_locked_from_a_folder_is_confirmed_as_soon_as_the_hub_is_asked_for_anything(
        self, stick: Path, hub: Hub, tmp_path: Path
    ) -> None:
        target = tmp_path / "shards"
        bring(DATASET, target, 1, stick)
        assert "shard_00000.parquet is not the file that is locked" in run_client(hub.url, target, train_shards=2)[-1]

    def test_the_digest_of_a_lock_is_that_of_the_shards_asked_for(self, stick: Path) -> None:
        bring(DATASET, stick, 2, stick)
        lock = ShardLock.read(stick / LOCK_FILE, DATASET.repository)
        assert lock.digest_of(NAMES) == lock.digest_of(NAMES[::-1]) != lock.digest_of(NAMES[1:])
        changed = ShardLock(lock.repository, COMMIT, {**lock.shards, NAMES[0]: LockedShard(1, "0" * 64)})
        assert changed.digest_of(NAMES) != lock.digest_of(NAMES)
        assert changed.digest_of(NAMES[1:]) == lock.digest_of(NAMES[1:])

    def test_a_damaged_lock_file_is_named(self, stick: Path, tmp_path: Path) -> None:
        bring(DATASET, stick, 2, stick)
        (stick / LOCK_FILE).write_text((stick / LOCK_FILE).read_text().replace("sha256", "sha257", 1))
        with pytest.raises(DataError, match=r"shards\.lock\.json is damaged"):
            bring(DATASET, stick, 2, stick)
        write_sealed(stick / LOCK_FILE, {"repository": "other/texts"})
        with pytest.raises(DataError, match="locks the shards of other/texts"):
            bring(DATASET, stick, 2, stick)
