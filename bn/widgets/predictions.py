"""A browsable table of predictions, for finding the mistakes and learning from them."""

from __future__ import annotations

import numpy as np
import traitlets

from ._base import Widget

GREYS = "0123456789abcdefg"  # one character a pixel: 0 is paper, g (sixteen) is full ink
OUTCOMES = ("wrong", "right", "all", "only")


class Predictions(Widget):
    """Each image with its class, the net's answer, how sure it was, and its second choice.

    Parameters
    ----------
    images : array, shape (n, h, w) or (n, 1, h, w)
        Square images, 0 for paper to 1 for ink; shown in 17 steps of grey.
    labels : array of int, shape (n,)
        Their classes, from 0.
    nets : dict of str to array, shape (n, classes)
        For each net, under the title that is shown, the probabilities it gives; at least two
        classes. See :func:`bn.train.predict_proba`.
    net : int
        Which net is shown.
    truth, predicted : int
        Show only images of this class, or only those given this class; −1 for any.
    outcome : str
        ``"wrong"``, ``"right"``, ``"all"``, or ``"only"``: wrong in this net and right in the
        other, when there are two.
    order : str
        By confidence: ``"falling"`` or ``"rising"``.
    page : int
        Which page of the table, from 0.

    Examples
    --------
    >>> images = np.eye(4).reshape(1, 4, 4).repeat(3, axis=0)
    >>> said = np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7]])
    >>> table = Predictions(images, [0, 0, 1], {"a net": said})
    >>> table
    Predictions(net=0, truth=-1, predicted=-1, outcome='wrong', order='falling')
    >>> table.selected
    [1]
    """

    _name = "predictions"
    _title = "Find the mistakes"
    _shown = ("net", "truth", "predicted", "outcome", "order")
    _size = (6.4, 3.6)

    images = traitlets.Unicode(help="pixels, one character each").tag(sync=True)
    side = traitlets.Int(8, min=1, help="pixels in a row").tag(sync=True)
    labels = traitlets.List(traitlets.Int(min=0), help="classes").tag(sync=True)
    classes = traitlets.Int(10, min=2).tag(sync=True)
    nets = traitlets.List(traitlets.Dict(), help="what each net says").tag(sync=True)
    net = traitlets.Int(0, min=0, help="which of them").tag(sync=True)
    truth = traitlets.Int(-1, min=-1, help="show this class only").tag(sync=True)
    predicted = traitlets.Int(-1, min=-1, help="show this answer only").tag(sync=True)
    outcome = traitlets.Enum(OUTCOMES, "wrong").tag(sync=True)
    order = traitlets.Enum(("falling", "rising"), "falling").tag(sync=True)
    page = traitlets.Int(0, min=0).tag(sync=True)
    rows = traitlets.Int(6, min=1, max=50, help="rows on a page").tag(sync=True)

    def __init__(self, images, labels, nets, **kwargs) -> None:
        pixels = _images(images)
        labels = np.asarray(labels)
        if labels.shape != (len(pixels),) or labels.dtype.kind not in "iu":
            raise ValueError(
                f"labels must be {len(pixels)} whole numbers, one for each image; "
                f"got {labels.dtype} of shape {labels.shape}"
            )
        said = {title: np.asarray(p, dtype=float) for title, p in dict(nets).items()}
        classes = next((p.shape[-1] for p in said.values() if p.ndim), 0)
        for title, p in said.items():
            if p.shape != (len(pixels), classes) or classes < 2:
                raise ValueError(
                    f"{title!r}: probabilities must have shape ({len(pixels)}, classes), the same "
                    f"for every net and with 2 classes or more; got {p.shape}"
                )
            if not (np.isfinite(p).all() and p.min() >= 0 and np.allclose(p.sum(1), 1, atol=1e-3)):
                raise ValueError(f"{title!r}: each row must be probabilities that sum to 1; "
                                 "logits go through a softmax first")  # fmt: skip
        if not said:
            raise ValueError("nets is empty: give at least one net's probabilities")
        if labels.min(initial=0) < 0 or labels.max(initial=0) >= classes:
            raise ValueError(
                f"labels must lie between 0 and {classes - 1}, the number of classes less 1"
            )
        super().__init__(
            images="".join(GREYS[k] for k in np.rint(16 * pixels).astype(int).ravel()),
            side=pixels.shape[-1], labels=labels.tolist(), classes=classes,
            nets=[{"title": title, **rank(p)} for title, p in said.items()], **kwargs,
        )  # fmt: skip

    @traitlets.validate("net")
    def _known(self, proposal):
        if proposal["value"] >= len(self.nets):
            raise traitlets.TraitError(
                f"there are {len(self.nets)} nets, counted from 0; got net={proposal['value']}"
            )
        return proposal["value"]

    @property
    def selected(self) -> list[int]:
        """The images that the filters keep, in the order of the table."""
        said = self.nets[self.net]
        other = self.nets[1 - self.net] if len(self.nets) == 2 else None
        kept = [
            i for i, label in enumerate(self.labels)
            if self.truth in (-1, label) and self.predicted in (-1, said["predicted"][i])
            and {
                "all": True,
                "right": said["predicted"][i] == label,
                "wrong": said["predicted"][i] != label,
                "only": said["predicted"][i] != label and bool(other) and other["predicted"][i] == label,
            }[self.outcome]
        ]  # fmt: skip
        sign = 1 if self.order == "rising" else -1
        return sorted(kept, key=lambda i: (sign * said["confidence"][i], i))

    @property
    def confusion(self) -> np.ndarray:
        """How many images of each class (row) the net gave each class (column)."""
        table = np.zeros((self.classes, self.classes), dtype=int)
        np.add.at(table, (self.labels, self.nets[self.net]["predicted"]), 1)
        return table

    def alt(self) -> str:
        """Say how many images are right, and how many are shown."""
        right = int(self.confusion.trace())
        return (
            f"{self.nets[self.net]['title']}: {right} of {len(self.labels)} images right. The filter "
            f"keeps {len(self.selected)}; the first {min(6, len(self.selected))} are shown."
        )

    def draw(self, figure) -> None:
        """Draw the first six images of the selection."""
        said = self.nets[self.net]
        pixels = np.array([GREYS.index(c) for c in self.images]).reshape(-1, self.side, self.side)
        for place, axes in enumerate(figure.subplots(2, 3).flat):
            axes.axis("off")
            if place < len(self.selected):
                i = self.selected[place]
                axes.imshow(pixels[i], cmap="gray_r", vmin=0, vmax=16)
                axes.set_title(
                    f"a {self.labels[i]}: says {said['predicted'][i]}, {100 * said['confidence'][i]:.0f} %\n"
                    f"then {said['second'][i]}, {100 * said['second_confidence'][i]:.0f} %",
                    loc="center", fontweight="normal", fontsize=9,
                )  # fmt: skip
        figure.suptitle(f"{said['title']}: {len(self.selected)} of {len(self.labels)} images")


