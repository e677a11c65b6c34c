"""Packages of npm that tests use, installed next to their lock file."""

import shutil
import subprocess
from pathlib import Path

INSTALL_DEADLINE_S = 180


def node_with_packages(folder: Path) -> str:
    """Return the path of node, with the packages that a folder's lock names installed in it."""
    node, npm = shutil.which("node"), shutil.which("npm")
    assert node, "mark the test with pytest.mark.npm"
    assert npm, "mark the test with pytest.mark.npm"
    lock, installed = folder / "package-lock.json", folder / "node_modules" / ".package-lock.json"
    if not installed.exists() or installed.stat().st_mtime < lock.stat().st_mtime:
        npm_ci = subprocess.run(
            [npm, "ci"], cwd=folder, capture_output=True, text=True, timeout=INSTALL_DEADLINE_S, check=False
        )
        assert npm_ci.returncode == 0, f"npm ci in {folder} failed:\n{npm_ci.stdout}{npm_ci.stderr}"
    return node
