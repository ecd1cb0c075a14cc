"""What a node believes: entries of a trusted log, and nothing that a table says beside them."""

from dataclasses import dataclass, field, replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from chartgate.app.policy_bundle import Bundle
from chartgate.app.policy_orders import NotObeyed, Order, Sealed, check_order, open_step
from chartgate.app.policy_shelf import Filed, inspect, taken_of
from chartgate.govern.policy_version import State, Step
from chartgate.model.event import VERSION, AuditRead, Event, PolicyStep, PolicyStepRefused, encode
from chartgate.tlog.checkpoint import Checkpoint, sign_checkpoint
from chartgate.tlog.note import ED25519, VerifierKey
from chartgate.tlog.proof import inclusion_proof, subtrees_of
from chartgate.tlog.proof_text import LogProof, MalformedProof
from chartgate.tlog.tree import leaf_hash, tree_root

AT = "2026-01-01T00:00:00.000000Z"
AUTHOR, SECOND = "p_author", "p_second"
BUNDLE = Bundle({"a.cedar": "permit (principal, action, resource);"})
OTHER = Bundle({"a.cedar": "forbid (principal, action, resource);"})


@dataclass
class Log:
    """A log in memory, with a key of its own."""

    name: str = "test.example/log"
    secret: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    entries: list[bytes] = field(default_factory=list)

    @property
    def key(self) -> VerifierKey:
        return VerifierKey(self.name, ED25519, self.secret.public_key().public_bytes_raw())

    def add(self, event: Event) -> Sealed:
        self.entries.append(encode(event))
        return self.seal(len(self.entries) - 1)

    def seal(self, index: int) -> Sealed:
        leaves = [leaf_hash(entry) for entry in self.entries]
        checkpoint = sign_checkpoint(
            Checkpoint(self.name, len(leaves), tree_root(leaves)), self.key, self.secret.sign
        )
        hashes = inclusion_proof(index, len(leaves), subtrees_of(leaves))
        return Sealed(self.entries[index], str(LogProof(index, hashes, checkpoint)))


def step(word: str, bundle: Bundle = BUNDLE, **given: object) -> PolicyStep:
    wanted: dict[str, object] = {
        "at": AT,
        "node": "n",
        "person": SECOND if word == "approved" else AUTHOR,
        "step": word,
        "subject": "policies",
        "content": bundle.hash,
        "proposer": AUTHOR,
        "generation": 1 if word in {"activated", "rolled_back"} else 0,
    }
    return PolicyStep(**{**wanted, **given})  # type: ignore[arg-type]


@pytest.fixture
def log() -> Log:
    return Log()


def order(log: Log, **given: object) -> Order:
    approval = log.add(step("approved"))
    return Order(BUNDLE, approval, log.add(step("activated", **given)))


def obey(log: Log, wanted: Order, newest: int = 0) -> str:
    return check_order(wanted, "policies", [log.key], newest=newest).content


def test_an_approved_and_activated_version_is_obeyed(log: Log) -> None:
    assert obey(log, order(log)) == BUNDLE.hash


def test_a_log_that_is_not_trusted_orders_nothing(log: Log) -> None:
    theirs = Log()
    with pytest.raises(NotObeyed, match="not in the log"):
        obey(log, order(theirs))
    with pytest.raises(NotObeyed, match="not trusted here"):
        check_order(order(Log("other.example/log")), "policies", [log.key], newest=0)


def test_two_trusted_logs_of_one_name_are_told_apart_by_their_keys(log: Log) -> None:
    theirs = Log()
    assert check_order(order(theirs), "policies", [log.key, theirs.key], newest=0)
    assert check_order(order(log), "policies", [log.key, theirs.key], newest=0)


def test_an_entry_that_was_changed_is_not_in_the_log(log: Log) -> None:
    wanted = order(log)
    changed = wanted.activation.entry.replace(b'"generation":1', b'"generation":9')
    assert changed != wanted.activation.entry
    with pytest.raises(NotObeyed, match="not in the log"):
        obey(log, replace(wanted, activation=replace(wanted.activation, entry=changed)))