def rank(probabilities) -> dict[str, list]:
    """The likeliest class of each row and the one after it, with what the net gives them.

    Examples
    --------
    >>> rank([[0.1, 0.7, 0.2]])
    {'predicted': [1], 'confidence': [0.7], 'second': [2], 'second_confidence': [0.2]}
    """
    p = np.asarray(probabilities, dtype=float)
    order = np.argsort(-p, axis=1, kind="stable")[:, :2]
    sure = np.take_along_axis(p, order, axis=1).round(4)
    return {
        "predicted": order[:, 0].tolist(),
        "confidence": sure[:, 0].tolist(),
        "second": order[:, 1].tolist(),
        "second_confidence": sure[:, 1].tolist(),
    }


def _images(images) -> np.ndarray:
    """Images as (n, side, side), between 0 and 1."""
    pixels = np.asarray(images, dtype=float)
    if pixels.ndim == 4 and pixels.shape[1] == 1:
        pixels = pixels[:, 0]
    if pixels.ndim != 3 or pixels.shape[1] != pixels.shape[2] or not pixels.size:
        raise ValueError(
            f"images must have shape (n, side, side) or (n, 1, side, side); got {np.shape(images)}"
        )
    if not (pixels.min() >= 0 and pixels.max() <= 1):  # also refuses NaN
        raise ValueError(
            f"pixels must lie between 0 and 1; got {pixels.min():g} to {pixels.max():g}: divide first"
        )
    return pixels
