"""What a hospital refuses in a secure sum, whatever the centre says; its memory is on its disk."""

import secrets
import stat
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from pydantic import ValidationError
from typer.testing import CliRunner

from client.cli import app
from client.secure_identity import own_fingerprint
from client.secure_rounds import SecureRound, enter, open_session, tell
from client.secure_settings import SecureSettings, must_be_masked
from client.site import load_site
from privacy.secure_sum.identities import advertise
from protocol.config import Study
from protocol.documents import digest
from protocol.errors import ConfigError, DataError, PrivacyError
from protocol.payload import Question
from protocol.secure import Advert, MaskedReply, Opening, RoundCall, SessionCall

NAMES = ("a", "b", "c", "d")
PURPOSE = "train.prognosis"


def study(name: str = "s", **section: Any) -> Study:
    return Study.model_validate(
        {
            "name": name,
            "seed": 1,
            "hospitals": {"train": list(NAMES)},
            "secure_aggregation": section,
        }
    )


@dataclass
class Federation:
    """Four hospitals' directories, and a centre that says what a test has it say."""

    folder: Path
    study: Study = field(default_factory=study)
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in NAMES:
            self.site(name).mkdir()
            self.write(name, {})
        prints = {name: own_fingerprint(self.site(name)) for name in NAMES}
        for name in NAMES:
            peers = {other: text for other, text in prints.items() if other != name}
            self.write(name, {"secure_aggregation": {"peers": peers, **self.settings}})

    def site(self, name: str) -> Path:
        return self.folder / name

    def write(self, name: str, more: dict[str, Any]) -> None:
        outcomes = {"path": "o.csv", "patient": "id", "months": "m", "event": "e"}
        content = {"name": name, "outcomes": outcomes, **more}
        (self.site(name) / "site.yaml").write_text(yaml.safe_dump(content))

    def call(self, **changes: Any) -> SessionCall:
        return replace(SessionCall(secrets.token_hex(16), PURPOSE, 1, NAMES, 3), **changes)

    def advert(self, name: str, call: SessionCall) -> Advert:
        question = Question(self.study, "secure_open", {"call": call.to_dict()})
        document = open_session(self.site(name), question).document
        return Advert.from_dict(document["advert"], "test")

    def session(self, call: SessionCall | None = None) -> RoundCall:
        call = call or self.call()
        adverts = tuple(self.advert(name, call) for name in call.cohort)
        return RoundCall(call, secrets.token_hex(16), adverts)

    def enter(
        self, name: str, call: RoundCall, question: str = "q", model: str = "m"
    ) -> SecureRound:
        asked = {"agreed": {"secure": call.to_dict()}, "model": model}
        return enter(self.site(name), self.study, PURPOSE, asked, question)

    def mask(self, call: RoundCall, names: tuple[str, ...] = NAMES) -> dict[str, MaskedReply]:
        vector = np.arange(8, dtype=np.uint32)
        return {name: self.enter(name, call).mask(vector) for name in names}

    def tell(
        self,
        name: str,
        call: RoundCall,
        replies: dict[str, MaskedReply],
        dropped: tuple[str, ...] = (),
    ) -> dict[str, Any]:
        active = tuple(site for site in call.call.cohort if site not in dropped)
        deposits = {owner: replies[owner].deposits[name] for owner in active}
        opening = Opening(call.call.session, call.round_id, active, dropped, deposits)
        question = Question(self.study, "secure_tell", {"opening": opening.to_dict()})
        return tell(self.site(name), question).document["shares"]


@pytest.fixture
def four(tmp_path: Path) -> Federation:
    return Federation(tmp_path)


def test_a_round_is_told_about_once_and_the_same_again(four: Federation) -> None:
    call = four.session()
    replies = four.mask(call)
    told = four.tell("a", call, replies)
    assert four.tell("a", call, replies) == told
    with pytest.raises(PrivacyError, match="one round for two stories of who dropped out"):
        four.tell("a", call, replies, dropped=("d",))
    # Another hospital that was told the second story first keeps to that one.
    assert set(four.tell("b", call, replies, dropped=("d",))) == {"a", "b", "c"}
    with pytest.raises(PrivacyError, match="two stories"):
        four.tell("b", call, replies)


