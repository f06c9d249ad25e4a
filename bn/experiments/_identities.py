"""Exact identities of batch normalization, each tried on one random case.

Every function draws a case from `rng`, computes both sides of an identity by different ways, and
returns how far they are apart in proportion (``error``). Where another version of a formula is
copied from page to page, it returns how far off that one is too (``copied``). Derivatives are
taken by complex steps, which are exact to rounding: no formula is checked against itself.
"""

from __future__ import annotations

from itertools import combinations, product

import numpy as np

STEP = 1e-30


def derivative(f, x):
    """Return the Jacobian ∂f_i/∂x_j of an analytic function at the vector `x`."""
    steps = 1j * STEP * np.eye(len(x))
    return np.stack([np.imag(f(x + step)) for step in steps], axis=-1) / STEP


def standardize(x, eps=0.0):
    """Standardise a vector; written out, since it must take complex numbers."""
    centred = x - x.mean()
    return centred / np.sqrt((centred**2).mean() + eps)


def _batch(rng, smallest=2):
    """A batch of one feature, the gradient of a loss behind the layer, and the layer's γ."""
    m = rng.integers(smallest, 33)
    x = rng.normal(rng.normal(), 10 ** rng.uniform(-1, 1), m)
    return m, x, rng.normal(size=m) + rng.normal(), rng.normal()


def _unit(rng):
    """The loss of a network as a function of one unit's weights and bias, with batch norm."""
    m, d = rng.integers(3, 33), rng.integers(2, 9)
    inputs, mixed = rng.normal(size=(m, d)), rng.normal(size=m)
    gamma, beta = rng.normal(size=2)

    def loss(w, b=0.0):
        return mixed @ np.tanh(gamma * standardize(inputs @ w + b) + beta)

    w = rng.normal(size=d) * 10 ** rng.uniform(-1, 1)
    return loss, w, abs(gamma) / (inputs @ w).std() * np.linalg.norm(mixed)


def backward(rng):
    """∂L/∂x = (γ/σ)(g − mean g − x̂ mean(g x̂))."""
    _, x, g, gamma = _batch(rng)
    eps = rng.choice([0, 1e-5, 0.1])
    x_hat, scale = standardize(x, eps), gamma / np.sqrt(x.var() + eps)
    formula = scale * (g - g.mean() - x_hat * (g * x_hat).mean())
    truth = g @ derivative(lambda x: gamma * standardize(x, eps), x)
    return {"error": _norm(formula - truth) / _norm(scale * g)}


def projection(rng):
    """σ ∂x̂/∂x is symmetric, with eigenvalues 0, ε/(σ² + ε), and 1 (m − 2 times)."""
    m, x, _, _ = _batch(rng)
    eps = rng.choice([0, 1e-5, 0.1])
    jacobian = np.sqrt(x.var() + eps) * derivative(lambda x: standardize(x, eps), x)
    want = np.sort([0, eps / (x.var() + eps), *np.ones(m - 2)])
    found = np.linalg.eigvalsh((jacobian + jacobian.T) / 2)
    return {"error": max(abs(found - want).max(), abs(jacobian - jacobian.T).max())}


def bound(rng):
    """|x̂| ≤ √(m − 1), reached by one value against equals; a batch of two becomes ±1."""
    m = rng.integers(2, 33)
    alone = np.zeros(m)
    alone[rng.integers(m)] = rng.normal()
    farthest = abs(standardize(rng.standard_cauchy(m))).max() / np.sqrt(m - 1)
    reached = abs(standardize(alone)).max() / np.sqrt(m - 1)
    pair = abs(standardize(rng.normal(size=2)))
    return {"error": max(farthest - 1, abs(reached - 1), abs(pair - 1).max(), 0.0)}


def gradient_norm(rng):
    """‖∂L/∂x‖² = (γ²/σ²)(‖g‖² − ⟨1, g⟩²/m − ⟨g, x̂⟩²/m) at ε = 0; copied with 1/√m."""
    m, x, g, _ = _batch(rng, smallest=3)  # γ²/σ² is on both sides
    truth = _norm(g @ derivative(standardize, x)) ** 2 * x.var()
    rest, along = g @ g - g.sum() ** 2 / m, (g @ standardize(x)) ** 2
    error, copied = (abs(rest - along / n - truth) / (g @ g) for n in (m, np.sqrt(m)))
    return {"error": error, "copied": copied}


def scale_invariance(rng):
    """⟨w, ∇L⟩ = 0, so ‖w − η∇L‖² = ‖w‖² + η²‖∇L‖²."""
    loss, w, _ = _unit(rng)
    g = derivative(lambda w: np.array([loss(w)]), w)[0]
    step = 10 ** rng.uniform(-2, 1) * g
    longer = w @ w + step @ step
    angle = abs(w @ g) / (_norm(w) * _norm(g))
    return {"error": max(angle, abs(_norm(w - step) ** 2 - longer) / longer)}


