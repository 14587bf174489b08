"""Claim: attackers find patients in what is released without privacy, and hardly with it.

On small problems where the attacks are known to work (``privacy_digits.py``): the one-run audit
refutes four wrong versions of private training in twelve of twelve runs and the right one in none;
online likelihood ratios find members with an AUC of at least .68 without privacy and at most .60 at
an epsilon below 10; an image comes back from one gradient at 60 dB without privacy, and worse than
guessing the mean image with it. Then the same attacks, and the question which hospital sent an
update, on the demo's networks (``privacy_networks.py``). All patients are phantoms.

Run ``python benchmarks/privacy_audit.py [--out audit.json] [--parts digits unet tabular]``; the
file goes into a report by ``concors-server report RUN_DIR --audit audit.json``.
"""

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from privacy_digits import (
    BUGS,
    CLAIM,
    CLAIM_DELTA,
    STRENGTH,
    RepeatableNoise,
    audit_once,
    invert_digit,
    membership_losses,
)
from privacy_networks import (
    Subject,
    flat,
    segmentation_subject,
    survival_subject,
    train_plainly,
    train_privately,
    twice_differentiable,
)
from torch import Tensor, nn

from client.private_training import train_privately as private_round
from privacy.accountant import Spend, epsilon
from privacy.audit.canaries import (
    CanaryNetwork,
    add_canaries,
    canary_loss,
    choose_coordinates,
    flip_coins,
    score_updates,
)
from privacy.audit.document import AuditDocument, AuditFigure, save_audit
from privacy.audit.inversion import invert_first_layer, match_gradients, peak_signal_to_noise
from privacy.audit.membership import (
    attack_each,
    confidence_of,
    likelihood_ratio_offline,
    likelihood_ratio_online,
    loss_threshold,
)
from privacy.audit.one_run import audit_one_run
from privacy.audit.roc import area_under_curve, interval, true_positive_rate
from privacy.audit.sites import origin_scores, participation_scores
from privacy.audit.steps import released_steps
from privacy.gradients import clipped_sum
from privacy.ledger import Ledger
from privacy.noise import NoiseSource, add_noise
from privacy.policy import PrivacyPolicy
from protocol.training_config import LocalTraining
from shared_models.execution import Execution

DELTA = 1e-3
RUNS = 12
ATTACKS = {
    "membership, loss": loss_threshold,
    "membership, likelihood ratio (online)": likelihood_ratio_online,
    "membership, likelihood ratio (offline)": likelihood_ratio_offline,
}
DIGITS = "Small networks on digits"
# 300 steps of clipping norm 1 with a tenth of 200 patients in each.
TOY = {"sampling_rate": 0.1, "num_steps": 300, "learning_rate": 0.12}
TOY_NOISE = (1.0, 1.5)
NOTES = (
    "Membership: models trained alike on random halves of the patients, each attacked with the "
    "others as its shadow models; online the shadows were trained with and without the patient in "
    "question, offline without only.",
    "Canaries: 100 made-up patients, each pulling at one weight of its own, put in by coin flips; "
    "half of them are guessed from the sum of the noised steps. The highest bound that 50 right "
    "guesses can give is 2.3 at a delta of 1e-5.",
    "Reconstruction: one patient's gradient of one step, labels known to the attacker; with "
    "privacy it is clipped to norm 1 and gets Gaussian noise of standard deviation 1 in each "
    "number, as one step with that patient alone.",
    "Hospitals: the attacker knows earlier updates of every hospital. Privacy of patients does not "
    "promise that a hospital cannot be recognised.",
)


def spent(options: dict[str, float], delta: float) -> float:
    """Return the epsilon of private training."""
    names = ("noise_multiplier", "sampling_rate", "num_steps")
    return epsilon([Spend(**{name: options[name] for name in names})], delta)


def say(figure: AuditFigure) -> AuditFigure:
    """Print a figure as soon as it is known."""
    level = "none" if figure.epsilon is None else f"{figure.epsilon:.2f}"
    ends = "" if figure.low is None else f" ({figure.low:.3f} to {figure.high:.3f})"
    guess = "" if figure.guessing is None else f", guessing {figure.guessing:.3f}"
    print(
        f"{figure.network} | {figure.attack} | {figure.measure} | epsilon {level} | "
        f"{figure.value:.3f}{ends}{guess}",
        flush=True,
    )
    return figure


def membership(
    network: str, confidences: np.ndarray, members: np.ndarray, level: dict[str, float]
) -> Iterator[AuditFigure]:
    """Attack all models with all others as shadows."""
    for attack, score in ATTACKS.items():
        scores = attack_each(confidences, members, score)
        measures = {
            "AUC": (area_under_curve, 0.5),
            "share found at 5 % false alarms": (true_positive_rate, 0.05),
        }
        for measure, (statistic, guessing) in measures.items():
            low, high = interval(statistic, scores, members, np.random.default_rng(0))
            yield AuditFigure(
                network=network, attack=attack, measure=measure, value=statistic(scores, members),
                low=low, high=high, guessing=guessing, **level,
            )  # fmt: skip