def test_only_self_masks_of_the_active_and_pairs_with_the_dropped_are_told(
    four: Federation,
) -> None:
    call = four.session()
    replies = four.mask(call)
    told = four.tell("a", call, replies, dropped=("c",))
    assert {owner: set(seeds) for owner, seeds in told.items()} == {
        owner: {"", "c"} for owner in ("a", "b", "d")
    }


def test_a_round_is_masked_once(four: Federation) -> None:
    call = four.session()
    entered = four.enter("a", call)
    entered.mask(np.zeros(3, np.uint32))
    with pytest.raises(PrivacyError, match="two vectors under one mask"):
        entered.mask(np.ones(3, np.uint32))
    with pytest.raises(PrivacyError, match="two vectors under one mask"):
        four.enter("a", call)


def test_a_question_is_opened_for_one_set_of_hospitals_also_in_another_session(
    four: Federation,
) -> None:
    first = four.session()
    four.tell("a", first, four.mask(first))
    again = replace(first, round_id=secrets.token_hex(16))
    replies = four.mask(again)
    with pytest.raises(PrivacyError, match="opened for 4 hospitals before and now is to be for 3"):
        four.tell("a", again, replies, dropped=("d",))
    assert four.tell("a", again, replies)
    later = four.session()
    replies = four.mask(later)
    with pytest.raises(PrivacyError, match="opened for 4 hospitals before"):
        four.tell("a", later, replies, dropped=("d",))


def test_a_noised_sum_is_opened_once(tmp_path: Path) -> None:
    updates = {"noise_multiplier": 1.0, "clip_norm": 1.0}
    noised = Federation(tmp_path, study=study(updates=updates))
    call = noised.session()
    replies = noised.mask(call)
    assert noised.tell("a", call, replies) == noised.tell("a", call, replies)
    again = replace(call, round_id=secrets.token_hex(16))
    replies = noised.mask(again)
    with pytest.raises(PrivacyError, match="with fresh noise it would be a second release"):
        noised.tell("a", again, replies)


def test_keys_do_not_change_within_a_session(four: Federation) -> None:
    call = four.session()
    four.mask(call)
    for file in four.site("b").rglob("session-*.json"):
        file.unlink()
    # The same session, and another key of b's own making: well signed, and yet another.
    changed = _with(call, {"b": four.advert("b", call.call)})
    with pytest.raises(PrivacyError, match="Other keys came than in this session's rounds before"):
        four.enter("a", replace(changed, round_id=secrets.token_hex(16)))


@pytest.mark.parametrize(
    ("dropped", "said"),
    [(("c", "d"), "2 hospitals are left"), (("a",), "this hospital dropped out")],
)
def test_a_story_below_the_threshold_or_without_this_hospital_is_refused(
    four: Federation, dropped: tuple[str, ...], said: str
) -> None:
    call = four.session()
    replies = four.mask(call)
    with pytest.raises(PrivacyError, match=said):
        four.tell("a", call, replies, dropped)


def test_a_hospital_both_active_and_dropped_is_refused(four: Federation) -> None:
    call = four.session()
    replies = four.mask(call)
    deposits = {owner: replies[owner].deposits["a"] for owner in NAMES}
    opening = Opening(call.call.session, call.round_id, NAMES, ("d",), deposits)
    question = Question(four.study, "secure_tell", {"opening": opening.to_dict()})
    with pytest.raises(PrivacyError, match="d is active and has dropped out"):
        tell(four.site("a"), question)
    assert four.tell("a", call, replies)


def test_who_sent_nothing_tells_nothing(four: Federation) -> None:
    call = four.session()
    replies = four.mask(call, ("b", "c", "d"))
    with pytest.raises(PrivacyError, match="in which this hospital sent nothing"):
        four.tell("a", call, replies | {"a": replies["b"]})


def test_a_centre_in_the_middle_is_refused(four: Federation) -> None:
    call = four.session()
    public = X25519PrivateKey.generate().public_key().public_bytes_raw()
    known = digest(four.study.model_dump(mode="json", by_alias=True))
    forged = advertise(Ed25519PrivateKey.generate(), known, call.call, "b", public)
    swapped = {"b": forged}
    with pytest.raises(PrivacyError, match="key that came for b is not signed by the identity"):
        four.enter("a", _with(call, swapped))
    changed = replace(call.adverts[1], agreement=public)
    with pytest.raises(PrivacyError, match="key that came for b is not signed for this study"):
        four.enter("a", _with(call, {"b": changed}))
    unsigned = replace(call.adverts[1], signature=bytes(64))
    with pytest.raises(PrivacyError, match="not signed for this study"):
        four.enter("a", _with(call, {"b": unsigned}))
    with pytest.raises(PrivacyError, match="as this hospital's own is another one"):
        four.enter("a", _with(call, {"a": replace(call.adverts[0], agreement=public)}))
    # A key that was well signed, for an earlier session.
    old = four.session().adverts[1]
    with pytest.raises(PrivacyError):
        four.enter("a", _with(call, {"b": old}))


