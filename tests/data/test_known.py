import gzip
import hashlib
import http.server
import re
import socket
import threading
from typing import ClassVar

import pytest

from tripel.data import known
from tripel.data.known import KNOWN, KnownFile, KnownSet, get, list_known
from tripel.data.made import MADE
from tripel.errors import DataError

CONTENT = "".join(f"line {n * n}\n" for n in range(20_000)).encode()
PACKED = gzip.compress(CONTENT)


class Server(http.server.BaseHTTPRequestHandler):
    """Serves `files`; breaks off after `break_after` bytes when that is set; knows ranges unless told not to."""

    files: ClassVar[dict[str, bytes]] = {}
    requests: ClassVar[list[str]] = []
    break_after: int | None = None
    ranges = True

    def do_GET(self):
        body = self.files.get(self.path)
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        self.requests.append(f"{self.path} {self.headers.get('Range')}")
        if body is None:
            return self.send_error(404)
        start = int(wanted[1]) if wanted and self.ranges else 0
        if start >= len(body):
            return self.send_error(416)
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        self.wfile.write(body[start:][: self.break_after])
        self.close_connection = True

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    """The address of a server that has /plain and /packed.gz."""
    monkeypatch.setattr(Server, "files", {"/plain": CONTENT, "/packed.gz": PACKED})
    monkeypatch.setattr(Server, "requests", [])
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as listening:
        thread = threading.Thread(target=listening.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{listening.server_port}"
        listening.shutdown()
        thread.join()


def make_known(monkeypatch, address, sha256=None):
    files = tuple(
        KnownFile(name, f"{address}/{path}", sha256 or hashlib.sha256(CONTENT).hexdigest(), len(CONTENT))
        for name, path in (("train.txt", "plain"), ("test.txt", "packed.gz"))
    )
    monkeypatch.setitem(
        KNOWN, "little", KnownSet("little", "a set", "CC0", "https://example.org", "little/train", files)
    )


def test_a_set_is_fetched_unpacked_and_not_fetched_again(server, tmp_path, monkeypatch):
    make_known(monkeypatch, server)
    seen = []
    folder = get("little", tmp_path, progress=lambda *report: seen.append(report))
    assert folder == tmp_path / "little"
    assert sorted(path.name for path in folder.iterdir()) == ["test.txt", "train.txt"]
    assert {path.read_bytes() for path in folder.iterdir()} == {CONTENT}
    assert ("train.txt", len(CONTENT), len(CONTENT)) in seen and ("test.txt", len(PACKED), len(PACKED)) in seen
    get("little", tmp_path)
    assert len(Server.requests) == 2


def test_without_a_folder_a_set_goes_where_names_are_looked_up(server, tmp_path, monkeypatch):
    make_known(monkeypatch, server)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert get("little") == tmp_path / "tripel" / "data" / "little"


def test_a_fetch_that_broke_off_goes_on_where_it_stopped(server, tmp_path, monkeypatch):
    make_known(monkeypatch, server)
    monkeypatch.setattr(Server, "break_after", 1000)
    with pytest.raises(DataError, match="could not be fetched"):
        get("little", tmp_path)
    assert [path.name for path in (tmp_path / "little").iterdir()] == ["train.txt.part"]
    monkeypatch.setattr(Server, "break_after", None)
    folder = get("little", tmp_path)
    assert Server.requests[:2] == ["/plain None", "/plain bytes=1000-"]
    assert (folder / "train.txt").read_bytes() == CONTENT


def test_a_server_without_ranges_starts_the_file_anew(server, tmp_path, monkeypatch):
    make_known(monkeypatch, server)
    (tmp_path / "little").mkdir()
    (tmp_path / "little" / "train.txt.part").write_bytes(CONTENT[:1000])
    monkeypatch.setattr(Server, "ranges", False)
    assert (get("little", tmp_path) / "train.txt").read_bytes() == CONTENT


def test_a_part_that_was_whole_already_is_used(server, tmp_path, monkeypatch):
    make_known(monkeypatch, server)
    (tmp_path / "little").mkdir()
    (tmp_path / "little" / "train.txt.part").write_bytes(CONTENT)
    assert (get("little", tmp_path) / "train.txt").read_bytes() == CONTENT


def test_a_wrong_checksum_is_refused_and_nothing_is_left(server, tmp_path, monkeypatch):
    make_known(monkeypatch, server, sha256="0" * 64)
    with pytest.raises(DataError, match="not what it should be") as caught:
        get("little", tmp_path)
    assert "0" * 64 in str(caught.value) and hashlib.sha256(CONTENT).hexdigest() in str(caught.value)
    assert not list((tmp_path / "little").iterdir())


def test_a_damaged_gzip_is_refused_and_nothing_is_left(server, tmp_path, monkeypatch):
    make_known(monkeypatch, server)
    Server.files["/packed.gz"] = PACKED[:-20]
    with pytest.raises(DataError, match=r"little/test\.txt is not what it should be"):
        get("little", tmp_path)
    assert [path.name for path in (tmp_path / "little").iterdir()] == ["train.txt"]


def test_a_file_that_was_changed_here_is_fetched_again(server, tmp_path, monkeypatch):
    make_known(monkeypatch, server)
    folder = get("little", tmp_path)
    (folder / "train.txt").write_bytes(b"changed")
    assert (get("little", tmp_path) / "train.txt").read_bytes() == CONTENT


def test_a_file_that_is_gone_from_the_server_is_said_so(server, tmp_path, monkeypatch):
    make_known(monkeypatch, server)
    del Server.files["/plain"]
    with pytest.raises(DataError, match="Not Found"):
        get("little", tmp_path)


def test_offline_says_where_to_put_the_files_by_hand(tmp_path, monkeypatch):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        make_known(monkeypatch, f"http://127.0.0.1:{closed.getsockname()[1]}")
        with pytest.raises(DataError, match="could not be fetched") as caught:
            get("little", tmp_path)
    assert f"put that file at {tmp_path / 'little' / 'train.txt'}" in str(caught.value)
    assert "$TRIPEL_DATA/little" in str(caught.value) and "http://127.0.0.1" in str(caught.value)


def test_a_full_disk_is_said_to_be_full(server, tmp_path, monkeypatch):
    make_known(monkeypatch, server)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(known, "_fetch", full)
    with pytest.raises(DataError, match="No space left"):
        get("little", tmp_path)


def test_an_unknown_set_names_the_nearest_one(tmp_path):
    with pytest.raises(DataError, match="tripel data get multi30k"):
        get("mutli30k", tmp_path)


def test_a_set_under_tripel_data_is_listed_as_here(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("TRIPEL_DATA", str(tmp_path))
    here = list(KNOWN).index("shakespeare")
    assert list(list_known().columns[-1].cells)[here] == "no"
    for file in KNOWN["shakespeare"].files:
        (tmp_path / "shakespeare" / file.name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "shakespeare" / file.name).write_text("x")
    assert list(list_known().columns[-1].cells)[here] == "yes"


def test_every_known_set_has_an_address_a_licence_and_a_checksum_and_is_listed():
    assert set(KNOWN) == {"multi30k", "tatoeba", "shakespeare", "fashion-mnist"}
    assert list_known().row_count == len(KNOWN) + len(MADE)
    for known_set in KNOWN.values():
        assert known_set.licence and known_set.size > 0
        assert len({file.name for file in known_set.files}) == len(known_set.files)
        for file in known_set.files:
            assert file.address.startswith("https://") and re.fullmatch("[0-9a-f]{64}", file.sha256)
