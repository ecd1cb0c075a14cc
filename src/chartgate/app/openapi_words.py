"""Words of the OpenAPI document: what an app developer needs to know of each thing.

The rule kept: every description says what to do, not how it is built. Examples are in
``openapi_examples``.
"""

from typing import Any, Final, NamedTuple

ABOUT: Final = """\
Ask before you show, change or share patient data: one call, one answer, recorded in the audit log
before you get it. The protocol is OpenID AuthZEN Authorization API 1.0.

**A denial is `200` with `decision: false`.** Anything but `200` is no decision: show nothing.

`decision` alone is safe to obey. What `context` adds lets you do better: `levels` says for each
category how much may be shown (`full`, `summary`, `masked`, `withheld`), `obligations` what you must
do or what would change the answer, `reason` what to tell the person.

Say what you ask about: of a patient's record name the `patient`, and the `category`, `categories` or
`fields`, in `resource.properties`; name the `recipient` in `context` to share or export. Roles,
departments and care teams are known here; what you say of them is not believed (see `ignored`).
"""

TAGS: Final = {
    "decide": "May she do this?",
    "search": "Who may, on what, and what may be done?",
    "operate": "How the service is, and where it answers what.",
}


class Operation(NamedTuple):
    """What is said of one operation."""

    tag: str
    summary: str
    description: str
    answered: str


OPERATIONS: Final = {
    "evaluation": Operation(
        "decide",
        "Ask one question",
        "Whether the subject may do the action on the resource, now. Unknown fields are ignored.",
        "The decision, allowed or denied. It is in the audit log at `context.audit`.",
    ),
    "evaluations": Operation(
        "decide",
        "Ask many questions at once",
        "`subject`, `action`, `resource` and `context` are defaults; an item's own replaces a default"
        " whole, nothing is merged. An item that is no question is denied in its place. Without items"
        " it is one question, answered as `/access/v1/evaluation` does. A batch is one entry of the"
        " audit log.",
        "The decisions in the order of the items, up to the one that ends the batch.",
    ),
    "search_subject": Operation(
        "search",
        "Who may do this to that?",
        "Everybody of the type who would be allowed. An `id` of the subject is ignored.",
        "One page of subjects.",
    ),
    "search_resource": Operation(
        "search",
        "To what may she do this?",
        "Every stored resource of the type that she would be allowed. An `id` of the resource is"
        " ignored.",
        "One page of resources.",
    ),
    "search_action": Operation(
        "search",
        "What may she do to that?",
        "Every action that would be allowed. There is no `action` in the request.",
        "One page of actions.",
    ),
    "metadata": Operation(
        "operate",
        "Where to ask what",
        "The metadata document of AuthZEN 1.0. A service whose public URL has a path has it behind"
        " this name.",
        "The document.",
    ),
    "livez": Operation(
        "operate",
        "Is the process alive?",
        "It says nothing about whether it may decide; see `/readyz`.",
        "It is.",
    ),
    "healthz": Operation(
        "operate", "Another name of `/livez`", "For whatever asks here by habit.", "It is alive."
    ),
    "readyz": Operation(
        "operate",
        "May this node decide?",
        "Not while it has no policies, cannot record, or has not heard from the control plane for 15"
        " seconds: it would not know of a right that was taken away.",
        "It may.",
    ),
    "metrics": Operation(
        "operate",
        "What was counted",
        "OpenMetrics. From another machine it needs a service account. No person, patient or resource"
        " is a label.",
        "The numbers of all workers of this node.",
    ),
    "openapi": Operation(
        "operate", "This document", "The OpenAPI document of this service.", "The document."
    ),
}


class Refusal(NamedTuple):
    """What is said of an answer that is no decision."""

    name: str
    code: str
    message: str
    description: str