def redundant_bias(rng):
    """The gradient of a bias in front of batch norm is 0."""
    loss, w, size = _unit(rng)
    b = rng.normal(size=1)
    return {"error": abs(derivative(lambda b: np.array([loss(w, b)]), b)).max() / size}


def chain_orders(rng):
    """After a gradient step the output of a deep linear chain is a polynomial in η.

    Its coefficient of order k is a sum over the subsets of k weights; that of order 1 is −gᵀg.
    """
    depth, x = rng.integers(1, 9), rng.normal()
    w = rng.uniform(0.5, 1.5, depth) * rng.choice([-1, 1], depth)
    g = x * w.prod() / w
    steps = np.exp(2j * np.pi * np.arange(depth + 1) / (depth + 1))
    found = np.fft.fft(x * np.prod(w - steps[:, None] * g, axis=1)).real / (depth + 1)
    formula = np.array([
        x * sum(np.where(np.isin(range(depth), chosen), -g, w).prod()
                for chosen in combinations(range(depth), k))
        for k in range(depth + 1)
    ])  # fmt: skip
    size = abs(formula).max()
    return {"error": max(abs(found - formula).max(), abs(formula[1] + g @ g)) / size}


def chain_bound(rng):
    """With η = δ/gᵀg and 0 < δ ≤ ŷ the new output lies between ŷ − δ and ŷ exp(−δ/ŷ)."""
    depth = rng.integers(1, 101)
    w = np.exp(rng.normal(0, 0.5, depth)) * rng.choice([-1, 1], depth)
    x, share = np.sign(w.prod()), 1 - rng.random()
    y = x * w.prod()
    g = y / w
    new = x * np.prod(w - share * y / (g @ g) * g) / y
    return {"error": max(1 - share - new, new - np.exp(-share), 0.0)}


def folding(rng):
    """Batch norm at inference and the linear layer in front of it are one linear layer."""
    rows, d, k = rng.integers(1, 9, 3)
    x, weight = rng.normal(size=(rows, d)), rng.normal(size=(k, d))
    b, gamma, beta, mean = rng.normal(size=(4, k))
    scale = gamma / np.sqrt(rng.exponential(size=k) + 1e-5)
    truth = (x @ weight.T + b - mean) * scale + beta
    folded = x @ (scale[:, None] * weight).T + ((b - mean) * scale + beta)
    size = abs(x) @ abs(scale[:, None] * weight).T + abs(b * scale) + abs(mean * scale) + abs(beta)
    return {"error": (abs(folded - truth) / size).max()}


def renorm(rng):
    """Batch renormalization without clipping normalises by the running statistics.

    Its gradient does not: it holds r and d fixed and goes through the batch's statistics
    (``gradient``: how far it is from the gradient of what it computes).
    """
    _, x, g, _ = _batch(rng)
    mean, sigma = rng.normal(), 10 ** rng.uniform(-1, 1)
    r, d = x.std() / sigma, (x.mean() - mean) / sigma
    error = abs(standardize(x) * r + d - (x - mean) / sigma).max() * sigma / abs(x - mean).max()
    passed = r * g @ derivative(standardize, x)
    return {"error": error, "gradient": _norm(passed - g / sigma) / _norm(g / sigma)}


def mean_variance(rng):
    """Var μ_B = σ²/m over all batches of m independent draws from a population of n.

    Drawn without replacement, as an epoch draws, it is (σ²/m)(n − m)/(n − 1) instead (``copied``:
    how far off the first formula is there).
    """
    n = rng.integers(3, 7)
    m = rng.integers(2, min(n, 4))
    population = rng.normal(size=n)
    want = population.var() / m
    independent = np.mean(list(product(population, repeat=m)), axis=1).var()
    epoch = np.mean(list(combinations(population, m)), axis=1).var()
    errors = independent / want - 1, epoch / (want * (n - m) / (n - 1)) - 1
    return {"error": max(map(abs, errors)), "copied": want / epoch - 1}


def total_variance(rng):
    """The variance of all data is E[σ_B²] + Var[μ_B]; copied without its second term."""
    sizes = rng.integers(1, 17, rng.integers(2, 17))
    data = rng.normal(size=sizes.sum())
    batches = np.split(data, np.cumsum(sizes)[:-1])
    weights = sizes / sizes.sum()
    within = weights @ [batch.var() for batch in batches]
    between = weights @ [(batch.mean() - data.mean()) ** 2 for batch in batches]
    return {
        "error": abs((within + between) / data.var() - 1),
        "copied": 1 - within / data.var(),
    }


def _norm(x):
    return np.linalg.norm(x)
