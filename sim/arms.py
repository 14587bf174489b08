"""What federated training is compared with: pooled training, and each hospital alone.

Every arm is an ordinary study over other hospitals, run by the same code and judged on the same
people.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml

from protocol.compression_config import Compression
from protocol.config import Hospitals, Study
from protocol.designs import sections_alone
from sim.pooled import make_pooled

__all__ = ["Arm", "Comparator", "make_arms"]

Comparator = Literal["pooled", "local"]
POOLED = "pooled"


@dataclass(frozen=True)
class Arm:
    """One way of training: ``federated``, ``pooled`` or ``local/<hospital>``."""

    name: str
    study: Study
    study_file: Path
    run_dir: Path
    sites: tuple[Path, ...]


def make_arms(
    study: Study,
    sites: Mapping[str, Path],
    run_dir: Path,
    comparators: Sequence[Comparator],
) -> list[Arm]:
    """Write the study file of every arm and return the arms, federated first.

    Parameters
    ----------
    study : Study
        The federated study.
    sites : mapping of str to Path
        Directory of each hospital by name.
    run_dir : Path
        The federated arm runs here, the others in ``arms/<name>`` below it.
    """
    arms = [_arm("federated", study, study.hospitals, sites, run_dir)]
    train, external = study.hospitals.train, study.hospitals.external
    if "pooled" in comparators:
        pooled = make_pooled([sites[name] for name in train], run_dir / "arms", POOLED)
        hospitals = Hospitals(train=(POOLED,), internal=train, external=external)
        arms.append(_arm("pooled", study, hospitals, {**sites, POOLED: pooled}, run_dir))
    if "local" in comparators:
        arms += [
            _arm(
                f"local/{name}", study, Hospitals(train=(name,), external=external), sites, run_dir
            )
            for name in train
        ]
    return arms


def _arm(
    name: str, study: Study, hospitals: Hospitals, sites: Mapping[str, Path], run_dir: Path
) -> Arm:
    folder = run_dir
    if name != "federated":
        # Another name, so that two arms at one hospital keep their intermediate results apart.
        suffix = name.replace("/", "-")
        folder = run_dir / "arms" / suffix
        study = study.model_copy(
            update={
                "name": f"{study.name}-{suffix}"[:64],
                "hospitals": hospitals,
                **sections_alone(study),
                # There is no sum of one hospital.
                "secure_aggregation": None,
                # Data that are in one place send nothing.
                "rounds": study.rounds.model_copy(update={"compression": Compression()}),
                # Designs and subgroups are of the federated models.
                "validate_": study.validate_.model_copy(update={"designs": (), "subgroups": False}),
            }
        )
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "study.yaml"
    content = {"study": study.model_dump(mode="json", by_alias=True)}
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    return Arm(name, study, file, folder, tuple(sites[site] for site in hospitals.all))
