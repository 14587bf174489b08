"""The ClientApp: decode, call one function of the hospital, encode. The same under every engine."""

from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable

from client.admission import admit, admit_cohort
from client.boundary import guarded
from client.hospital import Hospital, open_hospital
from client.location import site_directory
from client.private_terms import privacy_terms
from client.recording import record_answer
from client.secure_settings import must_be_masked
from client.site import load_site
from deployment.logs import configure
from protocol.config import Study
from protocol.manifest_message import unpack
from protocol.parcels import in_parcels
from protocol.payload import Answer, Question, TrainReply, TrainRequest


def _unpacking(message: Message, context: Context, answer: ClientAppCallable) -> Message:
    return in_parcels(message, lambda unpacked: answer(unpacked, context))


# The stages' modules are imported inside the handlers: Flower starts a process a message, and a
# survey need not wait for torch.
app = ClientApp(mods=[_unpacking])
configure()


def _answer(
    message: Message, context: Context, function: Callable[[Hospital, Question], Answer]
) -> Message:
    question = Question.from_records(message.content)
    directory = site_directory(context)
    admit(directory, question.study, message)
    hospital = open_hospital(directory, question.study)
    admit_cohort(hospital, question.study, message)
    if _masked(hospital, question.study, message):
        from client.secure_answers import counted_exactly, enter_question, masked_answer

        kind = message.metadata.message_type
        secure = enter_question(hospital, kind, question)
        exact = counted_exactly(hospital, question.study, kind)
        answer = _answered(exact, question, message, function)
        content = masked_answer(secure, hospital, kind, question, answer)
    else:
        content = _answered(hospital, question, message, function).to_records()
    _record(hospital, message, context, content)
    return Message(content, reply_to=message)


def _answered(
    hospital: Hospital,
    question: Question,
    message: Message,
    function: Callable[[Hospital, Question], Answer],
) -> Answer:
    """Answer exactly, or with noise where the hospital has a privacy policy."""
    terms = privacy_terms(hospital, question.study)
    if terms is None:
        return function(hospital, question)
    from client.private_answers import private_answer

    return private_answer(hospital, question, terms, message.metadata.message_type)


def _masked(hospital: Hospital, study: Study, message: Message) -> bool:
    config = hospital.config
    kind = message.metadata.message_type
    return must_be_masked(config.name, config.secure_aggregation, study, kind)


def _train(
    message: Message, context: Context, function: Callable[[Hospital, TrainRequest], TrainReply]
) -> Message:
    from client.downlink import whole_request

    request = TrainRequest.from_records(message.content)
    directory = site_directory(context)
    admit(directory, request.study, message)
    hospital = open_hospital(directory, request.study)
    admit_cohort(hospital, request.study, message)
    request = whole_request(hospital, request)
    if _masked(hospital, request.study, message):
        from client.secure_training import answer_masked

        reply, content = answer_masked(hospital, message.metadata.message_type, request, function)
    else:
        from client.uplink import packed_reply

        reply = function(hospital, request)
        content = packed_reply(hospital, request, reply).to_records()
    _record(hospital, message, context, content)
    return Message(content, reply_to=message)


def _record(hospital: Hospital, message: Message, context: Context, content: RecordDict) -> None:
    record_answer(
        hospital.directory,
        message,
        context,
        content,
        site=hospital.name,
        data=hospital.data_hash,
    )


@app.query("hello")
@guarded
def hello(message: Message, context: Context) -> Message:
    """Say which hospital this is, before any study data are opened."""
    config = load_site(site_directory(context))
    answer = Answer({"site": config.name, "version": version("concors")})
    return Message(answer.to_records(), reply_to=message)


@app.query("manifest")
@guarded
def manifest(message: Message, context: Context) -> Message:
    """The signed manifest of a study; the answer is what the hospital has decided of it."""
    from client.manifests import receive

    directory = site_directory(context)
    decision = receive(directory, unpack(message.content, "The server's manifest"))
    return Message(Answer({"decision": decision}).to_records(), reply_to=message)


@app.query("secure_open")
@guarded
def secure_open(message: Message, context: Context) -> Message:
    """A signed key of agreement for a session of secure sums."""
    from client.secure_rounds import open_session

    return _secure(message, context, open_session)