def test_content_that_nobody_approved_is_not_obeyed(log: Log) -> None:
    with pytest.raises(NotObeyed, match="but the content is"):
        obey(log, replace(order(log), bundle=OTHER))


def test_the_approval_of_another_version_does_not_count(log: Log) -> None:
    other = log.add(step("approved", OTHER))
    with pytest.raises(NotObeyed, match="but the content is"):
        obey(log, replace(order(log), approval=other))


@pytest.mark.parametrize("word", ["pushed", "compared", "refused", "withdrawn"])
def test_no_other_step_stands_for_an_approval_or_an_activation(log: Log, word: str) -> None:
    other = log.add(step(word))
    with pytest.raises(NotObeyed, match="no approval"):
        obey(log, replace(order(log), approval=other))
    with pytest.raises(NotObeyed, match="puts nothing in force"):
        obey(log, replace(order(log), activation=other))


@pytest.mark.parametrize(("person", "proposer"), [(AUTHOR, AUTHOR), (SECOND, "")])
def test_an_approval_is_by_a_second_person(log: Log, person: str, proposer: str) -> None:
    own = log.add(step("approved", person=person, proposer=proposer))
    wanted = replace(order(log), approval=own)
    with pytest.raises(NotObeyed, match="second person"):
        obey(log, replace(wanted, activation=log.add(step("activated"))))


def test_an_approval_after_the_fact_does_not_count(log: Log) -> None:
    activation = log.add(step("activated"))
    with pytest.raises(NotObeyed, match="after the activation"):
        obey(log, Order(BUNDLE, log.add(step("approved")), activation))


def test_a_step_about_another_subject_does_not_count(log: Log) -> None:
    with pytest.raises(NotObeyed, match="not about policies"):
        obey(log, order(log, subject="map:hospital"))


def test_an_attempt_that_was_refused_is_never_taken_for_the_step(log: Log) -> None:
    refused = PolicyStepRefused(
        at=AT,
        node="n",
        person=SECOND,
        step="approved",
        subject="policies",
        content=BUNDLE.hash,
        reason="own draft",
    )
    read = AuditRead(at=AT, node="n", person=SECOND, question="tail", allowed=True)
    for event in (refused, read):
        with pytest.raises(NotObeyed, match="not a step"):
            open_step(log.add(event), [log.key])


@pytest.mark.parametrize(("generation", "newest"), [(1, 1), (1, 2), (4, 5)])
def test_nothing_old_comes_back(log: Log, generation: int, newest: int) -> None:
    with pytest.raises(NotObeyed, match=f"generation {newest} was in force"):
        obey(log, order(log, generation=generation), newest)


def test_a_rollback_is_a_newer_order(log: Log) -> None:
    approval = log.add(step("approved"))
    back = log.add(step("rolled_back", generation=6))
    assert obey(log, Order(BUNDLE, approval, back), 5) == BUNDLE.hash


def test_what_was_obeyed_is_read_back_at_a_start_and_nothing_older(log: Log) -> None:
    """A node holds its newest order; only that one may come again with the same generation."""
    wanted = order(log, generation=3)
    held = check_order(wanted, "policies", [log.key], newest=3, is_held=True)
    assert (held.content, held.generation, held.is_shipped) == (BUNDLE.hash, 3, False)
    with pytest.raises(NotObeyed, match="generation 4 was in force"):
        check_order(wanted, "policies", [log.key], newest=4, is_held=True)


def test_an_order_says_what_a_program_put_in_force_by_itself(log: Log) -> None:
    wanted = order(log, detail={"bootstrap": "yes"})
    assert check_order(wanted, "policies", [log.key], newest=0).is_shipped


