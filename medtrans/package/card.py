"""The words of a model package that nobody wrote by hand: its card and its licence files."""

from __future__ import annotations

import json
from collections.abc import Mapping

from medtrans.config.schema import Pipeline, Scale
from medtrans.config.terms import Contrast

LICENSE_TEXT = """\
No licence has been stated for the weights in models/. They are their trainer's; ask before you
use or share them, and put your own terms here before you give this folder to anybody.

The files in configs/ were written by medtrans and are under the Apache License, Version 2.0:
https://www.apache.org/licenses/LICENSE-2.0
"""

DATA_LICENSE_TEXT = """\
The terms of the data that this model was trained on have not been stated. Whoever trained it
should name each data set, its licence and its source here.
"""

_CARD = """\
# {name}

### **Authors**
Not stated.

### **Tags**
Synthesis, contrast translation, {contrasts}, diffusion, DRDD

## **Model Description**
This model translates volumes of one imaging contrast into another: {tasks}. It works slice by
slice ({axis}; {stack} source slices for one target slice) with Decoupled Residual Denoising
Diffusion [1]: {stages}.

The output is synthetic. It is not an acquired image and not for diagnosis.

## **Data**
{training}

#### **Preprocessing**
Volumes are oriented to RAS, {spacing}, mapped to [-1, 1] ({scales}) and cut to the
foreground. The result comes back on the input's own grid.

## **Performance**
{performance}

## **Additional Usage Steps**
```
medtrans translate INPUT.nii.gz --model {name}
python -m monai.bundle run --config_file configs/inference.json --bundle_root . \\
    --dataset_dir INPUTS --output_dir OUTPUTS
python -m monai.bundle run --config_file configs/train.json --bundle_root . \\
    --dataset_dir DATA --output_dir RUN --initial .
torchrun --nproc_per_node=2 -m monai.bundle run \\
    --config_file "['configs/train.json','configs/multi_gpu_train.json']" \\
    --bundle_root . --dataset_dir DATA --output_dir RUN
python -m monai.bundle ckpt_export --net_id network_def --filepath models/model.ts \\
    --ckpt_file models/model.pt --meta_file configs/metadata.json \\
    --config_file configs/inference.json --use_trace True
```
The commands with `monai.bundle` are run in this folder and need `pip install "medtrans[bundle]"`.
MONAI evaluates what a bundle's configs say: run only bundles you trust.

TorchScript is by tracing (`--use_trace True`); scripting is not supported.

## **System Configuration**
A CPU is enough to translate. A GPU is used where there is one.

## **Limitations**
It can leave out or invent anatomy, lesions above all, and nothing in the image says where. What
it was not trained on (other scanners, ages, body parts, resolutions) it was not tested on.

## **References**
[1] Lin et al. Decoupled Residual Denoising Diffusion. CVPR 2026. arXiv:2606.01048.
"""


def model_card(
    name: str, pipeline: Pipeline, training: Mapping[str, object], *, has_noise: bool
) -> str:
    """Write docs/README.md from what is known of a model.

    Parameters
    ----------
    name : str
    pipeline : Pipeline
        The recipe it was trained with.
    training : mapping
        As in `TrainedModel`.
    has_noise : bool
        Whether the model has a noise stage.
    """
    contrasts = sorted({contrast for task in pipeline.parsed_tasks for contrast in task})
    facts = {key: value for key, value in training.items() if key != "eval_metrics"}
    spacing = " x ".join(f"{mm:g}" if mm else "own" for mm in pipeline.volume.spacing_mm)
    return _CARD.format(
        name=name,
        contrasts=", ".join(contrast.upper() for contrast in contrasts),
        tasks=", ".join(pipeline.tasks),
        axis=pipeline.slices.axis,
        stack=pipeline.slices.stack,
        stages="a residual stage and a noise stage" if has_noise else "the residual stage only",
        training=_list(facts) or "Not stated.",
        spacing=f"resampled to {spacing} mm",
        scales="; ".join(_scale(contrast, pipeline.contrasts[contrast]) for contrast in contrasts),
        performance=_list(eval_metrics(training)) or "Not measured.",
    )


def eval_metrics(training: Mapping[str, object]) -> Mapping[str, object]:
    """Return the metrics among what is known of a model's training; empty if there are none."""
    metrics = training.get("eval_metrics", {})
    return metrics if isinstance(metrics, Mapping) else {}


def _scale(contrast: Contrast, scale: Scale) -> str:
    if scale.scale == "window":
        return f"{contrast} by the window {scale.window_hu[0]:g} to {scale.window_hu[1]:g} HU"
    return f"{contrast} by its foreground's percentiles {scale.lower:g} and {scale.upper:g}"


def _list(facts: Mapping[str, object]) -> str:
    shown = {key.replace("_", " "): value for key, value in facts.items()}
    return "\n".join(
        f"- {key}: {value if isinstance(value, str) else json.dumps(value)}"
        for key, value in shown.items()
    )