def digits() -> Iterator[AuditFigure]:
    """Show that the attacks have power."""
    claimed = epsilon([Spend(**CLAIM)], CLAIM_DELTA)
    for bug in BUGS:
        found = [audit_once(bug, seed) for seed in range(RUNS)]
        bounds = [audit.epsilon_lower for audit in found]
        print(f"  {bug}: bounds {', '.join(f'{bound:.2f}' for bound in bounds)}")
        yield AuditFigure(
            network=DIGITS, attack=f"canaries, {bug}", measure=f"of {RUNS} runs refuted",
            value=sum(audit.refutes(claimed) for audit in found),
            epsilon=claimed, delta=CLAIM_DELTA, guessing=0,
        )  # fmt: skip
    for noise in (None, *TOY_NOISE):
        private = None if noise is None else {**TOY, "noise_multiplier": noise}
        level = {} if private is None else {"epsilon": spent(private, DELTA), "delta": DELTA}
        losses = membership_losses(private)
        print(f"  accuracy on other images {losses.accuracy:.3f}")
        yield from membership(DIGITS, losses.confidences, losses.members, level)
    rows = range(0, 56, 7)
    once = {"noise_multiplier": 1.0, "sampling_rate": 1.0, "num_steps": 1}
    for noise in (None, 1.0):
        pairs = np.array([invert_digit(row, noise_multiplier=noise) for row in rows])
        print(f"  reconstructions {', '.join(f'{value:.1f}' for value in pairs[:, 0])} dB")
        level = {} if noise is None else {"epsilon": spent(once, DELTA), "delta": DELTA}
        yield AuditFigure(
            network=DIGITS, attack="reconstruction of an image", measure="mean PSNR, dB",
            value=pairs[:, 0].mean(), guessing=pairs[:, 1].mean(), **level,
        )  # fmt: skip


def shadow_models(subject: Subject, num_models: int, *, private: bool) -> Iterator[AuditFigure]:
    """Train models on random halves of the patients, and look for members."""
    rng = np.random.default_rng(1)
    number = len(subject.hospital)
    members = rng.random((num_models, number)) < 0.5
    while (poor := (members.sum(0) < 3) | (members.sum(0) > num_models - 3)).any():
        members[:, poor] = rng.random((num_models, poor.sum())) < 0.5
    confidences, outside = [], []
    for index, row in enumerate(members):
        model = subject.make(index)
        _fit(subject, model, subject.of(np.flatnonzero(row)), index, private=private)
        with torch.no_grad():
            losses = subject.loss(model, subject.patients).double().numpy()
        confidences.append(confidence_of(losses))
        outside.append(losses[~row].mean())
    print(f"  loss of patients who were not trained on {np.mean(outside):.3f}")
    level = {"epsilon": spent(subject.private, DELTA), "delta": DELTA} if private else {}
    yield from membership(subject.name, np.stack(confidences), members, level)


def _fit(
    subject: Subject, model: nn.Module, patients: dict[str, Tensor], seed: int, *, private: bool
) -> None:
    if private:
        train_privately(model, patients, subject.loss, RepeatableNoise(seed), **subject.private)
    else:
        train_plainly(model, patients, subject.loss, np.random.default_rng(seed), **subject.plain)


def one_run(subject: Subject) -> Iterator[AuditFigure]:
    """Audit one training of the network with canaries, without noise and with it."""
    claimed = epsilon([Spend(**CLAIM)], CLAIM_DELTA)
    some = subject.of(np.arange(0, len(subject.hospital), 4))
    number = len(next(iter(some.values())))
    for private in (False, True):
        rng, model = np.random.default_rng(5), subject.make(5)
        coordinates, included = choose_coordinates(model, 100, rng), flip_coins(100, rng)
        other = {} if private else {"noise": lambda values, sd, source: dict(values)}
        with tempfile.TemporaryDirectory() as folder:
            steps = released_steps(
                model.train(), add_canaries(some, coordinates, included),
                canary_loss(subject.loss, STRENGTH), NoiseSource(Path(folder) / "noise.json"),
                clip_norm=1.0, learning_rate=0.1, **CLAIM, **other,
                expected_patients=CLAIM["sampling_rate"] * (number + 50),
            )  # fmt: skip
            scores = score_updates(steps, [n for n, _ in model.named_parameters()], coordinates)
        found = audit_one_run(scores, included, delta=CLAIM_DELTA)
        level = {"epsilon": claimed, "delta": CLAIM_DELTA} if private else {}
        print(f"  {found.num_correct} of {found.num_guesses} guesses right")
        yield AuditFigure(
            network=subject.name, attack="canaries", measure="lower bound of ε (99 %)",
            value=found.epsilon_lower, guessing=0, **level,
        )  # fmt: skip