def test_entries_of_two_logs_have_no_order_between_them(log: Log) -> None:
    """The approval may lie further on in its own log than the activation in another."""
    other = Log("other.example/log")
    for number in range(3):
        other.add(step("pushed", person=f"p_{number}"))
    wanted = Order(BUNDLE, other.add(step("approved")), log.add(step("activated")))
    obeyed = check_order(wanted, "policies", [log.key, other.key], newest=0)
    assert (obeyed.approval.log, obeyed.approval.index) == ("other.example/log", 3)
    assert (obeyed.activation.log, obeyed.activation.index) == ("test.example/log", 0)


def test_the_approval_has_to_be_in_a_trusted_log_too(log: Log) -> None:
    theirs = Log("other.example/log").add(step("approved"))
    with pytest.raises(NotObeyed, match="not trusted here"):
        obey(log, replace(order(log), approval=theirs))


def test_an_approval_of_another_subject_does_not_count(log: Log) -> None:
    other = log.add(step("approved", subject="map:hospital"))
    with pytest.raises(NotObeyed, match="is about map:hospital, not about policies"):
        obey(log, Order(BUNDLE, other, log.add(step("activated"))))


def test_an_entry_of_a_later_version_of_the_log_format_is_not_guessed_at(log: Log) -> None:
    later = log.add(step("activated", version=VERSION + 1))
    with pytest.raises(NotObeyed, match="not a step"):
        obey(log, replace(order(log), activation=later))


@pytest.mark.parametrize("entry", [b"", b"{}", b"[]", b"\xff\xfe", b'{"kind":"policy_step"}'])
def test_an_entry_that_is_no_event_orders_nothing_though_it_is_in_the_log(
    log: Log, entry: bytes
) -> None:
    log.entries.append(entry)
    with pytest.raises(NotObeyed, match=r"not in the log|not a step"):
        open_step(log.seal(0), [log.key])


@pytest.mark.parametrize("proof", ["", "c2sp.org/tlog-proof@v1\n", "\x00", "a\n\nb"])
def test_a_proof_that_is_no_proof_orders_nothing(log: Log, proof: str) -> None:
    wanted = order(log)
    with pytest.raises(NotObeyed, match="not in the log"):
        obey(log, replace(wanted, activation=replace(wanted.activation, proof=proof)))


# --- the text of a proof -------------------------------------------------------------------------


def test_a_proof_has_one_spelling(log: Log) -> None:
    for number in range(5):
        log.add(step("pushed", person=f"p_{number}"))
    text = log.seal(3).proof
    assert str(LogProof.parse(text)) == text
    assert text.startswith("c2sp.org/tlog-proof@v1\nindex 3\n")
    damaged = (
        text.replace("index 3", "index 03"),
        text.replace("index 3", "index +3"),
        text.replace("index 3\n", ""),
        text.replace("@v1", "@v2"),
        text.replace("\n\n", "\n", 1),
        text.replace("=\n", "\n", 1),
        text.replace("index 3\n", "index 3\nAAAA\n"),
    )
    for bad in damaged:
        assert bad != text
        with pytest.raises(MalformedProof):
            LogProof.parse(bad)


def test_a_proof_for_another_index_does_not_verify(log: Log) -> None:
    for number in range(5):
        log.add(step("pushed", person=f"p_{number}"))
    sealed = log.seal(3)
    with pytest.raises(NotObeyed):
        open_step(replace(sealed, proof=sealed.proof.replace("index 3", "index 2")), [log.key])


# --- the shelf -----------------------------------------------------------------------------------

WORDS = ("pushed", "validated", "scenarios_passed", "invariants_proved", "compared", "approved")


def filed(log: Log) -> list[Filed]:
    rows = []
    for number, word in enumerate(WORDS, 1):
        detail = {"against": ""} if word == "compared" else {}
        sealed = log.add(step(word, detail=detail))
        rows.append(Filed(number, BUNDLE.hash, word, 0, sealed))
    return rows


def test_a_shelf_is_what_the_log_bears_out(log: Log) -> None:
    found = inspect(filed(log), "policies", [log.key])
    assert found.doubts == ()
    assert found.shelf.state_of(BUNDLE.hash) is State.APPROVED
    assert list(found.logged) == [1, 2, 3, 4, 5, 6]


