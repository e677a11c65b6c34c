"""Packages of npm that tests use: installed beside their lock, as it says."""

import shutil
import subprocess
from pathlib import Path

import pytest

INSTALL_DEADLINE_S = 180


def node_with_packages(folder: Path) -> str:
    """Return the path of node, with the packages that a folder's lock names installed in it; skip without node."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("needs node and npm (apt install nodejs npm)")
    lock, installed = folder / "package-lock.json", folder / "node_modules" / ".package-lock.json"
    if not installed.exists() or installed.stat().st_mtime < lock.stat().st_mtime:
        npm_ci = subprocess.run(
            [npm, "ci"], cwd=folder, capture_output=True, text=True, timeout=INSTALL_DEADLINE_S, check=False
        )
        assert npm_ci.returncode == 0, f"npm ci in {folder} failed:\n{npm_ci.stdout}{npm_ci.stderr}"
    return node
