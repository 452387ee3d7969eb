"""Noise stages of other diffusion models, trained with MONAI and used by a DRDD model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.networks.nets import DiffusionModelUNet
from monai.networks.schedulers import DDPMScheduler, RFlowScheduler
from safetensors.torch import save_file
from torch import Tensor

from medtrans.config.schema import Pipeline
from medtrans.data.manifest import Manifest, write_manifest
from medtrans.errors import TrainingError
from medtrans.evaluate.metrics import psnr
from medtrans.inference.settings import Settings
from medtrans.inference.translator import Translator
from medtrans.networks.binding import build_schedule, denoiser
from medtrans.networks.foreign import read_foreign_noise
from medtrans.package.store import load_package
from medtrans.preprocessing.foreground import find_foreground
from medtrans.training.run import TrainingPlan, train
from medtrans.volumes import read_volume
from tests import helpers

VARIANCES = {"schedule": "linear_beta", "steps": 1000}
VARIANCES |= {"first_variance": 1e-4, "last_variance": 0.02}
KINDS = {
    "epsilon": {"kind": "ddpm", "prediction": "epsilon", **VARIANCES},
    "v": {"kind": "ddpm", "prediction": "v_prediction", **VARIANCES},
    "sample": {"kind": "ddpm", "prediction": "sample", **VARIANCES},
    "edm": {"kind": "edm", "data_std": 0.6},
    "flow": {"kind": "rectified_flow", "steps": 1000},
}


def unet(seed: int) -> DiffusionModelUNet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return DiffusionModelUNet(
            spatial_dims=2, in_channels=1, out_channels=1, **helpers.FOREIGN_NETWORK
        )


def write_stage(folder: Path, training: dict, network: torch.nn.Module) -> Path:
    folder.mkdir(parents=True, exist_ok=True)

    def table(name: str, values: dict) -> str:
        return f"[{name}]\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in values.items())

    text = table("training", training) + table("network", helpers.FOREIGN_NETWORK)
    (folder / "denoiser.toml").write_text(text)
    state = {key: value.contiguous() for key, value in network.state_dict().items()}
    save_file(state, folder / "model.safetensors")
    return folder


def loss(training: dict, network: torch.nn.Module, x0: Tensor, rng: torch.Generator) -> Tensor:
    """Train as each model's authors do, with MONAI's schedulers and none of our code."""
    eps = torch.randn(x0.shape, generator=rng)
    if training["kind"] == "edm":
        level = torch.exp(-1.2 + 1.2 * torch.randn(len(x0), generator=rng))
        sigma, data = level.view(-1, 1, 1, 1), training["data_std"]
        total = (sigma**2 + data**2).sqrt()
        noisy = x0 + sigma * eps
        wanted = (x0 - data**2 / total**2 * noisy) / (sigma * data / total)
        return (network(noisy / total, level.log() / 4) - wanted).square().mean()
    t = torch.randint(0, 1000, (len(x0),), generator=rng)
    if training["kind"] == "rectified_flow":
        noisy = RFlowScheduler(1000).add_noise(x0, eps, t)
        return (network(noisy, t) - (x0 - eps)).square().mean()
    scheduler = DDPMScheduler(1000, prediction_type=training["prediction"])
    wanted = {
        "epsilon": eps,
        "sample": x0,
        "v_prediction": scheduler.get_velocity(x0, eps, t),
    }[training["prediction"]]
    return (network(scheduler.add_noise(x0, eps, t), t) - wanted).square().mean()


@pytest.fixture(scope="module")
def real(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Manifest of two real brains at 4 mm, one for training and one for validation."""
    folder, rows = tmp_path_factory.mktemp("real"), []
    for subject, split in (("openms-07", "train"), ("openms-19", "val")):
        for contrast in ("t1", "t2"):
            volume = read_volume(shared_data / "brain" / subject / f"{contrast}.nii.gz")
            path = folder / f"{subject}-{contrast}.nii.gz"
            small = np.ascontiguousarray(volume.numpy()[12:180:4, 12:204:4, 30:150:10])
            helpers.write_nifti(path, small, np.diag([4.0, 4.0, 10.0, 1.0]))
            rows.append(
                {"subject": subject, "contrast": contrast, "path": path.name, "split": split}
            )
    write_manifest(folder / "real.csv", rows)
    return folder / "real.csv"


def slices(path: Path) -> Tensor:
    """Scale a T2 volume's slices to [-1, 1]; shape (12, 1, 42, 48)."""
    values = read_volume(path).numpy()
    white = np.percentile(values[find_foreground(values)], 99.5)
    return torch.from_numpy((values / white * 2 - 1).clip(-1, 1).transpose(2, 0, 1)[:, None])