def test_a_row_that_says_something_else_than_its_entry_is_left_out(log: Log) -> None:
    rows = filed(log)
    forged = (
        replace(rows[0], step="activated"),
        replace(rows[5], content=OTHER.hash),
        replace(rows[5], generation=7),
        replace(rows[5], sealed=Sealed(b"{}", rows[5].sealed.proof)),
        replace(rows[5], sealed=Sealed(rows[5].sealed.entry, "")),
    )
    for row in forged:
        found = inspect([*rows[:5], replace(row, row=99)], "policies", [log.key])
        assert [doubt.row for doubt in found.doubts] == [99]
        assert found.shelf.state_of(BUNDLE.hash) is State.COMPARED


def test_an_entry_filed_twice_counts_once(log: Log) -> None:
    """Else a copied ``pushed`` would take an approval back."""
    rows = filed(log)
    found = inspect([*rows, replace(rows[0], row=99)], "policies", [log.key])
    assert [doubt.row for doubt in found.doubts] == [99]
    assert found.shelf.state_of(BUNDLE.hash) is State.APPROVED


def test_a_stage_whose_row_is_gone_takes_what_follows_with_it(log: Log) -> None:
    rows = filed(log)
    found = inspect([*rows[:2], *rows[3:]], "policies", [log.key])
    assert [doubt.row for doubt in found.doubts] == [4, 5, 6]
    assert found.shelf.state_of(BUNDLE.hash) is State.VALIDATED


def test_a_step_this_program_does_not_know_is_not_guessed_at(log: Log) -> None:
    sealed = log.add(step("blessed"))
    found = inspect([Filed(1, BUNDLE.hash, "blessed", 0, sealed)], "policies", [log.key])
    assert "does not know" in found.doubts[0].reason


def test_an_empty_store_has_nothing_in_force(log: Log) -> None:
    found = inspect([], "policies", [log.key])
    assert (found.shelf.active, found.logged, found.doubts) == ("", {}, ())


def test_a_doubt_names_its_row_and_does_not_stop_what_follows(log: Log) -> None:
    rows = filed(log)
    strange = Filed(0, OTHER.hash, "pushed", 0, Sealed(b"{}", ""))
    found = inspect([strange, *rows], "policies", [log.key])
    [doubt] = found.doubts
    assert (doubt.row, doubt.content, doubt.step) == (0, OTHER.hash, "pushed")
    assert doubt.reason.startswith("the step is not in the log")
    assert found.shelf.state_of(BUNDLE.hash) is State.APPROVED


def test_an_illegal_step_is_named_though_it_is_in_the_log(log: Log) -> None:
    own = log.add(step("approved", person=AUTHOR))
    rows = [*filed(log)[:5], Filed(6, BUNDLE.hash, "approved", 0, own)]
    [doubt] = inspect(rows, "policies", [log.key]).doubts
    assert (doubt.row, "second person" in doubt.reason) == (6, True)


def test_a_row_of_another_subject_is_left_out(log: Log) -> None:
    sealed = log.add(step("pushed", subject="map:hospital"))
    rows = [Filed(1, BUNDLE.hash, "pushed", 0, sealed)]
    assert "something else" in inspect(rows, "policies", [log.key]).doubts[0].reason
    assert inspect(rows, "map:hospital", [log.key]).doubts == ()


def test_a_step_is_taken_over_from_its_event_word_for_word() -> None:
    detail = {"against": OTHER.hash}
    event = step("compared", generation=4, previous=OTHER.hash, detail=detail)
    taken = taken_of(event)
    assert (taken.step, taken.content, taken.person) == (Step.COMPARED, BUNDLE.hash, AUTHOR)
    assert (taken.at, taken.proposer, taken.generation) == (AT, AUTHOR, 4)
    assert (taken.previous, taken.detail) == (OTHER.hash, detail)
    with pytest.raises(NotObeyed, match="does not know"):
        taken_of(step("blessed"))
