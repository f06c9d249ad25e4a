"""Nothing but the official files is ever used, and every failure says what to do."""

from __future__ import annotations

import errno
import gzip
import hashlib
import http.server
import os
import struct
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bn import data


def idx(array: np.ndarray) -> bytes:
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return gzip.compress(header + array.astype(np.uint8).tobytes(), mtime=0)


@pytest.fixture
def tiny(monkeypatch):
    """Four tiny files in MNIST's place, with their own hashes."""
    rng = np.random.default_rng(0)
    contents = {}
    for name, shape in zip(data.FILES, [(6, 28, 28), (6,), (3, 28, 28), (3,)], strict=True):
        contents[name] = idx(rng.integers(0, 10 if len(shape) == 1 else 256, shape))
    monkeypatch.setattr(
        data, "FILES", {n: hashlib.sha256(c).hexdigest() for n, c in contents.items()}
    )
    return contents


@pytest.fixture
def given_folder(tiny, tmp_path, monkeypatch):
    for name, content in tiny.items():
        (tmp_path / name).write_bytes(content)
    monkeypatch.setenv("BN_DATA_DIR", str(tmp_path))
    return tmp_path


@pytest.fixture
def cache(tiny, tmp_path, monkeypatch):
    monkeypatch.delenv("BN_DATA_DIR", raising=False)
    monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path / "cache")
    monkeypatch.setattr(data, "TIMEOUT", 2)
    return tmp_path / "cache" / "mnist"


@pytest.fixture
def serve():
    """Start HTTP servers on loopback; each answers as told and counts what it was asked."""
    servers = []

    def start(answer):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                server.asked.append(self.path.rsplit("/", 1)[1])
                status, body, promised = answer(server.asked[-1])
                self.send_response(status)
                self.send_header("Content-Length", str(promised))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.asked = []
        server.url = f"http://127.0.0.1:{server.server_port}/mnist/"
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def good(contents):
    return lambda name: (200, contents[name], len(contents[name]))


def not_found(name):
    return 404, b"", 0


def use(monkeypatch, *servers):
    monkeypatch.setattr(data, "MIRRORS", tuple(getattr(s, "url", s) for s in servers))


DOWN = "http://127.0.0.1:9/mnist/"  # the discard port: nothing listens


def is_tiny(loaded: data.Data) -> bool:
    return loaded.x_train.shape == (6, 1, 28, 28) and loaded.y_test.shape == (3,)


# -- digits ---------------------------------------------------------------------------------


def test_digits_are_the_same_stratified_split_every_time():
    a, b = data.digits(), data.digits()
    assert a.x_train.shape == (1437, 1, 8, 8)
    assert a.x_test.shape == (360, 1, 8, 8)
    assert a.x_train.dtype == np.float32
    assert a.y_train.dtype == np.int64
    assert a.x_train.min() == 0
    assert a.x_train.max() == 1
    assert all(np.array_equal(p, q) for p, q in zip(a, b, strict=True))
    share = np.bincount(a.y_train) / 1437 - np.bincount(a.y_test) / 360
    assert np.abs(share).max() < 0.002
    # The very split that the records were made with.
    assert data.digest(a).startswith("75d0cbdd3e91ea47")


def test_digest_depends_on_every_array():
    whole = data.digits()
    for i, array in enumerate(whole):
        changed = array.copy()
        changed.flat[-1] += 1
        other = whole._replace(**{whole._fields[i]: changed})
        assert data.digest(other) != data.digest(whole)


# -- IDX ------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=4), st.integers(0, 2**32 - 1))
def test_idx_round_trip(shape, seed):
    array = np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)
    assert np.array_equal(data.read_idx(idx(array)), array)


@settings(deadline=None)
@given(st.data())
def test_idx_refuses_every_truncation_and_extension(draws):
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    raw = gzip.decompress(idx(array))
    cut = draws.draw(st.integers(0, len(raw) - 1))
    with pytest.raises(data.DataError):
        data.read_idx(gzip.compress(raw[:cut]))
    with pytest.raises(data.DataError, match="25 follow"):
        data.read_idx(gzip.compress(raw + b"x"))
    with pytest.raises(data.DataError):
        data.read_idx(idx(array)[: draws.draw(st.integers(0, len(idx(array)) - 1))])