@pytest.mark.parametrize("name", ["epsilon", "v", "edm", "flow"])
def test_is_trained_by_its_own_rules_and_translates_real_slices(
    name: str, real: Path, tmp_path: Path
) -> None:
    training, rng = KINDS[name], torch.Generator().manual_seed(0)
    network, x0 = unet(0), slices(real.parent / "openms-07-t2.nii.gz").float()
    optimizer = torch.optim.Adam(network.parameters(), 8e-3)
    for _ in range(70):
        optimizer.zero_grad()
        chosen = torch.randint(0, len(x0), (4,), generator=rng)
        loss(training, network, x0[chosen, :, 9:33, 12:36], rng).backward()
        optimizer.step()

    stage = write_stage(tmp_path / name, training, network)
    recipe = helpers.tiny_pipeline(
        diffusion={"sigma": 0.5}, residual={"iterations": 4, "validate_every": 4}
    )
    plan = TrainingPlan(
        recipe, Manifest.read(real), tmp_path / "run", noise_from=stage, device="cpu"
    )
    package = load_package(train(plan))
    unseen = slices(real.parent / "openms-19-t2.nii.gz").float()[4:10]
    noisy = unseen + 0.5 * torch.randn(unseen.shape, generator=rng)
    denoise = denoiser(
        package.noise, package.pipeline, build_schedule(package.pipeline), torch.zeros(1), None
    )
    with torch.inference_mode():
        clean = denoise(noisy, torch.full((len(noisy),), 0.5))
    inside = (unseen > -1).numpy()
    before, after = (
        psnr(((v + 1) / 2).numpy(), ((unseen + 1) / 2).numpy(), inside) for v in (noisy, clean)
    )
    assert after > before + 2, f"{before:.1f} dB with the noise, {after:.1f} dB without"

    translator = Translator(package, torch.device("cpu"))
    source = read_volume(real.parent / "openms-19-t1.nii.gz")
    found = translator.translate_volume(source, Settings(mode="realistic"))
    assert np.isfinite(found.voxels).all()
    assert found.steps.noise == 3
    assert package.pipeline.denoiser is not None


def test_a_state_dict_file_does_as_well(tmp_path: Path) -> None:
    folder = write_stage(tmp_path / "stage", KINDS["v"], unet(3))
    expected = read_foreign_noise(folder)
    (folder / "model.safetensors").unlink()
    torch.save({"state_dict": unet(3).state_dict()}, folder / "model.pt")
    config, weights = read_foreign_noise(folder)
    assert config == expected[0]
    assert all(torch.equal(weights[key], value) for key, value in expected[1].items())


def test_a_model_passes_its_noise_stage_on(cohort: Path, tmp_path: Path) -> None:
    stage = write_stage(tmp_path / "stage", KINDS["flow"], unet(1))
    manifest, recipe = Manifest.read(cohort), helpers.tiny_pipeline()
    first = train(TrainingPlan(recipe, manifest, tmp_path / "one", noise_from=stage, device="cpu"))
    again = train(TrainingPlan(recipe, manifest, tmp_path / "two", noise_from=first, device="cpu"))
    assert load_package(again).pipeline.denoiser == load_package(first).pipeline.denoiser


def test_is_never_trained_by_other_rules(cohort: Path, tmp_path: Path) -> None:
    stage = write_stage(tmp_path / "stage", KINDS["flow"], unet(1))
    manifest, recipe = Manifest.read(cohort), helpers.tiny_pipeline()
    model = train(TrainingPlan(recipe, manifest, tmp_path / "one", noise_from=stage, device="cpu"))
    onwards = TrainingPlan(
        load_package(model).pipeline, manifest, tmp_path / "two", initial=model, device="cpu"
    )
    with pytest.raises(TrainingError, match="trained elsewhere"):
        train(onwards)
    afresh = load_package(train(replace(onwards, out=tmp_path / "three", pipeline=recipe)))
    assert afresh.pipeline.denoiser is None
    again = load_package(train(replace(onwards, stages="residual")))
    kept = load_package(model).noise.state_dict()
    assert all(torch.equal(kept[name], value) for name, value in again.noise.state_dict().items())


def break_key(folder: Path, old: str, new: str) -> None:
    path = folder / "denoiser.toml"
    path.write_text(path.read_text().replace(old, new))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("rectified_flow", "wavelets", "training: .*kind"),
        ("[8, 16]", "[8, 32]", "do not fit"),
        ("[8, 16]", "[8, 17]", "multiple of norm_num_groups"),
        ("steps =", "steps = 7\nstepps =", "stepps"),
        ("[network]", "[network", "cannot be read as TOML"),
    ],
)
def test_a_wrong_description_names_the_key(tmp_path: Path, old: str, new: str, words: str) -> None:
    folder = write_stage(tmp_path / "stage", KINDS["flow"], unet(0))
    break_key(folder, old, new)
    with pytest.raises(TrainingError, match=words):
        read_foreign_noise(folder)


def test_missing_and_damaged_weights(tmp_path: Path) -> None:
    folder = write_stage(tmp_path / "stage", KINDS["flow"], unet(0))
    (folder / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(TrainingError, match="not a file of weights"):
        read_foreign_noise(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(TrainingError, match="put the weights there"):
        read_foreign_noise(folder)


def test_a_stride_that_the_padding_does_not_fit(pipeline: Pipeline) -> None:
    raw = pipeline.model_dump(mode="json")
    network = {**helpers.FOREIGN_NETWORK, "channels": [8] * 5, "attention_levels": [False] * 5}
    raw["denoiser"] = {"training": KINDS["edm"], "network": network}
    with pytest.raises(ValueError, match="noise stage's stride, 16"):
        Pipeline.model_validate(raw)