def whole_round(subject: Subject) -> Iterator[AuditFigure]:
    """Audit a private round as hospitals run it, by the weights at its end, and one too quiet."""
    some = subject.of(np.arange(0, len(subject.hospital), 4))
    number = len(next(iter(some.values())))
    policy = PrivacyPolicy(
        noise_multiplier=CLAIM["noise_multiplier"], sampling_rate=CLAIM["sampling_rate"],
        steps_per_round=CLAIM["num_steps"], clip_norm=1.0, max_rounds=1, delta=CLAIM_DELTA,
        study_epsilon=2.0, lifetime_epsilon=2.0, statistics_noise=10.0,
    )  # fmt: skip
    for kind, name in ((NoiseSource, "as it is"), (TooQuiet, "noise 10 times too small")):
        rng, model = np.random.default_rng(6), CanaryNetwork(subject.make(6), 100)
        included, before = flip_coins(100, rng), model.pulled.weight.detach().clone()
        with tempfile.TemporaryDirectory() as folder:
            ledger = Ledger(Path(folder) / "ledger.jsonl")
            private_round(
                model, add_canaries(some, np.arange(100), included),
                model.loss(subject.loss, STRENGTH), policy, learning_rate=0.1, ledger=ledger,
                study="audit", purpose="canaries", source=kind(Path(folder) / "noise.json"),
                execution=Execution(threads=1), public_size=number + 50,
                options=LocalTraining(optimizer="sgd", weight_decay=0.0, augment=False),
            )  # fmt: skip
            charged = ledger.spent(CLAIM_DELTA)
        scores = (before - model.pulled.weight.detach())[0].double().numpy()
        found = audit_one_run(scores, included, delta=CLAIM_DELTA)
        print(f"  {name}: {found.num_correct} of {found.num_guesses} guesses right")
        yield AuditFigure(
            network=subject.name, attack=f"canaries, a whole round, {name}",
            measure="lower bound of ε (99 %)", value=found.epsilon_lower, guessing=0,
            epsilon=charged, delta=CLAIM_DELTA,
        )  # fmt: skip


class TooQuiet(NoiseSource):
    """A tenth of the noise that was promised."""

    def normal(self, shape: Sequence[int], sd: float) -> Tensor:
        """Return noise of a tenth of the standard deviation."""
        return super().normal(shape, sd / 10)