@pytest.mark.parametrize("first", [b"\0\0\x0d\x01", b"\x01\0\x08\x01", b"PNG!"])
def test_idx_refuses_other_types(first):
    with pytest.raises(data.DataError, match="unsigned bytes"):
        data.read_idx(gzip.compress(first + struct.pack(">I", 0)))


@settings(deadline=None)
@given(st.binary(max_size=64))
def test_idx_refuses_noise_kindly(noise):
    with pytest.raises(data.DataError):
        data.read_idx(noise)
    with pytest.raises(data.DataError):
        data.read_idx(gzip.compress(b"\0\0\x08\x02" + noise[:7]))


# -- a folder of one's own --------------------------------------------------------------------


def test_folder_is_read_and_nothing_is_fetched(given_folder, monkeypatch):
    monkeypatch.setattr("pooch.retrieve", lambda *a, **k: pytest.fail("went to the network"))
    loaded = data.mnist()
    assert is_tiny(loaded)
    assert loaded.x_train.dtype == np.float32
    assert loaded.y_train.dtype == np.int64
    raw = data.read_idx((given_folder / "train-images-idx3-ubyte.gz").read_bytes())
    assert np.array_equal(loaded.x_train[:, 0], raw.astype(np.float32) / np.float32(255))
    assert data.missing() == {}


@pytest.mark.parametrize("name", list(data.FILES))
@pytest.mark.parametrize("damage", ["missing", "truncated", "altered", "longer", "a folder"])
def test_folder_with_a_damaged_file_is_refused_by_name(given_folder, name, damage):
    path = given_folder / name
    content = path.read_bytes()
    path.unlink()
    if damage == "truncated":
        path.write_bytes(content[:-1])
    elif damage == "altered":
        path.write_bytes(content[:-20] + bytes([content[-20] ^ 1]) + content[-19:])
    elif damage == "longer":
        path.write_bytes(content + b"\0")
    elif damage == "a folder":
        path.mkdir()
    with pytest.raises(data.DataError) as caught:
        data.mnist()
    message = str(caught.value)
    assert name in message
    assert data.FILES[name] in message
    assert str(given_folder) in message
    assert list(data.missing()) == [name]
    for other in set(data.FILES) - {name}:
        assert other not in message


def test_unreadable_file(given_folder, monkeypatch):
    def refuse(self):
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(data.DataError, match="cannot be read: Permission denied"):
        data.mnist()


def test_folder_that_does_not_exist_names_all_four(given_folder, monkeypatch):
    monkeypatch.setenv("BN_DATA_DIR", str(given_folder / "nowhere"))
    with pytest.raises(data.DataError) as caught:
        data.mnist()
    assert all(n in str(caught.value) and h in str(caught.value) for n, h in data.FILES.items())
    assert not (given_folder / "nowhere").exists()


# -- the cache --------------------------------------------------------------------------------


def test_download_once_then_no_more(tiny, cache, serve, monkeypatch):
    server = serve(good(tiny))
    use(monkeypatch, server)
    assert is_tiny(data.mnist(progress=False))
    assert sorted(server.asked) == sorted(tiny)
    assert is_tiny(data.mnist(progress=False))
    assert len(server.asked) == 4
    assert sorted(p.name for p in cache.iterdir()) == sorted(tiny)


def test_altered_cache_is_replaced(tiny, cache, serve, monkeypatch):
    server = serve(good(tiny))
    use(monkeypatch, server)
    data.mnist(progress=False)
    name = "train-labels-idx1-ubyte.gz"
    (cache / name).write_bytes(idx(np.zeros(6)))
    assert list(data.missing()) == [name]
    assert data.mnist(progress=False).y_train.any()
    assert server.asked[4:] == [name]


