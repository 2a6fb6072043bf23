"""A toy detector: its clusters, files, and the shortest sections of a study of them."""

import hashlib
import pickle
import uuid
from pathlib import Path

import numpy as np
import uproot

DATASET = {
    "layout": {"tree": "Hits"},
    "features": [
        {"name": "e_raw", "unit": "GeV", "transform": "log10_standard"},
        {"name": "depth", "unit": "mm", "transform": "log10_standard"},
        {"name": "width", "transform": "standard"},
        {"name": "angle", "transform": "max_abs"},
    ],
    "target": {
        "name": "scale",
        "numerator": "e_raw",
        "denominator": "e_true",
        "calibrated": "e_cal",
    },
    "extras": [],
    "cuts": [
        {"column": "e_true", "above": 0.1},
        {"column": "e_raw", "above": 0},
        {"column": "width", "above": 0.05, "below": 0.95},
    ],
    "floors": {"depth": 10.0},
}

# A network that is trained in a second.
FAST = {
    "kind": "bnn",
    "hidden": [8],
    "components": 2,
    "samples": 3,
    "epochs": 2,
    "batch_rows": 512,
    "optimizer": {"learning_rate": 5e-3, "milestones": []},
}


def write_tree(path: Path, columns, tree="ClusterTree", **extra):
    """A ROOT file with one flat tree, of equal identity for equal content.

    A file's rows may be split by its identity, which by default is another one each time.
    """
    content = pickle.dumps((path.name, tree, columns, extra))
    identity = uuid.UUID(bytes=hashlib.sha256(content).digest()[:16])
    with uproot.recreate(path, uuid_function=lambda: identity) as file:
        file[tree] = columns
        for key, value in extra.items():
            file[key] = value
    return str(path)


def toy_columns(rows: int, seed: int = 0):
    """Columns of a toy detector: signals `e_raw`, deposits `e_true` and three more observables.

    The log-ratio is a two-component mixture that depends on `depth` and `e_raw`.
    """
    rng = np.random.default_rng(seed)
    e_raw = 10 ** rng.normal(0.5, 0.5, rows)
    depth = rng.exponential(300.0, rows)
    width = rng.beta(2, 3, rows)
    angle = rng.uniform(-2, 2, rows)
    is_low = rng.random(rows) < 0.3
    mean = np.where(is_low, -0.25 + 0.05 * angle, 0.02 * np.log10(e_raw) - 1e-4 * depth)
    log_ratio = mean + np.where(is_low, 0.08, 0.04) * rng.standard_normal(rows)
    columns = {
        "e_raw": e_raw,
        "e_true": e_raw / 10**log_ratio,
        "depth": depth,
        "width": width,
        "angle": angle,
    }
    return {name: values.astype(np.float32) for name, values in columns.items()}