def hospitals(subject: Subject, *, private: bool, num_steps: int = 15) -> Iterator[AuditFigure]:
    """Tell hospitals by updates of a common model that was trained by all of them."""
    rng = np.random.default_rng(3)
    common = subject.make(9)
    _fit(subject, common, subject.patients, 9, private=private)
    start, sites, half = flat(common), range(4), 6
    options = {**(subject.private if private else subject.plain), "num_steps": num_steps}
    updates = np.empty((4, 2 * half, len(start)))
    for site in sites:
        own = np.flatnonzero(subject.hospital == site)
        for index in range(2 * half):
            model = subject.make(9)
            model.load_state_dict(common.state_dict())
            rows = np.sort(rng.permutation(own)[: len(own) // 2])
            seed = 1000 + 100 * site + index
            if private:
                train_privately(
                    model, subject.of(rows), subject.loss, RepeatableNoise(seed), **options
                )
            else:
                train_plainly(
                    model, subject.of(rows), subject.loss, np.random.default_rng(seed), **options
                )
            updates[site, index] = flat(model) - start
    seen, released = updates[:, :half], updates[:, half:].reshape(4 * half, -1)
    scores, members, accuracy = origin_scores(seen, released, np.repeat(np.arange(4), half))
    part = rng.random((40, 4)) < 0.5
    # Somebody took part, and not everybody: of everybody there is nothing to guess.
    part[part.all(axis=1) | ~part.any(axis=1)] = [True, False, True, False]
    chosen = updates[np.arange(4), half + rng.integers(half, size=(40, 4))]
    means = (chosen * part[..., None]).sum(axis=1) / part.sum(axis=1)[:, None]
    joined, truth = participation_scores(seen, means, part)
    level = {}
    if private:
        level = {"epsilon": spent(options, DELTA), "delta": DELTA}
    kinds = {"who sent an update": (scores, members), "who took part in a mean": (joined, truth)}
    print(f"  senders told right {accuracy:.3f}, chance .25")
    for attack, (score, member) in kinds.items():
        low, high = interval(area_under_curve, score.T, member.T, np.random.default_rng(0))
        yield AuditFigure(
            network=subject.name, attack=attack, measure="AUC",
            value=area_under_curve(score, member), low=low, high=high, guessing=0.5, **level,
        )  # fmt: skip


def invert_row(subject: Subject) -> Iterator[AuditFigure]:
    """Read a patient's fields out of the first layer's gradient."""
    model = subject.make(2)
    _fit(subject, model, subject.patients, 2, private=False)
    fields = subject.patients["tabular"].double()
    # Standardised fields as a picture's range: five standard deviations to either side.
    truth = fields / 10 + 0.5
    once = {"noise_multiplier": 1.0, "sampling_rate": 1.0, "num_steps": 1}
    for private in (False, True):
        decibels = []
        for row in range(50):
            one = subject.of(np.array([row]))
            released = clipped_sum(model, one, subject.loss, 1.0, chunk_size=1).gradients
            if private:
                released = add_noise(released, 1.0, RepeatableNoise(row))
            if not released["body.0.bias"].any():
                continue
            told = invert_first_layer(released["body.0.weight"], released["body.0.bias"])
            decibels.append(peak_signal_to_noise(told[: fields.shape[1]] / 10 + 0.5, truth[row]))
        guess = np.mean([peak_signal_to_noise(truth.mean(0), truth[row]) for row in range(50)])
        level = {"epsilon": spent(once, DELTA), "delta": DELTA} if private else {}
        yield AuditFigure(
            network=subject.name, attack="reconstruction of the fields", measure="mean PSNR, dB",
            value=np.mean(decibels), guessing=guess, **level,
        )  # fmt: skip


def invert_slice(subject: Subject, num_images: int = 2, steps: int = 15) -> Iterator[AuditFigure]:
    """Seek a slice by the gradient it gave, its mask known."""
    model = subject.make(2)
    attacked = twice_differentiable(model)
    weights = list(attacked.parameters())
    every = subject.patients["images"][:, 1].double()
    once = {"noise_multiplier": 1.0, "sampling_rate": 1.0, "num_steps": 1}
    for private in (False, True):
        decibels, guesses = [], []
        for row in range(num_images):
            one = {name: v[:, 1:2] for name, v in subject.of(np.array([row])).items()}

            def gradient_of(image: Tensor, labels: Tensor = one["labels"]) -> list[Tensor]:
                loss = subject.loss(attacked, {"images": image[None], "labels": labels}).sum()
                return list(torch.autograd.grad(loss, weights, create_graph=True))

            released = [gradient.detach() for gradient in gradient_of(one["images"][0].double())]
            if private:
                summed = clipped_sum(model, one, subject.loss, 1.0, chunk_size=1).gradients
                released = list(add_noise(summed, 1.0, RepeatableNoise(row)).values())
            found = match_gradients(
                gradient_of, released, every.mean(0, keepdim=True), distance="cosine",
                steps=steps, variation=1e-4 if private else 0.0,
            )  # fmt: skip
            decibels.append(peak_signal_to_noise(found[0], every[row]))
            guesses.append(peak_signal_to_noise(every.mean(0), every[row]))
        level = {"epsilon": spent(once, DELTA), "delta": DELTA} if private else {}
        print(f"  reconstructions {', '.join(f'{value:.1f}' for value in decibels)} dB")
        yield AuditFigure(
            network=subject.name, attack="reconstruction of a slice", measure="mean PSNR, dB",
            value=np.mean(decibels), guessing=np.mean(guesses), **level,
        )  # fmt: skip


def network(subject: Subject, num_models: int) -> Iterator[AuditFigure]:
    """Run every attack on one network."""
    yield from one_run(subject)
    yield from whole_round(subject)
    yield from (invert_row if "tabular" in subject.patients else invert_slice)(subject)
    for private in (False, True):
        yield from hospitals(subject, private=private)
    for private in (False, True):
        yield from shadow_models(subject, num_models, private=private)


PARTS = {
    "digits": digits,
    "tabular": lambda: network(survival_subject(), 16),
    "unet": lambda: network(segmentation_subject(), 8),
}


def main() -> None:
    """Attack, print, and write the audit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="JSON file for `concors-server report --audit`")
    parser.add_argument("--parts", nargs="+", choices=sorted(PARTS), default=list(PARTS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    figures = [say(figure) for part in arguments.parts for figure in PARTS[part]()]
    if arguments.out:
        audit = AuditDocument(
            subject="Networks of configs/demo.yaml trained on phantom patients, and toy problems.",
            code_version=version("concors"),
            figures=tuple(figures),
            notes=NOTES,
        )
        save_audit(audit, arguments.out)


if __name__ == "__main__":
    main()
