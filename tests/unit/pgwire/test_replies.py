"""Whose answer is it? Conversations as PostgreSQL's documentation describes them, 55.2."""

import pytest

from chartgate.errors import Refused
from chartgate.pgwire.replies import Expectations
from chartgate.pgwire.violation import ProtocolViolation


def talk(script: str) -> tuple[Expectations, list[str]]:
    """``>P >D/S <1 ...``: sends and receives; gives who each server message answered.

    Requests are numbered from 1; ``2.`` means that request 2 is finished, ``-`` nobody's;
    ``1.(2,3)`` that 2 and 3 were skipped; ``x`` a client message that is not forwarded.
    """
    queue = Expectations()
    heard: list[str] = []
    number = 0
    for word in script.split():
        kind, _, target = word[1:].partition("/")
        if word[0] == ">":
            number += 1
            if not queue.sent(ord(kind), target or "P", number):
                heard.append("x")
            continue
        answer = queue.on(ord(kind))
        who = "-" if answer.request is None else str(answer.request.note)
        lost = ",".join(str(request.note) for request in answer.skipped)
        heard.append(who + "." * answer.finished + (f"({lost})" if lost else ""))
    return queue, heard


@pytest.mark.parametrize(
    ("script", "heard"),
    [
        (">Q <T <D <D <C <Z", "1 1 1 1 1."),
        (">Q <I <Z", "1 1."),
        (">Q <C <T <C <Z", "1 1 1 1."),
        (">Q <T <D <E <Z >Q <C <Z", "1 1 1 1. 2 2."),
        (">P >B >D >E >S <1 <2 <T <D <C <Z", "1. 2. 3. 4 4. 5."),
        (">P >D/S >H <1 <t <n", "1. 2 2."),
        (">P >D/S >S <1 <t <T <Z", "1. 2 2. 3."),
        (">B >E >S <2 <D <s <Z", "1. 2 2. 3."),
        (">B >E >E >S <2 <s <I <Z", "1. 2. 3. 4."),
        (">C >S <3 <Z", "1. 2."),
        (">P >S >P >S <1 <Z <1 <Z", "1. 2. 3. 4."),
        (">Q <N <S <A <T <N <C <Z", "- - - 1 - 1 1."),
        (">P >B >E >S <E <Z", "1.(2,3) 4."),
        (">P >B >E >S >B >E >S <1 <E <Z <2 <C <Z", "1. 2.(3) 4. 5. 6. 7."),
        (">P <E >B >Q >H >d >c >S <Z >Q <C <Z", "1. x x x x x 7. 8 8."),
        (">B >E >S <2 <C <E <Z", "1. 2. 3 3."),
        ("<E", "-"),
        (">Q <E <E", "1 1"),
        (">Q <H <d <d <c <C <Z", "1 1 1 1 1 1."),
        (">B >E >S <2 <H <d <c <C <Z", "1. 2 2 2 2. 3."),
        (">Q <G >d >c <C <Z", "1 1 1."),
        (">Q >d >c <G <C <Z", "1 1 1."),
        (">Q <G >d >f <E <Z", "1 1 1."),
        (">Q <G >S >c <C <Z", "1 x 1 1."),
        (">Q >c <E <Z >Q <C <Z", "1 1. 3 3."),
        (">Q <E <Z >c >Q <C <Z", "1 1. 3 3."),
        # libpq sends Sync with the COPY and again after it: the first one is not answered
        (">P >B >E >S <1 <2 <G >d >c >S <C <Z", "1. 2. 3 3. 7."),
        (">E >S >d >c >S <G <C <Z", "1 1. 5."),
        # ... unless the COPY fails before the server reads on
        (">E >S <G <E <Z >P >S <1 <Z", "1 1. - 3. 4."),
        (">E >S >d >c >S <G <E <Z <Z", "1 1. 5. -"),
        (">E <G >f >S <E <Z", "1 1. 3."),
        (">B >E >c >S <E <Z", "1.(2) 4."),
        (">X", ""),
        (">P <E >X", "1."),
    ],
)
def test_every_answer_finds_its_request(script, heard):
    assert " ".join(talk(script)[1]) == heard


@pytest.mark.parametrize(
    "script",
    [
        "<Z",
        "<D",
        ">P <2",
        ">D <t",
        ">D/S <T",
        ">B >E <D",
        ">E <T",
        ">Q <D",
        ">Q <T <T",
        ">Q <1",
        ">S <C",
        ">Q <W",
        ">Q <E <C",
        ">Q <H <D",
        ">Q <R",
        ">Q <C <Z <Z",
        ">E >S <G >c >S <C <Z <Z",
        ">Z",
        ">p",
    ],
)
def test_an_answer_that_is_not_due_is_a_violation(script):
    with pytest.raises(ProtocolViolation):
        talk(script)


def test_the_function_call_message_is_refused_by_name():
    with pytest.raises(Refused, match="function call"):
        Expectations().sent(ord("F"))


def test_the_queue_says_who_is_next_and_how_many_wait():
    queue, _ = talk(">c >P >B >S")
    assert (len(queue), queue.current.note) == (3, 2)
    assert Expectations().current is None
    assert talk(">Q <G")[0].is_copying_in
    assert not talk(">Q <G >c")[0].is_copying_in
