"""The download of the bundle, from a real HTTP server on the loopback interface that breaks off, lies and refuses on demand."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from harness.errors import MachineLacks
from harness.evaluate.core.bundle import ZIP_NAME
from harness.evaluate.core.download import ATTEMPTS, download_bundle
from tests.harness.evaluate.core_samples import CHOICES, content_of, task_of, write_folder, write_zip

TASK = task_of("multiple_choice", CHOICES)
FILES = {TASK.file: content_of(CHOICES)}


class Server(ThreadingHTTPServer):
    """Sends `content`; the replies in `troubles` come first, one each."""

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Request)
        self.content = content
        self.troubles: list[int | str] = []
        """HTTP status codes, or "break" for half of the bytes."""
        self.requests = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/eval_bundle.zip"


class Request(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.requests += 1
        trouble = self.server.troubles.pop(0) if self.server.troubles else None
        if isinstance(trouble, int):
            self.send_error(trouble)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.server.content)))
        self.end_headers()
        self.wfile.write(self.server.content[: len(self.server.content) // 2 if trouble == "break" else None])

    def log_message(self, format: str, *args: object) -> None:
        """No news."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(write_zip(tmp_path / "published.zip", FILES).read_bytes())
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def fetch(server: Server, folder: Path) -> bytes:
    """The task's file after a download without pauses."""
    return download_bundle(folder, url=server.url, tasks=(TASK,), first_wait_s=0.0).read(TASK)


def test_the_bundle_is_fetched_once(server: Server, tmp_path: Path) -> None:
    for _ in range(2):
        assert fetch(server, tmp_path / "core") == FILES[TASK.file]
    assert server.requests == 1
    assert sorted(path.name for path in (tmp_path / "core").iterdir()) == [".lock", ZIP_NAME]


def test_progress_ends_at_the_size_of_the_file(server: Server, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    download_bundle(tmp_path / "core", url=server.url, tasks=(TASK,), progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (len(server.content), len(server.content))


def test_a_bundle_that_was_brought_needs_no_network(tmp_path: Path) -> None:
    write_folder(tmp_path, FILES)
    assert download_bundle(tmp_path, url="http://127.0.0.1:9/none", tasks=(TASK,)).read(TASK) == FILES[TASK.file]


def test_broken_connections_and_busy_servers_are_tried_again(server: Server, tmp_path: Path) -> None:
    server.troubles = ["break", 503, 429, "break"]
    assert fetch(server, tmp_path / "core") == FILES[TASK.file]
    assert server.requests == ATTEMPTS


def test_a_download_that_always_breaks_ends_in_one_line_and_leaves_nothing(server: Server, tmp_path: Path) -> None:
    server.troubles = ["break"] * ATTEMPTS
    with pytest.raises(MachineLacks, match=r"could not be downloaded \(.*(broke after|IncompleteRead|more expected).*--core DIR"):
        fetch(server, tmp_path / "core")
    assert [path.name for path in (tmp_path / "core").iterdir()] == [".lock"]


def test_a_refusal_is_not_tried_again(server: Server, tmp_path: Path) -> None:
    server.troubles = [404] * 2
    with pytest.raises(MachineLacks, match=r"HTTP 404"):
        fetch(server, tmp_path / "core")
    assert server.requests == 1


def test_offline_is_one_line_that_says_how_to_bring_the_bundle(tmp_path: Path) -> None:
    with pytest.raises(MachineLacks, match=r"^http://127\.0\.0\.1:9/x: the examples of CORE could not be downloaded .*`--core DIR`"):
        download_bundle(tmp_path, url="http://127.0.0.1:9/x", tasks=(TASK,), first_wait_s=0.0)


def test_a_page_instead_of_the_zip_is_refused(server: Server, tmp_path: Path) -> None:
    server.content = b"<html>please log in</html>"
    with pytest.raises(MachineLacks, match=r"eval_bundle\.zip: sends something that is no zip file"):
        fetch(server, tmp_path / "core")
    assert not (tmp_path / "core" / ZIP_NAME).exists()


def test_a_zip_with_other_examples_is_refused(server: Server, tmp_path: Path) -> None:
    server.content = write_zip(tmp_path / "other.zip", {TASK.file: FILES[TASK.file].replace(b"ice", b"ICE")}).read_bytes()
    with pytest.raises(MachineLacks, match=r"differs from the pinned file"):
        fetch(server, tmp_path / "core")
    assert not (tmp_path / "core" / ZIP_NAME).exists()


def test_a_damaged_zip_is_replaced(server: Server, tmp_path: Path) -> None:
    folder = tmp_path / "core"
    folder.mkdir()
    (folder / ZIP_NAME).write_bytes(server.content[:-40])
    assert fetch(server, folder) == FILES[TASK.file]


def test_a_damaged_folder_is_left_for_its_owner(server: Server, tmp_path: Path) -> None:
    write_folder(tmp_path / "core", {TASK.file: b"mine\n"})
    with pytest.raises(MachineLacks, match=r"core/eval_data/tiny/tiny\.jsonl: is cut short"):
        fetch(server, tmp_path / "core")
    assert server.requests == 0
