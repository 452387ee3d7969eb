"""A large volume streams through: what is held at once is a few times the volume."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests import helpers

# The networks' own working memory does not grow with the volume; a stand-in leaves it out.
PROGRAM = """
import resource, sys
from pathlib import Path
from medtrans.inference.jobs import Job
from medtrans.inference.settings import Settings
from medtrans.inference.translator import Translator

def peak_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

translator = Translator.load(sys.argv[1], "cpu")
translator.sampler.residual = lambda x, time, label: x[:, :1] * 0
def translate(name):
    job = Job(Path(name), out=Path(sys.argv[4]), overwrite=True)
    translator.translate_file(job, Settings(batch_size=1))

translate(sys.argv[2])
before = peak_mb()
translate(sys.argv[3])
print(peak_mb() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ru_maxrss is in kB on Linux")
def test_peak_memory_is_a_few_volumes(identity_model: Path, tmp_path: Path) -> None:
    """4.2 volumes on top of what is loaded: 3 * 600 MB + 1.5 GB for 512 x 512 x 600."""
    paths = []
    for side in (16, 224):
        volume = np.zeros((side, side, side), dtype=np.float32)
        volume[2:-2, 2:-2, 2:-2] = np.linspace(1, 1000, side - 4, dtype=np.float32)
        affine = np.diag([-1.0, -1.0, 1.0, 1.0])  # not RAS, so that turning it costs its share
        paths.append(helpers.write_nifti(tmp_path / f"{side}.nii", volume, affine))
    arguments = [str(path) for path in (identity_model, *paths, tmp_path / "out.nii")]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < 4.2 * volume.nbytes / 2**20
