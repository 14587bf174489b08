"""The hospital's own terms: ``policy.yaml`` beside ``site.yaml``, and the ledger it keeps.

No message can set or weaken them. Without the file, or without its section ``privacy``, the
hospital trains without noise, and studies that require a policy do without it.
"""

from pathlib import Path

from pydantic import Field

from client.policy_terms import (
    DeviceTerms,
    Minimum,
    ReportTerms,
    StudyTerms,
    Window,
    WorkTerms,
)
from client.site import SiteConfig
from privacy.ledger import Ledger
from privacy.policy import PrivacyPolicy
from protocol.errors import PrivacyError
from protocol.yaml_files import Frozen, parse, read_yaml

__all__ = ["POLICY_FILE", "SitePolicy", "held_to", "load_policy", "site_ledger"]

POLICY_FILE = "policy.yaml"


class SitePolicy(Frozen):
    """What the hospital decides for every study that asks.

    Attributes
    ----------
    privacy : PrivacyPolicy or None
        Noise, clipping and caps; ``None`` for training without noise.
    studies, minimum, report, device, work
        See `client.policy_terms`.
    hours : tuple of Window
        When training may begin; empty for always.
    max_payload_mb : float
        Larger requests are refused, and studies whose manifest announces larger messages.
    """

    privacy: PrivacyPolicy | None = None
    studies: StudyTerms = StudyTerms()
    minimum: Minimum = Minimum()
    report: ReportTerms | None = None
    hours: tuple[Window, ...] = ()
    device: DeviceTerms = DeviceTerms()
    work: WorkTerms = WorkTerms()
    max_payload_mb: float = Field(1024.0, gt=0)


def held_to(config: SiteConfig, policy: SitePolicy) -> SiteConfig:
    """Return a hospital's settings with what its policy raises or lowers."""
    min_cell = config.min_cell if policy.report is None else policy.report.min_cell
    threads = config.threads if policy.device.threads is None else policy.device.threads
    return config.model_copy(
        update={
            "min_cell": max(config.min_cell, min_cell),
            "threads": min(config.threads, threads),
        }
    )


def load_policy(site_dir: Path, config: SiteConfig) -> SitePolicy:
    """Read ``policy.yaml`` of a hospital's directory; everything left out where there is none.

    A pooled site trains on its members' patients as one and keeps one ledger of its own. So a
    member with a privacy policy cannot be pooled: its patients would be charged in two ledgers that
    know nothing of each other.

    Raises
    ------
    ConfigError
        If the file is there and cannot be read, a key is unknown, or a value is wrong.
    PrivacyError
        If a member of a pooled site has a privacy policy of its own.
    """
    for member in config.members:
        if _read((site_dir / member).resolve()).privacy is not None:
            raise PrivacyError(
                f"a member of the pooled site has a privacy policy in its own {POLICY_FILE}, and "
                "its patients cannot be charged in two ledgers; let the member take part itself, "
                "or move the policy to the pooled site."
            )
    return _read(site_dir)


def _read(site_dir: Path) -> SitePolicy:
    path = site_dir / POLICY_FILE
    # A link that leads nowhere is a policy that cannot be read, not one that is absent.
    if not path.is_symlink() and not path.exists():
        return SitePolicy()
    return parse(SitePolicy, read_yaml(path) or {}, POLICY_FILE)


def site_ledger(site_dir: Path) -> Ledger:
    """Return the ledger of a hospital's patients; its head lies apart, beside ``site.yaml``."""
    return Ledger(
        site_dir / ".concors" / "privacy" / "ledger.jsonl", head_path=site_dir / "ledger.head"
    )
