from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.pipeline import Pipeline, running_pipeline


@pytest.fixture
def pipeline(tmp_path: Path) -> Iterator[Pipeline]:
    """Yield a pipeline in which readings arrive."""
    with running_pipeline(tmp_path) as pipeline:
        yield pipeline
