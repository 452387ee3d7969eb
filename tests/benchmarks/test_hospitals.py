"""The hospitals' tables: means over seeds, and differences paired by patient."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from benchmarks.translation.hospitals import reduced, tables


def results(path: Path) -> Path:
    """Write two seeds of three methods on four patients; the better is 1 dB above, each time."""
    rows = []
    for seed in (0, 1):
        for patient in range(4):
            for method, above in (("regression l2", 0.0), ("l2 pseudo-first", 1.0), ("drdd", 0.5)):
                psnr = 18.0 + 2 * patient + seed + above
                scores = {"psnr_fit": psnr, "psnr": psnr - 1, "ssim_fit": 0.5, "mae_fit": 0.1}
                key = {"cohort": "mrct-without-A-targets", "pairs": "all", "seed": seed}
                mode = "fidelity" if method == "drdd" else ""
                named = {"method": method, "mode": mode, "subject": f"p{patient}"}
                rows.append({**key, **named, **scores})
    rows.append({**rows[0], "cohort": "brain"})
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


def test_differences_are_paired_by_patient(tmp_path: Path) -> None:
    table = reduced(results(tmp_path / "results.csv"))
    assert set(table.site) == {"A"}
    assert len(table) == 12
    table.to_csv(tmp_path / "hospitals.csv", index=False)
    [(title, rows)] = tables(tmp_path / "hospitals.csv")
    assert "its CT unpaired in training; pairs: all (1 hospitals, 4 patients)" in title
    cells = {row.name: row.cells for row in rows}
    assert cells["drdd fidelity"][:2] == ["2", "22"]
    assert cells["drdd fidelity"][-2:] == ["+0.50 [+0.50, +0.50]", "-0.50 [-0.50, -0.50]"]
    assert cells["l2 pseudo-first"][-2:] == ["+1.00 [+1.00, +1.00]", "–"]
