"""The data: scikit-learn's 8×8 digits, always there, and MNIST, fetched once and checked always.

No file is trusted for its name. Each of MNIST's four files is compared with its SHA-256 every
time it is read, and what is parsed are the very bytes that were compared.
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import math
import os
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

__all__ = ["Data", "DataError", "digest", "digits", "folder", "missing", "mnist", "read_idx"]

FILES = {
    "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}
MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "https://azureopendatastorage.blob.core.windows.net/mnist/",
)
TIMEOUT = 30  # seconds without a byte


class DataError(RuntimeError):
    """The data cannot be had; the message says why, and what to do."""


class Data(NamedTuple):
    """Images in [0, 1] and their labels.

    Attributes
    ----------
    x_train, x_test : ndarray of float32, shape (n, 1, h, w)
        Images.
    y_train, y_test : ndarray of int64, shape (n,)
        The digits they show.
    """

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


def digits() -> Data:
    """Load the 1,797 real 8×8 digits that come with scikit-learn.

    Returns
    -------
    Data
        1,437 images to train on and 360 to test on, each digit in the same proportion in both;
        always the same split.

    Examples
    --------
    >>> import bn
    >>> bn.data.digits().x_train.shape
    (1437, 1, 8, 8)
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    images = (images.reshape(-1, 1, 8, 8) / 16).astype(np.float32)
    x_train, x_test, y_train, y_test = train_test_split(
        images, labels.astype(np.int64), test_size=360, random_state=0, stratify=labels
    )
    return Data(x_train, y_train, x_test, y_test)


def mnist(*, progress: bool = True) -> Data:
    """Load MNIST: 60,000 images of 28×28 to train on, 10,000 to test on.

    With the environment variable ``BN_DATA_DIR`` the four files are read from that folder and
    nowhere else. Without it they are read from the cache (:func:`folder`), after a download of
    those that are not there yet or not what they should be.

    Parameters
    ----------
    progress : bool
        Show a bar for each download.

    Returns
    -------
    Data
        The official split, in the official order.

    Raises
    ------
    DataError
        A file is missing, cannot be read or is not the official one, or no mirror could be
        reached, or the cache is read-only or full. The message names the files, their hashes
        and where to put them. Nothing half-written stays behind.

    References
    ----------
    LeCun, Cortes & Burges, *The MNIST database of handwritten digits*.
    """
    if "BN_DATA_DIR" not in os.environ:
        _download(folder(), progress)
    contents, problems = _read(folder())
    if problems:
        raise _error(folder(), problems)
    images_train, labels_train, images_test, labels_test = map(read_idx, contents)
    return Data(
        _scale(images_train),
        labels_train.astype(np.int64),
        _scale(images_test),
        labels_test.astype(np.int64),
    )


def missing() -> dict[str, str]:
    """Say what keeps MNIST from being loaded without a download.

    Returns
    -------
    dict
        File name to problem; empty when all four files are there and are the official ones.
    """
    return _read(folder())[1]


def folder() -> Path:
    """Return the folder MNIST is read from: ``BN_DATA_DIR``, or the operating system's cache."""
    if "BN_DATA_DIR" in os.environ:
        return Path(os.environ["BN_DATA_DIR"])
    import pooch

    return Path(pooch.os_cache("bn")) / "mnist"


def read_idx(content: bytes) -> np.ndarray:
    """Parse a gzipped IDX file of unsigned bytes.

    Parameters
    ----------
    content : bytes
        The whole compressed file: two zero bytes, the type (8), the number of dimensions, each
        dimension as a big-endian 32-bit integer, then exactly as many bytes as they promise.

    Returns
    -------
    ndarray of uint8
        Read-only.

    Raises
    ------
    DataError
        The content is anything else.
    """
    try:
        raw = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"not a whole gzip file: {error}") from error
    if len(raw) < 4 or raw[:3] != b"\0\0\x08":
        raise DataError(f"not an IDX file of unsigned bytes: it begins with {raw[:4].hex(' ')}")
    start = 4 + 4 * raw[3]
    if len(raw) < start:
        raise DataError(f"IDX header cut short: {raw[3]} dimensions in {len(raw)} bytes")
    shape = tuple(int(n) for n in np.frombuffer(raw, ">u4", raw[3], 4))
    if len(raw) - start != math.prod(shape):
        raise DataError(f"IDX header promises {shape} bytes, but {len(raw) - start} follow")
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape)


