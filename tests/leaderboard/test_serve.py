"""Looking at a built site: on this machine only, with its own page for what is missing."""

from __future__ import annotations

import http.client
import threading

import pytest

from leaderboard.site.serve import HOST, ServeError, make_server


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "index.html").write_text("home")
    (tmp_path / "404.html").write_text("nothing here")
    (tmp_path / "data" / "index.json").write_text("{}")
    (tmp_path.parent / "secret.txt").write_text("secret")
    return tmp_path


@pytest.fixture
def port(folder):
    with make_server(folder, 0) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def get(port, path, method="GET"):
    connection = http.client.HTTPConnection(HOST, port, timeout=5)
    connection.request(method, path)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, body, answer.headers


def test_pages_and_data_are_served(port):
    assert get(port, "/")[:2] == (200, b"home")
    status, _, headers = get(port, "/data/index.json")
    assert (status, headers["Content-Type"], headers["X-Content-Type-Options"]) == (200, "application/json", "nosniff")


@pytest.mark.parametrize("path", ["/nothing.html", "/data/", "/../secret.txt", "/%2e%2e/secret.txt"])
def test_what_is_missing_gets_the_sites_own_page(port, path):
    assert get(port, path)[:2] == (404, b"nothing here")


def test_a_head_request_has_no_body(port):
    assert get(port, "/nothing.html", "HEAD")[:2] == (404, b"")


def test_it_listens_on_this_machine_only(folder):
    with make_server(folder, 0) as server:
        assert server.server_address[0] == "127.0.0.1"


def test_a_taken_port_is_named_with_the_mend(folder):
    with make_server(folder, 0) as server:
        taken = server.server_address[1]
        with pytest.raises(ServeError, match=f"port {taken} on 127.0.0.1 cannot be used .*choose another with --port"):
            make_server(folder, taken)


def test_a_folder_without_a_site_is_named(tmp_path):
    with pytest.raises(ServeError, match="board build"):
        make_server(tmp_path / "nowhere", 0)
