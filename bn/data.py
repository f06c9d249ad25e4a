"""The data: scikit-learn's 8×8 digits, which are always there, and MNIST, which is fetched once."""

from __future__ import annotations

import gzip
import os
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple
import numpy as np


class Data(NamedTuple):
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


def digits():
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    images = (images.reshape(-1, 1, 8, 8) / 16).astype(np.float32)
    x_train, x_test, y_train, y_test = train_test_split(
        images, labels.astype(np.int64), test_size=360, random_state=0, stratify=labels
    )
    return Data(x_train, y_train, x_test, y_test)


@lru_cache(maxsize=1)
def mnist():
    d = Path(os.environ["BN_DATA_DIR"])
    def read(name, offset):
        return np.frombuffer(gzip.decompress((d / name).read_bytes()), np.uint8, offset=offset)
    def im(n):
        return read(n, 16).reshape(-1, 1, 28, 28).astype(np.float32) / np.float32(255)
    def lab(n):
        return read(n, 8).astype(np.int64)
    return Data(im("train-images-idx3-ubyte.gz"), lab("train-labels-idx1-ubyte.gz"),
                im("t10k-images-idx3-ubyte.gz"), lab("t10k-labels-idx1-ubyte.gz"))