RESPONSES: Final = {
    "400": Refusal(
        "BadRequest",
        "bad_request",
        "subject: object missing required field id",
        "The request is not as the specification has it: a field is missing or of another type, a"
        " key is there twice, the content type is not JSON, the page token is of another query. Your"
        " program has to change; do not retry.",
    ),
    "401": Refusal(
        "Unauthenticated",
        "unauthenticated",
        "a valid service token or client certificate is needed",
        "The service is not known: no credential, a wrong one, or one that has ended.",
    ),
    "403": Refusal(
        "OutOfScope",
        "out_of_scope",
        "this service may not ask about that",
        "The service account's scope does not cover this action, resource type, category or search."
        " In a batch such an item is denied in place.",
    ),
    "405": Refusal(
        "MethodNotAllowed",
        "method_not_allowed",
        "this path is not asked so",
        "The path exists; `Allow` names its method.",
    ),
    "408": Refusal("TooSlow", "too_slow", "the request came too slowly", "It came too slowly."),
    "413": Refusal(
        "TooLarge",
        "too_large",
        "a request has at most 1048576 bytes",
        "The body is larger than one request may be.",
    ),
    "414": Refusal("TargetTooLong", "too_large", "the target is too long", "The URL is too long."),
    "415": Refusal(
        "Encoded",
        "encoded",
        "send the body as it is",
        "The body has a content coding; send it plain.",
    ),
    "417": Refusal(
        "Expectation", "malformed", "the expectation cannot be met", "`Expect` is not understood."
    ),
    "429": Refusal(
        "TooOften",
        "too_often",
        "too many refused credentials came from this address",
        "Too many credentials from this address were refused. Wait as long as `Retry-After` says.",
    ),
    "431": Refusal(
        "HeadersTooLarge", "too_large", "the headers are too large", "The headers are too large."
    ),
    "500": Refusal(
        "Failed",
        "failed",
        "the service failed; nothing was decided",
        "A fault of the service. Nothing was decided: show nothing.",
    ),
    "501": Refusal(
        "NotImplemented",
        "malformed",
        "the method is not known",
        "No such method or transfer coding.",
    ),
    "503": Refusal(
        "NotReady",
        "not_ready",
        "this node may not decide now; ask another one",
        "This node may not decide now, cannot record, or has too much to do. Nothing was decided: ask"
        " another node, or again after `Retry-After`; until then show nothing.",
    ),
    "505": Refusal("Version", "malformed", "HTTP/1.1 is spoken here", "Not HTTP/1.0 or 1.1."),
}