def _with(call: RoundCall, adverts: dict[str, Advert]) -> RoundCall:
    return replace(call, adverts=tuple(adverts.get(a.site, a) for a in call.adverts))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"cohort": ("a", "b")}, "sum of 2 hospitals"),
        ({"cohort": ("a", "b", "c", "x")}, "x is to take part .* no fingerprint"),
        ({"threshold": 2}, "threshold of 2 of 4"),
        ({"cohort": ("b", "c", "d")}, "this one is not among them"),
    ],
)
def test_no_key_is_made_for_a_cohort_that_is_not_trusted(
    four: Federation, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(PrivacyError, match=said):
        four.advert("a", four.call(**changes))
    assert not (four.site("a") / ".concors" / "secure").exists()


def test_the_hospital_s_own_minimum_counts_also_when_it_is_raised_later(tmp_path: Path) -> None:
    strict = Federation(tmp_path, settings={"min_hospitals": 4})
    with pytest.raises(PrivacyError, match=r"threshold of 3 of 4 hospitals .* expected 4"):
        strict.advert("a", strict.call())
    call = strict.session(strict.call(threshold=4))
    replies = strict.mask(call)
    content = yaml.safe_load((strict.site("a") / "site.yaml").read_text())
    content["secure_aggregation"]["min_hospitals"] = 5
    (strict.site("a") / "site.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(PrivacyError, match="takes part in sums of 5 or more"):
        strict.tell("a", call, replies)


def test_a_session_is_for_its_purpose_study_and_cohort(four: Federation) -> None:
    call = four.session()
    asked = {"agreed": {"secure": call.to_dict()}, "model": "m"}
    with pytest.raises(PrivacyError, match="no key for this session and purpose"):
        enter(four.site("a"), four.study, "train.segment", asked, "q")
    with pytest.raises(PrivacyError, match="no key for this session"):
        enter(four.site("a"), study("other"), PURPOSE, asked, "q")
    with pytest.raises(PrivacyError, match="opened for another study, purpose or cohort"):
        enter(four.site("a"), study(step_bits=20), PURPOSE, asked, "q")
    with pytest.raises(PrivacyError, match="opened for another study, purpose or cohort"):
        four.advert("a", replace(call.call, threshold=4))


def test_the_masks_follow_from_the_whole_request(four: Federation) -> None:
    call = four.session()
    contexts = {
        four.enter("a", call).keys.context,
        four.enter("a", call, model="another").keys.context,
        four.enter("a", replace(call, weight_cap=2.0)).keys.context,
        four.enter("a", replace(call, round_id="0" * 32)).keys.context,
    }
    assert len(contexts) == 4
    assert four.enter("b", call).keys.context in contexts


def test_keys_stay_at_the_hospital_and_for_its_owner_s_eyes(four: Federation) -> None:
    call = four.session()
    replies = four.mask(call)
    files = [*four.site("a").rglob("session-*.json"), four.site("a") / "site.identity"]
    assert len(files) == 2
    said = str(call.to_dict()) + str(replies["a"].to_records())
    for file in files:
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    state = yaml.safe_load(files[0].read_text())
    assert state["private"] not in said
    assert files[1].read_text() not in said
    # The self mask's seed is nowhere on the disk.
    assert set(state["rounds"][call.round_id]) == {"context", "question", "opening"}
    # A new session for the purpose takes the place of the old one's key.
    four.session()
    assert len(list(four.site("a").rglob("session-*.json"))) == 1
    (files[1]).write_text("zz")
    with pytest.raises(DataError, match=r"site\.identity cannot be read"):
        four.session()


def test_a_memory_that_cannot_be_read_is_no_permission(four: Federation) -> None:
    call = four.session()
    [file] = four.site("a").rglob("session-*.json")
    file.write_text(file.read_text()[:40])
    with pytest.raises(DataError, match="memory of a secure sum cannot be read"):
        four.enter("a", call)


# site.yaml ---------------------------------------------------------------------------------------

PRINTS = {"b": "ab" * 32, "c": "cd" * 32}


def test_fingerprints_may_be_written_as_they_are_printed() -> None:
    grouped = {"b": "abababab " * 8, "c": ":".join(["CD"] * 32)}
    assert SecureSettings(peers=grouped).peers == PRINTS


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"peers": {"b": "ab" * 32}}, "peers"),
        ({"peers": {**PRINTS, "d": "12"}}, "fingerprint of d is not 64 hexadecimal digits"),
        ({"peers": {**PRINTS, "d": "AB" * 32}}, "two peers have one fingerprint"),
        ({"peers": PRINTS, "min_hospitals": 2}, "min_hospitals"),
        ({"peers": PRINTS, "server_key": "x"}, "server_key"),
    ],
)
def test_a_section_that_cannot_be_meant_is_refused(
    four: Federation, section: dict[str, Any], said: str
) -> None:
    four.write("a", {"secure_aggregation": section})
    with pytest.raises(ConfigError, match=said):
        load_site(four.site("a"))


