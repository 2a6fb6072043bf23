"""An environment that has everything but torch and Ray, made of links to the one at hand."""

import os
import site
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
ABSENT = ("torch", "ray", "functorch", "torchgen")


def make(folder: Path) -> Path:
    """A folder of links to every installed package except torch, Ray and their metadata."""
    folder.mkdir()
    for packages in map(Path, site.getsitepackages()):
        for entry in packages.iterdir():
            name = entry.name.lower()
            is_absent = any(name == word or name.startswith(f"{word}-") for word in ABSENT)
            if not is_absent and not name.endswith((".pth", ".egg-link")):
                (folder / entry.name).symlink_to(entry)
    return folder


def run(packages: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run `python WORDS` there; -S keeps the usual packages out of sight, also for workers."""
    environment = {**os.environ, "PYTHONPATH": f"{packages}{os.pathsep}{ROOT}"}
    return subprocess.run(
        [sys.executable, "-S", *words], env=environment, capture_output=True, text=True, check=False
    )
