"""The sections of a hospital's policy beside privacy: what they take, and what they raise."""

from datetime import datetime
from pathlib import Path

import pytest

from client.policy import SitePolicy, held_to, load_policy
from client.policy_terms import Window
from client.site import SiteConfig
from protocol.errors import ConfigError

SITE = SiteConfig.model_validate(
    {"name": "oak", "images": {"format": "dicom", "path": "d"}, "min_cell": 3, "threads": 4}
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("report: {min_cell: 4}", "report.min_cell: input should be greater than or equal to 5"),
        ("minimum: {patients: 0}", "minimum.patients"),
        ("minimum: {events: -1}", "minimum.events"),
        ("max_payload_mb: 0", "max_payload_mb: input should be greater than 0"),
        ("device: {gpu_memory_share: 0}", "device.gpu_memory_share"),
        ("device: {gpu_memory_share: 1.1}", "device.gpu_memory_share"),
        ("device: {threads: 0}", "device.threads"),
        ("hours: [{begin: '24:00'}]", 'is not "HH:MM"'),
        ("hours: [{days: []}]", "a window has no day"),
        ("hours: [{days: [monday]}]", "hours.0.days.0"),
        ("studies: {approved: [abc]}", "studies.approved.0"),
        ("work: {limit_s: 0}", "work.limit_s"),
        ("work: {seed: 1}", "unknown key 'seed' in work"),
    ],
)
def test_wrong_terms_are_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "policy.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_policy(tmp_path, SITE)
    assert words in caught.value.sentence


def test_policy_raises_the_least_cell_and_lowers_the_threads_and_never_the_other_way() -> None:
    def held(**terms: object) -> tuple[int, int]:
        config = held_to(SITE, SitePolicy.model_validate(terms))
        return config.min_cell, config.threads

    assert held() == (3, 4)
    assert held(report={"min_cell": 10}, device={"threads": 1}) == (10, 1)
    assert held(report={}, device={"threads": 8}) == (5, 4)


@pytest.mark.parametrize(
    ("window", "inside", "outside"),
    [
        (Window(begin="08:00", until="18:00"), [(0, 8, 0), (0, 17, 59)], [(0, 7, 59), (0, 18, 0)]),
        (Window(), [(0, 0, 0), (6, 23, 59)], []),
        (Window(days=("sat", "sun")), [(5, 0, 0), (6, 23, 59)], [(0, 0, 0), (4, 23, 59)]),
        (
            Window(days=("mon",), begin="20:00", until="06:00"),
            [(0, 20, 0), (1, 5, 59)],
            [(0, 5, 59), (0, 19, 59), (1, 6, 0), (1, 20, 0)],
        ),
    ],
    ids=["day", "always", "weekend", "night"],
)
def test_window_holds_from_its_first_minute_to_before_its_last(
    window: Window, inside: list[tuple[int, int, int]], outside: list[tuple[int, int, int]]
) -> None:
    for moments, expected in ((inside, True), (outside, False)):
        for day, hour, minute in moments:
            moment = datetime(2026, 11, 23 + day, hour, minute)  # the 23rd is a Monday
            assert window.holds(moment) is expected, moment