def digest(data: Data) -> str:
    """Return the SHA-256 of all four arrays, their shapes and types.

    An experiment's record holds it, so that a record says which numbers went in, whatever the
    code that read them.
    """
    sha = hashlib.sha256()
    for name, array in zip(data._fields, data, strict=True):
        sha.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        sha.update(np.ascontiguousarray(array))
    return sha.hexdigest()


def _scale(images: np.ndarray) -> np.ndarray:
    return images[:, np.newaxis].astype(np.float32) / np.float32(255)


def _read(path: Path) -> tuple[list[bytes], dict[str, str]]:
    """Read the four files; return their contents, and what is wrong with which."""
    contents, problems = [], {}
    for name, expected in FILES.items():
        try:
            content = (path / name).read_bytes()
        except FileNotFoundError:
            problems[name] = "is missing"
        except OSError as error:
            problems[name] = f"cannot be read: {error.strerror or error}"
        else:
            found = hashlib.sha256(content).hexdigest()
            if found != expected:
                problems[name] = (
                    f"is not the official file: {len(content):,} bytes with SHA-256 {found}"
                )
            contents.append(content)
    return contents, problems


def _download(path: Path, progress: bool) -> None:
    """Fetch what is not in the cache, from the first mirror that has it."""
    wanted = _read(path)[1]
    if not wanted:
        return  # no write, so a read-only cache that is complete will do
    import pooch
    import requests

    downloader = pooch.HTTPDownloader(progressbar=progress, timeout=TIMEOUT)
    for name in wanted:
        failures = []
        for mirror in MIRRORS:
            try:
                # pooch writes to a temporary file and moves it here once the hash agrees.
                pooch.retrieve(
                    mirror + name,
                    f"sha256:{FILES[name]}",
                    fname=name,
                    path=path,
                    downloader=downloader,
                )
                break
            except (requests.RequestException, ValueError) as error:
                failures.append(f"{mirror}: {_brief(error)}")
            except OSError as error:
                full = error.errno in (errno.ENOSPC, errno.EDQUOT)
                why = "there is no space left on the disk" if full else f"{_brief(error)}"
                problems = _read(path)[1]
                raise _error(path, problems, f"Cannot write to the cache: {why}.") from error
        else:
            lines = ["No mirror delivered the file:", *(f"  {line}" for line in failures)]
            raise _error(path, _read(path)[1], "\n".join(lines))


def _brief(error: Exception) -> str:
    """Return an error in one line, without the addresses of objects that requests puts in it."""
    import requests

    if isinstance(error, requests.Timeout):
        return f"no answer within {TIMEOUT} s"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection broke off"
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return "delivered another file (its hash differs)" if "hash" in text else text


def _error(path: Path, problems: dict[str, str], why: str = "") -> DataError:
    own = "BN_DATA_DIR" in os.environ
    where = "the folder that BN_DATA_DIR names" if own else "the cache"
    lines = [f"MNIST cannot be loaded from {path} ({where}).", why]
    for name, problem in problems.items():
        lines += [f"  {name} {problem}", f"    the official one has SHA-256 {FILES[name]}"]
    other = "" if own else ", or into any folder and set BN_DATA_DIR to it"
    lines += [f"Put these files there{other}. They are to be had at:"]
    lines += [f"  {mirror}" for mirror in MIRRORS]
    return DataError("\n".join(line for line in lines if line))
