"""Figures of merit with their 95 % intervals."""

import numpy as np

Z_95 = 1.959964


def wilson(hits: int, total: int) -> dict[str, float | int | list[float]]:
    """A share with its Wilson score interval, which stays inside 0..1 and is honest near both ends."""
    if total == 0:
        return {"hits": 0, "of": 0}
    share, z2 = hits / total, Z_95**2
    middle = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = Z_95 / (1 + z2 / total) * np.sqrt(share * (1 - share) / total + z2 / (4 * total**2))
    interval = [round(float(max(0.0, middle - half)), 4), round(float(min(1.0, middle + half)), 4)]
    return {"hits": int(hits), "of": int(total), "share": round(share, 4), "interval_95": interval}


def macro_f1(truth: np.ndarray, guess: np.ndarray, labels: int) -> float:
    f1 = []
    for label in range(labels):
        hit = ((truth == label) & (guess == label)).sum()
        seen = (truth == label).sum() + (guess == label).sum()
        f1.append(2 * hit / seen if seen else 0.0)
    return float(np.mean(f1))


def bootstrap(figure, *columns: np.ndarray, rounds: int = 2000, seed: int = 20261123) -> list[float]:
    """The 2.5 % and 97.5 % quantiles of `figure` over resampled rows."""
    rng = np.random.default_rng(seed)
    rows = len(columns[0])
    values = []
    for _ in range(rounds):
        pick = rng.integers(0, rows, rows)
        values.append(figure(*(column[pick] for column in columns)))
    return [round(float(q), 4) for q in np.quantile(values, [0.025, 0.975])]


def average_precision(truth: np.ndarray, score: np.ndarray) -> float:
    """Area under the precision-recall steps; equal scores form one step."""
    order = np.argsort(-score, kind="stable")
    truth, score = truth[order].astype(np.float64), score[order]
    last_of_step = np.r_[score[1:] != score[:-1], True]
    hits = np.cumsum(truth)[last_of_step]
    total = np.flatnonzero(last_of_step) + 1
    gained = np.diff(np.r_[0.0, hits])
    return float((gained * hits / total).sum() / max(hits[-1], 1))


def verdict_shares(bad: np.ndarray, score: np.ndarray, review: float, reject: float) -> dict:
    """Escape, overkill and what goes to a person. `score` is the largest defect score of a frame."""
    decided_bad, undecided = score >= reject, (score >= review) & (score < reject)
    return {
        "escape": wilson(int((bad & (score < review)).sum()), int(bad.sum())),
        "overkill": wilson(int((~bad & decided_bad).sum()), int((~bad).sum())),
        "not_decidable": wilson(int(undecided.sum()), len(bad)),
        "not_decidable_of_bad": wilson(int((bad & undecided).sum()), int(bad.sum())),
        "not_decidable_of_good": wilson(int((~bad & undecided).sum()), int((~bad).sum())),
    }


def ranking_quality(bad: np.ndarray, score: np.ndarray) -> float:
    """Area under the ROC curve: the chance that a bad frame scores above a good one; ties count half."""
    order = np.sort(score[~bad])
    below = np.searchsorted(order, score[bad], "left") + np.searchsorted(order, score[bad], "right")
    return round(float(below.mean() / 2 / len(order)), 4)


def overlap(truth: np.ndarray, guess: np.ndarray) -> dict[str, float]:
    both, either = (truth & guess).sum(), (truth | guess).sum()
    return {"iou": round(float(both / either), 4), "dice": round(float(2 * both / (both + either)), 4)}