@app.query("secure_tell")
@guarded
def secure_tell(message: Message, context: Context) -> Message:
    """Shares of the seeds that open one secure sum."""
    from client.secure_rounds import tell

    return _secure(message, context, tell)


def _secure(
    message: Message, context: Context, function: Callable[[Path, Question], Answer]
) -> Message:
    question = Question.from_records(message.content)
    directory = site_directory(context)
    admit(directory, question.study, message)
    content = function(directory, question).to_records()
    record_answer(directory, message, context, content, site=load_site(directory).name)
    return Message(content, reply_to=message)


@app.query("survey")
@guarded
def survey(message: Message, context: Context) -> Message:
    """Counts and moments of what the hospital has."""
    from client.survey import survey

    return _answer(message, context, survey)


@app.train("sort")
@guarded
def train_sort(message: Message, context: Context) -> Message:
    """One round of the sorting network."""
    from client.sort import train_round

    return _train(message, context, train_round)


@app.evaluate("sort")
@guarded
def evaluate_sort(message: Message, context: Context) -> Message:
    """Confusion sums of the sorting network."""
    from client.sort import validate

    return _answer(message, context, validate)


@app.train("segment")
@guarded
def train_segment(message: Message, context: Context) -> Message:
    """One round of the segmentation network."""
    from client.segment import train_round

    return _train(message, context, train_round)


@app.evaluate("segment")
@guarded
def evaluate_segment(message: Message, context: Context) -> Message:
    """Overlap and agreement sums of the segmentation network."""
    from client.segment_validation import validate

    return _answer(message, context, validate)


@app.query("measure")
@guarded
def measure(message: Message, context: Context) -> Message:
    """Measure the hospital's own studies; only moments leave."""
    from client.measure import measure

    return _answer(message, context, measure)


@app.query("cox")
@guarded
def cox(message: Message, context: Context) -> Message:
    """The sums of a Cox regression at the coefficients that were asked for."""
    from client.regression import answer

    return _answer(message, context, answer)


@app.evaluate("regression")
@guarded
def evaluate_regression(message: Message, context: Context) -> Message:
    """Pair counts of the fitted regression."""
    from client.regression import validate

    return _answer(message, context, validate)


@app.train("prognosis")
@guarded
def train_prognosis(message: Message, context: Context) -> Message:
    """One round of the survival network."""
    from client.prognosis import train_round

    return _train(message, context, train_round)


@app.train("gradient")
@guarded
def train_gradient(message: Message, context: Context) -> Message:
    """The hospital's share of the gradient of a pooled Cox likelihood."""
    from client.risk_sets import gradient_round

    return _train(message, context, gradient_round)


@app.query("risk_sets")
@guarded
def risk_sets(message: Message, context: Context) -> Message:
    """Sums over the risk sets of a common grid at given weights."""
    from client.risk_sets import answer

    return _answer(message, context, answer)


@app.query("scores")
@guarded
def scores(message: Message, context: Context) -> Message:
    """Histogram of the training patients' predicted risks."""
    from client.prognosis_validation import scores

    return _answer(message, context, scores)


@app.evaluate("prognosis")
@guarded
def evaluate_prognosis(message: Message, context: Context) -> Message:
    """Pair counts, life tables and calibration sums of the survival network."""
    from client.prognosis_validation import validate

    return _answer(message, context, validate)


@app.evaluate("causes")
@guarded
def evaluate_causes(message: Message, context: Context) -> Message:
    """Each cause's incidence, seen and predicted, of a network of competing risks."""
    from client.causes import judge

    return _answer(message, context, judge)


@app.evaluate("weighted")
@guarded
def evaluate_weighted(message: Message, context: Context) -> Message:
    """The sums that are weighted for censoring with the curve of all hospitals."""
    from client.evaluation import weigh

    return _answer(message, context, weigh)


@app.evaluate("calibration")
@guarded
def evaluate_calibration(message: Message, context: Context) -> Message:
    """One round of calibration curves, or the distances to the fitted ones."""
    from client.evaluation import calibrate

    return _answer(message, context, calibrate)


@app.evaluate("subgroups")
@guarded
def evaluate_subgroups(message: Message, context: Context) -> Message:
    """Pair counts or overlap of one model by vendor, field strength, sex and age band."""
    from client.subgroups import judge

    return _answer(message, context, judge)
