"""Install the built wheel into an empty environment and translate there (make wheel-check).

Shows that recipes, model packages and data manifests travel in the source distribution, from which
the wheel is built, and in the wheel: nothing of the checkout can be reached from the environment or
the folder that it runs in.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, check=False, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run(sys.executable, "-m", "build", "--outdir", folder, ROOT, cwd=folder)
        (wheel,) = folder.glob("*.whl")
        run(os.environ.get("PYTHON", sys.executable), "-m", "venv", "empty", cwd=folder)
        python = folder / "empty" / "bin" / "python"
        pip = ("-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt")
        run(python, *pip, wheel, cwd=folder)
        medtrans = folder / "empty" / "bin" / "medtrans"
        run(medtrans, "phantom", "heads", "--subjects", "1", "--skull-stripped", cwd=folder)
        source = Path("heads") / "sub-001" / "t1.nii.gz"
        result = json.loads(
            run(medtrans, "translate", source, "--report", "page.html", "--json", cwd=folder)
        )
        program = "import medtrans; print(medtrans.__version__, medtrans.__file__)"
        version, where = run(python, "-c", program, cwd=folder).split()
        assert wheel.name.startswith(f"medtrans-{version}-"), (wheel.name, version)
        assert Path(where).is_relative_to(folder / "empty"), where
        output = Path(folder, result["volumes"][0]["output"])
        assert output.is_file(), result
        assert "viewer" in (folder / "page.html").read_text(encoding="utf-8"), result
        assert json.loads(run(medtrans, "tasks", "--json", cwd=folder))["tasks"]
        row = result["volumes"][0]
        sys.stdout.write(f"{wheel.name} translates in an empty environment: {row}\n")


if __name__ == "__main__":
    main()
