"""What a stack saves: the time of a training step of K small networks as one, against the plain loop.

python -m benchmarks.batched [--compile]

For each network and K: one step of `bn.batched.Stack` against K steps of the plain loop, against the
same by `torch.func` (vmap over stacked parameters), and with --compile against the same step through
`torch.compile`, which needs a C++ compiler and most of a minute for each.
"""

from __future__ import annotations

import sys

from benchmarks import ratio

BATCH, PIXELS, ROUNDS = 64, 196, 9
NETS = {"3 × 50": {"width": 50, "depth": 3}, "3 × 100": {"width": 100, "depth": 3},
        "8 × 50": {"width": 50, "depth": 8}}  # fmt: skip
SIZES = (1, 5, 20, 100)


def plain(models, x, y, lr):
    """Return a function that steps every model by itself, as :func:`bn.train.train` does."""
    import torch
    from torch.nn import functional as F

    optimizers = [torch.optim.SGD(model.parameters(), lr=lr) for model in models]

    def step():
        for model, optimizer in zip(models, optimizers, strict=True):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()

    return step


def by_vmap(models, x, y, lr):
    """Return a function that steps all models at once, vectorised by torch.func."""
    from torch.func import functional_call, grad, stack_module_state, vmap
    from torch.nn import functional as F

    params, buffers = stack_module_state(models)
    params = {key: value.detach() for key, value in params.items()}
    gradient = vmap(grad(lambda p, b: F.cross_entropy(functional_call(models[0], (p, b), (x,)), y)))

    def step():
        found = gradient(params, buffers)
        for key, value in params.items():
            value -= lr * found[key]

    return step


def main(arguments: list[str]) -> None:
    """Print the table."""
    import torch

    from bn.batched import Stack, mlp

    torch.set_num_threads(1)
    torch.manual_seed(0)
    x, y, lr = torch.rand(BATCH, PIXELS), torch.randint(10, (BATCH,)), 0.01
    compiled = "--compile" in arguments
    print("hidden     batch norm    K   stack, a network   to the plain loop    to vmap"
          + ("              to compiled" if compiled else ""))  # fmt: skip
    for name, sizes in NETS.items():
        for batch_norm in (False, True):
            for k in SIZES:
                models = [mlp(batch_norm, in_features=PIXELS, seed=i, **sizes) for i in range(k)]
                stack, rates = Stack(models), torch.full((k,), lr)
                rivals = [plain(models, x, y, lr), by_vmap(models, x, y, lr)]
                if compiled:
                    again, fast = Stack(models), torch.compile(Stack.step)
                    fast(again, x, y, rates)
                    rivals.append(lambda: fast(again, x, y, rates))  # noqa: B023
                found = [ratio(lambda: stack.step(x, y, rates), r, rounds=ROUNDS) for r in rivals]  # noqa: B023
                print(f"{name:<11}{'with' if batch_norm else 'without':<11}{k:>4}"
                      f"{1e3 * found[0].a / k:>14.3f} ms      {'    '.join(map(str, found))}",
                      flush=True)  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1:])
