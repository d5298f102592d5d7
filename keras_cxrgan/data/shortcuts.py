"""Can the class be told without looking at the film? Cross-validated, beside chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

FOLDS = 5
AT_MOST = 5000
DEPTH = 4
SIGNIFICANT = 0.01
SKILL_FROM = 0.2
"""A shortcut closes at least this share of the gap between chance and always being right ..."""
PURITY_FROM, RECALL_FROM = 0.8, 0.1
"""... or names a tenth of a class with so few mistakes: all PNG files are of one class."""


def find_shortcuts(
    labels: Sequence[str],
    groups: Sequence,
    columns: Mapping[str, np.ndarray],
    seed: int = 0,
) -> dict:
    """How well a small decision tree tells the class from each of `columns`, and from all.

    Args:
        labels: the class of each of N files.
        groups: what each belongs to (a patient); a group is never on both sides of a fold.
        columns: (N,) or (N, F) numbers under the name of the feature they describe.
        seed: of the folds, and of the draw when there are more than `AT_MOST` files, in which
            rare classes keep more than their share.

    Accuracy is that of stratified five-fold cross-validation; chance is the share of the most
    frequent class. Each class is also told from all the others: `recall` is the share of it
    that is named, `precision` how many of those named are of it, beside its `share`. One-sided
    binomial p (of accuracy against chance, of precision against the share) count groups, not
    files, and are multiplied by the number of tests (Bonferroni). `found` needs p below
    `SIGNIFICANT` and a skill, (accuracy - chance) / (1 - chance), of `SKILL_FROM`; for a class,
    a precision that closes `PURITY_FROM` of its gap at a recall of `RECALL_FROM` does as well.
    Classes of fewer than five groups are left out. Returns JSON-ready values.

    >>> labels, widths = ["a", "b"] * 50, np.array([512.0, 299.0] * 50)
    >>> find_shortcuts(labels, range(100), {"width": widths})["features"][0]["accuracy"]
    1.0
    """
    random = np.random.default_rng(seed)
    names, targets = np.unique(np.asarray(labels, dtype=str), return_inverse=True)
    groups = _numbered(groups)
    enough = [len(np.unique(groups[targets == k])) >= FOLDS for k in range(len(names))]
    chosen = _drawn(np.flatnonzero(np.asarray(enough, bool)[targets]), targets, groups, random)
    kept, targets = np.unique(targets[chosen], return_inverse=True)
    classes = [str(names[k]) for k in kept]
    result = {
        "files": len(chosen),
        "groups": len(np.unique(groups[chosen])),
        "folds": FOLDS,
        "seed": seed,
        "classes": classes,
        "left_out": [str(names[k]) for k in range(len(names)) if not enough[k]],
        "features": [],
    }
    if len(classes) < 2:
        return result
    groups = _numbered(groups[chosen])
    folds = _stratified_folds(targets, groups, random)
    tables = {
        name: np.asarray(values, np.float64).reshape(len(labels), -1)[chosen]
        for name, values in columns.items()
    }
    if len(tables) > 1:
        tables["all together"] = np.hstack(list(tables.values()))
    tests = len(tables) * (1 + len(classes))
    for name, table in tables.items():
        predicted = _cross_validated(table, targets, folds)
        entry = {"feature": name, **_scored(predicted, targets, groups, tests), "classes": []}
        for k, label in enumerate(classes):
            is_class = (targets == k).astype(int)
            told = predicted == k
            if len(classes) > 2:
                told = _cross_validated(table, is_class, folds) == 1
            entry["classes"].append({"label": label, **_told(told, is_class, groups, tests)})
        result["features"].append(entry)
    return result


def binomial_tail(successes: int, trials: int, chance: float) -> float:
    """The probability of at least `successes` in `trials` at `chance`, 0 < chance < 1, each.

    >>> round(binomial_tail(9, 10, 0.5), 6)
    0.010742
    """
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, trials + 1)))])
    hits = np.arange(max(0, successes), trials + 1)
    terms = logs[trials] - logs[hits] - logs[trials - hits]
    terms += hits * np.log(chance) + (trials - hits) * np.log1p(-chance)
    return min(1.0, float(np.exp(terms).sum()))


def _cross_validated(table: np.ndarray, targets: np.ndarray, folds: np.ndarray) -> np.ndarray:
    predicted = np.empty_like(targets)
    for fold in range(FOLDS):
        test = folds == fold
        train = table[~test], targets[~test]
        # A hundredth of the files, but never more than half of a rare class: it could fill none.
        rarest = int(np.bincount(train[1])[np.unique(train[1])].min())
        leaf = max(3, min(len(train[0]) // 100, rarest // 2))
        tree = _grow(*train, int(targets.max()) + 1, DEPTH, leaf)
        predicted[test] = _predict(tree, table[test])
    return predicted


def _scored(predicted, targets, groups, tests: int) -> dict:
    """Accuracy beside chance; of groups, the test counts the right share of each."""
    right = predicted == targets
    accuracy, chance = float(right.mean()), float(np.bincount(targets).max() / len(targets))
    trials, successes = _of_groups(right, groups)
    by_chance = max(_of_groups(targets == k, groups)[1] for k in range(targets.max() + 1))
    p = min(1.0, tests * binomial_tail(int(successes + 1e-9), trials, by_chance / trials))
    skill = (accuracy - chance) / (1 - chance)
    found = bool(p < SIGNIFICANT and skill >= SKILL_FROM)
    return {"accuracy": accuracy, "chance": chance, "p": p, "skill": skill, "found": found}


def _told(told: np.ndarray, is_class: np.ndarray, groups: np.ndarray, tests: int) -> dict:
    """One class against the rest: how much of it is named, and how rightly."""
    share, named = float(is_class.mean()), int(told.sum())
    hits = int((told & (is_class == 1)).sum())
    scored = _scored(told.astype(int), is_class, groups, tests)
    trials, of_class = _of_groups(is_class == 1, groups)
    p = 1.0
    if named:
        of_named, successes = _of_groups(is_class[told] == 1, _numbered(groups[told]))
        p = min(1.0, tests * binomial_tail(int(successes + 1e-9), of_named, of_class / trials))
    recall, precision = hits / int(is_class.sum()), hits / max(1, named)
    pure = recall >= RECALL_FROM and (precision - share) / (1 - share) >= PURITY_FROM
    found = bool(p < SIGNIFICANT and (scored["skill"] >= SKILL_FROM or pure))
    return {**scored, "share": share, "recall": recall, "precision": precision,
            "p": p, "found": found}  # fmt: skip


def _of_groups(right: np.ndarray, groups: np.ndarray) -> tuple[int, float]:
    """The number of groups, and the sum of the share of each that is right."""
    sizes = np.bincount(groups)
    return len(sizes), float((np.bincount(groups, right) / sizes).sum())


def _numbered(groups: Sequence) -> np.ndarray:
    numbers: dict = {}
    if isinstance(groups, np.ndarray):
        groups = groups.tolist()
    return np.array([numbers.setdefault(group, len(numbers)) for group in groups], int)


def _drawn(indices: np.ndarray, targets: np.ndarray, groups: np.ndarray, random) -> np.ndarray:
    """Whole groups, up to about `AT_MOST` files: of each class its share, and enough of a rare one.

    A quarter of the files is for classes whose share would be too few to tell anything.
    """
    if len(indices) <= AT_MOST:
        return indices
    labels, counts = np.unique(targets[indices], return_counts=True)
    taken: set[int] = set()
    for label, count in zip(labels, counts):
        wanted = max(AT_MOST * count // len(indices), min(count, AT_MOST // (4 * len(labels))))
        sizes = np.bincount(groups[indices[targets[indices] == label]])
        order = random.permutation(np.flatnonzero(sizes))
        # At least the groups that the folds need, however large they are.
        taken.update(order[(np.cumsum(sizes[order]) <= wanted) | (np.arange(len(order)) < FOLDS)])
    return indices[np.isin(groups[indices], list(taken))]


def _stratified_folds(targets: np.ndarray, groups: np.ndarray, random) -> np.ndarray:
    """The fold of each file: large groups first, each to the fold that has least of its class."""
    counts = np.zeros((groups.max() + 1, targets.max() + 1), int)
    np.add.at(counts, (groups, targets), 1)
    order = random.permutation(len(counts))
    order = order[np.argsort(-counts[order].sum(axis=1), kind="stable")]
    filled = np.zeros((FOLDS, counts.shape[1]), int)
    fold_of = np.empty(len(counts), int)
    for group in order:
        label = int(counts[group].argmax())
        fold = min(range(FOLDS), key=lambda k: (filled[k, label], filled[k].sum()))
        fold_of[group] = fold
        filled[fold] += counts[group]
    return fold_of[groups]


def _grow(table: np.ndarray, targets: np.ndarray, classes: int, depth: int, leaf: int):
    """A class, or (column, threshold, below, above): CART with the Gini impurity."""
    count = len(targets)
    counts = np.bincount(targets, minlength=classes)
    majority = int(counts.argmax())
    if depth == 0 or count < 2 * leaf or counts[majority] == count:
        return majority
    best, split = float((counts.astype(float) ** 2).sum() / count) + 1e-9, None
    sizes = np.arange(1, count)
    large = (sizes >= leaf) & (count - sizes >= leaf)
    for column in range(table.shape[1]):
        order = np.argsort(table[:, column], kind="stable")
        values = table[order, column]
        below = np.cumsum(np.eye(classes)[targets[order]], axis=0)[:-1]
        purity = (below**2).sum(axis=1) / sizes
        purity += ((counts - below) ** 2).sum(axis=1) / (count - sizes)
        purity[~(large & (values[1:] > values[:-1]))] = -1
        place = int(purity.argmax())
        if purity[place] > best:
            best, split = purity[place], (column, (values[place] + values[place + 1]) / 2)
    if split is None:
        return majority
    under = table[:, split[0]] <= split[1]
    return (
        *split,
        _grow(table[under], targets[under], classes, depth - 1, leaf),
        _grow(table[~under], targets[~under], classes, depth - 1, leaf),
    )


def _predict(tree, table: np.ndarray) -> np.ndarray:
    if isinstance(tree, int):
        return np.full(len(table), tree)
    column, threshold, below, above = tree
    under = table[:, column] <= threshold
    predicted = np.empty(len(table), int)
    predicted[under] = _predict(below, table[under])
    predicted[~under] = _predict(above, table[~under])
    return predicted
