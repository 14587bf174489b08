"""The hospital's policy.yaml: read where it lies, unknown keys refused, pooled members refused."""

from pathlib import Path

import pytest

from client.policy import SitePolicy, load_policy, site_ledger
from client.site import SiteConfig
from privacy.accountant import Spend
from protocol.errors import ConfigError, PrivacyError

SITE = SiteConfig.model_validate({"name": "oak", "images": {"format": "dicom", "path": "dicom"}})
POOLED = SiteConfig.model_validate({"name": "pool", "members": ["a", "b"]})
TEXT = """\
privacy:
  noise_multiplier: 2.0
  clip_norm: 1.0
  sampling_rate: 0.1
  steps_per_round: 10
  max_rounds: 20
  delta: 1.0e-4
  study_epsilon: 3
  lifetime_epsilon: 6
  statistics_noise: 10
"""


def test_terms_are_read_beside_site_yaml(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text(TEXT)
    policy = load_policy(tmp_path, SITE).privacy
    assert policy is not None
    assert (policy.noise_multiplier, policy.delta, policy.slices_per_patient) == (2.0, 1e-4, 4)


@pytest.mark.parametrize("text", [None, "", "# nothing yet\n"])
def test_no_terms_are_no_noise(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "policy.yaml").write_text(text)
    assert load_policy(tmp_path, SITE) == SitePolicy(privacy=None)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (TEXT + "  seed: 1\n", "policy.yaml: unknown key 'seed' in privacy"),
        (TEXT + "server: {}\n", "policy.yaml: unknown key 'server' in the top level"),
        (TEXT.replace("delta: 1.0e-4", "delta: 0"), "privacy.delta: input should be greater than"),
        (TEXT.replace("  clip_norm: 1.0\n", ""), "privacy.clip_norm: field required"),
        (TEXT.replace("noise_multiplier: 2.0", "noise_multiplier: -1"), "greater than 0"),
        ("privacy: [", "policy.yaml is not valid YAML"),
        ("- 1\n", "policy.yaml: the top level"),
        ("privacy: !!python/object/apply:os.system ['false']\n", "not valid YAML"),
    ],
)
def test_a_wrong_policy_is_one_sentence_and_never_no_policy(
    tmp_path: Path, text: str, words: str
) -> None:
    (tmp_path / "policy.yaml").write_text(text)
    with pytest.raises(ConfigError) as error:
        load_policy(tmp_path, SITE)
    assert words in error.value.sentence


def test_a_policy_that_cannot_be_reached_is_not_no_policy(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").symlink_to(tmp_path / "unmounted" / "policy.yaml")
    with pytest.raises(ConfigError, match=r"policy\.yaml cannot be read"):
        load_policy(tmp_path, SITE)


def test_a_member_with_a_policy_is_not_pooled(tmp_path: Path) -> None:
    for member in ("a", "b"):
        (tmp_path / member).mkdir()
    (tmp_path / "policy.yaml").write_text(TEXT)
    assert load_policy(tmp_path, POOLED).privacy is not None
    (tmp_path / "b" / "policy.yaml").write_text(TEXT)
    with pytest.raises(PrivacyError, match="a member of the pooled site has a privacy policy"):
        load_policy(tmp_path, POOLED)


def test_the_ledger_and_its_head_lie_apart(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text(TEXT)
    policy = load_policy(tmp_path, SITE).privacy
    assert policy is not None
    site_ledger(tmp_path).reserve("demo", "segment", Spend(20.0, 1.0, 1), policy)
    assert (tmp_path / ".concors" / "privacy" / "ledger.jsonl").is_file()
    assert (tmp_path / "ledger.head").is_file()
    assert len(site_ledger(tmp_path).entries()) == 1
