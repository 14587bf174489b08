"""Claim: a step with privacy costs at most 1.5 times one without, and no more memory.

The segmentation network and the survival network of ``configs/demo.yaml``, at its crops, on two
threads. A step *without privacy* is one of `client.training.train`, a step *with privacy* one of
`client.private_training.train_privately` (draw, clip each patient, noise, update), both on all of
the same patients; a patient of the segmentation network is four slices. They take turns, each in
its own loop, so that whatever else the machine does falls on both; medians of wall and of CPU
seconds are printed, the latter for a machine that others use. Peak memory is that of a process that
does nothing else.

*Opacus* is its hooks (``GradSampleModule``). They fail on both networks (outputs changed in place;
slices folded into the batch; weights used outside of layers), so they get networks of the same
arithmetic that they can take: MONAI's ``UNet`` of the same channels, and the slice encoder as
convolutions of 1 x 3 x 3. Their twin is a plain loop over that network. Slices' gradients are added
up to patients', as the claim is about patients.

``python benchmarks/private_step.py [--threads 2] [--steps 15] [--patients 8]``
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from monai.networks.nets import UNet as PeerUNet
from torch import Tensor, nn
from torch.nn import functional

from client.private_training import mean_over_slices, train_privately
from client.training import train
from privacy.ledger import Ledger
from privacy.noise import NoiseSource
from privacy.policy import PrivacyPolicy
from protocol.config import load_study
from protocol.training_config import LocalTraining
from shared_models.execution import Execution
from shared_models.heads import HEADS
from shared_models.losses.segmentation import dice_cross_entropy
from shared_models.networks import build
from shared_models.objectives import prognosis_objective, segmentation_objective

STUDY = load_study(Path(__file__).parents[1] / "configs" / "demo.yaml")
SLICES, WARM_UP = 4, 3
SIDES = ("without privacy", "with privacy", "Opacus, without", "Opacus")
Records = dict[str, Tensor]


def segmentation_patients(num_patients: int) -> Records:
    """Return slices of patients who do not exist, one row a slice."""
    generator, size = torch.Generator().manual_seed(1), STUDY.preprocessing.crop_px
    shape = (num_patients * SLICES, size, size)
    return {
        "images": torch.rand(shape, generator=generator)[:, None],
        "labels": torch.randint(0, 4, shape, generator=generator),
    }


def survival_patients(num_patients: int) -> Records:
    """Return patients who do not exist, one row each."""
    generator, section = torch.Generator().manual_seed(1), STUDY.prognosis
    size, slices = section.crop_px, section.max_slices
    fields = len(section.measurements) + len(section.covariates)
    return {
        "images": torch.rand(num_patients, 3, slices, size, size, generator=generator),
        "slice_present": torch.ones(num_patients, slices),
        "tabular": torch.randn(num_patients, fields, generator=generator),
        "missing": torch.zeros(num_patients, fields),
        "interval": torch.randint(0, section.num_intervals, (num_patients,), generator=generator),
        "event": torch.randint(0, 2, (num_patients,), generator=generator).float(),
    }


class PeerSurvival(nn.Module):
    """The arithmetic of the demo's survival network, in layers that the hooks know."""

    def __init__(self) -> None:
        super().__init__()
        section = STUDY.prognosis
        options = section.network.options
        layers: list[nn.Module] = []
        source = 3
        for width in options["channels"]:
            layers.append(nn.Conv3d(source, width, (1, 3, 3), (1, 2, 2), (0, 1, 1), bias=False))
            layers += [nn.GroupNorm(max(1, width // 8), width), nn.ReLU()]
            source = width
        self.encoder = nn.Sequential(*layers)
        self.embed = nn.Linear(source, options["embedding"])
        fields = 2 * (len(section.measurements) + len(section.covariates))
        self.last = nn.Linear(fields + options["embedding"], section.num_intervals)

    def forward(self, images: Tensor, present: Tensor, tabular: Tensor, missing: Tensor) -> Tensor:
        embedded = torch.tanh(self.embed(self.encoder(images).mean(dim=(2, 3, 4))))
        return self.last(torch.cat((tabular, missing, functional.dropout(embedded, 0.3)), dim=1))


@dataclass(frozen=True)
class Case:
    """One network, its patients, and what an Opacus user would write in its place."""

    patients: Callable[[int], Records]
    network: Callable[[], nn.Module]
    peer: Callable[[], nn.Module]
    loss: Callable[[nn.Module, Records], Tensor]
    peer_loss: Callable[[nn.Module, Records], Tensor]
    rows: int


def peer_segmentation(model: nn.Module, batch: Records) -> Tensor:
    """Return the loss of each slice; MONAI's logits are the loss's."""
    return dice_cross_entropy(model(batch["images"]), batch["labels"])


def demo_unet() -> nn.Module:
    """Return the demo's segmentation network."""
    return build(STUDY.segment.network.name, STUDY.segment.network.options)


def peer_unet() -> nn.Module:
    """Return MONAI's network of the same channels, with norms that the hooks know."""
    channels = STUDY.segment.network.options["channels"]
    strides = (2,) * (len(channels) - 1)
    norm = ("INSTANCE", {"affine": True})
    return PeerUNet(2, 1, 4, channels, strides, num_res_units=2, norm=norm)


def demo_survival() -> nn.Module:
    """Return the demo's survival network."""
    return build(STUDY.prognosis.network.name, STUDY.prognosis.network_options())


survival_loss = partial(prognosis_objective, head=HEADS[STUDY.prognosis.head])
CASES = {
    "U-Net": Case(
        segmentation_patients,
        demo_unet,
        peer_unet,
        segmentation_objective,
        peer_segmentation,
        SLICES,
    ),
    "survival": Case(
        survival_patients, demo_survival, PeerSurvival, survival_loss, survival_loss, 1
    ),
}


class Turns:
    """Lets several loops take one step after the other, and times each step."""

    def __init__(self, sides: tuple[str, ...]) -> None:
        self.condition = threading.Condition()
        self.waiting = list(sides)
        self.wall: dict[str, list[float]] = {side: [] for side in sides}
        self.cpu: dict[str, list[float]] = {side: [] for side in sides}
        self.since = (0.0, 0.0)
        self.failed: list[BaseException] = []

    def begin(self, side: str) -> None:
        """Wait for this side's turn, then start its clock."""
        with self.condition:
            self.condition.wait_for(lambda: self.waiting[0] == side or bool(self.failed))
            if self.failed:
                raise RuntimeError("another side failed")
        self.since = (time.perf_counter(), time.process_time())

    def end(self, side: str) -> None:
        """Stop the clock and let the next side go."""
        self.wall[side].append(time.perf_counter() - self.since[0])
        self.cpu[side].append(time.process_time() - self.since[1])
        with self.condition:
            self.waiting.append(self.waiting.pop(0))
            self.condition.notify_all()


@dataclass
class Loop:
    """One side: runs its steps, and tells `turns` where a step begins and ends."""

    case: Case
    side: str
    num_patients: int
    steps: int
    execution: Execution
    turns: Turns | None = None
    done: int = field(default=0)

    def step_done(self, *_: object) -> None:
        """Hand over, and take up again when it is this side's turn."""
        self.done += 1
        if self.turns is not None:
            threads = torch.get_num_threads()
            self.turns.end(self.side)
            if self.done < self.steps:
                self.turns.begin(self.side)
            torch.set_num_threads(threads)

    def run(self) -> None:
        """Run all steps; what comes before the first is not timed."""
        if self.turns is not None:
            self.turns.begin(self.side)
        {
            "without privacy": self.plain,
            "with privacy": self.private,
            "Opacus, without": self.peer,
            "Opacus": self.hooks,
        }[self.side]()

    def plain(self) -> None:
        rows = self.num_patients * self.case.rows
        options = LocalTraining(batch_size=rows, epochs=self.steps, augment=False)
        train(
            self.case.network(),
            self.case.patients(self.num_patients),
            self.case.loss,
            options,
            learning_rate=1e-3,
            rng=np.random.default_rng(0),
            execution=self.execution,
            on_step=self.step_done,
        )

    def private(self) -> None:
        # Everybody in every step, so that both sides see the same slices; the caps are out of the
        # way, as epsilon is not what is measured here.
        policy = PrivacyPolicy(
            noise_multiplier=1.0,
            clip_norm=1.0,
            sampling_rate=1.0,
            steps_per_round=self.steps,
            max_rounds=1,
            delta=1e-3,
            study_epsilon=1e6,
            lifetime_epsilon=1e6,
            statistics_noise=1.0,
            slices_per_patient=SLICES,
        )
        folded, count = self.case.rows > 1, np.full(self.num_patients, self.case.rows)
        with tempfile.TemporaryDirectory() as folder:
            train_privately(
                self.case.network(),
                self.case.patients(self.num_patients),
                mean_over_slices(self.case.loss) if folded else self.case.loss,
                policy,
                learning_rate=1e-3,
                ledger=Ledger(Path(folder) / "ledger.jsonl"),
                study="benchmark",
                purpose="step",
                source=NoiseSource(Path(folder) / "noise.json"),
                execution=self.execution,
                num_slices=count if folded else None,
                on_step=self.step_done,
            )

    def peer(self) -> None:
        torch.set_num_threads(self.execution.threads)
        model, batch = self.case.peer(), self.case.patients(self.num_patients)
        optimiser = torch.optim.AdamW(model.parameters(), 1e-3, fused=True)
        for _ in range(self.steps):
            optimiser.zero_grad()
            loss = self.case.peer_loss(model, batch).mean()
            loss.backward()
            loss.item()
            optimiser.step()
            self.step_done()

    def hooks(self) -> None:
        from opacus import GradSampleModule

        torch.set_num_threads(self.execution.threads)
        model = GradSampleModule(self.case.peer(), loss_reduction="sum")
        batch, parameters = self.case.patients(self.num_patients), list(model.parameters())
        optimiser = torch.optim.AdamW(parameters, 1e-3, fused=True)
        for _ in range(self.steps):
            optimiser.zero_grad()
            (self.case.peer_loss(model, batch).sum() / self.case.rows).backward()
            each = [
                p.grad_sample.unflatten(0, (self.num_patients, -1)).sum(dim=1) for p in parameters
            ]
            norms = torch.stack([g.flatten(1).norm(dim=1) for g in each]).norm(dim=0)
            factors = (1.0 / norms).clamp(max=1.0)
            for parameter, g in zip(parameters, each, strict=True):
                summed = torch.tensordot(factors, g, 1)
                parameter.grad = (summed + torch.randn_like(summed)) / self.num_patients
                parameter.grad_sample = None
            optimiser.step()
            self.step_done()


def time_steps(name: str, num_patients: int, steps: int, execution: Execution) -> Turns:
    """Run all sides by turns."""
    turns = Turns(SIDES)
    failed = turns.failed

    def guarded(loop: Loop) -> None:
        try:
            loop.run()
        except BaseException as error:
            failed.append(error)
            with turns.condition:
                turns.condition.notify_all()
            raise

    loops = [
        Loop(CASES[name], side, num_patients, steps + WARM_UP, execution, turns) for side in SIDES
    ]
    threads = [threading.Thread(target=guarded, args=(loop,)) for loop in loops]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    return turns


def peak_memory_mb(name: str, side: str, num_patients: int, threads: int) -> float:
    """Return the largest resident memory of a process that runs five steps of one side, MB."""
    command = [sys.executable, __file__, "--memory", name, side]
    command += ["--patients", str(num_patients), "--threads", str(threads)]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(found.stdout.split()[-1])


def main() -> None:
    """Measure, then print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--patients", type=int, default=8)
    parser.add_argument("--memory", nargs=2, help="a network and a side, by a process of its own")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", message="Full backward hook")
    execution = Execution(threads=arguments.threads)
    if arguments.memory:
        name, side = arguments.memory
        Loop(CASES[name], side, arguments.patients, 5, execution).run()
        # Of this program alone; ru_maxrss would start from that of the process that started it.
        status = Path("/proc/self/status").read_text(encoding="ascii")
        print(int(status.split("VmHWM:")[1].split()[0]) / 1024)
        return
    print(f"{arguments.patients} patients a step, {arguments.threads} threads")
    print(f"{'':28}{'wall, ms':>10}{'ratio':>7}{'CPU, ms':>10}{'ratio':>7}{'peak, MB':>10}")
    for name in CASES:
        turns = time_steps(name, arguments.patients, arguments.steps, execution)
        for side in SIDES:
            twin = SIDES[0] if side in SIDES[:2] else SIDES[2]
            cells = []
            for seconds in (turns.wall, turns.cpu):
                here, there = (statistics.median(seconds[s][WARM_UP:]) for s in (side, twin))
                cells.append(f"{here * 1e3:10.0f}{here / there:7.2f}")
            memory = peak_memory_mb(name, side, arguments.patients, arguments.threads)
            print(f"{name + ', ' + side:28}{''.join(cells)}{memory:10.0f}", flush=True)


if __name__ == "__main__":
    main()