def test_next_mirror_after_404_wrong_hash_truncation_and_silence(tiny, cache, serve, monkeypatch):
    gone = serve(not_found)
    wrong = serve(lambda name: (200, b"<html>a portal</html>", 21))
    short = serve(lambda name: (200, tiny[name][:-9], len(tiny[name])))
    whole = serve(good(tiny))
    use(monkeypatch, DOWN, gone, wrong, short, whole)
    assert is_tiny(data.mnist(progress=False))
    assert len(gone.asked) == len(wrong.asked) == len(short.asked) == len(whole.asked) == 4
    assert sorted(p.name for p in cache.iterdir()) == sorted(tiny)


def test_no_mirror_says_what_each_did_and_leaves_nothing(tiny, cache, serve, monkeypatch):
    gone = serve(not_found)
    wrong = serve(lambda name: (200, b"<html>a portal</html>", 21))
    short = serve(lambda name: (200, tiny[name][:-9], len(tiny[name])))
    use(monkeypatch, DOWN, gone, wrong, short)
    with pytest.raises(data.DataError) as caught:
        data.mnist(progress=False)
    message = str(caught.value)
    assert "no connection" in message
    assert "404" in message
    assert "another file" in message
    assert "broke off" in message
    assert all(n in message and h in message for n, h in data.FILES.items())
    assert str(cache) in message
    assert "BN_DATA_DIR" in message
    assert not any(cache.iterdir())


def test_failure_at_the_third_file_keeps_the_first_two(tiny, cache, serve, monkeypatch):
    names = list(tiny)
    server = serve(lambda n: good(tiny)(n) if n in names[:2] else not_found(n))
    use(monkeypatch, server)
    with pytest.raises(data.DataError) as caught:
        data.mnist(progress=False)
    assert names[0] not in str(caught.value)
    assert names[2] in str(caught.value)
    assert sorted(p.name for p in cache.iterdir()) == sorted(names[:2])
    whole = serve(good(tiny))
    use(monkeypatch, whole)
    assert is_tiny(data.mnist(progress=False))
    assert whole.asked == names[2:]


def test_complete_cache_is_never_written_to(tiny, cache, monkeypatch):
    cache.mkdir(parents=True)
    for name, content in tiny.items():
        (cache / name).write_bytes(content)
    monkeypatch.setattr("tempfile.NamedTemporaryFile", lambda *a, **k: pytest.fail("wrote"))
    assert is_tiny(data.mnist())


@pytest.mark.parametrize(
    ("code", "words"),
    [(errno.EACCES, "Permission denied"), (errno.EROFS, "Read-only"), (errno.ENOSPC, "no space")],
)
def test_cache_that_cannot_be_written(tiny, cache, serve, monkeypatch, code, words):
    use(monkeypatch, serve(good(tiny)))
    cache.mkdir(parents=True)

    def refuse(*args, **kwargs):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("tempfile.NamedTemporaryFile", refuse)
    with pytest.raises(data.DataError, match=words) as caught:
        data.mnist(progress=False)
    assert all(h in str(caught.value) for h in data.FILES.values())
    assert not any(cache.iterdir())


def test_disk_full_in_the_middle_of_a_download(tiny, cache, serve, monkeypatch):
    import pooch

    use(monkeypatch, serve(good(tiny)))

    class Full(pooch.HTTPDownloader):
        def __call__(self, url, output_file, *args, **kwargs):
            with open(output_file, "wb") as file:
                file.write(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(pooch, "HTTPDownloader", Full)
    with pytest.raises(data.DataError, match="no space left"):
        data.mnist(progress=False)
    assert not any(cache.iterdir())


# -- the real files ---------------------------------------------------------------------------


@pytest.mark.mnist
def test_mnist_is_mnist():
    loaded = data.mnist()
    assert loaded.x_train.shape == (60000, 1, 28, 28)
    assert loaded.x_test.shape == (10000, 1, 28, 28)
    assert loaded.y_train[:5].tolist() == [5, 0, 4, 1, 9]
    assert loaded.x_train.min() == 0
    assert loaded.x_train.max() == 1
    assert abs(loaded.x_train.mean() - 0.1307) < 1e-4
    assert np.bincount(loaded.y_test).tolist() == [
        980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009,
    ]  # fmt: skip
