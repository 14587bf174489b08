"""Marks on numbers that a hospital's privacy policy has noised, and what the marks mean."""

import math

from server.report.text import DASH
from server.results import Hospital, Results

__all__ = ["NOISED", "SIDES", "marked", "noise_notes", "noised_count", "noised_roles"]

NOISED = "†"
# A hospital's patients are told as two noised counts, who trains and who does not.
SIDES = math.sqrt(2)


def noised_count(hospital: Hospital, text: str, counts: float = 1.0) -> str:
    """Return a count as it is shown, with the standard deviation of its noise.

    Parameters
    ----------
    counts : float
        By which the noise of the hospital's single counts is to be multiplied.
    """
    if hospital.noise_sd is None or text == DASH:
        return text
    sd = hospital.noise_sd * counts
    return f"{text}\n(noised {NOISED}, sd {sd:.2g})"


def marked(hospital: Hospital, text: str) -> str:
    """Return a cell with the mark of noise, where the hospital adds any."""
    if hospital.noise_sd is None or text in (DASH, "0", "not recorded"):
        return text
    first, line, rest = text.partition("\n")
    return f"{first} {NOISED}{line}{rest}"


def noised_roles(results: Results) -> set[str]:
    """Return the roles in whose figures there are noised counts."""
    return {hospital.role for hospital in results.hospitals if hospital.noise_sd is not None}


def noise_notes(results: Results) -> list[str]:
    """Return what the mark means, and one sentence for everybody who answers with noise."""
    noised = [hospital for hospital in results.hospitals if hospital.noise_sd is not None]
    if not noised:
        return []
    mark = (
        f"{NOISED} Noised for the patients' privacy: the number may be off by twice the standard "
        "deviation that stands with it or, where none does, with the hospital's patients."
    )
    return [mark, *map(_note, noised)]


def _note(hospital: Hospital) -> str:
    if hospital.together:
        who, whose = f"Of {', '.join(hospital.together)} some answer", "their"
    else:
        who, whose = f"{hospital.name} answers", "its"
    sd = hospital.noise_sd or 0.0
    return (
        f"{who} with noise, for {whose} patients' privacy: the standard deviation in a surveyed "
        f"count is up to {sd:.2g} patients, {sd * SIDES:.2g} in the number of all. The models are "
        "judged there by a coarse noised table of risk and time; bounds of an index are those of "
        "that table, and figures that need exact pairs or weighted sums are without "
        f"{whose} patients."
    )
