"""The three networks of the course, each with and without batch normalization.

Every builder returns a :class:`torch.nn.Sequential` whose children have names, so that a figure
or a test can speak of ``model.conv2``. They return **logits**: with
:func:`torch.nn.functional.cross_entropy` that is the same function, and the same gradient, as a
final log-softmax with the negative log-likelihood.

The two versions of a network are *paired*: after the same :func:`torch.manual_seed` they start
from the same weights and biases, because batch normalization draws no random numbers. For that
reason a layer in front of batch norm keeps its bias, although the mean subtracts it again.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

__all__ = ["BUILDERS", "convnet", "lenet", "mlp"]

ACTIVATIONS = {"sigmoid": nn.Sigmoid, "relu": nn.ReLU}


def mlp(
    batch_norm: bool = True,
    *,
    in_features: int = 784,
    width: int = 100,
    depth: int = 3,
    classes: int = 10,
    activation: str = "sigmoid",
) -> nn.Sequential:
    """Build a fully connected network, batch norm before each nonlinearity.

    Parameters
    ----------
    batch_norm : bool
        Put :class:`torch.nn.BatchNorm1d` between each hidden linear layer and its nonlinearity.
    in_features : int
        Pixels in an image: 784 for MNIST, 64 for the 8×8 digits.
    width, depth : int
        Units in a hidden layer, and hidden layers.
    classes : int
        Number of classes.
    activation : {"sigmoid", "relu"}
        The nonlinearity. Whichever it is, the initial weights are PyTorch's own.

    Returns
    -------
    torch.nn.Sequential
        Maps images ``(n, 1, h, w)`` to logits ``(n, classes)``. Children ``flatten``,
        ``linear1``, (``norm1``,) ``sigmoid1`` or ``relu1``, … ``output``.

    Raises
    ------
    ValueError
        If there is no such activation.

    References
    ----------
    The sizes, and the sigmoid, are those of Ioffe & Szegedy (2015), section 4.1.

    Examples
    --------
    >>> [name for name, _ in mlp(depth=1, activation="relu").named_children()]
    ['flatten', 'linear1', 'norm1', 'relu1', 'output']
    """
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation is one of {list(ACTIVATIONS)}, not {activation!r}")
    layers = OrderedDict(flatten=nn.Flatten())
    for i in range(1, depth + 1):
        layers[f"linear{i}"] = nn.Linear(in_features if i == 1 else width, width)
        if batch_norm:
            layers[f"norm{i}"] = nn.BatchNorm1d(width)
        layers[f"{activation}{i}"] = ACTIVATIONS[activation]()
    layers["output"] = nn.Linear(width if depth else in_features, classes)
    return nn.Sequential(layers)


def lenet(batch_norm: bool = True, *, image: int = 28, classes: int = 10) -> nn.Sequential:
    """Build a small LeNet, batch norm after each pooling.

    Convolution of 6 channels, 5×5 – ReLU – pooling – batch norm – convolution of 16 channels,
    5×5 – ReLU – pooling – batch norm – 120 – 84 – 10. The first convolution pads by 2, so that a
    28×28 image with one channel leaves the second pooling with the 16·5·5 features that the
    network is usually drawn with; unpadded it would leave 16·4·4.

    Parameters
    ----------
    batch_norm : bool
        Put :class:`torch.nn.BatchNorm2d` after each pooling.
    image : int
        Height and width of an image. Below 16 the second convolution is padded too, so that
        the 8×8 digits keep 2×2 pixels.
    classes : int
        Number of classes.

    Returns
    -------
    torch.nn.Sequential
        Maps images ``(n, 1, image, image)`` to logits ``(n, classes)``.
    """
    padding = 2 if image < 16 else 0
    side = (image // 2 - 4 + 2 * padding) // 2
    layers = OrderedDict(
        conv1=nn.Conv2d(1, 6, 5, padding=2), relu1=nn.ReLU(), pool1=nn.MaxPool2d(2)
    )
    if batch_norm:
        layers["norm1"] = nn.BatchNorm2d(6)
    layers.update(
        conv2=nn.Conv2d(6, 16, 5, padding=padding), relu2=nn.ReLU(), pool2=nn.MaxPool2d(2)
    )
    if batch_norm:
        layers["norm2"] = nn.BatchNorm2d(16)
    layers.update(
        flatten=nn.Flatten(),
        linear3=nn.Linear(16 * side * side, 120),
        relu3=nn.ReLU(),
        linear4=nn.Linear(120, 84),
        relu4=nn.ReLU(),
        output=nn.Linear(84, classes),
    )
    return nn.Sequential(layers)


def convnet(
    batch_norm: bool = True, *, image: int = 28, classes: int = 10, dropout: float = 0.25
) -> nn.Sequential:
    """Build a two-convolution network, batch norm before each ReLU.

    Convolution of 32 channels, 3×3 – batch norm – ReLU – convolution of 64 channels, 3×3 – batch
    norm – ReLU – pooling – dropout – 9216→128 – batch norm – ReLU – 10.

    Parameters
    ----------
    batch_norm : bool
        Put batch normalization before each ReLU.
    image : int
        Height and width of an image, at least 6.
    classes : int
        Number of classes.
    dropout : float
        Probability of dropping a feature after the pooling, in both versions.

    Returns
    -------
    torch.nn.Sequential
        Maps images ``(n, 1, image, image)`` to logits ``(n, classes)``.
    """
    layers = OrderedDict(conv1=nn.Conv2d(1, 32, 3))
    if batch_norm:
        layers["norm1"] = nn.BatchNorm2d(32)
    layers.update(relu1=nn.ReLU(), conv2=nn.Conv2d(32, 64, 3))
    if batch_norm:
        layers["norm2"] = nn.BatchNorm2d(64)
    layers.update(
        relu2=nn.ReLU(),
        pool2=nn.MaxPool2d(2),
        dropout=nn.Dropout(dropout),
        flatten=nn.Flatten(),
        linear3=nn.Linear(64 * ((image - 4) // 2) ** 2, 128),
    )
    if batch_norm:
        layers["norm3"] = nn.BatchNorm1d(128)
    layers.update(relu3=nn.ReLU(), output=nn.Linear(128, classes))
    return nn.Sequential(layers)


BUILDERS = {"mlp": mlp, "lenet": lenet, "convnet": convnet}
