"""`medtrans demo`: a real T1 volume, translated by the shipped model, with a page to look at."""

from __future__ import annotations

from pathlib import Path

from medtrans.errors import UsageError
from medtrans.inference.jobs import Job
from medtrans.inference.settings import Settings
from medtrans.inference.translator import Translator
from medtrans.report.page import save_page
from medtrans.report.still import save_picture
from medtrans.report.translation import describe, translation_scene
from medtrans.system.atomic import make_folder, replacing
from medtrans.system.devices import tune_process
from medtrans.system.progress import say, track
from medtrans.volumes import marks
from medtrans.volumes.files import load

_MARK = b"MNI152 template for medtrans demo"  # so that only our own copy is replaced


def run_demo(out: Path, device: str = "auto", overwrite: bool = False) -> dict[str, object]:
    """Translate the MNI152 T1 template, which nilearn carries, into T2.

    Parameters
    ----------
    out : Path
        Folder for the source, the synthetic volume with its sidecar, the picture and the page.
    device : str
        "auto", "cpu" or "cuda".
    overwrite : bool
        Replace files that medtrans did not write.

    Raises
    ------
    UsageError
        When nilearn is not installed, or the device is not there.
    OutputError
        When a file cannot be written, or is somebody else's.
    """
    picture = out / "mni152_t1_and_synthetic_t2.png"
    page = out / "mni152_t2.html"
    marks.require_marked([picture], marks.PNG, overwrite=overwrite)
    marks.require_marked([page], marks.HTML, overwrite=overwrite)
    source = _write_template(out, overwrite)
    tune_process()
    translator = Translator.load(device=device)
    say(f"Translating {source} with {translator.package.name} on {translator.device}.")
    settings = Settings(task="t1-to-t2")
    with track("slices") as on_slices:
        job = Job(source, out / "mni152_t2-synthetic.nii.gz", overwrite=overwrite)
        written = translator.translate_file(job, settings, on_slices)
    image = load(source, None, None)
    scene = translation_scene(image, written)
    save_picture(picture, scene, changes=True)
    save_page(page, describe(scene, image.source, written))
    return {
        "source": str(source),
        "outputs": [str(path) for path in written.outputs],
        "picture": str(picture),
        "slices": written.translation.slices,
        "seconds": round(written.seconds, 1),
        "page": str(page),
    }


def _write_template(out: Path, overwrite: bool) -> Path:
    try:
        from nilearn.datasets import load_mni152_template
    except ImportError:
        raise UsageError(
            "The demo translates the MNI152 template that nilearn carries, and nilearn is not "
            'installed. Run: pip install "medtrans[demo]"'
        ) from None
    path = make_folder(out) / "mni152_t1.nii.gz"
    marks.require_marked([path], _MARK, overwrite=overwrite)
    template = load_mni152_template(resolution=1)
    template.header["descrip"] = _MARK
    with replacing(path) as partial:
        template.to_filename(partial)
    return path