DESCRIBED: Final = {
    "Question": "One question: may this subject do this action on this resource?",
    "Question.context": (
        "What the question is asked in: `purpose` (a purpose of use, limited to what the person's"
        " roles may claim), `recipient` (to share or export), and what else the policies read."
    ),
    "Subject": "Who would act. Of a person: the name she signs in with.",
    "Subject.properties": "Counts only as far as this service is believed; roles never do.",
    "Action": "What would be done.",
    "Action.name": "As the policies name it: `view`, `update`, `share`, …",
    "Action.properties": "Read by the policies as context.",
    "Resource": "On what.",
    "Resource.properties": (
        "Of a `Record`: `patient` (her key in the source, not the record number), and one of"
        " `category` (a name), `categories` (names) or `fields` (a list of `table.column`, or an"
        " object from your own field names to categories). Other properties count only as far as"
        " this service is believed."
    ),
    "Evaluations": "Several questions, and what is the same in all of them.",
    "Evaluations.subject": "Of every item that names none.",
    "Evaluations.action": "Of every item that names none.",
    "Evaluations.resource": "Of every item that names none.",
    "Evaluations.context": "Of every item that has none.",
    "Evaluations.evaluations": "The questions. One that is ill-typed is denied in its place.",
    "Item": "One question. What it does not say, the defaults say; what it says replaces them whole.",
    "Options": "How a batch is answered. Unknown options are ignored.",
    "Options.evaluations_semantic": (
        "`execute_all`: everything is answered. `deny_on_first_deny`, `permit_on_first_permit`: up to"
        " and including the first such answer."
    ),
    "SubjectSearch": "Who may do this to that?",
    "ResourceSearch": "To what may she do this?",
    "ActionSearch": "What may she do to that?",
    "Wanted": "What kind is searched for. An `id` is ignored.",
    "PageRequest": "Which page. Without it, the first.",
    "PageRequest.token": "`next_token` of the page before; the query stays the same.",
    "PageRequest.limit": "At most so many results: 100 unless said, never more than 1,000.",
    "Decision": "An answer.",
    "Decision.decision": "Whether it is allowed. Safe to obey without reading anything else.",
    "Context": "What there is to say beside the boolean. What is empty is left out.",
    "Context.policies": "Ids of the policies and grants that made the decision.",
    "Context.policy_set": "SHA-256 of the policy set that decided.",
    "Context.data_map": "SHA-256 of the data map: which column is of which category.",
    "Context.audit": "Where the audit log holds this decision.",
    "Context.levels": "Category → how much of it may be shown. Obey it to disclose in part.",
    "Context.fields": "Field you asked about → how much of it may be shown.",
    "Context.obligations": "What you must do, or what would change the answer.",
    "Context.reason": "Why not.",
    "Context.ignored": "Properties of yours that this service is not believed.",
    "Context.errors": "Ids of policies that could not be evaluated; tell your administrator.",
    "Context.valid_until": "Do not keep the answer longer than this.",
    "Context.epoch": "How current the node was: a later change of rights has a higher number.",
    "Context.error": "Of an item of a batch that is no question.",
    "Decisions": "Answers to a batch, in its order.",
    "RecordedAt": "An entry of the audit log.",
    "RecordedAt.log": "The log's name.",
    "RecordedAt.index": "The entry's number; `chartgate audit show` prints it.",
    "Obligation": (
        "`mask`: show `categories` at the level given and no better. `step_up`: have the person sign"
        " in again with one of `values` (authentication context classes). `purpose`: one of `values`"
        " would do. `break_glass`: the emergency procedure is open to this person."
    ),
    "Obligation.type": "`mask`, `step_up`, `purpose` or `break_glass`. Ignore a deny's unknown ones.",
    "Reason": "Why not, fit to be shown to the person.",
    "Reason.code": "For programs; never changes once released.",
    "Reason.text": "One sentence, without any patient's data.",
    "Reason.clauses": "The regulation behind it.",
    "BadItem": "What is wrong with an item.",
    "BadItem.status": "What it would have been on its own.",
    "SearchAnswer": "One page of results, complete and exact at the time of asking.",
    "PageAnswer": "Where this page stands among all results.",
    "PageAnswer.next_token": "Send it as `page.token` for the next page; empty on the last.",
    "PageAnswer.count": "Results on this page.",
    "SearchContext": "What there is to say beside the results.",
    "ErrorBody": "What every answer but `200` holds. It never repeats a value of yours.",
    "ErrorBody.error": "For programs; never changes once released.",
    "ErrorBody.message": "For the developer.",
    "ErrorBody.audit": "Where the refusal is recorded, where it is.",
    "Metadata": "Where this decision point answers what.",
    "Metadata.policy_decision_point": "The URL that was asked about.",
}

_TEXT: Final = {"type": "string"}
SCHEMAS: Final[dict[str, Any]] = {
    "FoundEntity": {
        "type": "object",
        "description": "A subject or resource that was found.",
        "properties": {
            "type": _TEXT,
            "id": _TEXT,
            "properties": {
                "type": "object",
                "description": "Of a `Record`: its `patient`, and what was asked about.",
            },
        },
        "required": ["type", "id"],
    },
    "FoundAction": {
        "type": "object",
        "description": "An action that was found.",
        "properties": {"name": _TEXT},
        "required": ["name"],
    },
    "Health": {
        "type": "object",
        "description": "The process serves.",
        "properties": {"status": {"const": "ok"}},
        "required": ["status"],
    },
    "Ready": {
        "type": "object",
        "description": "Whether the node may decide, and what stands in the way.",
        "properties": {
            "ready": {"type": "boolean"},
            "epoch": {"type": "integer", "description": "How current it is."},
            "reasons": {"type": "array", "items": _TEXT},
        },
        "required": ["ready"],
    },
}
