"""What the phantom's own hazard attains on the patients a model is judged on."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from client.cohort import Patient
from client.hospital import open_hospital
from client.pseudonyms import load_secret, pseudonym
from client.site import load_site
from client.survey import has_outcome
from protocol.config import Study
from protocol.stats import PairCounts
from server.results import Oracle
from sim.outcomes import expected_concordance
from sim.truth import read_truth

__all__ = ["oracle"]


def oracle(
    study: Study, sites: Mapping[str, Path], judged: Sequence[str], horizon_months: float
) -> Oracle:
    """Return the oracle of the hospitals that judged models, on the same patients.

    ``closed_form`` is the expected concordance up to the horizon given these patients' true risks
    (see `sim.outcomes.expected_concordance`); ``pairs`` is what the true risk reached on the
    outcomes that were drawn.

    Parameters
    ----------
    sites : mapping of str to Path
        Hospital directories, with ``truth/`` beside them.
    judged : sequence of str
        Hospitals that sent pair counts.
    horizon_months : float
        Truncation, as in the study's own C-index.
    """
    pairs: dict[str, PairCounts] = {}
    expected: dict[str, float] = {}
    for name in judged:
        site = sites[name]
        hospital = open_hospital(site, study)
        external = name in study.hospitals.external
        patients = has_outcome(hospital.patients if external else hospital.held_out)
        eta, hazard = _true_risk(site, patients, horizon_months)
        expected[name] = expected_concordance(eta, hazard)
        pairs[name] = PairCounts.of(
            np.array([patient.months for patient in patients]),
            np.array([patient.event for patient in patients]),
            eta,
            tau_months=horizon_months,
        )
    return Oracle(pairs=pairs, closed_form=expected)


def _true_risk(
    site: Path, patients: Sequence[Patient], horizon_months: float
) -> tuple[np.ndarray, float]:
    """Return eta of each patient and the hospital's cumulative baseline hazard at the horizon."""
    truth = read_truth(site.parent, site.name)
    secret = load_secret(site, load_site(site).secret)
    eta = {pseudonym(secret, patient.patient_id): patient.eta for patient in truth.patients}
    scale = (horizon_months / truth.tau_months) ** truth.shape
    return np.array([eta[p.key] for p in patients]), truth.cumulative_hazard_tau * scale