def test_what_must_be_masked_is_the_hospital_s_to_say() -> None:
    settings, lenient = SecureSettings(peers=PRINTS), SecureSettings(peers=PRINTS, required=False)
    plain = study().model_copy(update={"secure_aggregation": None})
    for kind in ("train.segment", "train.gradient", "query.cox", "query.risk_sets"):
        with pytest.raises(PrivacyError, match=r"a sends models and sums .* only masked"):
            must_be_masked("a", settings, plain, kind)
        assert not must_be_masked("a", lenient, plain, kind)
        assert not must_be_masked("a", None, plain, kind)
        with pytest.raises(PrivacyError, match="trusts nobody's keys yet"):
            must_be_masked("a", None, study(), kind)
    strict = SecureSettings(peers=PRINTS, required_for="everything")
    for kind in ("query.survey", "evaluate.prognosis", "query.scores"):
        for other in (plain, study(cover="training")):
            assert not must_be_masked("a", settings, other, kind)
            with pytest.raises(PrivacyError, match="a sends statistics only masked"):
                must_be_masked("a", strict, other, kind)
        assert not must_be_masked("a", None, study(cover="training"), kind)
        assert must_be_masked("a", settings, study(), kind)
        with pytest.raises(PrivacyError, match="trusts nobody's keys yet"):
            must_be_masked("a", None, study(), kind)
    assert must_be_masked("a", lenient, study(), "train.segment")
    assert must_be_masked("a", settings, study(), "query.risk_sets")
    with pytest.raises(PrivacyError, match="covers training only"):
        must_be_masked("a", settings, study(cover="training"), "query.risk_sets")


def test_a_hospital_alone_in_its_role_says_whether_it_answers_plainly() -> None:
    hospitals = {"train": list(NAMES), "external": ["x", "y"]}
    outside = Study.model_validate({**study().model_dump(by_alias=True), "hospitals": hospitals})
    for settings in (None, SecureSettings(peers=PRINTS)):
        with pytest.raises(PrivacyError, match="x is asked with fewer hospitals than a secure"):
            must_be_masked("x", settings, outside, "evaluate.prognosis")
    permitting = SecureSettings(plain_when_few=True)
    assert not must_be_masked("x", permitting, outside, "evaluate.prognosis")
    # The permission is for few only.
    assert must_be_masked(
        "a", SecureSettings(peers=PRINTS, plain_when_few=True), outside, "query.survey"
    )
    with pytest.raises(PrivacyError, match="trusts nobody's keys yet"):
        must_be_masked("a", permitting, outside, "query.survey")
    with pytest.raises(ValidationError, match="enter two or more peers"):
        SecureSettings()


def test_the_command_prints_the_fingerprint_as_the_peers_enter_it(four: Federation) -> None:
    printed = CliRunner().invoke(app, ["identity", str(four.site("a"))])
    assert printed.exit_code == 0
    entry = yaml.safe_load(printed.stdout)
    entered = SecureSettings(peers={**entry, **PRINTS}).peers
    assert entered["a"] == own_fingerprint(four.site("a")) == own_fingerprint(four.site("a"))
